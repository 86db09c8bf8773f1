//! Generated requests and answers, by the million: do we and the servers behind us agree on where each one ends?
//!
//!     cargo run --release -p balancer --example corpus -- target/release/balancer [--cases N] [--seed N] [--origins LIST]
//!
//! Each case goes through the balancer to a real origin with a canary behind it in the same write. Either the case is
//! refused and its connection ends, or there are exactly two answers, each with the id of its request; and the origin's own
//! log must hold each request that we sent once, and nothing else. `--origins` names some of nginx, apache2, lighttpd,
//! hyper, strict and answers (hostile origins); all without it. N cases go to each.

mod answers;
mod client;
mod drive;
mod hostile;
mod origins;
mod random;
mod requests;
mod run;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use drive::Plan;

/// Connections end only where a case says so.
const KEEPS: &str = "keepalive_requests 1000000000;";

#[derive(Debug, Parser)]
struct Args {
    /// The balancer under test.
    balancer: PathBuf,
    /// For each origin.
    #[arg(long, default_value_t = 200_000)]
    cases: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_delimiter = ',', default_value = "nginx,apache2,lighttpd,hyper,strict,answers")]
    origins: Vec<String>,
    /// Connections at a time.
    #[arg(long, default_value_t = 8)]
    threads: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut faults = 0;
    for (place, name) in args.origins.iter().enumerate() {
        let first = 1 + place as u64 * args.cases;
        let plan =
            Plan { seed: args.seed, first, count: args.cases, threads: args.threads, directives: KEEPS };
        let began = Instant::now();
        let tally = run::run(&args.balancer, name, plan);
        println!(
            "== {name}: {} cases in {:.0} s, {} faults",
            plan.count,
            began.elapsed().as_secs_f64(),
            tally.faults_len
        );
        for ((kind, outcome), count) in &tally.outcomes {
            println!("{count:>9}  {kind}: {outcome}");
        }
        tally.faults.iter().for_each(|fault| println!("  FAULT {fault}"));
        faults += tally.faults_len;
    }
    println!("{faults} faults");
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
