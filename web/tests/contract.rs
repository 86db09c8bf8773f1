//! What holds for every route: problems, request ids, methods, limits, the document; and the monitoring endpoints.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod world;

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use world::{Client, World};

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

#[tokio::test]
async fn every_error_is_a_problem_with_id_and_path() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let client = replica.client();
    let missing = client.get("/nowhere/").await;
    missing.assert_problem(404, "not-found");
    assert_eq!(missing.at("/instance"), "/nowhere");

    let method = client.delete("/api/auth/login").await;
    method.assert_problem(405, "method-not-allowed");
    assert_eq!(method.header("allow"), "POST");
    let method = client.send(client.request(Method::PUT, "/api/users/me/")).await;
    method.assert_problem(405, "method-not-allowed");
    let allowed: BTreeSet<&str> = method.header("allow").split(',').map(str::trim).collect();
    assert_eq!(allowed, BTreeSet::from(["DELETE", "GET", "HEAD", "PATCH"]));

    client.get("/api/users").await.assert_problem(401, "unauthorized");
    client.clone().with_token("a.b.c").get("/api/users").await.assert_problem(401, "unauthorized");
    replica.stop().await;
}

#[tokio::test]
async fn bodies_must_be_json_and_not_too_long() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let client = replica.client();
    let post = |body: &str, kind: &str| {
        client.request(Method::POST, "/api/auth/login").header("content-type", kind).body(body.to_owned())
    };
    client.send(post("{}", "text/plain")).await.assert_problem(415, "not-json");
    client.send(post("{", "application/json")).await.assert_problem(422, "unprocessable");
    client.send(post("[]", "application/json; charset=utf-8")).await.assert_problem(422, "unprocessable");
    let long = format!("{{\"username\": \"{}\"}}", "x".repeat(200_000));
    client.send(post(&long, "application/json")).await.assert_problem(413, "too-large");
    replica.stop().await;
}

#[tokio::test]
async fn a_sane_request_id_comes_back_and_the_replica_signs_every_answer() {
    let world = World::start().await;
    let replica = world.replica("web-3").await;
    let given = replica.client().with_header("X-Request-Id", "trace-42").get("/health").await;
    assert_eq!((given.header("x-request-id"), given.header("x-served-by")), ("trace-42", "web-3"));
    let made = replica.client().get("/health").await;
    assert_eq!(made.header("x-request-id").len(), 36);
    replica.stop().await;
}

#[tokio::test]
async fn only_allowed_hosts_are_served_but_health_always_is() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("ALLOWED_HOSTS", "arena.example,.test")]).await;
    let as_host = |host: &str| replica.client().with_header("Host", host);
    as_host("evil.example").get("/status").await.assert_problem(422, "unprocessable");
    assert_eq!(as_host("arena.example:8080").get("/status").await.status, 200);
    assert_eq!(as_host("a.test").get("/status").await.status, 200);
    assert_eq!(as_host("10.0.0.1").get("/health").await.status, 200);
    replica.stop().await;
}

#[tokio::test]
async fn the_document_names_every_route_and_the_page_shows_them() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let document = replica.client().get("/openapi.json").await;
    assert!(document.at("/openapi").as_str().unwrap().starts_with("3.1"));
    let paths = keys(document.at("/paths"));
    for path in [
        "/api/auth/register",
        "/api/auth/logins/{id}",
        "/api/users/me/password",
        "/api/sessions/{id}/members/{user_id}",
        "/api/sessions/{id}/messages",
        "/db/connections/",
        "/api/v1/monitoring/analyze-query",
    ] {
        assert!(
            paths.iter().any(|found| found.trim_end_matches('/') == path.trim_end_matches('/')),
            "{path}"
        );
    }
    for path in ["/api/admin/monitoring/database/slow-queries", "/api/messages/stream/"] {
        assert!(paths.iter().any(|found| found.as_str() == path), "{path} is another name of a route");
    }
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document.at("/paths").as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap()),
                "{method} {path} has the id of another operation"
            );
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                if parameter["in"] == "header" {
                    continue;
                }
                let place = if path.contains(&format!("{{{name}}}")) { "path" } else { "query" };
                assert_eq!(parameter["in"], place, "{method} {path}: {name}");
                assert_eq!(parameter["required"] == true, place == "path", "{method} {path}: {name}");
            }
        }
    }
    // Every documented route exists: without a token it says so, or answers, but is never unknown.
    for (path, item) in document.at("/paths").as_object().unwrap() {
        for method in keys(item) {
            let method: Method = method.to_uppercase().parse().unwrap();
            let filled =
                path.replace("{id}", "nowhere").replace("{user_id}", "nobody").replace("{stream_id}", "none");
            let answer = replica.client().send(replica.client().request(method.clone(), &filled)).await;
            assert!(![404, 405].contains(&answer.status), "{method} {path}: {answer:?}");
        }
    }
    let page = replica.client().get("/docs").await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.text.contains("/api/sessions/{id}/messages") && !page.text.contains("<script"));
    assert!(
        !page.text.contains("http://") && !page.text.contains("https://"),
        "nothing comes from elsewhere"
    );
    replica.stop().await;
}

