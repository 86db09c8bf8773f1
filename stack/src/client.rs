//! The verbs of `stack`, seen from the caller's side: they ask the supervisor and print what it says.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::control::{Caller, Reply, Request};
use crate::dirs::Dirs;
use crate::identity::RunAs;
use crate::logic::ports::listening;
use crate::logic::report::Report;
use crate::origin::{Checked, Environment, Ports};
use crate::record::Process;
use crate::settings::{Overrides, Settings};
use crate::spawn::log_tail;
use crate::supervisor::{check_ports, end_left_over};
use crate::{Site, holders, last_start, record, release, trial};

/// Prints a line. Who read our words may have left (`stack up | head -1`): the work goes on.
macro_rules! say {
    ($($argument:tt)*) => {
        drop(writeln!(std::io::stdout(), $($argument)*))
    };
}

/// What `web seed` gives the users that it makes.
pub const DEMO_PASSWORD: &str = "arena-demo";

/// What `status` ends with where nothing runs, as those of services do (LSB, init script actions).
const NOT_RUNNING: u8 = 3;
/// How often a supervisor that has just been started is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// For leftovers of a supervisor that was killed: the settings' value is not needed for those.
const LEFT_OVER_PATIENCE: Duration = Duration::from_secs(30);

/// `stack up`.
///
/// # Errors
/// The start fails; the text says why.
pub async fn up(site: &Site, how: Overrides, environment: Environment<'_>) -> Result<ExitCode> {
    if let Some(report) = ask_status(site).await? {
        say!("the stack runs already (supervisor pid {}):", report.stack.pid);
        say!("{}", report.table());
        let started = last_start::read(&site.dir)?;
        let is_so = how.replicas.is_none_or(|count| count as usize == report.replicas.len())
            && (started.direct || !how.direct)
            && (started.read_replica || !how.read_replica);
        ensure!(
            is_so,
            "it was started otherwise: `scale N` changes the number of replicas, `restart` with flags the rest"
        );
        ensure!(report.all_healthy(), "not all of its parts are healthy (yet); `logs` may say why");
        return Ok(ExitCode::SUCCESS);
    }
    let dirs = prepare(site, how, environment).await?;
    let mut supervisor = start_supervisor(site, how, &dirs)?;
    let mut caller = first_contact(&mut supervisor, &dirs).await?;
    let log = dirs.log_of("stack");
    if let Err(cause) = carried_out(&mut caller).await {
        // What comes next, another start say, must find nothing of this one.
        let _ = supervisor.wait();
        return Err(cause).with_context(|| format!("the stack did not start; more in {}", log.display()));
    }
    let report = ask_status(site).await?.context("the supervisor has gone")?;
    print_places(&report);
    Ok(ExitCode::SUCCESS)
}

/// Checks the settings, makes the folders and installs the programs.
///
/// # Errors
/// The settings are wrong, or something cannot be written.
pub async fn prepare(site: &Site, how: Overrides, environment: Environment<'_>) -> Result<Dirs> {
    let settings = checked(site, how, environment, Ports::Shared).await?;
    let run_as = RunAs::find(settings.user.as_deref())?;
    let dirs = Dirs::prepare(&site.dir, &run_as)?;
    let source = release::Source { programs: site.programs.clone(), texts: site.home.join("deploy") };
    release::install(&dirs, &source)?;
    last_start::write(&dirs, how)?;
    Ok(dirs)
}

/// `stack check`.
///
/// # Errors
/// Everything that is wrong with the settings.
pub async fn check(
    site: &Site,
    how: Overrides,
    environment: Environment<'_>,
    ports: Ports,
) -> Result<ExitCode> {
    let settings = checked(site, how, environment, ports).await?;
    // Before a restart: what the stack holds it gives up, what another process holds would keep it down.
    if let (Ports::Shared, Some(report)) = (ports, ask_status(site).await?)
        && let Some(held) = holders::ports_of(report.services.iter().filter_map(|row| row.pid))
    {
        let mut wanted = listening(&settings, settings.replicas);
        wanted.retain(|one| !held.contains(&one.port));
        check_ports(&wanted)?;
    }
    say!("the settings are right");
    Ok(ExitCode::SUCCESS)
}

