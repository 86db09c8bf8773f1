//! Sessions, members and messages over the API, with real Postgres and Redis.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod world;

use serde_json::{Value, json};
use world::locks::{is_waited_for, run};
use world::{Client, World};

async fn session(client: &Client, body: &Value) -> String {
    let answer = client.post("/api/sessions", body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    format!("/api/sessions/{}", answer.at("/id").as_str().unwrap())
}

#[tokio::test]
async fn a_session_is_found_by_id_and_by_slug() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let body = json!({"title": "Tea", "visibility": "public", "slug": "tea-room"});
    let path = session(&client, &body).await;
    let by_id = client.get(&path).await;
    assert_eq!(client.get("/api/sessions/tea-room/").await.json, by_id.json);
    assert_eq!(by_id.at("/title"), "Tea");
    assert_eq!(by_id.at("/last_offset"), 0);
    client.post("/api/sessions", &body).await.assert_problem(409, "conflict");
    client.get("/api/sessions/nowhere").await.assert_problem(404, "not-found");
    let wrong = client.post("/api/sessions", &json!({"title": "", "slug": "A"})).await;
    wrong.assert_problem(422, "unprocessable");
    assert_eq!(wrong.at("/errors").as_array().unwrap().len(), 2);
    client
        .post("/api/sessions", &json!({"title": "T", "visibility": "secret"}))
        .await
        .assert_problem(422, "unprocessable");
    replica.stop().await;
}

#[tokio::test]
async fn my_sessions_are_listed_newest_first_by_pages() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    for title in ["one", "two", "three"] {
        session(&client, &json!({"title": title})).await;
    }
    let first = client.get("/api/sessions?limit=2").await;
    let titles = |answer: &world::Answer| {
        answer.at("/items").as_array().unwrap().iter().map(|item| item["title"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(titles(&first), ["three", "two"]);
    let next = first.at("/next").as_str().unwrap();
    assert_eq!(titles(&client.get(&format!("/api/sessions?limit=2&after={next}")).await), ["one"]);
    let bob = world.user("bob").await;
    assert_eq!(replica.client_of(&bob).get("/api/sessions").await.at("/items"), &json!([]));
    replica.stop().await;
}

#[tokio::test]
async fn a_private_session_is_for_those_whom_the_owner_adds() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (owner, guest) = (replica.client_of(&alice), replica.client_of(&bob));
    let path = session(&owner, &json!({"title": "Private"})).await;
    let (members, join, messages) =
        (format!("{path}/members"), format!("{path}/join"), format!("{path}/messages"));

    guest.get(&path).await.assert_problem(403, "forbidden");
    guest.post(&join, &json!({})).await.assert_problem(403, "forbidden");
    guest.get(&messages).await.assert_problem(403, "forbidden");
    guest.post(&messages, &json!({"content": "hi"})).await.assert_problem(403, "forbidden");
    guest.post(&members, &json!({"username": "bob"})).await.assert_problem(403, "forbidden");
    guest.patch(&path, &json!({"title": "Mine"})).await.assert_problem(403, "forbidden");
    guest.delete(&path).await.assert_problem(403, "forbidden");

    let added = owner.post(&members, &json!({"username": "bob"})).await;
    assert_eq!((added.status, added.at("/username")), (201, &json!("bob")));
    owner.post(&members, &json!({"username": "nobody"})).await.assert_problem(422, "unprocessable");
    assert_eq!(guest.get(&path).await.status, 200);
    assert_eq!(guest.get(&members).await.at("/items").as_array().unwrap().len(), 2);
    assert_eq!(guest.post(&messages, &json!({"content": "hi"})).await.status, 201);

    let remove_bob = format!("{members}/{}", bob.id);
    assert_eq!(owner.delete(&remove_bob).await.status, 204);
    assert_eq!(owner.delete(&remove_bob).await.status, 204, "its first answer may have been lost");
    guest.get(&messages).await.assert_problem(403, "forbidden");
    replica.stop().await;
}

#[tokio::test]
async fn anybody_may_join_and_leave_a_public_session() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (owner, guest) = (replica.client_of(&alice), replica.client_of(&bob));
    let path =
        session(&owner, &json!({"title": "Public", "visibility": "public", "slug": "public-room"})).await;
    guest.post(&format!("{path}/messages"), &json!({"content": "hi"})).await.assert_problem(403, "forbidden");
    for _ in 0..2 {
        assert_eq!(guest.post("/api/sessions/public-room/join", &json!({})).await.status, 200);
    }
    assert_eq!(guest.post(&format!("{path}/messages"), &json!({"content": "hi"})).await.status, 201);
    guest.post(&format!("{path}/messages"), &json!(["hi", "k1"])).await.assert_problem(422, "unprocessable");
    for nowhere in ["/api/sessions/%ff", "/ws/chat/session/%ff/?token=any"] {
        guest.get(nowhere).await.assert_problem(404, "not-found");
    }
    assert_eq!(guest.delete(&format!("{path}/members/{}", bob.id)).await.status, 204);
    guest.get(&format!("{path}/messages")).await.assert_problem(403, "forbidden");

    let changed = owner.patch(&path, &json!({"title": "Closed", "visibility": "private"})).await;
    assert_eq!((changed.at("/title"), changed.at("/visibility")), (&json!("Closed"), &json!("private")));
    assert_eq!(owner.delete(&path).await.status, 204);
    owner.get(&path).await.assert_problem(404, "not-found");
    replica.stop().await;
}

