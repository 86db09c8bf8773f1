//! The pages in a real browser: headless Chromium, driven through chromedriver.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod browser;
mod endpoint;
mod world;

use std::time::Duration;

use browser::{Browser, INSECURE_HOST};
use endpoint::{Ending, Endpoint};
use serde_json::json;
use sqlx::Executor as _;
use web::logic::builtin_answer::answer;
use world::process::Process;
use world::programs::until;
use world::switch::Switch;
use world::{PASSWORD, World};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_person_registers_makes_a_session_and_is_seen_in_a_second_window_on_another_replica() {
    let world = World::start().await;
    let settings = &[("RESPONDER_PACE", "5"), ("CHAT_COMPARE_PERIOD", "500")];
    let (one, two) =
        (world.replica_with("web-1", settings).await, world.replica_with("web-2", settings).await);
    let browser = Browser::start().await;

    let ann = browser.window(&format!("http://{}/", one.addr)).await;
    ann.text("#entry-title", "Log in").await;
    ann.is_accessible().await;
    ann.screenshot("entry").await;
    ann.click("#entry-switch").await;
    ann.fill("#username", "ann").await;
    ann.fill("#password", PASSWORD).await;
    ann.click("#entry-submit").await;
    ann.fill("#create-title", "Rust evening").await;
    ann.click("#create-form button").await;
    ann.text("#link-text", "connected to web-1").await;
    let id = ann.read("#room-id").await;

    let phone = Browser::start_small_and_dark().await;
    let bob = phone.window(&format!("http://{}/", two.addr)).await;
    bob.click("#entry-switch").await;
    bob.fill("#username", "bob").await;
    bob.fill("#password", PASSWORD).await;
    bob.click("#entry-submit").await;
    bob.fill("#join-id", &id).await;
    bob.click("#join-form button").await;
    bob.text("#link-text", "connected to web-2").await;
    bob.text("#presence", "2 people here").await;

    ann.fill("#content", "Hello <b>Bob</b>").await;
    ann.click("#send").await;
    bob.text(".message .text", "Hello <b>Bob</b>").await;
    ann.text(".message.mine:not(.pending) .text", "Hello <b>Bob</b>").await;

    bob.fill("#content", "What is a lease?").await;
    bob.click("#ask").await;
    ann.text(".message.assistant:not(.making) .text", "What is a lease?").await;
    ann.shows_no_errors().await;
    bob.shows_no_errors().await;
    ann.is_accessible().await;
    bob.is_accessible().await;
    ann.screenshot("chat").await;
    bob.screenshot("chat-small-dark").await;
    browser.end().await;
    phone.end().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_room_has_one_socket_however_often_it_is_told_to_connect() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let browser = Browser::start().await;
    let page = browser.window(&format!("http://{}/", replica.addr)).await;
    let (sockets, shown) = (1, 1);
    assert_eq!(page.run(include_str!("browser/one_socket.js")).await, json!([sockets, shown]));
    browser.end().await;
    replica.stop().await;
}

