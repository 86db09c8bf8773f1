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

/// Asks all limits; only a request that none refuses is counted, and by all of them. Empty keys are not limited. All
/// zones are locked from the first look to the last count: of workers that ask at once no two see the same room.
pub fn admit(asked: &[Asked<'_>], now: Duration) -> Admission {
    let now_ms = now.as_millis() as u64;
    let limits = || asked.iter().enumerate().filter(|(_, asked)| !asked.key.is_empty());
    let mut zones = LockedZones::of(limits().map(|(_, limit)| limit.zone));
    for (index, limit) in limits() {
        let known = zones.buckets(limit.zone).get(&limit.key);
        let excess = known.map_or(0, |bucket| bucket.excess_at(limit.rate, now_ms));
        if excess > limit.burst {
            return Admission::Refuse { index, excess };
        }
    }
    limits().fold(Admission::Pass, |admission, (index, limit)| {
        let excess = count(zones.buckets(limit.zone), limit, now_ms);
        let beyond = excess.saturating_sub(limit.delay_after);
        let wait = Duration::from_millis(beyond.saturating_mul(1000) / limit.rate.max(1));
        match admission {
            Admission::Delay { wait: longest, .. } if longest >= wait => admission,
            _ if wait.is_zero() => admission,
            _ => Admission::Delay { wait, index, excess },
        }
    })
}

/// Counts one more request.
fn count(buckets: &mut Table<Bucket>, limit: &Asked<'_>, now_ms: u64) -> u64 {
    let rate = limit.rate;
    if let Some(bucket) = buckets.touch(&limit.key) {
        let excess = bucket.excess_at(rate, now_ms);
        *bucket = Bucket { excess, last_ms: bucket.last_ms.max(now_ms) };
        return excess;
    }
    let is_stale = |bucket: &Bucket| bucket.last_ms + STALE_MS <= now_ms && bucket.left(rate, now_ms) == 0;
    buckets.drop_oldest_while(STALE_PER_INSERT, is_stale);
    buckets.insert(&limit.key, Bucket { excess: 0, last_ms: now_ms });
    0
}

/// The zones of one request, each once. Locked in the order of their addresses, so that no two workers wait for each
/// other.
struct LockedZones<'a> {
    zones: Vec<(&'a RequestZone, MutexGuard<'a, Table<Bucket>>)>,
}

impl<'a> LockedZones<'a> {
    fn of(zones: impl Iterator<Item = &'a RequestZone>) -> LockedZones<'a> {
        let mut zones: Vec<&RequestZone> = zones.collect();
        zones.sort_by_key(|zone| std::ptr::from_ref(*zone).addr());
        zones.dedup_by(|one, other| std::ptr::eq(*one, *other));
        LockedZones { zones: zones.into_iter().map(|zone| (zone, zone.lock())).collect() }
    }

    fn buckets(&mut self, zone: &RequestZone) -> &mut Table<Bucket> {
        let locked = self.zones.iter_mut().find(|(locked, _)| std::ptr::eq(*locked, zone));
        &mut locked.expect("each zone that is asked is locked").1
    }
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
