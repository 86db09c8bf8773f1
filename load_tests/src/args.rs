//! The command line: locust's flags for a run, and `verify` for the checks of a running stack.

use crate::chaos::ChaosArgs;
use crate::logic::arrival::Arrival;
use crate::logic::durations;
use crate::logic::fleet::{self, Address, Replica};
use crate::logic::mix::Mix;
use crate::logic::plan::{Plan, Scenario, Wait};
use crate::logic::target::Target;
use crate::reads::ReadsArgs;
use crate::retries::RetriesArgs;
use crate::sockets::{BareArgs, SocketsArgs};
use crate::verify::Check;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Load generator and checks for the chat stack.
#[derive(Debug, Parser)]
#[command(name = "load_tests", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Option<Verb>,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Check a running stack: a PASS or FAIL line each; exit code 1 when one failed.
    Verify(Box<VerifyArgs>),
    /// Kill, restart or freeze parts of a running stack under load, and prove that no message was lost
    Chaos(Box<ChaosArgs>),
    /// Store many messages, a share of them sent twice or cut off: none may be doubled, none lost
    Retries(Box<RetriesArgs>),
    /// Write and read back through any replica, over standbys that lag: no read may be stale
    Reads(Box<ReadsArgs>),
    /// Measure what WebSockets cost one replica
    Sockets(Box<SocketsArgs>),
    /// The yardstick of `sockets`, which starts it
    #[command(hide = true)]
    BareWrites(BareArgs),
}

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Where the stack is: http://HOST[:PORT]
    #[arg(short = 'H', long, default_value = "http://127.0.0.1:8080")]
    host: Target,
    /// Users at the same time
    #[arg(short, long)]
    users: Option<u32>,
    /// Users that start per second
    #[arg(short = 'r', long)]
    spawn_rate: Option<f64>,
    /// How long to run: 30s, 2m, 1h30m
    #[arg(short = 't', long, value_parser = durations::parse)]
    run_time: Option<Duration>,
    /// Taken for locust's sake: there is no other way to run
    #[arg(long)]
    headless: bool,
    /// api, stream, ws, mixed, or one with the documents' numbers: baseline, stress, sustained
    #[arg(long, default_value = "mixed")]
    scenario: Scenario,
    /// Shares of the kinds of users: api=6,stream=2,ws=2
    #[arg(long)]
    mix: Option<Mix>,
    /// Pause between two requests of a user: 1s..3s, or 0 for none
    #[arg(long, default_value = "500ms..1500ms")]
    wait: Wait,
    /// Accounts to register and share among the users
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    accounts: u32,
    /// Members of one room
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    room_size: u32,
    /// Loopback networks to come from (127.0.1.1, 127.0.2.1, …), so that ip_hash spreads the users; 0: as the system chooses
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=250))]
    sources: u8,
    /// Time within which an answer must come
    #[arg(long, default_value = "30s", value_parser = durations::parse)]
    timeout: Duration,
    /// Makes a run repeatable; printed when not given
    #[arg(long)]
    seed: Option<u64>,
    /// Write PREFIX_stats.csv, PREFIX_stats_history.csv, PREFIX_failures.csv, PREFIX_exceptions.csv as locust does
    #[arg(long, value_name = "PREFIX")]
    pub csv: Option<PathBuf>,
    /// Write everything as one JSON document
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl LoadArgs {
    /// The plan these flags ask for.
    pub fn plan(&self, random_seed: u64) -> Result<Plan, String> {
        let defaults = self.scenario.defaults();
        let users = self.users.unwrap_or(defaults.users);
        let spawn_per_s = self.spawn_rate.unwrap_or(defaults.spawn_per_s);
        if users == 0 {
            return Err("--users must be at least 1".to_owned());
        }
        if !(spawn_per_s.is_finite() && spawn_per_s > 0.0) {
            return Err("--spawn-rate must be a number of users per second above 0".to_owned());
        }
        let run_time = self.run_time.unwrap_or(defaults.run_time);
        if run_time.is_zero() || self.timeout.is_zero() {
            return Err("--run-time and --timeout must be longer than 0".to_owned());
        }
        Ok(Plan {
            target: self.host.clone(),
            arrival: Arrival::Closed { users, spawn_per_s },
            mix: self.mix.unwrap_or(defaults.mix),
            run_time,
            wait: self.wait,
            accounts: self.accounts,
            room_size: self.room_size,
            sources: self.sources,
            seed: self.seed.unwrap_or(random_seed),
            answer_limit: self.timeout,
        })
    }
}

