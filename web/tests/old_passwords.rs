//! A password that was changed is good for nothing any more, whatever was under way with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use reqwest::Method;
use serde_json::json;
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use world::locks::{is_waited_for, run};
use world::{Answer, Client, PASSWORD, World};

const LOGIN: &str = "/api/auth/login";
const PASSWORD_PATH: &str = "/api/users/me/password";

/// Begins a request, and comes back when it waits for a lock or has its answer.
async fn begin(
    client: Client,
    (method, path): (Method, &'static str),
    body: serde_json::Value,
    database: &mut PgConnection,
) -> JoinHandle<Answer> {
    let asking = tokio::spawn(async move { client.send(client.request(method, path).json(&body)).await });
    wait_or_end(&asking, database).await;
    asking
}

async fn wait_or_end(asking: &JoinHandle<Answer>, database: &mut PgConnection) {
    while !asking.is_finished() && !is_waited_for(&mut *database).await {}
}

/// What a login with the right password gets when this happened to its account while the password was checked.
async fn login_during(change: &str) {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    world.user("alice").await;
    let mut database = world.postgres.connect(&world.database).await;
    run(&mut database, &format!("BEGIN; {change}")).await;
    let body = json!({"username": "alice", "password": PASSWORD});
    let asking = begin(replica.client(), (Method::POST, LOGIN), body, &mut database).await;
    run(&mut database, "COMMIT").await;
    let late = asking.await.unwrap();
    late.assert_problem(401, "unauthorized");
    let wrong = json!({"username": "alice", "password": "wrong one"});
    let wrong = replica.client().post(LOGIN, &wrong).await;
    assert_eq!(late.at("/detail"), wrong.at("/detail"), "it is told as a wrong password is");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM logins").fetch_one(&mut database).await.unwrap();
    assert_eq!(left, 1, "only the login of the registration");
    replica.stop().await;
}

#[tokio::test]
async fn a_login_whose_password_is_changed_while_it_is_checked_is_refused() {
    login_during("UPDATE users SET password_hash = 'another'").await;
}

#[tokio::test]
async fn a_login_whose_account_is_deleted_while_it_is_checked_is_refused() {
    login_during("UPDATE users SET deleted_at = now(), password_hash = ''").await;
}

/// Whether a login that is being stored is ended by this request, which comes meanwhile.
async fn ends_a_login_under_way(route: (Method, &'static str), body: serde_json::Value) {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let mut database = world.postgres.connect(&world.database).await;
    run(
        &mut database,
        "BEGIN; INSERT INTO logins (id, user_id, token_hash, user_agent, address, expires_at)
         SELECT gen_random_uuid(), id, 'stolen', '', '', now() + interval '1 day' FROM users FOR SHARE",
    )
    .await;
    let asking = begin(replica.client_of(&alice), route, body, &mut database).await;
    run(&mut database, "COMMIT").await;
    assert_eq!(asking.await.unwrap().status, 204);
    let ended: bool =
        sqlx::query_scalar("SELECT revoked_at IS NOT NULL FROM logins WHERE token_hash = 'stolen'")
            .fetch_one(&mut database)
            .await
            .unwrap();
    assert!(ended);
    replica.stop().await;
}

#[tokio::test]
async fn a_new_password_ends_a_login_that_is_being_stored() {
    let body = json!({"old": PASSWORD, "new": "another horse battery"});
    ends_a_login_under_way((Method::POST, PASSWORD_PATH), body).await;
}

#[tokio::test]
async fn deleting_the_account_ends_a_login_that_is_being_stored() {
    ends_a_login_under_way((Method::DELETE, "/api/users/me"), json!({})).await;
}

#[tokio::test]
async fn of_two_new_passwords_at_once_the_second_needs_the_first_one() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let alice = world.user("alice").await;
    let mut database = world.postgres.connect(&world.database).await;
    run(&mut database, "BEGIN; UPDATE users SET password_hash = 'another'").await;
    let body = json!({"old": PASSWORD, "new": "another horse battery"});
    let asking = begin(replica.client_of(&alice), (Method::POST, PASSWORD_PATH), body, &mut database).await;
    run(&mut database, "COMMIT").await;
    let late = asking.await.unwrap();
    late.assert_problem(422, "unprocessable");
    assert_eq!(late.at("/errors/0/field"), "old");
    let kept: String =
        sqlx::query_scalar("SELECT password_hash FROM users").fetch_one(&mut database).await.unwrap();
    assert_eq!(kept, "another");
    replica.stop().await;
}