async fn checked(
    site: &Site,
    how: Overrides,
    environment: Environment<'_>,
    ports: Ports,
) -> Result<Settings> {
    let Checked { settings, warnings } = site.origin(how).check(environment, &site.programs, ports).await?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    trial::run(&settings, &site.home.join("deploy"), &site.programs).await?;
    Ok(settings)
}

fn start_supervisor(site: &Site, how: Overrides, dirs: &Dirs) -> Result<Child> {
    let path = dirs.log_of("stack");
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .with_context(|| format!("{}", path.display()))?;
    let mut command = Command::new(&site.program);
    command.arg("supervise").arg("--home").arg(&site.home).arg("--dir").arg(&site.dir);
    command.arg("--programs").arg(&site.programs);
    if let Some(config) = &site.config {
        command.arg("--config").arg(config);
    }
    if let Some(replicas) = how.replicas {
        command.arg("--replicas").arg(replicas.to_string());
    }
    command.args(how.direct.then_some("--direct")).args(how.read_replica.then_some("--read-replica"));
    // The folder of the caller may go away while the stack runs.
    command.current_dir(dirs.root());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("starting the supervisor")
}

/// Waits until the new supervisor answers.
async fn first_contact(supervisor: &mut Child, dirs: &Dirs) -> Result<Caller> {
    loop {
        if let Some(caller) = Caller::ask(dirs, &Request::Follow).await? {
            return Ok(caller);
        }
        if let Some(status) = supervisor.try_wait()? {
            bail!("the supervisor ended with {status}\n{}", log_tail(&dirs.log_of("stack")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How an answer ended that was no refusal.
#[derive(PartialEq, Eq)]
enum Ending {
    Done,
    /// The supervisor ended first.
    HungUp,
}

/// Prints lines until the answer is over.
async fn print_replies(caller: &mut Caller) -> Result<Ending> {
    loop {
        match caller.next().await? {
            Some(Reply::Line { text }) => say!("{text}"),
            Some(Reply::Status { report }) => say!("{}", report.table()),
            // Nobody asks for it here.
            Some(Reply::Around { .. }) => {}
            Some(Reply::Done) => return Ok(Ending::Done),
            Some(Reply::Failed { why }) => bail!("{why}"),
            None => return Ok(Ending::HungUp),
        }
    }
}

async fn carried_out(caller: &mut Caller) -> Result<()> {
    match print_replies(caller).await? {
        Ending::Done => Ok(()),
        Ending::HungUp => bail!("the supervisor has ended before it was done"),
    }
}

fn print_places(report: &Report) {
    let places = &report.places;
    say!("chat          {}/", places.url);
    say!("status        {}/status/", places.url);
    say!("connections   {}/db/connections/", places.url);
    say!("balancer      {}", places.balancer_metrics);
    if let Some(pooler) = &places.pooler {
        say!(
            "pooler        psql -h {} -p {} -U {} pgbouncer -c 'SHOW POOLS'   (PGPASSFILE={})",
            pooler.host,
            pooler.port,
            places.database.user,
            places.pgpass_file
        );
    }
    if places.demo_users {
        say!(
            "demo users    alice, bob, carol, dave; password {DEMO_PASSWORD}   (none with STACK_DEMO_USERS=off)"
        );
    }
    say!("logs          {}/logs", report.stack.dir);
}

/// `stack down`.
///
/// # Errors
/// Something does not end or cannot be removed.
pub async fn down(site: &Site, purge: bool) -> Result<ExitCode> {
    let dirs = Dirs::at(&site.dir);
    let mut asked = Caller::ask(&dirs, &Request::Stop).await?;
    if let Some(caller) = &mut asked {
        // One that hangs up was ending already, after a start that failed or another call of `down`.
        print_replies(caller).await?;
    }
    wait_for_supervisor(&dirs, asked.as_ref().and_then(Caller::supervisor)).await?;
    let left = record::left_over(&dirs);
    if !left.is_empty() {
        say!("ending {} parts that a killed supervisor left behind", left.len());
        end_left_over(&left, LEFT_OVER_PATIENCE).await;
    }
    match asked {
        Some(_) => say!("the stack has stopped"),
        None if left.is_empty() => say!("no stack runs in {}", dirs.root().display()),
        None => {}
    }
    if purge {
        remove_all(&site.dir, &dirs)?;
        say!("{} is removed", site.dir.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The supervisor answers before its own end, and lets go of its lock before it: it is the process that must be gone.
/// One that has no socket yet, or no more, is known by its lock.
async fn wait_for_supervisor(dirs: &Dirs, asked: Option<Process>) -> Result<()> {
    use nix::fcntl::{Flock, FlockArg};
    let file = std::fs::File::open(dirs.run().join("stack.lock"));
    let gone = async {
        while asked.is_some_and(|process| process.is_alive()) {
            tokio::time::sleep(LOOK).await;
        }
        let Ok(mut file) = file else { return };
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(_) => return,
                Err((same, _)) => file = same,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(LEFT_OVER_PATIENCE, gone).await.context("the supervisor does not end")
}

fn remove_all(dir: &Path, dirs: &Dirs) -> Result<()> {
    if dirs.root().exists() {
        std::fs::remove_dir_all(dirs.root())
            .with_context(|| format!("removing {}", dirs.root().display()))?;
    }
    // Where the folder stands elsewhere, the link to it goes too.
    match std::fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_symlink() => {
            std::fs::remove_file(dir).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// `stack status`.
///
/// # Errors
/// The supervisor cannot be asked.
pub async fn status(site: &Site, json: bool) -> Result<ExitCode> {
    let Some(report) = ask_status(site).await? else {
        let left = record::left_over(&Dirs::at(&site.dir));
        let names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
        let more =
            if names.is_empty() { String::new() } else { format!("; left behind: {}", names.join(", ")) };
        eprintln!("no stack runs in {}{more}", site.dir.display());
        return Ok(ExitCode::from(NOT_RUNNING));
    };
    if json {
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!("{}", report.table());
    }
    Ok(if report.all_healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ask_status(site: &Site) -> Result<Option<Report>> {
    let Some(mut caller) = Caller::ask(&Dirs::at(&site.dir), &Request::Status).await? else {
        return Ok(None);
    };
    match caller.next().await? {
        Some(Reply::Status { report }) => Ok(Some(*report)),
        Some(Reply::Failed { why }) => bail!("{why}"),
        _ => bail!("the supervisor does not answer"),
    }
}

/// A verb that the supervisor carries out.
///
/// # Errors
/// No stack runs, or the supervisor refuses or fails.
pub async fn command(site: &Site, request: &Request) -> Result<ExitCode> {
    let caller = Caller::ask(&Dirs::at(&site.dir), request).await?;
    let mut caller = caller.with_context(|| format!("no stack runs in {}", site.dir.display()))?;
    carried_out(&mut caller).await?;
    Ok(ExitCode::SUCCESS)
}

/// `stack upgrade`.
///
/// # Errors
/// The programs cannot be installed, or a part does not become healthy with them.
pub async fn upgrade(site: &Site, environment: Environment<'_>) -> Result<ExitCode> {
    let settings = site.origin(Overrides::default()).read(environment)?;
    trial::run(&settings, &site.home.join("deploy"), &site.programs).await?;
    let dirs = Dirs::at(&site.dir);
    let source = release::Source { programs: site.programs.clone(), texts: site.home.join("deploy") };
    let installed = release::install(&dirs, &source)?;
    if installed == release::Installed::AlreadyCurrent && ask_status(site).await?.is_none() {
        say!("these programs are installed already; no stack runs");
        return Ok(ExitCode::SUCCESS);
    }
    // What is installed need not run: an upgrade may have failed half way.
    command(site, &Request::Roll).await
}

/// `stack rollback`.
///
/// # Errors
/// There is no release before this one, or a part does not become healthy with it.
pub async fn roll_back(site: &Site) -> Result<ExitCode> {
    let before = release::roll_back(&Dirs::at(&site.dir))?;
    say!("going back to {}; the database keeps its shape", before.display());
    if ask_status(site).await?.is_none() {
        say!("no stack runs: the next start uses it");
        return Ok(ExitCode::SUCCESS);
    }
    command(site, &Request::Roll).await
}
