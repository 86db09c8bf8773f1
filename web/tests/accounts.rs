//! Registration to deletion: tokens, refresh families, tickets, limits, with real Postgres and Redis.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod world;

use serde_json::{Value, json};
use world::{Client, PASSWORD, Replica, User, World};

async fn log_in(replica: &Replica, username: &str) -> User {
    let answer =
        replica.client().post("/api/auth/login", &json!({"username": username, "password": PASSWORD})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    User::of(&answer.json)
}

async fn refresh(client: &Client, token: &str) -> world::Answer {
    client.post("/api/auth/refresh", &json!({"refresh_token": token})).await
}

#[tokio::test]
async fn registering_gives_a_user_and_tokens_and_a_taken_name_is_a_conflict() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let body = json!({"username": "alice", "password": PASSWORD, "display_name": "Alice"});
    let answer = replica.client().post("/api/auth/register/", &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.at("/expires_in"), 900);
    assert_eq!(answer.at("/user/username"), "alice");
    assert_eq!(answer.at("/user/display_name"), "Alice");
    assert_eq!(answer.at("/user/role"), "user");
    assert!(!answer.header("x-consistency-token").is_empty());
    assert!(answer.header("set-cookie").contains("HttpOnly"));
    assert!(!answer.text.contains("argon2"));

    replica.client().post("/api/auth/register", &body).await.assert_problem(409, "conflict");
    replica.stop().await;
}

#[tokio::test]
async fn a_registration_names_every_wrong_field() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let client = replica.client();
    let answer = client.post("/api/auth/register", &json!({"username": "A", "password": "x"})).await;
    answer.assert_problem(422, "unprocessable");
    let fields: Vec<&Value> = answer.at("/errors").as_array().unwrap().iter().map(|e| &e["field"]).collect();
    assert_eq!(fields, ["username", "password"]);

    let missing = client.post("/api/auth/register", &json!({"username": "alice"})).await;
    missing.assert_problem(422, "unprocessable");
    assert_eq!(missing.at("/errors/0/field"), "password");
    replica.stop().await;
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_get_the_same_answer() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    world.user("alice").await;
    let client = replica.client();
    let wrong = client.post("/api/auth/login", &json!({"username": "alice", "password": "wrong one"})).await;
    let unknown =
        client.post("/api/auth/login", &json!({"username": "nobody", "password": "wrong one"})).await;
    wrong.assert_problem(401, "unauthorized");
    unknown.assert_problem(401, "unauthorized");
    assert_eq!(wrong.at("/detail"), unknown.at("/detail"));
    assert_eq!(wrong.header("www-authenticate"), "Bearer");
    assert_eq!(log_in(&replica, "Alice").await.username, "alice", "names are not case-sensitive");
    replica.stop().await;
}

#[tokio::test]
async fn too_many_failed_logins_are_429_on_every_replica_until_the_window_ends() {
    let world = World::start().await;
    let limits = [("LOGIN_TRIES_MAX", "3")];
    let (first, second) =
        (world.replica_with("web-1", &limits).await, world.replica_with("web-2", &limits).await);
    world.user("alice").await;
    let wrong = json!({"username": "alice", "password": "wrong one"});
    for replica in [&first, &second, &first] {
        replica.client().post("/api/auth/login", &wrong).await.assert_problem(401, "unauthorized");
    }
    let right = json!({"username": "alice", "password": PASSWORD});
    let refused = second.client().post("/api/auth/login", &right).await;
    refused.assert_problem(429, "too-many");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=300).contains(&wait));
    world.user("bob").await;
    log_in(&first, "bob").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn without_redis_failed_logins_are_still_limited_and_logging_in_works() {
    let mut world = World::start().await;
    let replica = world.replica_with("web-1", &[("LOGIN_TRIES_MAX", "2")]).await;
    world.user("alice").await;
    world.redis_kill().await;
    log_in(&replica, "alice").await;
    let wrong = json!({"username": "alice", "password": "wrong one"});
    for _ in 0..2 {
        replica.client().post("/api/auth/login", &wrong).await.assert_problem(401, "unauthorized");
    }
    replica.client().post("/api/auth/login", &wrong).await.assert_problem(429, "too-many");
    replica.stop().await;
}

