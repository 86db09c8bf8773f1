//! Latency at a set rate, open loop: a request is due when its time has come, whether or not earlier ones are answered,
//! and its latency counts from then. A stall so shows in all requests that it held up.
//!
//!     cargo run --release -p balancer --example pace -- PORT --rate N [--connections N] [--seconds N]
//!
//! One line: requests, rate, p50, p99, p99.9 and the longest, in microseconds; every status and body length is checked.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::net::TcpStream;
use tokio::sync::Notify;

#[path = "tagged/http.rs"]
#[allow(dead_code, reason = "a client needs only a part")]
mod http;

use http::Conn;

#[derive(Debug, Parser)]
struct Args {
    port: u16,
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// Requests that are due and that no connection has taken.
#[derive(Default)]
struct Due {
    waiting: RefCell<VecDeque<Instant>>,
    added: Notify,
}

fn main() {
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let mut took = tokio::task::LocalSet::new().block_on(&runtime, run(&args));
    took.sort_unstable();
    let at = |part: f64| {
        took.get((took.len() as f64 * part) as usize).or(took.last()).map_or(0, Duration::as_micros)
    };
    println!(
        "{} requests, {} a second, p50 {} µs, p99 {} µs, p99.9 {} µs, longest {} µs",
        took.len(),
        took.len() as u64 / args.seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

async fn run(args: &Args) -> Vec<Duration> {
    let due = Rc::new(Due::default());
    let took = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..args.connections {
        let stream = TcpStream::connect(("127.0.0.1", args.port)).await.expect("somebody listens");
        tokio::task::spawn_local(ask(Conn::new(stream), due.clone(), took.clone()));
    }
    let (began, total) = (Instant::now(), args.rate * args.seconds);
    let mut made = 0;
    while made < total {
        // Timers are as fine as a millisecond: the requests of one millisecond come in one burst.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let elapsed = began.elapsed();
        let should = ((elapsed.as_secs_f64() * args.rate as f64) as u64).min(total);
        for _ in made..should {
            due.waiting.borrow_mut().push_back(Instant::now());
            due.added.notify_one();
        }
        made = should;
    }
    let patience = Instant::now() + Duration::from_secs(10);
    while (took.borrow().len() as u64) < total && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took.take()
}

async fn ask(mut conn: Conn, due: Rc<Due>, took: Rc<RefCell<Vec<Duration>>>) {
    loop {
        let next = due.waiting.borrow_mut().pop_front();
        let Some(at) = next else {
            due.added.notified().await;
            continue;
        };
        conn.send(b"GET / HTTP/1.1\r\nHost: pace\r\n\r\n").await.expect("the connection stays");
        let head = conn.head().await.expect("the connection stays");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        conn.body(&head).await.expect("the body is whole");
        took.borrow_mut().push(at.elapsed());
    }
}