#[test]
fn the_document_in_the_repository_is_the_one_that_is_served() {
    let kept: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    assert!(kept == web::api::docs::document(), "write what `web openapi` prints to web/openapi.json");
}

#[tokio::test]
async fn no_answer_to_a_bad_body_names_a_type_of_ours() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    for body in ["[]", "7", "{\"username\": []}", "{\"username\": 1, \"password\": 2}", "null"] {
        for path in ["/api/auth/login", "/api/auth/register", "/api/auth/refresh"] {
            let request = replica.client().request(Method::POST, path);
            let request = request.header("content-type", "application/json").body(body);
            let answer = replica.client().send(request).await;
            answer.assert_problem(422, "unprocessable");
            for name in ["struct", "LoginRequest", "Register", "Refresh"] {
                assert!(!answer.text.contains(name), "{body}: {}", answer.text);
            }
        }
    }
    replica.stop().await;
}

#[tokio::test]
async fn text_with_nul_is_no_fault_of_ours() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    client.get("/api/sessions/%00").await.assert_problem(404, "not-found");
    client.delete("/api/sessions/a%00b").await.assert_problem(404, "not-found");
    for (path, body) in [
        ("/api/auth/login", json!({"username": "a\0", "password": "long enough"})),
        ("/api/auth/register", json!({"username": "a\0bc", "password": "long enough"})),
        ("/api/sessions", json!({"title": "a\0b"})),
    ] {
        let answer = client.post(path, &body).await;
        assert!(answer.status == 422 || answer.status == 401, "{path}: {answer:?}");
    }
    let renamed = client.patch("/api/users/me", &json!({"display_name": "a\0b"})).await;
    renamed.assert_problem(422, "unprocessable");
    replica.stop().await;
}

