//! Looks at how busy the workers are, and tells clients where to go on. A client goes when there is something to do for it
//! and it holds no server, or one for a whole session; those who are idle stay where they are, which costs nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use crate::admin::facts::Workers;
use crate::house::House;
use crate::logic::ledger::WorkerId;
use crate::logic::spread::{self, Load, Quota};
use crate::worker::{Accepted, Traveller};

const PERIOD: Duration = Duration::from_millis(333);

pub struct Spread {
    seats: Box<[Seat]>,
    in_use: AtomicUsize,
    mailboxes: OnceLock<Vec<mpsc::Sender<Accepted>>>,
    changes: AtomicU64,
}

/// A worker's place. On cache lines of its own: its worker asks it in each transaction.
#[derive(Default)]
#[repr(align(128))]
struct Seat {
    leave: AtomicU32,
    take: AtomicU32,
    /// What its thread has run.
    clock: OnceLock<ClockId>,
}

impl Spread {
    /// By load, or over all workers for good.
    pub fn new(workers: usize, by_load: bool) -> Spread {
        let in_use = if by_load { 1 } else { workers };
        let seats = (0..workers).map(|_| Seat::default()).collect();
        Spread {
            seats,
            in_use: AtomicUsize::new(in_use),
            mailboxes: OnceLock::new(),
            changes: AtomicU64::new(0),
        }
    }

    pub fn facts(&self) -> Workers {
        let changes = self.changes.load(Ordering::Relaxed);
        Workers { all: self.seats.len(), in_use: self.in_use(), changes }
    }

    /// The first so many workers get the clients that come.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    pub fn set_mailboxes(&self, mailboxes: Vec<mpsc::Sender<Accepted>>) {
        let _ = self.mailboxes.set(mailboxes);
    }

    /// Called by the worker on its own thread.
    pub fn sit(&self, worker: WorkerId) {
        let _ = self.seats[usize::from(worker)].clock.set(clock_of_this_thread());
    }

    /// Where a client of this worker should go on, if anywhere.
    #[inline]
    pub fn claim(&self, from: WorkerId) -> Option<WorkerId> {
        let seat = &self.seats[usize::from(from)];
        if seat.leave.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let to = self.seats.iter().position(|seat| take_one(&seat.take))?;
        take_one(&seat.leave).then_some(to as WorkerId)
    }

    /// Gives the traveller back when there is no way.
    pub fn send(&self, to: WorkerId, traveller: Box<Traveller>) -> Result<(), Box<Traveller>> {
        let Some(mailboxes) = self.mailboxes.get() else { return Err(traveller) };
        let Ok(room) = mailboxes[usize::from(to)].try_reserve() else { return Err(traveller) };
        room.send(Accepted::Traveller(traveller));
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn set_quotas(&self, quotas: &[Quota]) {
        for (seat, quota) in self.seats.iter().zip(quotas) {
            seat.take.store(quota.take, Ordering::Relaxed);
            seat.leave.store(quota.leave, Ordering::Relaxed);
        }
    }

    fn run_times(&self) -> Vec<Duration> {
        self.seats
            .iter()
            .map(|seat| seat.clock.get().map_or(Duration::ZERO, |clock| run_time(*clock)))
            .collect()
    }
}

/// Runs until the process ends.
pub async fn run(house: std::sync::Arc<House>) {
    let busy = house.settings().worker_busy;
    if house.workers == 1 || busy == 0 {
        return;
    }
    let mut thinker = spread::Spread::new(f64::from(busy) / 100.0);
    let mut before = (Instant::now(), house.spread.run_times());
    // Not at once: of no time at all nothing can be told.
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + PERIOD, PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = (Instant::now(), house.spread.run_times());
        let period = now.0.saturating_duration_since(before.0);
        let ran = now.1.iter().zip(&before.1).map(|(now, before)| now.saturating_sub(*before));
        let loads: Vec<Load> =
            ran.enumerate().map(|(w, ran)| load(&house, w as WorkerId, ran, period)).collect();
        let quotas = thinker.look(&loads);
        house.spread.in_use.store(thinker.in_use(), Ordering::Relaxed);
        house.spread.set_quotas(&quotas);
        before = now;
    }
}

fn load(house: &House, worker: WorkerId, ran: Duration, period: Duration) -> Load {
    let mut lively = 0;
    house.clients.each_of_worker(worker, |entry| lively += u32::from(entry.take_liveliness()));
    Load { share: ran.as_secs_f64() / period.as_secs_f64().max(1e-6), lively }
}

fn take_one(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
}

/// The processor clock of a thread, as `pthread_getcpuclockid` makes it: `clock_gettime` takes it from any thread.
fn clock_of_this_thread() -> ClockId {
    const OF_A_THREAD_BY_SCHEDULER: i32 = 0b110;
    ClockId::from_raw(!nix::unistd::gettid().as_raw() << 3 | OF_A_THREAD_BY_SCHEDULER)
}

fn run_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock).map_or(0, |time| time.num_nanoseconds());
    Duration::from_nanos(u64::try_from(time).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_clock_runs_while_the_thread_does_and_is_read_from_another() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy = std::thread::spawn(move || {
            sender.send(clock_of_this_thread()).unwrap();
            while stopped.try_recv().is_err() {}
        });
        let clock = receiver.recv().unwrap();
        let first = run_time(clock);
        while run_time(clock) < first + Duration::from_millis(20) {}
        stop.send(()).unwrap();
        busy.join().unwrap();
    }

    #[test]
    fn claims_end_with_the_quota() {
        let spread = Spread::new(3, true);
        assert_eq!(spread.claim(0), None);
        spread.set_quotas(&[
            Quota { leave: 2, take: 0 },
            Quota { leave: 0, take: 1 },
            Quota { leave: 0, take: 5 },
        ]);
        let claims: Vec<_> = (0..3).map(|_| spread.claim(0)).collect();
        assert_eq!(claims, [Some(1), Some(2), None]);
        assert_eq!(spread.claim(1), None);
    }
}
