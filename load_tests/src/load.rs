//! A run from the command line: prints progress and tables, writes the files, gives the exit code.

use crate::args::LoadArgs;
use crate::generator;
use crate::logic::plan::Plan;
use crate::logic::{csv, durations, report, table};
use crate::run::{self, Figures, Second, Watch};
use anyhow::{Context, anyhow};
use chassis::listen::OpenFiles;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// Seconds between two progress lines, as locust has it.
const PROGRESS_SECONDS: u64 = 2;

/// Runs, reports, and fails when one answer was wrong.
pub async fn run(args: &LoadArgs, files: OpenFiles, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let plan = args.plan(random_seed()?).map_err(|error| anyhow!(error))?;
    announce(&plan, files);
    let mut screen = Screen::open(&plan, args.csv.as_deref())?;
    let figures = run::execute(plan.clone(), &mut screen, stop).await?;
    print_tables(&figures);
    if let Some(prefix) = &args.csv {
        write_csv(prefix, &figures, screen.began_unix_s)?;
    }
    if let Some(path) = &args.json {
        let document = report::json(&figures.stats, &plan, &generator::environment(), figures.generator);
        write(path, &format!("{document:#}\n"))?;
    }
    Ok(verdict(&figures))
}

fn announce(plan: &Plan, files: OpenFiles) {
    println!(
        "{} users ({}) at {}, closed loop for {}, seed {}",
        plan.arrival.users(),
        plan.mix,
        plan.target,
        durations::show(plan.run_time),
        plan.seed
    );
    if u64::from(plan.arrival.users()) + 100 > files.soft {
        println!("note: this process may open {} files: fewer users than asked for can connect", files.soft);
    }
}

fn print_tables(figures: &Figures) {
    let elapsed = figures.generator.elapsed;
    println!("\n{}\n{}", table::requests(&figures.stats, elapsed), table::percentiles(&figures.stats));
    let faults = table::faults(&figures.stats);
    if !faults.is_empty() {
        println!("{faults}");
    }
    println!("generator: {:.0} % of one core", 100.0 * figures.generator.cpu_share());
    if figures.generator.is_suspect() {
        println!("note: the generator was busy itself; its times may be its own");
    }
}

fn verdict(figures: &Figures) -> ExitCode {
    if figures.stuck > 0 {
        println!("FAILED: {} users did not come to an end", figures.stuck);
        return ExitCode::FAILURE;
    }
    match (figures.stats.failures(), figures.stats.total().requests) {
        (0, 0) => {
            println!("FAILED: nothing was asked; run longer");
            ExitCode::FAILURE
        }
        (0, requests) => {
            println!("OK: {requests} requests, no errors");
            ExitCode::SUCCESS
        }
        (failures, requests) => {
            println!("FAILED: {failures} errors in {requests} requests");
            ExitCode::FAILURE
        }
    }
}

/// Prints progress and keeps the history file.
struct Screen {
    users: u32,
    began_unix_s: f64,
    history: Option<File>,
}

impl Screen {
    fn open(plan: &Plan, prefix: Option<&Path>) -> anyhow::Result<Self> {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        let mut screen =
            Self { users: plan.arrival.users(), began_unix_s: began.as_secs_f64(), history: None };
        if let Some(prefix) = prefix {
            let path = with_suffix(prefix, "_stats_history.csv");
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make the folder {}", folder.display()))?;
            }
            write(&path, &csv::history_header())?;
            screen.history = Some(fs::OpenOptions::new().append(true).open(&path)?);
        }
        Ok(screen)
    }
}

impl Watch for Screen {
    fn on_setup(&mut self, accounts: usize, rooms: usize, took: Duration) {
        println!("{accounts} accounts and {rooms} rooms set up in {:.1} s", took.as_secs_f64());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.began_unix_s = now.as_secs_f64();
    }

    fn on_second(&mut self, second: &Second<'_>) {
        let seconds = second.at.as_secs();
        if seconds.is_multiple_of(PROGRESS_SECONDS) {
            let failures = second.stats.failures();
            println!("{}", table::progress(&second.recent, second.at, (second.users, self.users), failures));
        }
        if let Some(history) = &mut self.history {
            let unix_s = self.began_unix_s as i64 + seconds as i64;
            let row = csv::history_row(unix_s, second.users, &second.recent, second.stats.total());
            if let Err(error) = history.write_all(row.as_bytes()) {
                tracing::warn!(%error, "cannot write the history; it ends here");
                self.history = None;
            }
        }
    }
}

fn write_csv(prefix: &Path, figures: &Figures, began_unix_s: f64) -> anyhow::Result<()> {
    let elapsed = figures.generator.elapsed;
    write(&with_suffix(prefix, "_stats.csv"), &csv::stats(&figures.stats, elapsed))?;
    write(&with_suffix(prefix, "_failures.csv"), &csv::failures(&figures.stats, began_unix_s))?;
    write(&with_suffix(prefix, "_exceptions.csv"), &csv::exceptions())
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn random_seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random seed: {error}"))?;
    // Seven digits are easy to type again.
    Ok(u64::from_le_bytes(bytes) % 10_000_000)
}
