//! Every task of a service lives in [`Tasks`] and ends on drain; what does not end by the deadline is aborted.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// The tasks of one service. Clones share them.
///
/// A task that serves for ever watches [`Tasks::drain_started`] and ends what it does at the next
/// good moment. [`Tasks::drain`] asks, waits, and aborts those that did not end in time.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    tracker: TaskTracker,
    draining: CancellationToken,
    aborted: CancellationToken,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` on the current runtime. A panic inside it ends this task alone; the log says so. What it logs is
    /// logged within the span of its beginning: a request's work stays the request's.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let aborted = self.shared.aborted.clone();
        let task = self.shared.tracker.spawn(bounded(work, aborted).in_current_span());
        tokio::spawn(async move { report(name, task.await) }.in_current_span());
    }

    /// Runs `work` on the current thread's `LocalSet`: tasks that never migrate.
    pub fn spawn_local(&self, name: &'static str, work: impl Future<Output = ()> + 'static) {
        let aborted = self.shared.aborted.clone();
        let task = self.shared.tracker.spawn_local(bounded(work, aborted));
        tokio::task::spawn_local(async move { report(name, task.await) });
    }

    /// How many tasks are running.
    pub fn len(&self) -> usize {
        self.shared.tracker.len()
    }

    pub fn is_empty(&self) -> bool {
        self.shared.tracker.is_empty()
    }

    pub fn draining(&self) -> bool {
        self.shared.draining.is_cancelled()
    }

    /// Comes back when drain has started; at once where it already has.
    pub async fn drain_started(&self) {
        self.shared.draining.cancelled().await;
    }

    /// Asks all tasks to end, without waiting.
    pub fn start_drain(&self) {
        self.shared.draining.cancel();
    }

    /// Asks all tasks to end, waits up to `deadline`, then aborts the rest. Gives how many were aborted.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.start_drain();
        self.shared.tracker.close();
        if tokio::time::timeout(deadline, self.shared.tracker.wait()).await.is_ok() {
            return 0;
        }
        let left = self.len();
        self.shared.aborted.cancel();
        self.shared.tracker.wait().await;
        left
    }
}

async fn bounded(work: impl Future<Output = ()>, aborted: CancellationToken) {
    tokio::select! {
        () = work => {}
        () = aborted.cancelled() => {}
    }
}

fn report(name: &'static str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(cause) = ended.map_err(|e| e.to_string()) {
        tracing::error!(task = name, %cause, "task {name} panicked and has ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_tasks_that_end_by_themselves() {
        let tasks = Tasks::new();
        let watching = tasks.clone();
        tasks.spawn("server", async move { watching.drain_started().await });
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks.drain(Duration::from_secs(1)).await, 0);
        assert!(tasks.is_empty() && tasks.draining());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_aborted_at_the_deadline_and_counted() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", std::future::pending());
        assert_eq!(tasks.drain(Duration::from_secs(1)).await, 1);
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_task_alone() {
        let tasks = Tasks::new();
        tasks.spawn("doomed", async { panic!("on purpose") });
        tasks.spawn("fine", async {});
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test]
    async fn a_task_stays_in_the_span_in_which_it_began() {
        let _default = tracing::subscriber::set_default(tracing_subscriber::registry());
        let tasks = Tasks::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let work = async move {
            tokio::task::yield_now().await;
            let span = tracing::Span::current();
            tell.send(span.metadata().map(tracing::Metadata::name)).unwrap();
        };
        tracing::error_span!("request").in_scope(|| tasks.spawn("work", work));
        assert_eq!(told.await, Ok(Some("request")));
    }

    #[tokio::test]
    async fn local_tasks_are_drained_too() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let tasks = Tasks::new();
                let watching = tasks.clone();
                tasks.spawn_local("local", async move { watching.drain_started().await });
                assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
            })
            .await;
    }
}
