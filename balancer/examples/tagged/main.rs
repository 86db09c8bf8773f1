//! Does an answer ever reach another request than its own?
//!
//!     cargo run --release -p balancer --example tagged -- target/release/balancer [--requests N] [--seed N]
//!
//! Clients ask origins through the balancer, over connections that are kept on both sides, and disturb them in every
//! way that connections are disturbed: bodies that are cut, answers before the body's end, upgrades and refused ones, late
//! answers, unasked bytes, clients that leave, origins that drop a connection, drop all, or fail and so make the balancer ask another.
//! Each answer carries its request's id, in its head and all through its body. Half of the clients speak HTTP/2, and of
//! three requests one goes to origins in clear, one to origins over TLS, one to origins that speak HTTP/2.

mod client;
mod h2_client;
mod h2_origin;
mod http;
mod origin;
#[path = "../corpus/random.rs"]
#[allow(dead_code, reason = "the corpus needs more of it")]
mod random;
mod run;
mod tally;
mod ways;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

#[derive(Debug, Parser)]
struct Args {
    /// The balancer under test.
    balancer: PathBuf,
    #[arg(long, default_value_t = 10_000_000)]
    requests: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections at a time.
    #[arg(long, default_value_t = 64)]
    clients: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let began = Instant::now();
    let tally = run::run(&args.balancer, args.requests, args.seed, args.clients);
    let seconds = began.elapsed().as_secs_f64();
    let asked = tally.asked.get();
    println!("{asked} requests in {seconds:.0} s, {:.0} a second", asked as f64 / seconds);
    for ((way, act, outcome), count) in tally.outcomes.borrow().iter() {
        println!("{count:>9}  {way}, {act}: {outcome}");
    }
    let (foreign, failed) = (tally.foreign.borrow(), tally.failed.borrow());
    println!("{} answers that belong to another request", foreign.len());
    println!("{} without an answer and without an end", failed.len());
    println!(
        "{} cut or refused that nothing had disturbed; origins that died explain {}",
        tally.spoilt(),
        tally.spoilt_max(args.clients)
    );
    let faults = tally.faults(args.clients);
    foreign.iter().chain(failed.iter()).chain(&faults).take(20).for_each(|fault| println!("  FAULT {fault}"));
    match foreign.is_empty() && failed.is_empty() && faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