/// Where the stack is.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// What `stack status --json` printed; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub status: Option<PathBuf>,
    /// The balancer, when the status does not name it
    #[arg(long)]
    pub balancer: Option<Target>,
    /// A replica past the balancer; repeat for each
    #[arg(long = "replica", value_name = "NAME=HOST:PORT", value_parser = fleet::parse_replica)]
    pub replicas: Vec<Replica>,
    /// The pooler
    #[arg(long, value_name = "HOST:PORT", value_parser = fleet::parse_address)]
    pub pooler: Option<Address>,
    /// The stack was started without a pooler (--direct); a status tells it by itself
    #[arg(long, conflicts_with = "pooler")]
    pub direct: bool,
    /// Postgres itself, to count its connections
    #[arg(long, value_name = "HOST:PORT", value_parser = fleet::parse_address)]
    pub postgres: Option<Address>,
    /// Name of the database [or DB_NAME]
    #[arg(long)]
    pub database: Option<String>,
    /// User of database and console [or DB_USER]; the password comes from DB_PASSWORD, DB_PASSWORD_FILE, PGPASSFILE or the status's pgpass_file
    #[arg(long)]
    pub user: Option<String>,
    /// Settings for names and the password, below those of the environment
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The stack runs under docker: its parts are found by `docker inspect`, a replica is killed by `docker kill`
    #[arg(long)]
    pub docker: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Run these checks only, in the order of the list in the guide
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Check>,
    /// Leave these checks out; they are told as left out
    #[arg(long, value_enum, value_delimiter = ',')]
    pub skip: Vec<Check>,
    /// Users of the load check
    #[arg(long, default_value_t = 500)]
    pub users: u32,
    /// Length of the load check
    #[arg(long, default_value = "30s", value_parser = durations::parse)]
    pub run_time: Duration,
    /// Connections that the database may see
    #[arg(long, default_value_t = 50)]
    pub connections_max: i64,
    /// End the stack as the last check and see that nothing in flight is lost
    #[arg(long)]
    pub with_shutdown: bool,
    /// How to end the stack; without it SIGTERM goes to the status's supervisor_pid
    #[arg(long, value_name = "COMMAND")]
    pub stop_command: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn plan(args: &[&str]) -> Result<Plan, String> {
        let cli = Cli::try_parse_from(std::iter::once(&"load_tests").chain(args))
            .map_err(|error| error.to_string())?;
        cli.load.plan(7)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documents_own_command_is_understood() {
        let args =
            "--host=http://localhost --users 500 --spawn-rate 20 --run-time 5m --headless --csv=results/x";
        let plan = plan(&args.split(' ').collect::<Vec<_>>()).expect("locust's flags");
        assert_eq!(plan.arrival, Arrival::Closed { users: 500, spawn_per_s: 20.0 });
        assert_eq!((plan.run_time, plan.target.port, plan.mix), (Duration::from_secs(300), 80, Mix::MIXED));
    }

    #[test]
    fn flags_win_over_the_scenario() {
        let plan = plan(&["--scenario", "stress", "-u", "5", "--mix", "ws=1"]).expect("good flags");
        assert_eq!(plan.arrival, Arrival::Closed { users: 5, spawn_per_s: 50.0 });
        assert_eq!(plan.mix, Mix::SOCKET);
    }

    #[test]
    fn numbers_that_make_no_run_are_refused_by_name() {
        for (args, name) in [
            (["-u", "0"], "--users"),
            (["-r", "0"], "--spawn-rate"),
            (["-r", "nan"], "--spawn-rate"),
            (["-t", "0"], "--run-time"),
            (["-t", "5x"], "--run-time"),
            (["--mix", "api=0"], "--mix"),
            (["--scenario", "peak"], "--scenario"),
        ] {
            let error = plan(&args).expect_err(name);
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn verify_takes_checks_by_name() {
        let cli = Cli::try_parse_from([
            "load_tests",
            "verify",
            "--only",
            "sticky,rooms",
            "--replica",
            "web-1=127.0.0.1:1",
        ]);
        let Some(Verb::Verify(args)) = cli.expect("good flags").verb else { panic!("the verb is verify") };
        assert_eq!(args.only, [Check::Sticky, Check::Rooms]);
        assert_eq!(args.place.replicas[0].url, "http://127.0.0.1:1");
    }
}
