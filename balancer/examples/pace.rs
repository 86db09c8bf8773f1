//! Latency at a set rate, open loop: a request is due when its time has come, whether or not earlier ones are answered,
//! and its latency counts from then. A stall so shows in all requests that it held up.
//!
//!     cargo run --release -p balancer --example pace -- PORT --rate N [--connections N] [--seconds N]
//!
//! One line: requests, rate, p50, p99, p99.9 and the longest, in microseconds. It fails when a request was not answered with
//! 200 and a body as long as that of all others; what was not answered counts with all the time that it was waited for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::process::ExitCode;
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

/// What is waited for answers once all requests are due.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests that are due and that no connection has taken.
#[derive(Default)]
struct Due {
    waiting: RefCell<VecDeque<Instant>>,
    added: Notify,
    is_all: Cell<bool>,
}

#[derive(Default)]
struct Tally {
    took: RefCell<Vec<Duration>>,
    wrong: RefCell<Vec<String>>,
    /// Of the first body: that of all others.
    len: Cell<Option<usize>>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let tally = Rc::new(Tally::default());
    let unanswered = tokio::task::LocalSet::new().block_on(&runtime, run(&args, &tally));
    let (mut took, wrong) = (tally.took.take(), tally.wrong.take());
    let answered = took.len();
    took.extend(&unanswered);
    took.sort_unstable();
    let at = |part: f64| {
        took.get((took.len() as f64 * part) as usize).or(took.last()).map_or(0, Duration::as_micros)
    };
    println!(
        "{answered} requests, {} a second, p50 {} µs, p99 {} µs, p99.9 {} µs, longest {} µs",
        answered as u64 / args.seconds,
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    if wrong.is_empty() && unanswered.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("FAULT {} answered wrongly, {} not answered", wrong.len(), unanswered.len());
    wrong.iter().take(5).for_each(|what| println!("  {what}"));
    ExitCode::FAILURE
}

/// Comes back with how long each request has waited that was not answered.
async fn run(args: &Args, tally: &Rc<Tally>) -> Vec<Duration> {
    let due = Rc::new(Due::default());
    let mut asking = Vec::new();
    for _ in 0..args.connections {
        let conn = connect(args.port).await.expect("somebody listens");
        asking.push(tokio::task::spawn_local(ask(args.port, conn, due.clone(), tally.clone())));
    }
    let (began, total) = (Instant::now(), args.rate * args.seconds);
    let scheduled = |number: u64| began + Duration::from_secs_f64(number as f64 / args.rate as f64);
    let mut made = 0;
    while made < total {
        // Timers are as fine as a millisecond: the requests of one millisecond come in one burst.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let should = ((began.elapsed().as_secs_f64() * args.rate as f64) as u64).min(total);
        for number in made..should {
            due.waiting.borrow_mut().push_back(scheduled(number));
            due.added.notify_one();
        }
        made = should;
    }
    due.is_all.set(true);
    due.added.notify_waiters();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut unanswered = Vec::new();
    for mut task in asking {
        match tokio::time::timeout_at(deadline, &mut task).await {
            Ok(ended) => ended.expect("a client does not panic"),
            // Its request hangs; how long is as good as known.
            Err(_) => unanswered.push(PATIENCE),
        }
    }
    unanswered.extend(due.waiting.take().iter().map(Instant::elapsed));
    unanswered
}

async fn connect(port: u16) -> Option<Conn> {
    TcpStream::connect(("127.0.0.1", port)).await.ok().map(Conn::new)
}

/// Takes what is due until nothing more will be.
async fn ask(port: u16, mut conn: Conn, due: Rc<Due>, tally: Rc<Tally>) {
    loop {
        let next = due.waiting.borrow_mut().pop_front();
        let Some(at) = next else {
            if due.is_all.get() {
                return;
            }
            due.added.notified().await;
            continue;
        };
        match answered(&mut conn, &tally).await {
            Ok(()) => tally.took.borrow_mut().push(at.elapsed()),
            Err(what) => {
                tally.wrong.borrow_mut().push(what);
                match connect(port).await {
                    Some(other) => conn = other,
                    None => return,
                }
            }
        }
    }
}

async fn answered(conn: &mut Conn, tally: &Tally) -> Result<(), String> {
    let ended = |_| "the connection ended".to_owned();
    conn.send(b"GET / HTTP/1.1\r\nHost: pace\r\n\r\n").await.map_err(ended)?;
    let head = conn.head().await.map_err(ended)?;
    let body = conn.body(&head).await.map_err(ended)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(head.lines().next().unwrap_or_default().to_owned());
    }
    let len = tally.len.get().unwrap_or(body.len());
    tally.len.set(Some(len));
    if body.len() == len { Ok(()) } else { Err(format!("a body of {} bytes and not of {len}", body.len())) }
}