/// The statuses of so many wrong logins at once.
async fn wrong_at_once(replicas: &[&Replica], count: usize) -> Vec<u16> {
    let wrong = json!({"username": "alice", "password": "wrong one"});
    let tries = (0..count).map(|n| {
        let (client, wrong) = (replicas[n % replicas.len()].client(), &wrong);
        async move { client.post("/api/auth/login", wrong).await.status }
    });
    let mut statuses = futures_util::future::join_all(tries).await;
    statuses.sort_unstable();
    statuses
}

#[tokio::test]
async fn wrong_logins_at_once_do_not_pass_the_limit_of_tries() {
    let mut world = World::start().await;
    let limits = [("LOGIN_TRIES_MAX", "3")];
    let (one, two) = (world.replica_with("web-1", &limits).await, world.replica_with("web-2", &limits).await);
    world.user("alice").await;
    // What succeeds takes its try back.
    for _ in 0..5 {
        log_in(&one, "alice").await;
    }
    let wanted = [vec![401; 3], vec![429; 37]].concat();
    assert_eq!(wrong_at_once(&[&one, &two], 40).await, wanted);
    world.redis_kill().await;
    for _ in 0..5 {
        log_in(&two, "alice").await;
    }
    assert_eq!(wrong_at_once(&[&two], 40).await, wanted, "without Redis each replica counts by itself");
    one.kill();
    two.kill();
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_second_use_ends_the_login() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let client = replica.client();

    let second = refresh(&client, &alice.refresh_token).await;
    assert_eq!(second.status, 200, "{second:?}");
    let second = User::of(&second.json);
    assert_eq!(replica.client_of(&second).get("/api/users/me").await.status, 200);

    refresh(&client, &alice.refresh_token).await.assert_problem(401, "unauthorized");
    refresh(&client, &second.refresh_token).await.assert_problem(401, "unauthorized");
    replica.client_of(&second).get("/api/users/me").await.assert_problem(401, "unauthorized");
    refresh(&client, "invented").await.assert_problem(401, "unauthorized");
    replica.stop().await;
}

#[tokio::test]
async fn of_two_refreshes_with_the_same_token_at_once_at_most_one_wins() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let client = replica.client();
    let (one, two) =
        tokio::join!(refresh(&client, &alice.refresh_token), refresh(&client, &alice.refresh_token));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
    replica.stop().await;
}

#[tokio::test]
async fn logging_out_ends_the_token_on_every_replica() {
    let world = World::start().await;
    let (first, second) = (world.replica("web-1").await, world.replica("web-2").await);
    let alice = world.user("alice").await;
    assert_eq!(first.client_of(&alice).post("/api/auth/logout", &json!({})).await.status, 204);
    first.client_of(&alice).get("/api/users/me").await.assert_problem(401, "unauthorized");
    world::programs::until("the other replica knows", std::time::Duration::from_secs(5), async || {
        second.client_of(&alice).get("/api/users/me").await.status == 401
    })
    .await;
    refresh(&first.client(), &alice.refresh_token).await.assert_problem(401, "unauthorized");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn logins_are_listed_and_can_be_ended_one_by_one() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let here = world.user("alice").await;
    let there = log_in(&replica, "alice").await;
    let client = replica.client_of(&here);

    let list = client.get("/api/auth/logins?limit=1").await;
    assert_eq!(list.at("/has_more"), true);
    assert_eq!(list.at("/items/0/current"), false);
    let next = list.at("/next").as_str().unwrap();
    let rest = client.get(&format!("/api/auth/logins?limit=1&after={next}")).await;
    assert_eq!((rest.at("/has_more"), rest.at("/items/0/current")), (&json!(false), &json!(true)));

    let id = list.at("/items/0/id").as_str().unwrap();
    assert_eq!(client.delete(&format!("/api/auth/logins/{id}")).await.status, 204);
    client.delete(&format!("/api/auth/logins/{id}")).await.assert_problem(404, "not-found");
    client.delete("/api/auth/logins/nonsense").await.assert_problem(404, "not-found");
    replica.client_of(&there).get("/api/users/me").await.assert_problem(401, "unauthorized");
    let bob = world.user("bob").await;
    let others = rest.at("/items/0/id").as_str().unwrap();
    replica
        .client_of(&bob)
        .delete(&format!("/api/auth/logins/{others}"))
        .await
        .assert_problem(404, "not-found");
    replica.stop().await;
}

