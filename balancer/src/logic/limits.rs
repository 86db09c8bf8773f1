//! `limit_req` and `limit_conn`: how much of a rate or of a number of requests is used, by key. `now` is an argument; one
//! short lock per zone makes the counts exact over all workers.

mod table;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::table::Table;

/// The leaky buckets of one `limit_req_zone`. Excess is counted in thousandths of a request, as nginx does.
#[derive(Debug)]
pub struct RequestZone {
    buckets: Mutex<Table<Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    excess: u64,
    last_ms: u64,
}

/// One limit that a request meets.
#[derive(Debug)]
pub struct Asked<'a> {
    pub zone: &'a RequestZone,
    /// Thousandths of a request per second.
    pub rate: u64,
    pub burst: u64,
    pub delay_after: u64,
    pub key: Vec<u8>,
}

/// What the limits say together. `index` is the limit that decides, `excess` how far it is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Pass,
    Delay { wait: Duration, index: usize, excess: u64 },
    Refuse { index: usize, excess: u64 },
}

/// Old buckets are looked through two at a time; nginx's number, so that no request pays for a long clean-up.
const STALE_PER_INSERT: usize = 2;
/// A bucket that is empty for this long is forgotten.
const STALE_MS: u64 = 60_000;

impl RequestZone {
    pub fn new(len: usize) -> RequestZone {
        RequestZone { buckets: Mutex::new(Table::new(len)) }
    }

    fn lock(&self) -> MutexGuard<'_, Table<Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far one more request would exceed the rate.
    fn excess(&self, rate: u64, key: &[u8], now_ms: u64) -> u64 {
        self.lock().get(key).map_or(0, |bucket| bucket.excess_at(rate, now_ms))
    }

    /// Counts one more request.
    fn count(&self, rate: u64, key: &[u8], now_ms: u64) -> u64 {
        let mut buckets = self.lock();
        if let Some(bucket) = buckets.touch(key) {
            let excess = bucket.excess_at(rate, now_ms);
            *bucket = Bucket { excess, last_ms: bucket.last_ms.max(now_ms) };
            return excess;
        }
        let is_stale =
            |bucket: &Bucket| bucket.last_ms + STALE_MS <= now_ms && bucket.left(rate, now_ms) == 0;
        buckets.drop_oldest_while(STALE_PER_INSERT, is_stale);
        buckets.insert(key, Bucket { excess: 0, last_ms: now_ms });
        0
    }
}

impl Bucket {
    fn left(&self, rate: u64, now_ms: u64) -> u64 {
        let leaked = rate.saturating_mul(now_ms.saturating_sub(self.last_ms)) / 1000;
        self.excess.saturating_sub(leaked)
    }

    fn excess_at(&self, rate: u64, now_ms: u64) -> u64 {
        let leaked = rate.saturating_mul(now_ms.saturating_sub(self.last_ms)) / 1000;
        (self.excess + 1000).saturating_sub(leaked)
    }
}

/// Asks all limits; only a request that none refuses is counted, and by all of them. Empty keys are not limited.
pub fn admit(asked: &[Asked<'_>], now: Duration) -> Admission {
    let now_ms = now.as_millis() as u64;
    let mut counted = asked.iter().enumerate().filter(|(_, asked)| !asked.key.is_empty());
    for (index, limit) in counted.clone() {
        let excess = limit.zone.excess(limit.rate, &limit.key, now_ms);
        if excess > limit.burst {
            return Admission::Refuse { index, excess };
        }
    }
    counted.by_ref().fold(Admission::Pass, |admission, (index, limit)| {
        let excess = limit.zone.count(limit.rate, &limit.key, now_ms);
        let beyond = excess.saturating_sub(limit.delay_after);
        let wait = Duration::from_millis(beyond.saturating_mul(1000) / limit.rate.max(1));
        match admission {
            Admission::Delay { wait: longest, .. } if longest >= wait => admission,
            _ if wait.is_zero() => admission,
            _ => Admission::Delay { wait, index, excess },
        }
    })
}

/// The counts of one `limit_conn_zone`.
#[derive(Debug)]
pub struct ConnectionZone {
    counts: Mutex<Table<u32>>,
}

impl ConnectionZone {
    pub fn new(len: usize) -> ConnectionZone {
        ConnectionZone { counts: Mutex::new(Table::new(len)) }
    }

    fn lock(&self) -> MutexGuard<'_, Table<u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more; `None` where `count_max` are taken, or no memory is left to count with.
    pub fn take(self: &Arc<Self>, key: &[u8], count_max: u32) -> Option<Place> {
        let mut counts = self.lock();
        if let Some(count) = counts.touch(key) {
            if *count >= count_max {
                return None;
            }
            *count += 1;
        } else if counts.has_room(key) {
            counts.insert(key, 1);
        } else {
            return None;
        }
        Some(Place { zone: self.clone(), key: key.into() })
    }

    #[cfg(test)]
    fn taken(&self, key: &[u8]) -> u32 {
        self.lock().get(key).copied().unwrap_or_default()
    }
}

/// One request's place under a limit of concurrent requests; given back when dropped.
#[derive(Debug)]
pub struct Place {
    zone: Arc<ConnectionZone>,
    key: Box<[u8]>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.zone.lock();
        let Some(count) = counts.touch(&self.key) else { return };
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.key);
        }
    }
}
