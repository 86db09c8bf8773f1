//! Floods of HTTP/2 frames, and what they cost the server: its largest memory and whether it still answers.
//!
//!     cargo run --release -p balancer --example flood -- PORT PID [--seconds N] [--connections N]
//!
//! PORT speaks HTTP/2 in clear text; PID is the server's (worker) process. Each flood runs on its own connections, which
//! are opened again when the server closes them. It fails where memory grows past `--free-kb` and `--connection-kb` for each
//! connection at a time (measured: 2 to 7 MB in all with 8 of them), or where a good request is not answered meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET http://a/` as HPACK writes it.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Debug, Parser)]
struct Args {
    port: u16,
    pid: u32,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// So much may the server's memory grow whatever comes: its allocator keeps what it has had.
    #[arg(long, default_value_t = 8192)]
    free_kb: u64,
    /// And so much for each connection at a time: 128 streams with their heads, and what waits to be sent.
    #[arg(long, default_value_t = 512)]
    connection_kb: u64,
}

/// Writes the next frames of a connection, given how often it was asked.
type Flood = fn(turn: u32, out: &mut Vec<u8>);

const FLOODS: &[(&str, Flood)] = &[
    ("rapid reset (CVE-2023-44487)", rapid_reset),
    ("reset by fault (CVE-2025-8671)", reset_by_fault),
    ("CONTINUATION without end (CVE-2024-27316)", continuation),
    ("header bomb", bomb),
    ("PING", ping),
    ("SETTINGS", settings),
    ("empty DATA", empty_data),
    ("window never opened", window_stall),
];

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

fn rapid_reset(turn: u32, out: &mut Vec<u8>) {
    frame(out, HEADERS, END_HEADERS | END_STREAM, turn * 2 + 1, GET);
    frame(out, RST_STREAM, 0, turn * 2 + 1, &8u32.to_be_bytes());
}

/// The server itself is made to reset each stream: its window grows past what a window may be.
fn reset_by_fault(turn: u32, out: &mut Vec<u8>) {
    frame(out, HEADERS, END_HEADERS | END_STREAM, turn * 2 + 1, GET);
    frame(out, WINDOW_UPDATE, 0, turn * 2 + 1, &0x7fff_ffffu32.to_be_bytes());
}

fn continuation(turn: u32, out: &mut Vec<u8>) {
    let field = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat().repeat(150);
    match turn {
        0 => frame(out, HEADERS, 0, 1, GET),
        _ => frame(out, CONTINUATION, 0, 1, &field),
    }
}

/// One long field in the table, and a head that names it ten thousand times.
fn bomb(turn: u32, out: &mut Vec<u8>) {
    let mut head = GET.to_vec();
    // 127 in the prefix, then what is over, seven bits at a time: 127 + 1 + 30 * 128.
    head.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0x81, 30]);
    head.extend_from_slice(&[b'y'; 128 + 30 * 128]);
    head.extend_from_slice(&[0xbe; 10_000]);
    frame(out, HEADERS, END_HEADERS | END_STREAM, turn * 2 + 1, &head);
}

fn ping(_: u32, out: &mut Vec<u8>) {
    frame(out, PING, 0, 0, &[0; 8]);
}

fn settings(_: u32, out: &mut Vec<u8>) {
    frame(out, SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
}

fn empty_data(turn: u32, out: &mut Vec<u8>) {
    match turn {
        0 => frame(out, HEADERS, END_HEADERS, 1, &[0x83, 0x86, 0x84, 0x41, 1, b'a']),
        _ => frame(out, DATA, 0, 1, b""),
    }
}

/// A hundred answers are asked for and none is let in.
fn window_stall(turn: u32, out: &mut Vec<u8>) {
    match turn {
        0 => frame(out, SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        1..=100 => frame(out, HEADERS, END_HEADERS | END_STREAM, turn * 2 + 1, GET),
        _ => frame(out, PING, 0, 0, &[0; 8]),
    }
}

/// What one flood has done.
#[derive(Debug, Default)]
struct Damage {
    sent: u64,
    opened: u64,
    held_max_kb: u64,
    good: u32,
    /// Good requests without an answer.
    lost: u32,
    slowest: Duration,
}

impl Damage {
    /// Why it is too much.
    fn faults(&self, allowed_kb: u64) -> Vec<String> {
        let found = [
            (self.sent == 0, "nothing was sent".to_owned()),
            (self.held_max_kb > allowed_kb, format!("{} kB, {allowed_kb} are allowed", self.held_max_kb)),
            (self.lost > 0, format!("{} good requests were not answered", self.lost)),
            (self.good == 0, "no good request was answered".to_owned()),
        ];
        found.into_iter().filter(|(is_so, _)| *is_so).map(|(_, what)| what).collect()
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let before = held_kb(args.pid);
    let allowed = before + args.free_kb + args.connection_kb * args.connections as u64;
    println!("before: {before} kB; up to {allowed} kB are allowed");
    let mut is_sound = true;
    for (name, flood) in FLOODS {
        let damage = run(&args, *flood);
        println!(
            "{name}: {} MB of frames over {} connections; at most {} kB; {} good requests answered meanwhile, the slowest in {} ms",
            damage.sent >> 20,
            damage.opened,
            damage.held_max_kb,
            damage.good,
            damage.slowest.as_millis()
        );
        for fault in damage.faults(allowed) {
            println!("  FAULT {fault}");
            is_sound = false;
        }
    }
    println!("after: {} kB", held_kb(args.pid));
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(args: &Args, flood: Flood) -> Damage {
    let (sent, opened, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let mut damage = Damage::default();
    std::thread::scope(|scope| {
        for _ in 0..args.connections {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    opened.fetch_add(1, Relaxed);
                    let _ = attack(args.port, flood, &sent, &is_over);
                }
            });
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(args.seconds) {
            let asked = Instant::now();
            match is_answered(args.port) {
                true => damage.good += 1,
                false => damage.lost += 1,
            }
            damage.slowest = damage.slowest.max(asked.elapsed());
            damage.held_max_kb = damage.held_max_kb.max(held_kb(args.pid));
        }
        is_over.store(true, Relaxed);
    });
    Damage { sent: sent.into_inner(), opened: opened.into_inner(), ..damage }
}

/// Sends frames until the server has had enough.
fn attack(port: u16, flood: Flood, sent: &AtomicU64, is_over: &AtomicBool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(PREFACE)?;
    let mut out = Vec::new();
    frame(&mut out, SETTINGS, 0, 0, b"");
    let (mut turn, mut space) = (0, [0; 65536]);
    while !is_over.load(Relaxed) {
        while out.len() < 16384 {
            flood(turn, &mut out);
            turn += 1;
        }
        stream.write_all(&out)?;
        sent.fetch_add(out.len() as u64, Relaxed);
        out.clear();
        match stream.read(&mut space) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A request of HTTP/1.1 on a connection of its own.
fn is_answered(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut answer = [0; 12];
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && &answer == b"HTTP/1.1 200"
}

/// Memory of its own: pages of the program itself are counted as they are first used.
fn held_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("each process has it");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("it is a number")
}