#[tokio::test]
async fn a_new_password_ends_the_other_logins_and_needs_the_old_one() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let here = world.user("alice").await;
    let there = log_in(&replica, "alice").await;
    let client = replica.client_of(&here);
    let change = |old: &str| json!({"old": old, "new": "another horse battery"});
    client.post("/api/users/me/password", &change("wrong one")).await.assert_problem(422, "unprocessable");
    assert_eq!(client.post("/api/users/me/password", &change(PASSWORD)).await.status, 204);
    assert_eq!(client.get("/api/users/me").await.status, 200, "this login goes on");
    replica.client_of(&there).get("/api/users/me").await.assert_problem(401, "unauthorized");
    let old = json!({"username": "alice", "password": PASSWORD});
    replica.client().post("/api/auth/login", &old).await.assert_problem(401, "unauthorized");
    replica.stop().await;
}

#[tokio::test]
async fn a_deleted_account_leaves_its_messages_without_its_name() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let client = replica.client_of(&alice);
    let session = client.post("/api/sessions", &json!({"title": "T", "visibility": "public"})).await;
    let path = format!("/api/sessions/{}", session.at("/id").as_str().unwrap());
    let bob_client = replica.client_of(&bob);
    bob_client.post(&format!("{path}/join"), &json!({})).await;
    bob_client.post(&format!("{path}/messages"), &json!({"content": "hello"})).await;

    assert_eq!(bob_client.delete("/api/users/me").await.status, 204);
    bob_client.get("/api/users/me").await.assert_problem(401, "unauthorized");
    let messages = client.get(&format!("{path}/messages")).await;
    assert_eq!(messages.at("/items/0/content"), "hello");
    assert_eq!(messages.at("/items/0/author/display_name"), "deleted");
    assert_eq!(world.user("bob").await.username, "bob", "the name is free again");
    replica.stop().await;
}

#[tokio::test]
async fn users_are_listed_by_pages_and_can_be_renamed() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    for name in ["ann", "ben", "cat"] {
        world.user(name).await;
    }
    let me = log_in(&replica, "ann").await;
    let client = replica.client_of(&me);
    let first = client.get("/api/users?limit=2").await;
    assert_eq!(first.at("/items").as_array().unwrap().len(), 2);
    assert_eq!(first.header("x-read-from"), "primary");
    let next = first.at("/next").as_str().unwrap();
    let second = client.get(&format!("/api/users?limit=2&after={next}")).await;
    assert_eq!(second.at("/items/0/username"), "cat");
    assert_eq!((second.at("/has_more"), second.at("/next")), (&json!(false), &Value::Null));

    client.get("/api/users?limit=101").await.assert_problem(422, "unprocessable");
    client.get("/api/users?limit=abc").await.assert_problem(422, "unprocessable");
    client.get("/api/users?after=nonsense").await.assert_problem(422, "unprocessable");
    let renamed = client.patch("/api/users/me", &json!({"display_name": "Ännchen"})).await;
    assert_eq!(renamed.at("/display_name"), "Ännchen");
    client.patch("/api/users/me", &json!({"display_name": " "})).await.assert_problem(422, "unprocessable");
    replica.stop().await;
}

