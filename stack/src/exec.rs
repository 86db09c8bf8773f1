//! `exec`: a command in the surroundings of a part: its environment, logins, programs. They are those of the stack that
//! runs, which may have been started with other settings than the caller has.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::control::{Caller, NOT_UNDERSTOOD, Reply, Request};
use crate::dirs::Dirs;
use crate::logic::addresses::{Place, Route};
use crate::logic::plan::Plan;
use crate::origin::Environment;
use crate::supervisor::{plan_of, todays_name};
use crate::{Site, last_start, postgres};

const PARTS: &str = "balancer, web-N, pooler, postgres, standby, redis";

/// What a command gets on top of the caller's environment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Around {
    pub env: BTreeMap<String, String>,
    pub programs: PathBuf,
    pub postgres_bin: PathBuf,
    /// For `redis-cli`, which takes the place from its arguments alone; none where only the operator knows it.
    pub redis: Option<(String, u16)>,
}

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.env.keys()).finish()
    }
}

/// `stack exec`: replaces this process by the command.
///
/// # Errors
/// The stack was never started here, the part is not known, or the command cannot be started.
pub async fn run(
    site: &Site,
    service: &str,
    command: &[String],
    environment: Environment<'_>,
) -> Result<ExitCode> {
    let service = todays_name(service);
    let around = match ask(site, service).await? {
        Some(around) => around,
        None => around_of_stopped(site, service, environment)?,
    };
    let (program, args) = command.split_first().context("no command")?;
    let mut run = Command::new(program);
    if Path::new(program).file_name().is_some_and(|name| name == "redis-cli") {
        run.args(redis_args(&around, args)?);
    }
    let own = [around.programs.clone(), site.programs.clone(), around.postgres_bin.clone()];
    // An empty one would be the current folder.
    let own = own.into_iter().filter(|path| !path.as_os_str().is_empty());
    let path = std::env::join_paths(own.chain(std::env::split_paths(&site.search_path)))?;
    run.args(args).envs(&around.env).env("PATH", path);
    Err(run.exec()).with_context(|| format!("starting {program}"))
}

/// The place goes first: what the caller says of it wins.
fn redis_args(around: &Around, args: &[String]) -> Result<Vec<String>> {
    let is_placed = args.iter().any(|arg| ["-h", "-u", "-s"].contains(&arg.as_str()));
    match &around.redis {
        Some((host, port)) => Ok(["-h", host, "-p", &port.to_string()].map(str::to_owned).to_vec()),
        None if is_placed => Ok(Vec::new()),
        None => {
            bail!("your own Redis is named by REDIS_URL: give redis-cli its place, with -h and -p or with -u")
        }
    }
}

/// The surroundings as the running supervisor knows them; none where none runs.
async fn ask(site: &Site, service: &str) -> Result<Option<Around>> {
    let request = Request::Around { service: service.to_owned() };
    let Some(mut caller) = Caller::ask(&Dirs::at(&site.dir), &request).await? else { return Ok(None) };
    match caller.next().await? {
        Some(Reply::Around { around }) => Ok(Some(*around)),
        // One of an earlier build.
        Some(Reply::Failed { why }) if why.starts_with(NOT_UNDERSTOOD) => Ok(None),
        Some(Reply::Failed { why }) => bail!("{why}"),
        _ => Ok(None),
    }
}

/// As it was started the last time.
fn around_of_stopped(site: &Site, service: &str, environment: Environment<'_>) -> Result<Around> {
    let origin = site.origin(last_start::read(&site.dir)?);
    let (plan, nest) = plan_of(&origin, environment)?;
    around(&plan, &nest.dirs, service, plan.settings.replicas, &site.search_path)
}

/// The surroundings of a part of a stack of so many replicas.
///
/// # Errors
/// The stack has no such part.
pub fn around(plan: &Plan, dirs: &Dirs, service: &str, replicas: u32, search_path: &str) -> Result<Around> {
    let mut env = BTreeMap::new();
    if let Some(number) = service.strip_prefix("web-") {
        let number: u32 = number.parse().ok().context("replicas are named web-1, web-2 and so on")?;
        ensure!(
            (1..=replicas).contains(&number),
            "no part of this stack is named web-{number}: it has {replicas} replicas"
        );
        env.extend(plan.replica(number).env);
    }
    env.extend(logins(plan, service)?);
    env.insert("PGPASSFILE".to_owned(), dirs.pgpass().to_string_lossy().into_owned());
    let settings = &plan.settings;
    let (redis, password) = match &settings.topology.redis {
        Place::Ours => {
            (Some(("127.0.0.1".to_owned(), settings.ports.redis)), Some(plan.secrets.get("REDIS_PASSWORD")))
        }
        Place::Theirs(_) if settings.told.has("REDIS_URL") => (None, None),
        Place::Theirs(place) => (
            Some((place.host.clone(), place.port)),
            settings.secrets.0.get("REDIS_PASSWORD").map(String::as_str),
        ),
    };
    env.extend(password.map(|password| ("REDISCLI_AUTH".to_owned(), password.to_owned())));
    let mut postgres_bin = plan.files.postgres_bin.clone();
    if postgres_bin.as_os_str().is_empty() {
        // Whose database is elsewhere may have psql and pg_dump all the same.
        let found = postgres::find_programs(settings.postgres_bin.as_deref(), search_path);
        postgres_bin = found.unwrap_or_default();
    }
    Ok(Around { env, programs: plan.files.programs.clone(), postgres_bin, redis })
}

/// Where psql goes and as whom.
fn logins(plan: &Plan, service: &str) -> Result<[(String, String); 4]> {
    let settings = &plan.settings;
    let known = (settings.database.name.as_str(), settings.database.user.as_str());
    let (place, (database, user)) = match service {
        "pooler" => {
            ensure!(
                settings.topology.route == Route::Pooled,
                "no part of this stack is named pooler: it runs without one (--direct)"
            );
            (plan.database(), ("pgbouncer", "pgbouncer_admin"))
        }
        "standby" => {
            let none = "no part of this stack is named standby: start it with --read-replica, or name one in DB_READ_HOST";
            (plan.pooled_standby().context(none)?, known)
        }
        "postgres" | "redis" | "balancer" => (plan.primary(), known),
        name if name.starts_with("web-") => (plan.primary(), known),
        name => bail!("no part is named {name}: {PARTS}"),
    };
    let pairs = [
        ("PGHOST", place.host),
        ("PGPORT", place.port.to_string()),
        ("PGDATABASE", database.to_owned()),
        ("PGUSER", user.to_owned()),
    ];
    Ok(pairs.map(|(name, value)| (name.to_owned(), value)))
}
