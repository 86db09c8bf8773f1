//! Binary upgrade, as nginx does it: USR2 starts the program anew beside this process, on the same listening sockets;
//! WINCH lets the workers here end and keeps the master as a way back (HUP); QUIT ends it all. No connection is refused,
//! and what is under way here may end here.

use std::path::{Path, PathBuf};

use nix::unistd::getppid;

use super::{Master, handover, process};

impl Master {
    /// USR2.
    pub(super) fn upgrade(&mut self) {
        if self.successor.is_some() || self.is_draining() {
            tracing::warn!("the program is being replaced already");
            return;
        }
        let running = self.running();
        let pid = &running.settings.main.pid;
        if let Err(error) = std::fs::rename(pid, old(pid)) {
            tracing::error!("rename {} to {} failed ({error})", pid.display(), old(pid).display());
            return;
        }
        match handover::start(&running, self.ops_socket.as_ref()) {
            Ok(child) => {
                tracing::info!("started new binary process {}", child.id());
                self.successor = Some(child);
            }
            Err(error) => {
                tracing::error!("the new binary cannot be started: {error}");
                take_back(pid);
            }
        }
    }

    /// The one who takes our place, or the one whose place we have taken, listens on the same sockets.
    pub(super) fn shares_sockets(&self) -> bool {
        // A predecessor is our parent until it ends.
        self.successor.is_some() || self.predecessor.is_some_and(|pid| pid == getppid())
    }

    /// A new process that ended while we still run did not take over: we go on as if nothing had been.
    pub(super) fn look_after_successor(&mut self) {
        let Some(child) = &mut self.successor else { return };
        let Ok(Some(status)) = child.try_wait() else { return };
        tracing::error!("new binary process {} exited: {status}", child.id());
        self.successor = None;
        take_back(&self.running().settings.main.pid);
    }

    /// WINCH: the workers end when their connections do; the sockets stay open, for the new process and for HUP.
    pub(super) async fn rest(&mut self) {
        if self.successor.is_none() || self.is_draining() {
            return;
        }
        tracing::info!("gracefully shutting down worker threads");
        self.prober.stop();
        let deadline = self.running().settings.main.worker_shutdown_timeout;
        self.crew.drain(deadline).await;
    }
}

/// Where the id of a process that is being replaced is kept.
pub(super) fn old(pid: &Path) -> PathBuf {
    let mut name = pid.as_os_str().to_owned();
    name.push(".oldbin");
    name.into()
}

fn take_back(pid: &Path) {
    // The new process may have written its own already.
    if process::read_pid_file(&old(pid)).is_ok_and(|id| u32::try_from(id) == Ok(std::process::id()))
        && let Err(error) = std::fs::rename(old(pid), pid)
    {
        tracing::error!("rename {} to {} failed ({error})", old(pid).display(), pid.display());
    }
}
