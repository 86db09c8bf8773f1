//! Room for one more connection: where `worker_connections` or descriptors run out, those that have idled longest are
//! closed. Each worker closes its own.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Worker;
use super::connections::{End, SentAway, Slot};

/// The operator is told of it no more often, as by nginx.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// So many who turn out to have a request are passed over; then who asks for room has waited enough.
const SPARED_MAX: usize = 32;

/// All of the worker's connections are busy.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("{0} worker_connections are not enough")]
pub struct NoRoom(usize);

/// The process, or the machine, may have no more of them open.
pub fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

impl Worker {
    /// A place for a connection that is about to be opened; idle ones go where few places are left.
    pub fn slot_for(&self, end: End) -> Result<Slot, NoRoom> {
        let max = self.generation().running.settings.events.worker_connections;
        let surplus = self.connections.surplus(max);
        if surplus > 0 {
            self.warn(format_args!("{max} worker_connections are not enough, reusing connections"));
            self.send_away(surplus);
        }
        if self.connections.has_room(max) { Ok(self.connections.open(end)) } else { Err(NoRoom(max)) }
    }

    /// After what failed: whether it is worth another try because it lacked a descriptor and idle connections have gone.
    pub async fn makes_room_after(&self, error: &io::Error) -> bool {
        lacks_descriptors(error) && self.free_descriptors().await
    }

    async fn free_descriptors(&self) -> bool {
        let count = self.connections.for_descriptor();
        let closed = self.connections.closed();
        if count > 0 {
            self.warn(format_args!("open files are not enough, reusing connections"));
            self.send_away(count);
        }
        self.connections.one_leaves(closed).await
    }

    fn send_away(&self, count: usize) {
        let (mut sent, mut spared) = (0, 0);
        while sent < count && spared < SPARED_MAX {
            match self.connections.send_away() {
                None => return,
                Some(SentAway::Nobody) => spared += 1,
                Some(SentAway::Client) => sent += 1,
                Some(SentAway::Upstream(number)) => {
                    self.idle.close(number);
                    self.generation().running.metrics.upstreams_shed.fetch_add(1, Relaxed);
                    sent += 1;
                }
            }
        }
    }

    fn warn(&self, what: std::fmt::Arguments<'_>) {
        let now = Instant::now();
        if self.warned.get().is_none_or(|at| now.duration_since(at) >= WARNING_INTERVAL) {
            self.warned.set(Some(now));
            tracing::warn!("{what}");
        }
    }
}
