//! How long a good client waits while others send hostile bytes before their login.
//!
//!     cargo run --release -p pooler --example hostile -- HOST:PORT USER DATABASE [SECONDS [ATTACKS_PER_SECOND]]
//!
//! Three times the same client asks `SELECT 1` over one connection, one after the other: in quiet; while attackers work
//! on a listener of this program that reads and closes (what the attackers themselves take from the machine); while
//! they work on the pooler. Attacks begin at a given rate, whatever became of those before them, so that two poolers
//! are compared under the same attack: who closes a connection faster is not attacked more often for it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pgwire::{Head, frontend, startup};

/// Enough that attacks which hang do not lower the rate.
const ATTACKERS: u32 = 32;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &'static str| args.next().context(what);
    let (address, user, database) = (next("HOST:PORT")?, next("USER")?, next("DATABASE")?);
    let seconds: u64 = next("SECONDS").ok().map_or(Ok(5), |text| text.parse())?;
    let rate: u32 = next("ATTACKS_PER_SECOND").ok().map_or(Ok(500), |text| text.parse())?;
    let mut client = log_in(&address, &user, &database)?;
    let sink = listen_and_close()?;
    println!("{:<28}{:>9}{:>10}{:>10}{:>10}{:>12}", "", "queries", "p50 µs", "p99 µs", "max µs", "attacks/s");
    for (name, target) in
        [("quiet", None), ("attack on nobody", Some(sink)), ("attack on the pooler", Some(address))]
    {
        let attack = Attack::start(target, rate, &user, &database);
        let mut times = ask_for(&mut client, Duration::from_secs(seconds))?;
        let attacks = attack.stop() / seconds;
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!("{name:<28}{:>9}{:>10}{:>10}{:>10}{attacks:>12}", times.len(), at(0.5), at(0.99), at(1.0));
    }
    Ok(())
}

fn log_in(address: &str, user: &str, database: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(&startup_message(user, database))?;
    read_to_ready(&mut stream).context("the good client's login; it takes no password")?;
    Ok(stream)
}

fn startup_message(user: &str, database: &str) -> Vec<u8> {
    let mut out = Vec::new();
    startup::startup(&mut out, 0, [("user", user), ("database", database)]);
    out
}

/// Microseconds that each query took.
fn ask_for(client: &mut TcpStream, time: Duration) -> anyhow::Result<Vec<u64>> {
    let mut query = Vec::new();
    frontend::query(&mut query, "SELECT 1");
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < time {
        let asked = Instant::now();
        client.write_all(&query)?;
        read_to_ready(client)?;
        times.push(asked.elapsed().as_micros() as u64);
    }
    Ok(times)
}

fn read_to_ready(stream: &mut TcpStream) -> anyhow::Result<()> {
    let (mut unread, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(head) = Head::parse(&unread)?.filter(|head| unread.len() >= head.total_len()) {
            ensure!(head.kind != b'E', "{}", String::from_utf8_lossy(&unread));
            unread.drain(..head.total_len());
            if head.kind == b'Z' {
                return Ok(());
            }
        }
        let len = stream.read(&mut buffer)?;
        ensure!(len > 0, "closed");
        unread.extend_from_slice(&buffer[..len]);
    }
}

/// Reads what comes for a moment and closes, as a pooler does with hostile bytes.
fn listen_and_close() -> anyhow::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).read(&mut [0; 4096]);
        }
    });
    Ok(address)
}

struct Attack {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Attack {
    fn start(target: Option<String>, rate: u32, user: &str, database: &str) -> Attack {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let openings = Arc::new(openings(user, database));
        let attackers = target.iter().flat_map(|target| (0..ATTACKERS).map(move |n| (n, target.clone())));
        let (started, pause) = (Instant::now(), Duration::from_secs(1) / rate.max(1));
        let threads = attackers
            .map(|(number, target)| {
                let (stop, count, openings) = (stop.clone(), count.clone(), openings.clone());
                std::thread::spawn(move || {
                    for turn in (number..).step_by(ATTACKERS as usize) {
                        std::thread::park_timeout((pause * turn).saturating_sub(started.elapsed()));
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        strike(&target, &openings[turn as usize % openings.len()]);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Attack { stop, count, threads }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.count.load(Ordering::Relaxed)
    }
}

/// The opening, then bytes until the other side has enough of them.
fn strike(target: &str, opening: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(target) else { return };
    let _ = stream.set_write_timeout(Some(Duration::from_millis(50)));
    let _ = stream.write_all(opening);
    let flood = [b'A'; 16 * 1024];
    for _ in 0..64 {
        if stream.write_all(&flood).is_err() {
            return;
        }
    }
}

/// Endless, cut, of impossible lengths, twice the startup message.
fn openings(user: &str, database: &str) -> Vec<Vec<u8>> {
    let login = startup_message(user, database);
    let mut ssl = Vec::new();
    startup::ssl_request(&mut ssl);
    vec![
        vec![],
        vec![0],
        vec![0, 0, 0x27, 0x10, 0, 3, 0, 0],
        vec![0xff; 8],
        vec![0x16, 3, 1, 0xff, 0xff],
        ssl,
        login[..login.len() - 1].to_vec(),
        [login.as_slice(), &login].concat(),
        [login.as_slice(), b"p\x7f\xff\xff\xff"].concat(),
    ]
}