#[tokio::test]
async fn the_page_comes_back_by_itself_and_misses_nothing() {
    let world = World::start().await;
    let one = world.replica("web-1").await;
    let two = world.replica("web-2").await;
    let ann = world.user("ann").await;
    let made = one.client_of(&ann).post("/api/sessions", &json!({"title": "room", "slug": "room"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let browser = Browser::start().await;
    let page = browser.window(&format!("http://{}/#room", one.addr)).await;
    page.log_in("ann").await;
    page.text("#link-text", "connected to web-1").await;

    let port = one.addr.port().to_string();
    one.stop().await;
    page.text("#link-text", "reconnecting").await;
    // Written while the page has nobody to talk to.
    page.fill("#content", "sent into the dark").await;
    page.click("#send").await;
    for n in 1..=3 {
        let content = json!({"content": format!("missed {n}")});
        two.client_of(&ann).post("/api/sessions/room/messages", &content).await;
    }
    let again = world.replica_with("web-1", &[("PORT", &port)]).await;
    page.text("#link-text", "connected to web-1").await;
    page.text(".message:nth-child(3) .text", "missed 3").await;
    page.text(".message:nth-child(4):not(.pending) .text", "sent into the dark").await;
    let stored = two.client_of(&ann).get("/api/sessions/room/messages").await;
    let contents: Vec<_> =
        stored.at("/items").as_array().unwrap().iter().map(|m| m["content"].clone()).collect();
    assert_eq!(contents, ["missed 1", "missed 2", "missed 3", "sent into the dark"]);
    browser.end().await;
    again.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_page_whose_replica_is_killed_goes_on_with_another_and_its_answer_is_whole() {
    let world = World::start().await;
    let settings = &[("RESPONDER_PACE", "60"), ("CHAT_COMPARE_PERIOD", "500")];
    let two = world.replica_with("web-2", settings).await;
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    let room = json!({"title": "Rust evening", "slug": "room", "visibility": "public"});
    assert_eq!(two.client_of(&ann).post("/api/sessions", &room).await.status, 201);
    assert_eq!(two.client_of(&bob).post("/api/sessions/room/join", &json!({})).await.status, 200);
    let one = Process::start(&world, "web-1", settings).await;
    // One address for the page, as the balancer is: it leads to web-1 now and to web-2 after its death.
    let address = Switch::to(one.addr.port()).await;
    let browser = Browser::start().await;
    let page = browser.window(&format!("http://127.0.0.1:{}/#room", address.port)).await;
    page.log_in("ann").await;
    page.text("#link-text", "connected to web-1").await;
    let phone = Browser::start_small_and_dark().await;
    let other = phone.window(&format!("http://{}/#room", two.addr)).await;
    other.log_in("bob").await;
    other.text("#link-text", "connected to web-2").await;
    other.shows_whole("#link-text").await;

    let question = "What happens to an answer whose replica is killed?";
    page.fill("#content", question).await;
    page.click("#ask").await;
    for window in [&page, &other] {
        window.text(".message.assistant.making .text", "What happens").await;
    }
    page.screenshot("chat-streaming").await;
    address.turn_to(two.addr.port());
    one.kill();
    page.text("#link-text", "reconnecting").await;
    page.screenshot("chat-reconnecting").await;
    page.text("#link-text", "connected to web-2").await;
    for window in [&page, &other] {
        window.text(".message.assistant:not(.making) .text", &answer(question)).await;
        assert_eq!(window.count(".message").await, 2, "nothing is shown twice");
        window.shows_no_errors().await;
        window.is_accessible().await;
    }
    page.screenshot("chat-resumed").await;
    other.screenshot("chat-resumed-small-dark").await;
    browser.end().await;
    phone.end().await;
    two.stop().await;
}

#[tokio::test]
async fn a_message_that_could_not_be_stored_for_the_moment_stays_on_the_page_and_is_sent_again() {
    let world = World::start().await;
    let settings = &[("DATABASE_STATEMENT_TIMEOUT", "300"), ("DATABASE_POOL_TIMEOUT", "1")];
    let replica = world.direct_replica("web-1", settings).await;
    let ann = world.user("ann").await;
    let made = replica.client_of(&ann).post("/api/sessions", &json!({"title": "room", "slug": "room"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let browser = Browser::start().await;
    let page = browser.window(&format!("http://{}/#room", replica.addr)).await;
    page.log_in("ann").await;
    page.text("#link-text", "connected to web-1").await;
    let mut locker = world.postgres.connect(&world.database).await;
    locker.execute("BEGIN; SELECT 1 FROM sessions FOR UPDATE").await.unwrap();
    page.fill("#content", "typed with care").await;
    page.click("#send").await;
    page.text("#room-error", "again").await;
    page.text(".message.mine.pending .text", "typed with care").await;
    locker.execute("COMMIT").await.unwrap();
    page.text(".message.mine:not(.pending) .text", "typed with care").await;
    page.shows_no_errors().await;
    let stored = replica.client_of(&ann).get("/api/sessions/room/messages").await;
    assert_eq!(stored.at("/items").as_array().unwrap().len(), 1, "{stored:?}");
    browser.end().await;
    replica.stop().await;
}

#[tokio::test]
async fn an_answer_that_failed_is_taken_away_and_the_others_stay() {
    let world = World::start().await;
    let endpoint = Endpoint::start(&["one ", "two ", "thr"], Ending::BreakOff).await;
    let url = endpoint.url();
    let settings = [("RESPONDER", "openai"), ("RESPONDER_URL", url.as_str())];
    let replica = world.replica_with("web-1", &settings).await;
    let ann = world.user("ann").await;
    let made = replica.client_of(&ann).post("/api/sessions", &json!({"title": "room", "slug": "room"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let browser = Browser::start().await;
    let page = browser.window(&format!("http://{}/#room", replica.addr)).await;
    page.log_in("ann").await;
    page.text("#link-text", "connected to web-1").await;
    page.fill("#content", "Count to three").await;
    page.click("#ask").await;
    page.text("#room-error", "ask again").await;
    page.loses(".making").await;
    page.fill("#content", "Never mind").await;
    page.click("#send").await;
    page.text(".message:last-child:not(.pending) .text", "Never mind").await;
    assert_eq!(page.count(".message").await, 2);
    page.shows_no_errors().await;

    let page = browser.window(&format!("http://{}/", replica.addr)).await;
    let steps = json!([
        ["lives", "dies"],
        [],
        ["lives on"],
        ["next", "lives on"],
        ["next", "lives on, whole"],
        ["next", "lives on, whole"],
        ["next", "lives on, whole", "late, whole"],
    ]);
    assert_eq!(page.run(include_str!("browser/answers.js")).await, steps);
    browser.end().await;
    replica.stop().await;
}

#[tokio::test]
async fn what_was_typed_is_kept_where_it_is_too_long_and_where_it_is_refused() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let made = replica.client_of(&ann).post("/api/sessions", &json!({"title": "room", "slug": "room"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let browser = Browser::start().await;
    let page = browser.window(&format!("http://{}/#room", replica.addr)).await;
    page.log_in("ann").await;
    page.text("#link-text", "connected to web-1").await;
    let typed = async || page.run("return document.querySelector('#content').value").await;
    let write = async |text: &str| {
        page.run(&format!("document.querySelector('#content').value = {}", json!(text))).await;
        page.click("#send").await;
    };

    // Two bytes each; then six bytes of JSON each.
    for (letter, fits, over) in [("é", 8_192, "2 bytes"), ("\u{1}", 10_240, "6 bytes")] {
        let too_long = letter.repeat(fits + 1);
        write(&too_long).await;
        page.text("#room-error", over).await;
        assert_eq!(typed().await, json!(too_long));
        write(&letter.repeat(fits)).await;
        page.text(".message.mine:last-child:not(.pending) .text", letter).await;
        assert_eq!(typed().await, json!(""));
        page.shows_no_errors().await;
    }

    write("typed \0 with care").await;
    page.text(".message.failed", "Not sent: content holds a NUL character").await;
    page.is_accessible().await;
    page.screenshot("chat-refused").await;
    page.fill("#content", "more").await;
    page.click(".message.failed button").await;
    page.loses(".message.failed").await;
    assert_eq!(typed().await, json!("more\ntyped \0 with care"));
    assert_eq!(page.count(".message").await, 2);
    browser.end().await;
    replica.stop().await;
}

#[tokio::test]
async fn two_windows_over_plain_http_renew_their_login_one_after_the_other() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("API_RATE_PER_S", "0")]).await;
    world.user("ann").await;
    let browser = Browser::start().await;
    let address = format!("http://{INSECURE_HOST}:{}/", replica.addr.port());
    let one = browser.window(&address).await;
    one.log_in("ann").await;
    one.text("#my-name", "ann").await;
    let two = browser.window(&address).await;
    two.text("#my-name", "ann").await;
    for window in [&one, &two] {
        let begun = window.run(include_str!("browser/renew.js")).await;
        assert_eq!(begun, json!({"isSecure": false, "hasLocks": false}));
    }
    for window in [&one, &two, &one, &two] {
        let count = window.run("return window.renewed").await.as_u64().unwrap();
        until("both go on", SOON, async || {
            let (renewed, failure) =
                (window.run("return window.renewed"), window.run("return window.failure"));
            assert_eq!(failure.await, json!(null));
            renewed.await.as_u64().unwrap() >= count + 20
        })
        .await;
    }
    let mut database = world.postgres.connect(&world.database).await;
    let (spent, ended): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM spent_tokens), (SELECT count(revoked_at) FROM logins)")
            .fetch_one(&mut database)
            .await
            .unwrap();
    assert!(spent >= 40 && ended == 0, "{spent} tokens were spent, {ended} logins ended");
    browser.end().await;
    replica.stop().await;
}

#[tokio::test]
async fn the_page_begins_anew_when_the_database_has_lost_what_it_shows() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("CHAT_COMPARE_PERIOD", "300")]).await;
    let ann = world.user("ann").await;
    let client = replica.client_of(&ann);
    client.post("/api/sessions", &json!({"title": "room", "slug": "room"})).await;
    let post = async |content: &str| {
        let stored = client.post("/api/sessions/room/messages", &json!({"content": content})).await;
        assert_eq!(stored.status, 201, "{stored:?}");
    };
    for n in 1..=5 {
        post(&format!("message {n}")).await;
    }
    let browser = Browser::start().await;
    let page = browser.window(&format!("http://{}/#room", replica.addr)).await;
    page.log_in("ann").await;
    page.text(".message:nth-child(5) .text", "message 5").await;
    let mut postgres = world.postgres.connect(&world.database).await;
    let lose =
        r#"BEGIN; DELETE FROM messages WHERE "offset" > 3; UPDATE sessions SET last_offset = 3; COMMIT"#;
    postgres.execute(lose).await.unwrap();
    page.loses(".message:nth-child(4)").await;
    post("after the failover").await;
    page.text(".message:nth-child(4) .text", "after the failover").await;
    page.text(".message:nth-child(1) .text", "message 1").await;
    assert_eq!(page.count(".message").await, 4);
    page.shows_no_errors().await;
    browser.end().await;
    replica.stop().await;
}

#[tokio::test]
async fn the_fleet_page_shows_all_replicas_to_admins_and_nothing_to_others() {
    let world = World::start().await;
    let settings = &[("ADMIN_USERNAMES", "root")];
    let (one, two) =
        (world.replica_with("web-1", settings).await, world.replica_with("web-2", settings).await);
    world.user("root").await;
    let browser = Browser::start().await;
    let page = browser.window(&format!("http://{}/ops", two.addr)).await;
    page.text("#ops-error", "Log in").await;
    let page = browser.window(&format!("http://{}/", two.addr)).await;
    page.log_in("root").await;
    page.text("#my-name", "root").await;
    let page = browser.window(&format!("http://{}/ops", two.addr)).await;
    page.text("#replicas", "web-1").await;
    page.text("#replicas", "web-2").await;
    page.text("#checks", "healthy").await;
    page.text("#tiles", "2 / 2").await;
    page.shows_no_errors().await;
    page.is_accessible().await;
    page.screenshot("ops").await;
    let phone = Browser::start_small_and_dark().await;
    let small = phone.window(&format!("http://{}/", two.addr)).await;
    small.screenshot("entry-small-dark").await;
    small.log_in("root").await;
    small.text("#my-name", "root").await;
    small.screenshot("sessions-small-dark").await;
    let small = phone.window(&format!("http://{}/ops", two.addr)).await;
    small.text("#tiles", "2 / 2").await;
    small.shows_whole("#fresh-text").await;
    small.is_accessible().await;
    small.screenshot("ops-small-dark").await;
    phone.end().await;
    browser.end().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn the_pages_come_with_a_strict_policy() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let client = replica.client();
    for path in ["/", "/ops", "/ops/"] {
        let page = client.get(path).await;
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        let policy = page.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-served-by"), "web-1");
    }
    let module = client.get("/assets/chat.js").await;
    assert_eq!((module.status, module.header("content-type")), (200, "text/javascript; charset=utf-8"));
    client.get("/assets/none.js").await.assert_problem(404, "not-found");
    replica.stop().await;
}
