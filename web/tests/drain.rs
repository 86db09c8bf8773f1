//! Going away in good order: what is in flight ends, new work goes elsewhere, the process ends well.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod socket;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use socket::{Socket, offsets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use world::{World, session};

#[tokio::test]
async fn a_draining_replica_says_so_and_finishes_the_request_in_flight() {
    let world = World::start().await;
    let replica = world.replica_with("web-1", &[("DRAIN_DELAY", "1")]).await;
    let client = replica.client();
    // A request whose body is still on its way when the drain begins.
    let body = json!({"username": "alice", "password": world::PASSWORD}).to_string();
    let mut in_flight = TcpStream::connect(replica.addr).await.unwrap();
    let head = format!(
        "POST /api/auth/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
        body.len(),
        &body[..5]
    );
    in_flight.write_all(head.as_bytes()).await.unwrap();

    replica.begin_stop();
    world::programs::until("the replica says that it drains", Duration::from_secs(1), async || {
        client.get("/health").await.status == 503
    })
    .await;
    let draining = client.get("/status/").await;
    assert_eq!((draining.at("/draining"), draining.at("/healthy")), (&json!(true), &json!(false)));
    assert_eq!(draining.header("connection"), "close");

    let gone = client.clone();
    world::programs::until("the listener is closed", Duration::from_secs(5), async || {
        gone.try_get("/health").await.is_none()
    })
    .await;
    in_flight.write_all(&body.as_bytes()[5..]).await.unwrap();
    let mut answer = String::new();
    in_flight.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    replica.ended().await;
}

#[tokio::test]
async fn a_request_that_comes_over_a_connection_made_just_before_the_end_is_answered() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let mut made = TcpStream::connect(replica.addr).await.unwrap();
    replica.begin_stop();
    let client = replica.client();
    world::programs::until("the listener is closed", Duration::from_secs(5), async || {
        client.try_get("/health").await.is_none()
    })
    .await;
    made.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    made.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    replica.ended().await;
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_drain() {
    let world = World::start().await;
    let replica = world.replica("web-1").await;
    let mut idle = TcpStream::connect(replica.addr).await.unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 1024];
    assert!(idle.read(&mut first).await.unwrap() > 0);
    let began = std::time::Instant::now();
    replica.stop().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(idle.read(&mut first).await.unwrap(), 0);
}

#[tokio::test]
async fn a_drain_closes_sockets_with_1012_and_they_go_on_elsewhere() {
    let world = World::start().await;
    let (one, two) = (world.replica("web-1").await, world.replica("web-2").await);
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(Socket::open(&one, &id, &ann.token).await);
    }
    sockets[0].send_message("c1", "before").await;
    for socket in &mut sockets {
        assert_eq!(offsets(&socket.messages(1).await), [1]);
    }
    let stopping = tokio::spawn(one.stop());
    for socket in &mut sockets {
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 1012);
        let reason: Value = serde_json::from_str(&reason).unwrap();
        assert!(reason["retry_after_ms"].as_u64().is_some_and(|ms| ms < 5000), "{reason}");
    }
    stopping.await.unwrap();
    let mut back = Socket::open_since(&two, &id, &ann.token, 1).await;
    back.send_message("c2", "after").await;
    assert_eq!(offsets(&back.messages(1).await), [2]);
    two.stop().await;
}

#[tokio::test]
async fn a_drain_asks_many_clients_back_at_moments_that_are_spread() {
    const SOCKETS: usize = 60;
    let world = World::start().await;
    let one = world.replica_with("web-1", &[("DRAIN_TIMEOUT", "2")]).await;
    let ann = world.user("ann").await;
    let rooms = [session(&one, &ann).await, session(&one, &ann).await, session(&one, &ann).await];
    let mut sockets = Vec::new();
    for room in rooms.iter().cycle().take(SOCKETS) {
        sockets.push(Socket::open(&one, room, &ann.token).await);
    }
    let stopping = tokio::spawn(one.stop());
    let mut moments = BTreeSet::new();
    for socket in &mut sockets {
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 1012);
        let reason: Value = serde_json::from_str(&reason).unwrap();
        assert_eq!(reason.as_object().unwrap().len(), 1, "{reason}");
        moments.insert(reason["retry_after_ms"].as_u64().unwrap());
    }
    stopping.await.unwrap();
    assert_eq!(moments.len(), SOCKETS, "no two clients come back at one moment: {moments:?}");
    assert!(moments.iter().all(|ms| (50..1050).contains(ms)), "{moments:?}");
    for quarter in 0..4 {
        let begin = 50 + quarter * 250;
        let share = moments.range(begin..begin + 250).count();
        assert!(share >= SOCKETS / 8, "{share} of {SOCKETS} from {begin} ms on: {moments:?}");
    }
}

#[tokio::test]
async fn a_farewell_closes_all_sockets_with_1012_and_the_replica_goes_on() {
    let world = World::start().await;
    let one = world.replica("web-1").await;
    let ann = world.user("ann").await;
    let id = session(&one, &ann).await;
    let mut sockets = [Socket::open(&one, &id, &ann.token).await, Socket::open(&one, &id, &ann.token).await];
    one.order(web::Order::Farewell);
    for socket in &mut sockets {
        assert_eq!(socket.closed().await.0, 1012);
    }
    let mut back = Socket::open_since(&one, &id, &ann.token, 0).await;
    back.send_message("c1", "again").await;
    assert_eq!(offsets(&back.messages(1).await), [1]);
    one.stop().await;
}
