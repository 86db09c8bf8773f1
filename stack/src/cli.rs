//! The command line of `stack`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs the whole chat stack on this machine: Postgres, Redis, pooler, web replicas, balancer.
#[derive(Debug, Parser)]
#[command(name = "stack", version)]
pub struct Cli {
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Where things are.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// The checkout: deploy/ and config.env are looked for in it [default: found from this program's place]
    #[arg(long, global = true)]
    pub home: Option<PathBuf>,
    /// Folder of the stack's data, logs and secrets [default: .stack in the checkout]
    #[arg(long, global = true)]
    pub dir: Option<PathBuf>,
    /// File of settings [default: config.env in the checkout, if there is one]
    #[arg(long, global = true)]
    pub config: Option<PathBuf>,
    /// Folder of the built programs [default: the one this program is in]
    #[arg(long, global = true)]
    pub programs: Option<PathBuf>,
}

/// How the stack is to be.
#[derive(Debug, Clone, Copy, Args)]
pub struct UpArgs {
    /// Web replicas [default: STACK_REPLICAS, 10]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub replicas: Option<u32>,
    /// Without the pooler: replicas connect to Postgres themselves
    #[arg(long)]
    pub direct: bool,
    /// With a private standby that answers reads
    #[arg(long)]
    pub read_replica: bool,
    /// As it was started the last time in this folder
    #[arg(long, conflicts_with_all = ["replicas", "direct", "read_replica"])]
    pub as_before: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start everything and return when all parts are healthy
    Up {
        #[command(flatten)]
        how: UpArgs,
        /// Stay in the foreground, as a service manager likes it; SIGTERM drains and ends
        #[arg(long)]
        foreground: bool,
    },
    /// Check the settings of all parts without starting anything
    Check {
        #[command(flatten)]
        how: UpArgs,
        /// For parts in containers, which share no ports
        #[arg(long)]
        containers: bool,
    },
    /// Drain and stop everything; data is kept
    Down {
        /// Remove data, logs, secrets and releases too
        #[arg(long)]
        purge: bool,
    },
    /// Health, pid, uptime and address of each part; exit 1 when not all are healthy
    Status {
        #[arg(long)]
        json: bool,
    },
    /// Show logs, of all parts or of one
    Logs {
        service: Option<String>,
        /// Go on showing what comes
        #[arg(short, long)]
        follow: bool,
        /// Lines of each log to begin with
        #[arg(short = 'n', long, default_value_t = 50)]
        lines: usize,
    },
    /// Change the number of web replicas of the running stack
    Scale {
        #[arg(value_parser = clap::value_parser!(u32).range(1..=200))]
        replicas: u32,
    },
    /// Restart one part, or all replicas one after the other (web), with config.env read again
    Restart { service: String },
    /// Install the built programs and go over to them, replicas one at a time
    Upgrade,
    /// Go back to the release before, replicas one at a time
    Rollback,
    /// Run a command with the environment of a part and logins for psql in it: of the database, and for `pooler` of its
    /// console, which is what the documents ask there (`exec pooler psql -c "SHOW POOLS"`); -d names another database
    Exec {
        service: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// The supervisor itself; `up` starts it
    #[command(hide = true)]
    Supervise {
        #[command(flatten)]
        how: UpArgs,
    },
    /// Write configuration for containers
    #[command(hide = true, subcommand)]
    Render(Render),
}

#[derive(Debug, Subcommand)]
pub enum Render {
    /// pgbouncer.ini and userlist.txt from the environment
    Pooler {
        #[arg(long)]
        template: PathBuf,
        #[arg(long)]
        out: PathBuf,
    },
    /// nginx.conf for another number of replicas
    Balancer {
        #[arg(long)]
        template: PathBuf,
        #[arg(long)]
        out: PathBuf,
        #[arg(long)]
        replicas: u32,
    },
}
