//! Our pooler, really killed under a replica that is being used: what clients see meanwhile, and that it ends.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use world::programs::{Pooler, until};
use world::{Answer, Client, World};

const CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(20);

/// What all clients have seen so far.
#[derive(Default)]
struct Seen {
    refused: AtomicUsize,
    served: AtomicUsize,
    enough: AtomicBool,
}

impl Seen {
    /// Every answer is a success or the one refusal that says that trying again helps.
    fn take(&self, answer: &Answer) -> bool {
        if answer.status == 503 {
            answer.assert_problem(503, "unavailable");
            assert_eq!(answer.header("retry-after"), "1");
            let detail = answer.at("/detail").as_str().unwrap();
            assert!(detail.contains("broke off") || detail.contains("came free in time"), "{detail}");
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        self.served.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// Writes and reads until it is enough; sends what was refused again with its key. Gives how many messages it wrote.
async fn write_and_read(client: Client, path: String, name: usize, seen: Arc<Seen>) -> usize {
    let mut written = 0;
    while !seen.enough.load(Ordering::Relaxed) {
        let message = json!({"content": "text", "client_msg_id": format!("{name}-{written}")});
        if seen.take(&client.post(&path, &message).await) {
            written += 1;
        }
        seen.take(&client.get("/api/users/me").await);
    }
    written
}

#[tokio::test]
async fn a_killed_pooler_costs_503_until_it_is_back_and_no_message_is_lost_or_stored_twice() {
    let world = World::start().await;
    let mut pooler = Pooler::apart(world.postgres);
    let (port, postgres_port) = (pooler.port.to_string(), world.postgres.port.to_string());
    let settings = [
        ("DB_PORT", port.as_str()),
        ("ACTUAL_DB_HOST", "127.0.0.1"),
        ("ACTUAL_DB_PORT", &postgres_port),
        ("DATABASE_POOL_TIMEOUT", "1"),
        ("API_RATE_PER_S", "100000"),
        ("API_RATE_BURST", "100000"),
    ];
    let replica = world.replica_with("web-1", &settings).await;
    let alice = world.user("alice").await;
    let client = replica.client_of(&alice);
    let session = client.post("/api/sessions", &json!({"title": "room"})).await;
    let path = format!("/api/sessions/{}/messages", session.at("/id").as_str().unwrap());
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for name in 0..CLIENTS {
        clients.spawn(write_and_read(client.clone(), path.clone(), name, Arc::clone(&seen)));
    }
    let more = async |count: &AtomicUsize, what: &str| {
        let before = count.load(Ordering::Relaxed);
        until(what, PATIENCE, async || count.load(Ordering::Relaxed) > before + 2 * CLIENTS).await;
    };
    let is_healthy =
        async || replica.client().get("/status/").await.at("/checks/database/default/healthy") == true;

    more(&seen.served, "requests are served").await;
    assert_eq!(seen.refused.load(Ordering::Relaxed), 0, "nothing is refused before the blow");
    pooler.kill();
    more(&seen.refused, "requests are refused").await;
    until("the status says so", PATIENCE, async || !is_healthy().await).await;
    assert_eq!(replica.client().get("/health/live").await.status, 200);
    pooler.restart();
    more(&seen.served, "requests are served again").await;
    until("the status says so", PATIENCE, is_healthy).await;
    seen.enough.store(true, Ordering::Relaxed);
    let written: usize = clients.join_all().await.into_iter().sum();

    let mut keys: BTreeMap<String, i64> = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = client.get(&format!("{path}?after={after}&limit=100")).await;
        for item in page.at("/items").as_array().unwrap() {
            after += 1;
            assert_eq!(item["offset"], after, "offsets have no gap");
            let twice = keys.insert(item["client_msg_id"].as_str().unwrap().to_owned(), after);
            assert_eq!(twice, None, "{item}");
        }
        if page.at("/has_more") == false {
            break;
        }
    }
    // A write that was refused last may have been stored all the same; none that was acknowledged is missing.
    assert!((written..=written + CLIENTS).contains(&keys.len()), "{written} written, {} stored", keys.len());
    replica.stop().await;
}