#[tokio::test]
async fn a_ticket_is_made_for_those_who_are_logged_in() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let ticket = replica.client_of(&alice).post("/api/auth/ws-ticket", &json!({})).await;
    assert_eq!((ticket.status, ticket.at("/expires_in")), (201, &json!(30)));
    assert!(!ticket.at("/ticket").as_str().unwrap().contains('.'));
    replica.client().post("/api/auth/ws-ticket", &json!({})).await.assert_problem(401, "unauthorized");
    replica.stop().await;
}

#[tokio::test]
async fn tokens_of_the_previous_secret_key_are_still_accepted() {
    let world = World::start().await;
    let before = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let changed = [
        ("SECRET_KEY", "a new secret key, also 32 characters long"),
        ("SECRET_KEY_PREVIOUS", world::SECRET_KEY),
    ];
    let after = world.replica_with("web-2", &changed).await;
    assert_eq!(after.client_of(&alice).get("/api/users/me").await.status, 200);
    let fresh = refresh(&after.client(), &alice.refresh_token).await;
    assert_eq!(fresh.status, 200);
    before.client_of(&User::of(&fresh.json)).get("/api/users/me").await.assert_problem(401, "unauthorized");
    before.stop().await;
    after.stop().await;
}

/// The steps of docs/secret-key.md, one replica for each: neighbours stand side by side while all are restarted in turn.
#[tokio::test]
async fn nobody_is_logged_out_while_the_secret_key_is_changed_step_by_step() {
    let world = World::start().await;
    let (old, new) = ("0".repeat(32), "1".repeat(32));
    let (old, new) = (old.as_str(), new.as_str());
    let steps = [(old, ""), (old, new), (new, old), (new, "")];
    let mut replicas = Vec::new();
    for (step, (key, fallbacks)) in steps.into_iter().enumerate() {
        let settings = [("SECRET_KEY", key), ("SECRET_KEY_FALLBACKS", fallbacks)];
        replicas.push(world.replica_with(&format!("web-{step}"), &settings).await);
        world.user(&format!("of_step_{step}")).await;
    }
    let known = async |by: &Replica, at: &Replica, name: &str| -> u16 {
        let user = log_in(by, name).await;
        let ticket = by.client_of(&user).post("/api/auth/ws-ticket", &json!({})).await;
        let ticket = ticket.at("/ticket").as_str().unwrap().to_owned();
        let socket = at.client().get(&format!("/ws/chat/session/none/?token={ticket}")).await;
        let status = at.client_of(&user).get("/api/users/me").await.status;
        assert_eq!(socket.status == 404, status == 200, "a ticket is known where the token is: {socket:?}");
        status
    };
    for (ahead, behind) in [(1, 0), (2, 1), (3, 2)] {
        for (by, at) in [(ahead, behind), (behind, ahead)] {
            // The last step is for when no token of the old key is about: those that are signed are of the new one.
            let name = format!("of_step_{by}");
            assert_eq!(known(&replicas[by], &replicas[at], &name).await, 200, "made at {by}, shown at {at}");
        }
    }
    assert_eq!(known(&replicas[2], &replicas[0], "of_step_2").await, 401, "a step that is left out logs out");
    // A refresh token is no matter of the key.
    let of_old = log_in(&replicas[0], "of_step_0").await;
    assert_eq!(replicas[3].client_of(&of_old).get("/api/users/me").await.status, 401);
    assert_eq!(refresh(&replicas[3].client(), &of_old.refresh_token).await.status, 200);
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test]
async fn names_of_admin_usernames_are_admins_at_registration_and_at_start() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("ADMIN_USERNAMES", "root")]).await;
    world.user("root").await;
    world.user("later").await;
    let role = async |replica: &Replica, name: &str| {
        let user = log_in(replica, name).await;
        replica.client_of(&user).get("/api/users/me").await.at("/role").clone()
    };
    assert_eq!(role(&replica, "root").await, "admin");
    assert_eq!(role(&replica, "later").await, "user");
    let next = world.replica_with("web-2", &[("ADMIN_USERNAMES", "root, later")]).await;
    assert_eq!(role(&next, "later").await, "admin");
    replica.stop().await;
    next.stop().await;
}
