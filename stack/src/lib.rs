//! Runs the whole chat stack as child processes of one supervisor: start, watch, restart, scale, stop.

pub mod board;
pub mod cli;
pub mod client;
pub mod conf;
pub mod control;
pub mod dirs;
pub mod exec;
pub mod follow;
pub mod holders;
pub mod identity;
pub mod keeper;
pub mod last_start;
pub mod logic;
pub mod origin;
pub mod postgres;
pub mod probe;
pub mod record;
pub mod release;
pub mod render;
pub mod secrets;
pub mod settings;
pub mod spawn;
pub mod supervisor;
pub mod trial;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use cli::{Cli, PlaceArgs, UpArgs, Verb};
use origin::{Origin, Ports};
use settings::Overrides;

/// What `main` hands in: everything that the process knows of its surroundings.
pub struct Surroundings<'a> {
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// This program.
    pub program: PathBuf,
    pub folder: PathBuf,
}

/// Where a call of `stack` works.
#[derive(Debug, Clone)]
pub struct Site {
    pub home: PathBuf,
    pub dir: PathBuf,
    pub config: Option<PathBuf>,
    pub programs: PathBuf,
    pub program: PathBuf,
    pub search_path: String,
}

impl Site {
    fn find(args: &PlaceArgs, around: &Surroundings) -> Result<Self> {
        let given = |path: &Option<PathBuf>| path.as_ref().map(|path| around.folder.join(path));
        let home = given(&args.home).unwrap_or_else(|| checkout_of(&around.program, &around.folder));
        let config = match given(&args.config) {
            Some(path) => {
                Some(std::fs::canonicalize(&path).with_context(|| format!("--config {}", path.display()))?)
            }
            None => Some(home.join("config.env")).filter(|path| path.is_file()),
        };
        let beside = around.program.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self {
            dir: given(&args.dir).unwrap_or_else(|| home.join(".stack")),
            config,
            programs: given(&args.programs).unwrap_or(beside),
            program: around.program.clone(),
            search_path: (around.environment)("PATH").unwrap_or_default(),
            home,
        })
    }

    pub(crate) fn origin(&self, overrides: Overrides) -> Origin {
        let (dir, config) = (self.dir.clone(), self.config.clone());
        Origin { dir, config, overrides, search_path: self.search_path.clone() }
    }
}

/// The folder above the program that has `deploy/nginx.conf`; the current folder when none has.
fn checkout_of(program: &Path, folder: &Path) -> PathBuf {
    let is_checkout = |path: &&Path| path.join("deploy/nginx.conf").is_file();
    let found = program.ancestors().find(is_checkout).or_else(|| folder.ancestors().find(is_checkout));
    found.unwrap_or(folder).to_owned()
}

/// What the command line says, or said at the last start.
fn overrides(how: UpArgs, dir: &Path) -> Result<Overrides> {
    if how.as_before {
        return last_start::read(dir);
    }
    Ok(Overrides { replicas: how.replicas, direct: how.direct, read_replica: how.read_replica })
}

/// Carries out one call of `stack`.
///
/// # Errors
/// What went wrong, for people.
pub async fn run(cli: Cli, around: Surroundings<'_>) -> Result<ExitCode> {
    let site = Site::find(&cli.place, &around)?;
    let environment = around.environment;
    match cli.verb {
        Verb::Up { how, foreground: false } => {
            client::up(&site, overrides(how, &site.dir)?, environment).await
        }
        Verb::Up { how, foreground: true } => {
            let how = overrides(how, &site.dir)?;
            client::prepare(&site, how, environment).await?;
            supervise(&site, how, environment).await
        }
        Verb::Supervise { how } => {
            let how = overrides(how, &site.dir)?;
            // The starter's terminal must not take the stack down with it.
            nix::unistd::setsid().context("leaving the terminal's session")?;
            supervise(&site, how, environment).await
        }
        Verb::Check { how, containers } => {
            let ports = if containers { Ports::Apart } else { Ports::Shared };
            client::check(&site, overrides(how, &site.dir)?, environment, ports).await
        }
        Verb::Down { purge } => client::down(&site, purge).await,
        Verb::Status { json } => client::status(&site, json).await,
        Verb::Logs { service, follow, lines } => follow::logs(&site, service.as_deref(), follow, lines).await,
        Verb::Scale { replicas } => client::command(&site, &control::Request::Scale { replicas }).await,
        Verb::Restart { service } => client::command(&site, &control::Request::Restart { service }).await,
        Verb::Upgrade => client::upgrade(&site, environment).await,
        Verb::Rollback => client::roll_back(&site).await,
        Verb::Exec { service, command } => exec::run(&site, &service, &command, environment).await,
        Verb::Render(what) => render::run(&what, environment),
    }
}

async fn supervise(
    site: &Site,
    how: Overrides,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<ExitCode> {
    chassis::logs::init("stack", chassis::logs::Format::Text, "info")?;
    supervisor::run(site.origin(how), environment).await?;
    Ok(ExitCode::SUCCESS)
}
