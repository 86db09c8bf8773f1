//! What an idle client costs: opens connections through a proxy, lets them idle, and reads the proxy's memory.
//!
//!     cargo run --release -p balancer --example idle -- PORT PID --count N [--tunnels-to PORT]
//!
//! PORT is the proxy's, PID its (worker) process. Each connection has had one request answered before it idles. With
//! `--tunnels-to` each is a WebSocket to an origin that this program runs on that port, and has carried one message.

use std::time::Duration;

use clap::Parser;
use tokio::net::{TcpListener, TcpStream};

#[path = "tagged/http.rs"]
#[allow(dead_code, reason = "a client needs only a part")]
mod http;

use http::{Conn, Ended};

/// Time for buffers that a burst needed to be given back.
const SETTLE: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
struct Args {
    port: u16,
    pid: u32,
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    #[arg(long)]
    tunnels_to: Option<u16>,
}

fn main() {
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    tokio::task::LocalSet::new().block_on(&runtime, run(&args));
}

async fn run(args: &Args) {
    if let Some(port) = args.tunnels_to {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        tokio::task::spawn_local(accept(listener));
    }
    // What the first connections make the proxy allocate for itself is not theirs.
    let warm = open(args).await;
    drop(warm);
    tokio::time::sleep(SETTLE).await;
    let before = rss_kb(args.pid);
    let mut open_ones = Vec::new();
    for _ in 0..args.count {
        open_ones.push(open(args).await);
    }
    tokio::time::sleep(SETTLE).await;
    let after = rss_kb(args.pid);
    let each = (after.saturating_sub(before) * 1024) as f64 / args.count as f64;
    println!(
        "{} connections: {before} kB before, {after} kB with them, {each:.0} bytes each",
        open_ones.len()
    );
}

async fn open(args: &Args) -> Conn {
    let stream = TcpStream::connect(("127.0.0.1", args.port)).await.expect("somebody listens");
    let mut conn = Conn::new(stream);
    let opened = match args.tunnels_to {
        Some(_) => open_tunnel(&mut conn).await,
        None => ask(&mut conn).await,
    };
    opened.expect("an answer comes");
    conn
}

async fn ask(conn: &mut Conn) -> Result<(), Ended> {
    conn.send(b"GET / HTTP/1.1\r\nHost: idle\r\n\r\n").await?;
    let head = conn.head().await?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    conn.body(&head).await.map(drop)
}

async fn open_tunnel(conn: &mut Conn) -> Result<(), Ended> {
    let request = "GET /ws HTTP/1.1\r\nHost: idle\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    conn.send(request.as_bytes()).await?;
    let head = conn.head().await?;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    conn.send(b"8 bytes!").await?;
    conn.take(8).await.map(drop)
}

async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            let mut conn = Conn::new(stream);
            let switched =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            if conn.head().await.is_err() || conn.send(switched.as_bytes()).await.is_err() {
                return;
            }
            while let Ok(message) = conn.take(8).await {
                if conn.send(&message).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn rss_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("each process has it");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("it is a number")
}
