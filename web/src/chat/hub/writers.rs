//! The tasks that write what rooms say: a few for all sockets. A member's own task is not woken for it, which would
//! cost more than the write itself, and frames that come while others are being written share a write.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chassis::tasks::Tasks;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Member;
use crate::logic::rooms::MemberId;

/// From the begin of one round to that of the next. The first message after a pause leaves at once; in a busy room those
/// of the next 10 ms share one write per member, which is most of the cost of a delivery. Nobody sees 10 ms.
const ROUND_PERIOD: Duration = Duration::from_millis(10);
/// Writes in a row before other tasks of this thread get their turn: less than half a millisecond.
const STRETCH_LEN: usize = 64;

/// All writers; a member always has the same one.
pub struct Writers {
    writers: Vec<Arc<Writer>>,
}

/// One of them, with the members that wait for it.
pub struct Writer {
    due: Mutex<Vec<Arc<Member>>>,
    news: Notify,
    /// Counts write calls.
    pub(super) writes: Counter,
}

impl Writers {
    /// Half as many as the runtime has threads: a large room must not keep all of them from requests.
    pub fn new(writes: &Counter) -> Self {
        let count = tokio::runtime::Handle::current().metrics().num_workers().div_ceil(2);
        let writer =
            |_| Arc::new(Writer { due: Mutex::default(), news: Notify::new(), writes: writes.clone() });
        Self { writers: (0..count).map(writer).collect() }
    }

    pub fn of(&self, member: MemberId) -> Arc<Writer> {
        let count = self.writers.len() as u64;
        Arc::clone(&self.writers[(member % count) as usize])
    }

    /// Starts them; each ends with what `ended` gives.
    pub fn start<E: Future<Output = ()> + Send + 'static>(&self, tasks: &Tasks, ended: impl Fn() -> E) {
        for writer in &self.writers {
            let (writer, ended) = (Arc::clone(writer), ended());
            tasks.spawn("socket writer", async move {
                tokio::select! { () = writer.run() => {}, () = ended => {} }
            });
        }
    }
}

impl Writer {
    /// Writes the member's queue in its next round.
    pub fn list(&self, member: Arc<Member>) {
        let is_first = {
            let mut due = self.due.lock().expect("nobody panics while holding it");
            due.push(member);
            due.len() == 1
        };
        if is_first {
            self.news.notify_one();
        }
    }

    async fn run(&self) {
        let mut round = Vec::new();
        loop {
            self.news.notified().await;
            let began = Instant::now();
            std::mem::swap(&mut round, &mut *self.due.lock().expect("nobody panics while holding it"));
            for (index, member) in round.drain(..).enumerate() {
                member.write();
                if index % STRETCH_LEN == STRETCH_LEN - 1 {
                    tokio::task::yield_now().await;
                }
            }
            tokio::time::sleep_until(began + ROUND_PERIOD).await;
        }
    }
}
