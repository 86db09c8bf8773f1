//! `-d`: the program starts itself again without a terminal, and the first process waits until that one is ready.

use std::io::{Read, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;

use crate::settings::Keys;

/// What the process in the background writes when its sockets are open.
const READY: &[u8] = b"ready\n";

/// Starts the process in the background and waits for its word.
pub fn launch(keys: &Keys) -> anyhow::Result<ExitCode> {
    if keys.pidfile.is_empty() {
        anyhow::bail!("daemon needs pidfile configured");
    }
    if keys.logfile.is_empty() && !keys.syslog {
        anyhow::bail!("daemon needs logfile or syslog configured: its standard error goes nowhere");
    }
    let program = std::env::current_exe().context("could not find this program's file")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--in-background")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start the process in the background")?;
    let mut said = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_end(&mut said).context("could not hear from the process in the background")?;
    }
    if said == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait()?;
    let log = if keys.logfile.is_empty() { "the syslog" } else { &keys.logfile };
    anyhow::bail!("the process in the background ended ({status}); {log} tells why")
}

/// Says that the sockets are open, then lets go of the terminal.
pub fn tell_parent() {
    let mut output = std::io::stdout();
    let told = output.write_all(READY).and_then(|()| output.flush());
    if let Err(error) = told.and_then(|()| let_go()) {
        tracing::warn!("could not let go of the terminal: {error}");
    }
}

fn let_go() -> std::io::Result<()> {
    let nothing = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&nothing)?;
    nix::unistd::dup2_stderr(&nothing)?;
    // No session of its own only when it has one already, as under a supervisor.
    let _ = nix::unistd::setsid();
    Ok(())
}