#[tokio::test]
async fn messages_beyond_their_retention_are_removed_and_the_others_stay() {
    let world = World::start().await;
    let replica = world.direct_replica("web-1", &[]).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let made = client.post("/api/sessions", &json!({"title": "room"})).await;
    let path = format!("/api/sessions/{}/messages", made.at("/id").as_str().unwrap());
    for number in 0..6 {
        client.post(&path, &json!({"content": format!("{number}")})).await;
    }
    let mut postgres = world.postgres.connect(&world.database).await;
    sqlx::query(r#"UPDATE messages SET created_at = now() - interval '40 days' WHERE "offset" <= 4"#)
        .execute(&mut postgres)
        .await
        .unwrap();
    let settings = world.settings("prune", &[]);
    let histogram = prometheus_client::metrics::histogram::Histogram::new([1.0]);
    let db = web::store::Db::open(&settings.database.direct, &settings.database, "prune", histogram);
    let month = time::OffsetDateTime::now_utc() - time::Duration::days(30);
    assert_eq!(web::store::Store::new(db).messages().prune(month).await.unwrap(), 4);
    let list = client.get(&path).await;
    let offsets: Vec<_> = list.at("/items").as_array().unwrap().iter().map(|item| &item["offset"]).collect();
    assert_eq!(offsets, [5, 6]);
    let next = client.post(&path, &json!({"content": "next"})).await;
    assert_eq!(next.at("/offset"), 7, "offsets go on");
    replica.stop().await;
}

async fn admin(world: &World) -> (world::Replica, Client, Client) {
    let replica =
        world.direct_replica("web-1", &[("ADMIN_USERNAMES", "root"), ("DATABASE_POOLER", "on")]).await;
    let (root, alice) = (world.user("root").await, world.user("alice").await);
    let (admin, user) = (replica.client_of(&root), replica.client_of(&alice));
    (replica, admin, user)
}

#[tokio::test]
async fn monitoring_is_for_admins_unless_it_is_public() {
    let world = World::start().await;
    let (replica, admin, user) = admin(&world).await;
    let path = "/api/admin/monitoring/connections/health";
    replica.client().get(path).await.assert_problem(401, "unauthorized");
    user.get(path).await.assert_problem(403, "forbidden");
    assert_eq!(admin.get(path).await.status, 200);
    let open = world.replica_with("web-2", &[("MONITORING_PUBLIC", "true")]).await;
    assert_eq!(open.client().get(path).await.status, 200);
    let analyze = json!({"query": "SELECT 1"});
    open.client()
        .post("/api/v1/monitoring/analyze-query", &analyze)
        .await
        .assert_problem(401, "unauthorized");
    let settings = world.settings("web", &[]);
    let token = web::auth::Keys::new(&settings.auth).operator_token(web::auth::ACCESS_LIFETIME);
    assert_eq!(replica.client().with_token(&token).get(path).await.status, 200, "the operator's token");
    replica.stop().await;
    open.stop().await;
}

#[tokio::test]
async fn the_connection_endpoints_have_the_documents_shapes() {
    let world = World::start().await;
    let (replica, admin, _) = admin(&world).await;
    let health = admin.get("/api/admin/monitoring/connections/health").await;
    assert_eq!(keys(&health.json), ["database", "healthy", "redis", "timestamp"]);
    assert_eq!(keys(health.at("/database")), ["connectionPool", "healthy", "responseTime"]);
    assert_eq!(
        keys(health.at("/database/connectionPool")),
        ["active", "idle", "isPgBouncer", "isShuttingDown", "max", "total", "utilizationPercent"]
    );
    assert!(health.at("/database/responseTime").is_u64());
    assert_eq!(health.at("/database/connectionPool/max"), 100);
    let total = health.at("/database/connectionPool/total").as_i64().unwrap();
    assert_eq!(health.at("/database/connectionPool/utilizationPercent"), &json!(format!("{total}.00")));
    assert_eq!(health.at("/redis"), &json!({"available": true, "connected": true, "status": "ready"}));
    let timestamp = health.at("/timestamp").as_str().unwrap();
    assert!(timestamp.len() == 20 && timestamp.ends_with('Z'), "{timestamp}");

    let pool = admin.get("/api/admin/monitoring/connections/pool").await;
    assert_eq!(keys(&pool.json), ["database", "redis"]);
    assert_eq!(
        keys(pool.at("/database")),
        ["activeConnections", "isHealthy", "maxConnections", "utilizationPercent"]
    );
    assert!(pool.at("/database/utilizationPercent").is_f64());
    assert_eq!(pool.at("/redis"), &json!({"available": true, "connected": true}));

    let alerts = admin.get("/api/admin/monitoring/connections/alerts").await;
    assert_eq!(keys(&alerts.json), ["alerts", "count", "timestamp"]);
    assert_eq!((alerts.at("/alerts"), alerts.at("/count")), (&json!([]), &json!(0)));

    let stats = admin.get("/api/v1/monitoring/pool-stats").await;
    assert_eq!(
        keys(stats.at("/database")),
        [
            "acquire_p50_ms",
            "acquire_p99_ms",
            "idle",
            "in_use",
            "max",
            "size",
            "utilization_percent",
            "waiting"
        ]
    );
    assert_eq!(stats.at("/pooler"), &Value::Null, "Postgres has no console");
    replica.stop().await;
}

#[tokio::test]
async fn a_nearly_full_database_raises_the_documents_alert() {
    let world = World::start().await;
    let full = [("MONITORING_PUBLIC", "true"), ("DATABASE_MAX_CONNECTIONS", "1")];
    let replica = world.replica_with("web-1", &full).await;
    let alerts = replica.client().get("/api/admin/monitoring/connections/alerts").await;
    let first = alerts.at("/alerts/0").as_str().unwrap();
    assert!(
        first.starts_with("WARNING: Database connection pool at ") && first.ends_with("% utilization"),
        "{first}"
    );
    replica.stop().await;
}

#[tokio::test]
async fn slow_queries_are_read_from_the_statement_statistics() {
    let world = World::start().await;
    let (replica, admin, _) = admin(&world).await;
    for path in [
        "/api/v1/monitoring/slow-queries?threshold_ms=0",
        "/api/admin/monitoring/database/slow-queries?threshold_ms=0",
    ] {
        let answer = admin.get(path).await;
        assert_eq!(answer.at("/threshold_ms"), 0.0);
        assert_eq!(answer.at("/count"), answer.at("/queries").as_array().unwrap().len());
        assert_eq!(
            keys(answer.at("/queries/0")),
            ["cache_hit_ratio", "calls", "max_ms", "mean_ms", "query", "rows", "total_ms"]
        );
    }
    let none = admin.get("/api/v1/monitoring/slow-queries?threshold_ms=100000").await;
    assert_eq!(none.at("/queries"), &json!([]));
    admin.get("/api/v1/monitoring/slow-queries?threshold_ms=-1").await.assert_problem(422, "unprocessable");
    replica.stop().await;
}

#[tokio::test]
async fn a_query_is_explained_and_never_writes() {
    let world = World::start().await;
    let (replica, admin, user) = admin(&world).await;
    let path = "/api/v1/monitoring/analyze-query";
    let ask = async |body: Value| admin.post(path, &body).await;

    let generic = ask(json!({"query": "SELECT * FROM messages WHERE session_id = $1"})).await;
    assert_eq!(generic.status, 200, "{generic:?}");
    assert_eq!(generic.at("/generic_plan"), true);
    assert!(generic.at("/cost").is_number() && generic.at("/plan").is_array());
    assert!(generic.json.get("execution_ms").is_none());

    let query = "SELECT count(*) FROM users WHERE username = $1 OR display_name = $2";
    let run = ask(json!({"query": query, "params": ["o'brien\\", null], "analyze": true})).await;
    assert_eq!(run.status, 200, "{run:?}");
    assert!(run.at("/execution_ms").is_number());
    assert_eq!(run.at("/generic_plan"), false);

    for lead in ["/* x */ ", "-- x\n", "\n\t/* a /* nested */ b */ -- into\n"] {
        let explained = ask(json!({"query": format!("{lead}SELECT 1")})).await;
        assert_eq!(explained.status, 200, "{lead}: {explained:?}");
        let run = ask(json!({"query": format!("{lead}SELECT 1 -- the end"), "analyze": true})).await;
        assert_eq!(run.status, 200, "{lead}: {run:?}");
    }

    for refused in [
        json!({"query": "DROP TABLE users"}),
        json!({"query": "/* SELECT 1 */ DROP TABLE users"}),
        json!({"query": "-- SELECT 1\nDROP TABLE users"}),
        json!({"query": "/* /* */ SELECT 1"}),
        json!({"query": "-- SELECT 1"}),
        json!({"query": "/**/ SELECT 1; /**/ SELECT 2"}),
        json!({"query": "/**/ DELETE FROM users", "analyze": true}),
        json!({"query": "SELECT 1; DELETE FROM users"}),
        json!({"query": "DELETE FROM users", "analyze": true}),
        json!({"query": "WITH gone AS (DELETE FROM users RETURNING 1) SELECT * FROM gone", "analyze": true}),
        json!({"query": "SELECT nextval('x')", "analyze": true}),
        json!({"query": "SELECT username INTO stolen FROM users", "analyze": true}),
        json!({"query": "WITH u AS (SELECT 1) SELECT * INTO stolen FROM u", "analyze": true}),
        json!({"query": "SELECT lo_from_bytea(0, 'written')", "analyze": true}),
        json!({"query": "SELECT \"pg_terminate_backend\"/**/(pid) FROM pg_stat_activity", "analyze": true}),
        json!({"query": "SELECT $1::int", "analyze": true}),
        json!({"query": "SELECT $1::int", "params": [1, 2]}),
        json!({"query": "SELECT nothing FROM nowhere"}),
    ] {
        ask(refused).await.assert_problem(422, "unprocessable");
    }
    let stolen = ask(json!({"query": "SELECT * FROM stolen"})).await;
    stolen.assert_problem(422, "unprocessable");
    let writes = ask(json!({"query": "DELETE FROM users"})).await;
    assert_eq!(writes.status, 200, "its plan may be seen");
    assert_eq!(user.get("/api/users/me").await.status, 200, "and nobody is gone");
    user.post(path, &json!({"query": "SELECT 1"})).await.assert_problem(403, "forbidden");
    replica.stop().await;
}

#[tokio::test]
async fn totals_are_counted_on_a_schedule_by_one_replica_and_kept_for_a_minute() {
    let world = World::start().await;
    let (replica, admin, _) = admin(&world).await;
    let mut postgres = world.postgres.connect(&world.database).await;
    let mut refresh = async |age_max_s: f64| -> bool {
        sqlx::query_scalar("SELECT refresh_admin_totals(make_interval(secs => $1))")
            .bind(age_max_s)
            .fetch_one(&mut postgres)
            .await
            .unwrap()
    };
    assert!(refresh(0.0).await);
    assert!(!refresh(60.0).await, "they are young enough");
    let first = admin.get("/api/v1/monitoring/admin/metrics").await;
    assert_eq!(
        keys(&first.json),
        ["active_users_24h", "computed_at", "messages", "messages_24h", "refresh_s", "sessions", "users"]
    );
    assert_eq!((first.at("/users"), first.at("/refresh_s")), (&json!(2), &json!(60)));
    world.user("carol").await;
    assert_eq!(admin.get("/api/v1/monitoring/admin/metrics").await.json, first.json);
    replica.stop().await;
}
