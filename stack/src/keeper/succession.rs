//! Another release's program comes to serve in the place of the running one, which goes on until the other does.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::Life;
use super::kept::{Force, Kept};
use crate::logic::plan::{Part, Succession};
use crate::record::Process;

/// Reading a configuration and taking over takes a moment; a program that needs longer does not come.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(20);
/// How often the file with the successor's id is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The old process goes on, or has died of it, and this is why.
type Failed = (Kept, Option<anyhow::Error>);

impl Life {
    /// The process that serves from now on.
    pub(super) async fn succeed(&mut self, old: Kept, part: &Part) -> Result<Kept, Failed> {
        match &part.succession {
            Succession::Afterwards => Err((old, None)),
            Succession::TakesOver(argument) => self.take_over(old, part, argument).await,
            Succession::Usr2 { pid_file } => self.start_heir(old, part, pid_file).await,
        }
    }

    /// The successor asks the old process for its sockets; when it has them, and the clients, the old one ends.
    async fn take_over(&mut self, mut old: Kept, part: &Part, argument: &str) -> Result<Kept, Failed> {
        let mut taking = part.clone();
        taking.args.push(argument.to_owned());
        let mut fresh = match self.nest.start(&taking) {
            Ok(child) => Kept::Child(child),
            Err(cause) => return Err((old, Some(cause))),
        };
        tokio::select! {
            _ = old.ended() => return Ok(fresh),
            _ = fresh.ended() => {
                let cause = anyhow::anyhow!("{}", crate::spawn::log_tail(&self.nest.dirs.log_of(&part.name)));
                return Err((old, Some(cause.context("the new program ended instead of taking over"))));
            }
            () = tokio::time::sleep(part.stop.patience) => {}
        }
        // Clients in long transactions cannot move: the new one serves all others already.
        self.end_old(&mut old, part).await;
        Ok(fresh)
    }

    /// The old process starts the new one itself; it drains when that serves.
    async fn start_heir(&mut self, mut old: Kept, part: &Part, pid_file: &Path) -> Result<Kept, Failed> {
        let before = old.pid();
        old.send(Signal::SIGUSR2);
        let heir = tokio::select! {
            _ = old.ended() => Err(anyhow::anyhow!("the old program died of it")),
            heir = heir_of(before, pid_file) => heir,
        };
        let heir = match heir {
            Ok(process) => Kept::Heir(process),
            Err(cause) => return Err((old, Some(cause))),
        };
        self.end_old(&mut old, part).await;
        Ok(heir)
    }

    async fn end_old(&self, old: &mut Kept, part: &Part) {
        if let Force::Needed(what) = old.end(part.stop, part.stop.patience).await {
            self.board.say(&format!("the {} before did not end by itself: {what}", part.name));
        }
    }
}

/// The process that has written its id in the place of the old one's.
async fn heir_of(old: Option<u32>, pid_file: &Path) -> Result<Process> {
    let written = async {
        loop {
            match read(pid_file) {
                Some(process) if Some(process.pid) != old => return process,
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    };
    match tokio::time::timeout(TAKES_OVER_WITHIN, written).await {
        Ok(process) => Ok(process),
        Err(_) => {
            bail!("no successor has written to {} in {} s", pid_file.display(), TAKES_OVER_WITHIN.as_secs())
        }
    }
}

fn read(pid_file: &Path) -> Option<Process> {
    Process::running(std::fs::read_to_string(pid_file).ok()?.trim().parse().ok()?)
}
