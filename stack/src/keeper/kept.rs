//! The process that a keeper keeps: its own child, or the one that its child started to take its place.

use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;

use super::os_signal;
use crate::logic::plan::Stop;
use crate::record::Process;

/// After the second signal a part gets this long before it is killed.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// How often a process that is not our child is looked at.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub enum Kept {
    Child(Child),
    /// Not our child: that it has ended is seen, but not how.
    Heir(Process),
}

/// Whether a process went by itself.
pub enum Force {
    NotNeeded,
    Needed(&'static str),
}

impl Kept {
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Child(child) => child.id(),
            Self::Heir(heir) => Some(heir.pid),
        }
    }

    /// Until it has ended; how, where the system tells.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        match self {
            Self::Child(child) => child.wait().await.ok(),
            Self::Heir(heir) => {
                while heir.is_alive() {
                    tokio::time::sleep(LOOK).await;
                }
                None
            }
        }
    }

    pub fn send(&self, signal: Signal) {
        match self {
            // A child that is not yet waited for keeps its pid.
            Self::Child(child) => {
                if let Some(pid) = child.id() {
                    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
                }
            }
            Self::Heir(heir) => heir.signal(signal),
        }
    }

    /// Tells it to end, then urges it, then kills it; returns when it has ended.
    pub async fn end(&mut self, stop: Stop, patience: Duration) -> Force {
        self.send(os_signal(stop.first));
        if tokio::time::timeout(patience, self.ended()).await.is_ok() {
            return Force::NotNeeded;
        }
        self.send(os_signal(stop.then));
        if tokio::time::timeout(LAST_PATIENCE, self.ended()).await.is_ok() {
            return Force::Needed("it was told a second time");
        }
        self.send(Signal::SIGKILL);
        self.ended().await;
        Force::Needed("it was killed")
    }
}