#[tokio::test]
async fn a_message_has_the_documented_shape() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let path = session(&client, &json!({"title": "T"})).await;
    let answer =
        client.post(&format!("{path}/messages"), &json!({"content": "hello", "client_msg_id": "k1"})).await;
    assert_eq!(answer.status, 201);
    let keys: Vec<&String> = answer.json.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["author", "client_msg_id", "content", "created_at", "id", "offset", "role", "session_id"]
    );
    assert_eq!(answer.at("/offset"), 1);
    assert_eq!(answer.at("/role"), "user");
    assert_eq!(answer.at("/author/username"), "alice");
    assert!(!answer.header("x-consistency-token").is_empty());
    let wrong = client.post(&format!("{path}/messages"), &json!({"content": "  "})).await;
    wrong.assert_problem(422, "unprocessable");
    assert_eq!(wrong.at("/errors/0/field"), "content");
    client
        .post("/api/sessions/nowhere/messages", &json!({"content": "x"}))
        .await
        .assert_problem(404, "not-found");
    replica.stop().await;
}

#[tokio::test]
async fn the_same_message_sent_again_is_stored_once() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let path = format!("{}/messages", session(&client, &json!({"title": "T"})).await);
    let body = json!({"content": "hello", "client_msg_id": "k1"});
    let first = client.post(&path, &body).await;
    let again = client.post(&path, &body).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, "true"));
    assert_eq!(again.json, first.json);
    assert_eq!(first.header("idempotency-replayed"), "");

    let by_header = client.clone().with_header("Idempotency-Key", "k1");
    assert_eq!(by_header.post(&path, &json!({"content": "hello"})).await.json, first.json);
    let other = client.post(&path, &json!({"content": "other", "client_msg_id": "k1"})).await;
    other.assert_problem(422, "idempotency-mismatch");
    by_header
        .post(&path, &json!({"content": "hello", "client_msg_id": "k2"}))
        .await
        .assert_problem(422, "unprocessable");
    client
        .post(&path, &json!({"content": "x", "client_msg_id": ""}))
        .await
        .assert_problem(422, "unprocessable");
    assert_eq!(client.get(&path).await.at("/items").as_array().unwrap().len(), 1);
    replica.stop().await;
}

