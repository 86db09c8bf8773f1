//! Health, the fleet, connections: what operators and the balancer ask, with real Postgres and Redis.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod world;

use serde_json::{Value, json};
use world::World;

#[tokio::test]
async fn a_replica_without_a_schema_is_not_healthy_until_it_is_migrated() {
    let world = World::without_schema().await;
    let replica = world.replica_that_starts("web-1", &[]);
    let answer = replica.client().get("/health").await;
    answer.assert_problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(replica.client().get("/health/live").await.status, 200);

    web::schema::migrate(&world.settings("migrate", &[])).await.unwrap();
    replica.wait_until_ready().await;
    assert_eq!(replica.client().get("/health/").await.json, json!({"status": "ok", "container": "web-1"}));
    assert_eq!(replica.client().get("/health/ready").await.status, 200);
    replica.stop().await;
}

#[tokio::test]
async fn db_connections_has_the_documents_shape() {
    let world = World::start().await;
    let replica = world.direct_replica("web-7", &[]).await;
    let answer = replica.client().get("/db/connections/").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&answer.json), ["connections", "container", "pgbouncer", "recommendations", "timestamp"]);
    assert_eq!(answer.at("/container"), "web-7");
    assert!(answer.at("/timestamp").is_f64());
    let default = answer.at("/connections/default");
    assert_eq!(
        keys(default),
        [
            "active_connections",
            "conn_max_age",
            "host",
            "idle_connections",
            "port",
            "total_connections",
            "using_pgbouncer"
        ]
    );
    assert_eq!(default["conn_max_age"], 600);
    assert_eq!(default["port"], world.postgres.port.to_string());
    assert!(default["total_connections"].as_i64().unwrap() >= 1);
    assert_eq!(default["using_pgbouncer"], false);
    assert_eq!(answer.at("/pgbouncer"), &json!({"enabled": false, "note": "Direct database connection"}));
    assert_eq!(answer.at("/recommendations"), &json!(["Connection pool looks healthy."]));
    replica.stop().await;
}

#[tokio::test]
async fn behind_a_pooler_db_connections_tells_what_it_is_set_to() {
    let world = World::start().await;
    let replica =
        world.direct_replica("web-1", &[("DATABASE_POOLER", "on"), ("POOLER_DEFAULT_POOL_SIZE", "30")]).await;
    let answer = replica.client().get("/db/connections").await;
    assert_eq!(answer.at("/connections/default/using_pgbouncer"), true);
    assert_eq!(
        answer.at("/pgbouncer"),
        &json!({
            "enabled": true, "port": world.postgres.port.to_string(), "pool_mode": "transaction",
            "default_pool_size": 30, "max_client_conn": 1000, "note": "Using PgBouncer for connection pooling"
        })
    );
    replica.stop().await;
}

#[tokio::test]
async fn a_read_replica_that_is_reached_through_the_pooler_says_so() {
    let world = World::start().await;
    let place = format!("127.0.0.1:{}", world.postgres.port);
    let settings = [("DATABASE_POOLER", "on"), ("DB_READ_HOST", place.as_str())];
    let pooled = world.direct_replica("web-1", &settings).await;
    let answer = pooled.client().get("/db/connections/").await;
    assert_eq!(answer.at("/connections/read_replica/using_pgbouncer"), true);
    let direct = world.direct_replica("web-2", &[("DB_READ_HOST", place.as_str())]).await;
    let answer = direct.client().get("/db/connections/").await;
    assert_eq!(answer.at("/connections/read_replica/using_pgbouncer"), false);
    pooled.stop().await;
    direct.stop().await;
}

#[tokio::test]
async fn status_shows_the_whole_fleet_and_forgets_who_left() {
    let world = World::start().await;
    let (first, second) = (world.replica("web-2").await, world.replica("web-10").await);
    let names = async || {
        let answer = first.client().get("/status/").await;
        let replicas = answer.at("/replicas").as_array().unwrap().clone();
        replicas.iter().map(|replica| replica["container"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    world::programs::until("both are in the fleet", std::time::Duration::from_secs(10), async || {
        names().await == ["web-2", "web-10"]
    })
    .await;
    let answer = first.client().get("/status/").await;
    assert_eq!(answer.at("/healthy"), true);
    assert_eq!(answer.at("/draining"), false);
    assert_eq!(answer.at("/checks/database/default/healthy"), true);
    assert!(answer.at("/checks/database/default/response_ms").is_number());
    assert_eq!(answer.at("/checks/redis/healthy"), true);
    assert_eq!(answer.at("/websocket"), &json!({"connections": 0, "rooms": 0}));
    assert!(answer.json.pointer("/checks/database/read_replica").is_none());
    assert!(answer.at("/replicas/1/age_s").is_number());

    second.stop().await;
    assert_eq!(names().await, ["web-2"]);
    first.stop().await;
}

#[tokio::test]
async fn without_redis_a_replica_is_healthy_and_says_that_redis_is_away() {
    let mut world = World::start().await;
    let replica = world.replica("web-1").await;
    world.redis_kill().await;
    let answer = replica.client().get("/status/").await;
    assert_eq!(answer.at("/healthy"), true, "{answer:?}");
    assert_eq!(answer.at("/checks/redis/healthy"), false);
    assert_eq!(answer.at("/replicas/0/container"), "web-1");
    assert_eq!(replica.client().get("/health").await.status, 200);

    world.redis_restart().await;
    world::programs::until("Redis is back", std::time::Duration::from_secs(10), async || {
        replica.client().get("/status/").await.at("/checks/redis/healthy") == true
    })
    .await;
    replica.stop().await;
}

#[tokio::test]
async fn the_ops_port_tells_metrics_by_route_template() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    replica.client().get("/api/sessions/somewhere").await;
    let ops = world::Client::new(replica.ops_addr);
    let metrics = ops.get("/metrics").await.text;
    assert!(
        metrics.contains(
            "web_http_requests_total{method=\"GET\",route=\"/api/sessions/{id}\",status=\"401\"} 1"
        ),
        "{metrics}"
    );
    assert!(metrics.contains("web_database_connections{database=\"default\",state=\"max\"} 5"), "{metrics}");
    assert_eq!(ops.get("/health/ready").await.status, 200);
    assert_eq!(replica.client().get("/metrics").await.status, 404, "never through the balancer");
    replica.stop().await;
}
