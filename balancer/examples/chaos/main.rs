//! Heavy load while origins die, come back and grow slow, and the configuration is reloaded: what is lost?
//!
//!     cargo run --release -p balancer --example chaos -- target/release/balancer [--seconds N] [--clients N] [--rate N]
//!
//! Ten origins, and one for WebSockets, which is left in peace. Clients ask for GETs and POSTs with ids at a set rate;
//! the WebSockets talk all the while. In each of twenty rounds an origin is killed, or started again, or made ten times slower, or fast again, and the balancer is told to
//! reload. An idempotent request whose answer had not begun may not fail; a POST may not reach origins twice; no
//! WebSocket may be dropped. No more POSTs may be refused, and answers cut, than can have been under way when origins were killed; each
//! reload counts, and the rate is kept.

mod clients;
#[path = "../tagged/http.rs"]
mod http;
mod nodes;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use clients::Tally;
use nodes::{Nodes, Order};

const ROUNDS: usize = 20;
/// Those that are killed and slowed; one more serves the WebSockets.
const NODES: usize = 10;
/// Of the rate that is asked for.
const SHARE_REACHED_MIN: f64 = 0.9;

#[derive(Debug, Parser)]
struct Args {
    /// The balancer under test.
    balancer: PathBuf,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Connections at a time.
    #[arg(long, default_value_t = 128)]
    clients: u64,
    #[arg(long, default_value_t = 100)]
    tunnels: usize,
    /// Requests a second, all clients together; 0 is as many as go.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let dir = tempfile::tempdir().expect("a folder can be made");
    let nodes = Nodes::start(NODES + 1);
    let port = free_port();
    let balancer = KillOnDrop(start_balancer(&args.balancer, dir.path(), port, nodes.ports()));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let tally = Rc::new(Tally::default());
    let began = Instant::now();
    tokio::task::LocalSet::new().block_on(&runtime, run(&args, port, &nodes, balancer.0.id(), tally.clone()));
    let seconds = began.elapsed().as_secs_f64();
    let errors = std::fs::read_to_string(dir.path().join("error.log")).unwrap_or_default();
    let reloads = errors.lines().filter(|line| line.ends_with(" reconfigured")).count();
    let is_lossless = report(&tally, &nodes, seconds);
    let is_sound = is_as_asked(&args, &tally, seconds, reloads);
    if is_lossless && is_sound { ExitCode::SUCCESS } else { fail(&errors) }
}

fn fail(errors: &str) -> ExitCode {
    errors.lines().rev().take(10).for_each(|line| println!("  {line}"));
    ExitCode::FAILURE
}

async fn run(args: &Args, port: u16, nodes: &Nodes, balancer: u32, tally: Rc<Tally>) {
    clients::await_port(port).await;
    let pause =
        Duration::from_secs_f64(if args.rate > 0 { args.clients as f64 / args.rate as f64 } else { 0.0 });
    let asking: Vec<_> = (0..args.clients)
        .map(|number| tokio::task::spawn_local(clients::ask(port, number, pause, tally.clone())))
        .collect();
    let talking: Vec<_> =
        (0..args.tunnels).map(|_| tokio::task::spawn_local(clients::talk(port, tally.clone()))).collect();
    let round_time = Duration::from_secs(args.seconds) / ROUNDS as u32;
    let master = Pid::from_raw(balancer.cast_signed());
    for round in 0..ROUNDS {
        tokio::time::sleep(round_time).await;
        nodes.order(order_of(round));
        kill(master, Signal::SIGHUP).expect("the balancer runs");
    }
    tokio::time::sleep(round_time).await;
    tally.is_over.set(true);
    for task in asking.into_iter().chain(talking) {
        task.await.expect("a client does not panic");
    }
}

/// Four orders in turn, to other nodes each time; never more than one node is dead.
fn order_of(round: usize) -> Order {
    let node = round / 4 % NODES;
    match round % 4 {
        0 => Order::Kill(node),
        1 => Order::Slow((node + 5) % NODES),
        2 => Order::Start(node),
        _ => Order::Fast((node + 5) % NODES),
    }
}

fn report(tally: &Tally, nodes: &Nodes, seconds: f64) -> bool {
    let (gets, posts) = (tally.gets.get(), tally.posts.borrow().len());
    let (twice, lost) = nodes.judge(&tally.posts.borrow());
    let (failed, dropped) = (tally.failed.borrow(), tally.dropped.borrow());
    println!(
        "{} requests answered in {seconds:.0} s, {:.0} a second",
        gets + posts as u64,
        (gets + posts as u64) as f64 / seconds
    );
    println!(
        "{gets} GETs answered; {} failed before their answer began; {} answers cut",
        failed.len(),
        tally.cut.get()
    );
    println!(
        "{posts} POSTs answered, {} refused with 502 or 504, {twice} seen twice, {lost} answered and never seen",
        tally.refused.get()
    );
    println!("{} messages over WebSockets, {} WebSockets dropped", tally.messages.get(), dropped.len());
    failed.iter().chain(dropped.iter()).take(10).for_each(|fault| println!("  FAULT {fault}"));
    failed.is_empty() && dropped.is_empty() && twice == 0 && lost == 0
}

/// What was to be done was done, and cost no more than it had to.
fn is_as_asked(args: &Args, tally: &Tally, seconds: f64, reloads: usize) -> bool {
    let kills = (0..ROUNDS).filter(|round| matches!(order_of(*round), Order::Kill(_))).count() as u64;
    // A client has one request under way.
    let doomed = kills * args.clients;
    let answered = tally.gets.get() + tally.posts.borrow().len() as u64 + tally.refused.get();
    let (reached, asked) = (answered as f64 / seconds, args.rate as f64);
    println!("{reloads} of {ROUNDS} reloads counted");
    let faults = [
        (reloads != ROUNDS, "a reload was refused or never came"),
        (tally.refused.get() > doomed, "more POSTs were refused than were under way at origins that died"),
        (tally.cut.get() > doomed, "more answers were cut than were under way at origins that died"),
        (
            reached < asked * SHARE_REACHED_MIN,
            "the rate was not reached: the machine or the balancer is too slow",
        ),
    ];
    let found: Vec<&str> = faults.iter().filter(|(is_so, _)| *is_so).map(|(_, what)| *what).collect();
    found.iter().for_each(|what| println!("  FAULT {what}"));
    found.is_empty()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

fn start_balancer(binary: &Path, dir: &Path, port: u16, origins: &[u16]) -> Child {
    let servers: String =
        origins[..NODES].iter().map(|port| format!("server 127.0.0.1:{port} fail_timeout=1s;")).collect();
    let d = dir.display();
    let text = format!(
        "daemon off; worker_processes 2; pid {d}/pid; error_log {d}/error.log notice; events {{ worker_connections 4096; }}\n\
         http {{ access_log off; upstream g {{ least_conn; {servers} keepalive 128; }} upstream ws {{ server 127.0.0.1:{}; }}\n\
         server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000000; proxy_http_version 1.1;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;\n\
         location / {{ proxy_pass http://g; }} location /ws {{ proxy_pass http://ws; }} }} }}\n",
        origins[NODES]
    );
    std::fs::write(dir.join("nginx.conf"), text).expect("the folder is ours");
    let mut command = Command::new(binary);
    command.arg("-p").arg(dir).args(["-c", "nginx.conf", "-e", "early.log"]);
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the balancer starts")
}
