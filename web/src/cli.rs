//! The command line: `web [serve]`, `web migrate`, `web seed`, `web token`, `web healthcheck`, `web check`.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use chassis::signals::{Signal, Signals};
use clap::{Parser, Subcommand};

use crate::api::docs;
use crate::auth::Keys;
use crate::settings::{SETTINGS, Settings};
use crate::{Listeners, Order, auth, responder, schema, seed};

/// Chat service of the arena; settings come from the environment, see config.env.example.
#[derive(Parser)]
#[command(name = "web", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Clone, Copy)]
enum Command {
    /// Serve until SIGTERM or SIGINT, then drain (the default). SIGUSR1 sends all WebSockets away, to come back to any replica.
    Serve,
    /// Apply the database migrations, over a direct connection.
    Migrate,
    /// Make demo users (alice, bob, carol, dave) and the public session test-session.
    Seed,
    /// Print an access token with admin rights, valid for 15 minutes.
    Token,
    /// Ask the service on this machine for its health; exit 0 when it is well.
    Healthcheck,
    /// Check the settings without starting anything: a line for each problem.
    Check,
    /// Print the OpenAPI document.
    Openapi,
}

/// Threads that serve when nothing else is said: more share the cores with ten other replicas.
const THREADS_MAX: usize = 4;

/// Does what the command line says.
///
/// # Errors
/// What went wrong, for people.
pub fn main(cli: &Cli, lookup: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let command = cli.command.unwrap_or(Command::Serve);
    match command {
        Command::Healthcheck => return healthcheck(lookup),
        Command::Check => return check(lookup),
        Command::Openapi => return print_document(),
        _ => {}
    }
    let settings = Settings::read(lookup, &host_name())?;
    chassis::logs::init("web", settings.service.log_format, &settings.service.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads(settings.service.threads))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match command {
            Command::Serve => serve(settings).await,
            Command::Migrate => schema::migrate(&settings).await.inspect(|()| {
                tracing::info!("the schema of {:?} is up to date", settings.database.direct);
            }),
            Command::Seed => seed::seed(&settings).await.inspect(|()| {
                tracing::info!("demo users and the session {} are there", seed::DEMO_SESSION);
            }),
            Command::Token => print_token(&settings),
            Command::Healthcheck | Command::Check | Command::Openapi => Ok(()),
        }
    })
}

/// Files that are open beside WebSockets: connections to databases and Redis, requests, listeners.
const FILES_BESIDE_SOCKETS: u64 = 100;

async fn serve(settings: Settings) -> anyhow::Result<()> {
    match chassis::listen::raise_open_files() {
        Ok(files) => tracing::info!(
            "{} files may be open (hard: {}), so about {} WebSockets fit; CHAT_CONNECTIONS_MAX: {}",
            files.soft,
            files.hard,
            files.soft.saturating_sub(FILES_BESIDE_SOCKETS),
            settings.values.count("CHAT_CONNECTIONS_MAX")
        ),
        Err(cause) => tracing::warn!(%cause, "the limit of open files could not be raised: {cause}"),
    }
    let listeners = Listeners::open(&settings)?;
    let mut signals = Signals::new().context("cannot take signals")?;
    let next_order = async move || loop {
        match signals.next().await {
            Signal::Terminate | Signal::Interrupt | Signal::Quit => return Order::End,
            Signal::Usr1 => return Order::Farewell,
            Signal::Hangup | Signal::Usr2 | Signal::WindowChange => {}
        }
    };
    crate::run(settings, listeners, next_order).await
}

/// For operators and scripts: nobody's account, so it can look but owns nothing.
fn print_token(settings: &Settings) -> anyhow::Result<()> {
    let token = Keys::new(&settings.auth).operator_token(auth::ACCESS_LIFETIME);
    writeln!(std::io::stdout(), "{token}").context("cannot write to the standard output")
}

/// What the repository keeps as `web/openapi.json`.
fn print_document() -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&docs::document()).context("the document is plain data")?;
    writeln!(std::io::stdout(), "{text}").context("cannot write to the standard output")
}

fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX),
        asked => asked,
    }
}

/// The kernel's name of this machine; in a container, its id.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "web".to_owned(),
        name => name.to_owned(),
    }
}

/// Everything that would keep the service from starting, on the standard output: who starts it tells it with their own.
fn check(lookup: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let found = problems(lookup);
    if found.is_empty() {
        return Ok(());
    }
    writeln!(std::io::stdout(), "{}", found.join("\n")).context("cannot write to the standard output")?;
    bail!("settings that are wrong: {}", found.len())
}

fn problems(lookup: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut found =
        Settings::read(lookup, &host_name()).err().map_or_else(Vec::new, |errors| errors.problems);
    let (values, _) = chassis::settings::read_all(SETTINGS, lookup);
    found.extend(responder::from_settings(&values).err().map(|cause| format!("{cause:#}")));
    let level = chassis::logs::check_level(values.text("LOG_LEVEL"));
    found.extend(level.err().map(|cause| format!("LOG_LEVEL: {cause}")));
    found
}

/// Needs no secret and no runtime, so that it is cheap to run every few seconds.
fn healthcheck(lookup: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let values = chassis::settings::read(SETTINGS, lookup)?;
    let listens: IpAddr = values.text("LISTEN_ADDR").parse().context("LISTEN_ADDR is no IP address")?;
    chassis::health::ask(SocketAddr::new(listens, values.port("PORT")), "/health")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_tells_what_each_part_of_the_service_would_refuse() {
        let lookup = |name: &str| {
            let pairs = [
                ("PORT", "many"),
                ("SECRET_KEY", "short"),
                ("DATABASE_URL", "mysql://u:hunter2@h/d"),
                ("RESPONDER", "openai"),
                ("LOG_LEVEL", "info,sqlx="),
            ];
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let found = problems(&lookup);
        for name in ["PORT", "SECRET_KEY", "DATABASE_URL", "RESPONDER_URL", "LOG_LEVEL"] {
            let count = found.iter().filter(|text| text.starts_with(&format!("{name}: "))).count();
            assert_eq!(count, 1, "{name} in {found:?}");
        }
        assert!(!found.concat().contains("hunter2"), "{found:?}");
    }

    #[test]
    fn the_check_has_nothing_against_the_defaults_with_a_key() {
        let lookup = |name: &str| (name == "SECRET_KEY").then(|| "k".repeat(32));
        assert_eq!(problems(&lookup), Vec::<String>::new());
    }
}