#[tokio::test]
async fn concurrent_messages_get_offsets_without_gaps_and_concurrent_repeats_are_stored_once() {
    let world = World::start().await;
    let (first, second) = (world.replica("web-1").await, world.replica("web-2").await);
    let alice = world.user("alice").await;
    let path = format!("{}/messages", session(&first.client_of(&alice), &json!({"title": "T"})).await);
    let clients = [first.client_of(&alice), second.client_of(&alice)];
    // Forty different messages, each sent three times at once over both replicas.
    let sent = (0..120).map(|n| {
        let (client, path) = (clients[n % 2].clone(), path.clone());
        let body =
            json!({"content": format!("message {}", n / 3), "client_msg_id": format!("key-{}", n / 3)});
        async move { client.post(&path, &body).await }
    });
    let answers = futures_util::future::join_all(sent).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    let replayed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((created, replayed), (40, 80));
    let list = clients[0].get(&format!("{path}?limit=100")).await;
    let offsets: Vec<i64> =
        list.at("/items").as_array().unwrap().iter().map(|item| item["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, (1..=40).collect::<Vec<_>>());
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn messages_are_paged_forwards_and_backwards_in_order_of_offsets() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let path = format!("{}/messages", session(&client, &json!({"title": "T"})).await);
    for n in 1..=5 {
        client.post(&path, &json!({"content": format!("message {n}")})).await;
    }
    let page = async |query: &str| {
        let answer = client.get(&format!("{path}?{query}")).await;
        let offsets: Vec<i64> = answer
            .at("/items")
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["offset"].as_i64().unwrap())
            .collect();
        (offsets, answer.at("/has_more").clone(), answer.at("/next").clone())
    };
    assert_eq!(page("limit=2").await, (vec![1, 2], json!(true), json!("2")));
    assert_eq!(page("after=2&limit=2").await, (vec![3, 4], json!(true), json!("4")));
    assert_eq!(page("after=4&limit=2").await, (vec![5], json!(false), Value::Null));
    assert_eq!(page("before=6&limit=2").await, (vec![4, 5], json!(true), json!("4")));
    assert_eq!(page("before=2").await, (vec![1], json!(false), Value::Null));
    client.get(&format!("{path}?after=1&before=3")).await.assert_problem(422, "unprocessable");
    replica.stop().await;
}

#[tokio::test]
async fn without_redis_chat_is_stored_and_read() {
    let mut world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let path = format!("{}/messages", session(&client, &json!({"title": "T"})).await);
    world.redis_kill().await;
    assert_eq!(client.post(&path, &json!({"content": "still here"})).await.status, 201);
    assert_eq!(client.get(&path).await.at("/items/0/content"), "still here");
    replica.stop().await;
}

#[tokio::test]
async fn no_demo_user_is_made_who_would_be_an_admin() {
    let world = World::start().await;
    let admins = [("ADMIN_USERNAMES", "Alice,root")];
    web::seed::seed(&world.settings("seed", &admins)).await.unwrap();
    let replica = world.replica_with("web-1", &admins).await;
    let login = |name: &str| json!({"username": name, "password": web::seed::DEMO_PASSWORD});
    assert_eq!(replica.client().post("/api/auth/login", &login("alice")).await.status, 401);
    let bob = world::User::of(&replica.client().post("/api/auth/login", &login("bob")).await.json);
    let answer = replica.client_of(&bob).get("/api/sessions/test-session").await;
    assert_eq!(answer.at("/owner_id"), bob.id.as_str(), "the session is there all the same");
    replica.stop().await;
}

#[tokio::test]
async fn the_seed_makes_the_documents_session_and_can_run_twice() {
    let world = World::start().await;
    let settings = world.settings("seed", &[]);
    web::seed::seed(&settings).await.unwrap();
    web::seed::seed(&settings).await.unwrap();
    let replica = world.replica("web-1").await;
    let login = json!({"username": "bob", "password": web::seed::DEMO_PASSWORD});
    let bob = world::User::of(&replica.client().post("/api/auth/login", &login).await.json);
    let answer = replica.client_of(&bob).get("/api/sessions/test-session").await;
    assert_eq!(answer.at("/visibility"), "public");
    replica.stop().await;
}

#[tokio::test]
async fn who_joins_or_is_added_while_the_session_is_deleted_is_told_that_there_is_none() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (owner, guest) = (replica.client_of(&alice), replica.client_of(&bob));
    let mut database = world.postgres.connect(&world.database).await;
    for (who, way, body) in [(&guest, "join", json!({})), (&owner, "members", json!({"username": "bob"}))] {
        let path = session(&owner, &json!({"title": "T", "visibility": "public"})).await;
        run(&mut database, "BEGIN; DELETE FROM sessions").await;
        let (who, path) = (who.clone(), format!("{path}/{way}"));
        let asking = tokio::spawn(async move { who.post(&path, &body).await });
        while !asking.is_finished() && !is_waited_for(&mut database).await {}
        run(&mut database, "COMMIT").await;
        asking.await.unwrap().assert_problem(404, "not-found");
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_token_of_no_user_looks_but_owns_and_joins_nothing() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let owner = replica.client_of(&world.user("alice").await);
    let path = session(&owner, &json!({"title": "T", "visibility": "public"})).await;
    let settings = world.settings("web", &[]);
    let token = web::auth::Keys::new(&settings.auth).operator_token(web::auth::ACCESS_LIFETIME);
    let operator = replica.client().with_token(&token);
    assert_eq!(operator.get(&path).await.status, 200);
    for (path, body) in [
        ("/api/sessions".to_owned(), json!({"title": "T"})),
        (format!("{path}/join"), json!({})),
        (format!("{path}/messages"), json!({"content": "hi"})),
    ] {
        operator.post(&path, &body).await.assert_problem(403, "forbidden");
    }
    replica.stop().await;
}
