//! What the program is called for beside serving: `-t`, `-T`, `-s` and `--healthcheck`.

use std::process::ExitCode;

use super::{complain, process};
use crate::Outside;
use crate::access_log::LogFiles;
use crate::cli::Order;
use crate::conf::blocks::{Source, Tree};
use crate::conf::settings::Settings;
use crate::conf::{self, Origin};
use crate::error_log::Targets;

/// `-t` and `-T`.
#[allow(clippy::print_stderr, clippy::print_stdout, reason = "the command's answer")]
pub fn test(origin: &Origin, dump: bool, quiet: bool) -> ExitCode {
    let file = origin.file.display();
    let sources = match conf::load(origin).map_err(|error| error.to_string()).and_then(check_files) {
        Ok(sources) => sources,
        Err(what) => {
            complain("emerg", &what);
            eprintln!("balancer: configuration file {file} test failed");
            return ExitCode::FAILURE;
        }
    };
    if !quiet {
        eprintln!("balancer: the configuration file {file} syntax is ok");
        eprintln!("balancer: configuration file {file} test is successful");
    }
    if dump {
        for source in sources {
            println!(
                "# configuration file {}:\n{}",
                source.path.display(),
                String::from_utf8_lossy(&source.text)
            );
        }
    }
    ExitCode::SUCCESS
}

/// A configuration whose logs cannot be written would fail at the start: the test says so.
fn check_files(loaded: (Settings, Tree)) -> Result<Vec<Source>, String> {
    let (settings, tree) = loaded;
    Targets::open(&settings.main.error_logs, &settings.http.error_logs)?;
    LogFiles::default().open(&settings.http.log_files)?;
    process::make_folders(&settings.http.body_folders, settings.main.user.as_ref())?;
    Ok(tree.sources)
}

/// `-s`: tells the process whose id the pid file holds.
pub fn send(origin: &Origin, order: Order) -> ExitCode {
    let sent = conf::load(origin)
        .map_err(|error| error.to_string())
        .and_then(|(settings, _)| process::signal(&settings.main.pid, order));
    match sent {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            complain("error", &what);
            ExitCode::FAILURE
        }
    }
}

/// `--healthcheck`.
pub fn ask_health(origin: &Origin, outside: &Outside) -> ExitCode {
    let configured = || conf::load(origin).map(|(settings, _)| settings.main.ops_listen);
    let asked = match outside.ops.map_or_else(configured, |ops| Ok(Some(ops))) {
        Ok(Some(ops)) => chassis::health::ask(ops, "/health/ready").map_err(|error| error.to_string()),
        Ok(None) => {
            Err("neither BALANCER_OPS_PORT nor `ops_listen` is set: there is nobody to ask".to_owned())
        }
        Err(error) => Err(error.to_string()),
    };
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            complain("error", &what);
            ExitCode::FAILURE
        }
    }
}
