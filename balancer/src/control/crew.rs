//! The workers: each has a number, and a number without a worker gets one. What they are told is for `control.rs` to say.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::running::Running;
use crate::worker::{self, Command, WorkerHandle};

/// A worker that is busy for so long is not waited for; it does what it was told when it comes to it.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Crew {
    workers: Vec<WorkerHandle>,
    /// Told to end, until their connections have ended.
    retiring: Vec<WorkerHandle>,
    /// So many numbers, from 0 on.
    wanted: usize,
    /// So many of them had no worker when that was last tried.
    missing: usize,
}

impl Crew {
    /// From now on there are to be as many as `running` says.
    pub(super) fn start(&mut self, running: &Arc<Running>) -> io::Result<()> {
        self.wanted = running.settings.main.worker_processes;
        self.fill(running)
    }

    /// A new configuration: those that it does not want end, the others take it up, new ones are started with it. Comes
    /// back when sockets that it has not may be closed.
    pub(super) async fn reload(&mut self, next: &Arc<Running>) {
        let wanted = next.settings.main.worker_processes;
        let deadline = next.settings.main.worker_shutdown_timeout;
        let (kept, surplus) = std::mem::take(&mut self.workers).into_iter().partition(|w| w.index < wanted);
        self.workers = kept;
        let mut waiting = self.retire(surplus, deadline).await;
        for worker in &self.workers {
            let (done, taken_up) = oneshot::channel();
            worker.send(Command::Reload { running: next.clone(), done }).await;
            waiting.push(taken_up);
        }
        if !all_done(waiting).await {
            tracing::warn!("a worker is too busy to take up the configuration at once");
        }
        if let Err(error) = self.start(next) {
            tracing::error!("a worker cannot be started: {error}");
        }
    }

    /// All of them end when their connections do. Comes back when sockets may be closed.
    pub(super) async fn drain(&mut self, deadline: Option<Duration>) {
        self.wanted = 0;
        let workers = std::mem::take(&mut self.workers);
        let waiting = self.retire(workers, deadline).await;
        if !all_done(waiting).await {
            tracing::warn!("a worker is too busy to let in at once who waits");
        }
    }

    pub(super) async fn stop(&mut self) {
        self.wanted = 0;
        self.retiring.append(&mut self.workers);
        for worker in &self.retiring {
            worker.send(Command::Stop).await;
        }
    }

    async fn retire(
        &mut self,
        workers: Vec<WorkerHandle>,
        deadline: Option<Duration>,
    ) -> Vec<oneshot::Receiver<()>> {
        let mut waiting = Vec::new();
        for worker in workers {
            let (done, drained) = oneshot::channel();
            worker.send(Command::Drain { deadline, done }).await;
            waiting.push(drained);
            self.retiring.push(worker);
        }
        waiting
    }

    /// Joins those that have ended; a number that has no worker, for whatever reason, is given one.
    pub(super) fn look_after(&mut self, running: &Arc<Running>) {
        self.retiring.retain(|worker| !worker.is_finished());
        for ended in self.workers.extract_if(.., |worker| worker.is_finished()) {
            let index = ended.index;
            let how = if ended.join() { "by itself" } else { "by a panic" };
            tracing::error!(alert = true, "worker {index} ended {how}; starting it anew");
            running.metrics.respawned.fetch_add(1, Relaxed);
        }
        let missing_before = self.missing;
        // Said once and not with each look.
        if let Err(error) = self.fill(running)
            && self.missing != missing_before
        {
            tracing::error!(alert = true, "a worker cannot be started, trying on: {error}");
        }
    }

    fn fill(&mut self, running: &Arc<Running>) -> io::Result<()> {
        let vacant = vacant(self.workers.iter().map(|worker| worker.index), self.wanted);
        self.missing = vacant.len();
        for index in vacant {
            self.workers.push(worker::spawn(index, running.clone())?);
            self.missing -= 1;
        }
        Ok(())
    }

    pub(super) fn working(&self) -> &[WorkerHandle] {
        &self.workers
    }

    /// Also of those that are told to end.
    pub(super) fn is_empty(&self) -> bool {
        self.workers.is_empty() && self.retiring.is_empty()
    }
}

/// Waits for the workers' word, also that of one that has ended. False when one kept it too long.
pub(super) async fn all_done(waiting: Vec<oneshot::Receiver<()>>) -> bool {
    tokio::time::timeout(PATIENCE, futures_util::future::join_all(waiting)).await.is_ok()
}

/// The numbers below `wanted` that nobody has.
fn vacant(taken: impl Iterator<Item = usize>, wanted: usize) -> Vec<usize> {
    let taken: Vec<usize> = taken.collect();
    (0..wanted).filter(|index| !taken.contains(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_lost_its_worker_is_vacant_and_no_other() {
        assert_eq!(vacant([0, 2].into_iter(), 3), [1]);
        assert_eq!(vacant([2, 0].into_iter(), 5), [1, 3, 4]);
        assert_eq!(vacant([0, 1].into_iter(), 2), [] as [usize; 0]);
        assert_eq!(vacant([0, 1].into_iter(), 0), [] as [usize; 0]);
    }
}
