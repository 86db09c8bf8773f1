//! The command line, and what happens before the pooler runs: settings, user, pidfile, log, background.

mod background;
mod healthcheck;
mod pidfile;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgAction, Parser};
use nix::unistd::{Uid, User, initgroups, setgid, setuid};

use crate::admin::PGBOUNCER_VERSION;
use crate::log::Log;
use crate::settings::Settings;
use crate::systemd::Notifier;
use pidfile::Pidfile;

/// Postgres connection pooler that reads pgbouncer.ini and uses all cores.
#[derive(Parser, Debug)]
#[command(name = "pooler", disable_version_flag = true)]
struct Arguments {
    /// Run in the background
    #[arg(short = 'd', long)]
    daemon: bool,
    /// Take over the sockets of a running pooler
    #[arg(short = 'R', long)]
    reboot: bool,
    /// Run as this user when started by root
    #[arg(short = 'u', long, value_name = "USERNAME")]
    user: Option<String>,
    /// Increase verbosity; can be given twice
    #[arg(short = 'v', long, action = ArgAction::Count)]
    verbose: u8,
    /// Do not log to the standard error
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Show the version
    #[arg(short = 'V', long)]
    version: bool,
    /// Read the configuration, tell what is wrong, exit
    #[arg(long)]
    check: bool,
    /// Ask the running pooler whether it is ready, through its metrics port
    #[arg(long)]
    healthcheck: bool,
    /// Set by `-d` on the process in the background
    #[arg(long, hide = true)]
    in_background: bool,
    /// The configuration file, such as pgbouncer.ini
    #[arg(value_name = "CONFIG_FILE", required_unless_present = "version")]
    config: Option<PathBuf>,
}

/// All that `pooler::run` needs.
pub struct Start {
    pub settings: Settings,
    pub log: Log,
    pub notify: Notifier,
    /// LDAPCONF: the file that says whom directory servers are checked by.
    pub ldap_conf: Option<PathBuf>,
    /// `-R`: the sockets come from the process that runs now.
    pub takes_over: bool,
    /// Called once when the sockets are open: writes the pidfile, lets the parent of a daemon go.
    pub ready: Box<dyn FnOnce() -> anyhow::Result<()> + Send>,
}

/// The whole program; `run` is `pooler::run`.
pub fn main(run: fn(Start) -> anyhow::Result<()>) -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.version {
        // The first line is what SHOW VERSION says: scripts compare them.
        println!("PgBouncer {PGBOUNCER_VERSION}\npooler {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match start(&arguments, run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("FATAL {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments, run: fn(Start) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let path = arguments.config.as_deref().unwrap_or(Path::new(""));
    let mut settings = Settings::load(path)
        .map_err(|errors| anyhow::anyhow!("cannot load config file {}\n{errors}", path.display()))?;
    if arguments.check {
        settings.warnings.iter().for_each(|warning| eprintln!("WARNING {warning}"));
        let checked = crate::tls::check(&settings.keys);
        checked.map_err(|what| anyhow::anyhow!("{}: TLS setup failed: {what}", path.display()))?;
        println!("{}: the configuration is good", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.healthcheck {
        return healthcheck::ask(&settings);
    }
    settings.keys.verbose = settings.keys.verbose.max(arguments.verbose.into());
    if let Some(user) = arguments.user.clone() {
        settings.keys.user = Some(user);
    }
    let pidfile = match arguments.reboot {
        // The process that is written there is the one that we take over from.
        true => Pidfile::of_another(&settings.keys.pidfile),
        false => Pidfile::check(&settings.keys.pidfile)?,
    };
    if arguments.daemon && !arguments.in_background {
        // Before root is left: the process in the background reads files that may be root's own.
        return background::launch(&settings.keys);
    }
    become_user(settings.keys.user.as_deref())?;
    let log =
        Log::start(&settings.keys, arguments.quiet || arguments.in_background).map_err(anyhow::Error::msg)?;
    run_logged(arguments, settings, log, pidfile, run)
}

/// From here on errors go to the log as well.
fn run_logged(
    arguments: &Arguments,
    settings: Settings,
    log: Log,
    pidfile: Pidfile,
    run: fn(Start) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    match chassis::listen::raise_open_files() {
        Ok(files) => tracing::info!(
            "kernel file descriptor limit: {} (hard: {}); max_client_conn: {}, max expected fd use: {}",
            files.soft,
            files.hard,
            settings.max_client_conn,
            settings.files_expected()
        ),
        Err(error) => tracing::warn!("could not raise the limit of open files: {error}"),
    }
    let (in_background, takes_over) = (arguments.in_background, arguments.reboot);
    let environment = chassis::settings::environment();
    let notify = Notifier::new(environment("NOTIFY_SOCKET").as_deref());
    let ldap_conf = environment("LDAPCONF").map(PathBuf::from);
    let own_pidfile = pidfile.clone();
    let ready = Box::new(move || {
        own_pidfile.write()?;
        if in_background {
            background::tell_parent();
        }
        let process = std::process::id();
        tracing::info!("process up: pooler {}, pid {process}, tls: rustls", env!("CARGO_PKG_VERSION"));
        Ok(())
    });
    let ended = run(Start { settings, log, notify, ldap_conf, takes_over, ready });
    pidfile.remove();
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(target: crate::log::FATAL, "{error:#}");
            // The log has it; the standard error of a quiet process stays empty as asked.
            if in_background || arguments.quiet { Ok(ExitCode::FAILURE) } else { Err(error) }
        }
    }
}

/// Leaves root for the user that was named; refuses to stay root.
fn become_user(name: Option<&str>) -> anyhow::Result<()> {
    if let Some(name) = name.filter(|_| Uid::effective().is_root()) {
        let user = User::from_name(name)?
            .ok_or_else(|| anyhow::anyhow!("could not find user '{name}' to switch to"))?;
        let c_name = std::ffi::CString::new(name)?;
        initgroups(&c_name, user.gid)?;
        setgid(user.gid)?;
        setuid(user.uid)?;
    }
    if Uid::effective().is_root() {
        anyhow::bail!(
            "pooler should not run as root: start it as another user, or name one with -u or the setting user"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_pgbouncer_are_taken() {
        let read =
            Arguments::try_parse_from(["pooler", "-d", "-q", "-v", "-v", "-u", "bob", "a.ini"]).unwrap();
        assert!(read.daemon && read.quiet && !read.reboot);
        assert_eq!((read.verbose, read.user.as_deref()), (2, Some("bob")));
        let read = Arguments::try_parse_from(["pooler", "--quiet", "a.ini"]).unwrap();
        assert!(read.quiet);
        assert!(Arguments::try_parse_from(["pooler"]).is_err());
        assert!(Arguments::try_parse_from(["pooler", "-V"]).is_ok());
    }
}
