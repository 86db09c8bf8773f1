//! Which server gets the next request: nginx's algorithms, to the pick. No sockets, no clock, no locks: the caller
//! holds the lock and says what time it is.

mod hash;
mod load;

use std::ops::Range;
use std::time::Duration;

use smallvec::SmallVec;

pub use self::hash::Key;
use self::hash::Ring;
use super::health::Peer;
use super::times::AnswerTimes;
use crate::conf::upstream::{Better, Duty, LeastTime, Tier, Until};

/// How servers are chosen. The key of a hash is the caller's to compute: see [`Attempts::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    RoundRobin,
    LeastConn,
    LeastTime(LeastTime),
    IpHash,
    /// With the bound of a server's load in percent of the average; 0: none.
    Hash(u32),
    ConsistentHash(u32),
    Random,
    RandomTwo(Better),
}

/// How a request at a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Answered(AnswerTimes),
    /// The client left, or the answer was one that leads to the next server without blame.
    Blameless,
    Failed,
}

/// What the end of a request needs to know of its pick.
#[derive(Debug, Clone, Copy)]
pub struct Picked {
    pub index: usize,
    pub at: Duration,
    /// The answer's head has been counted already.
    pub has_header: bool,
}

/// All servers of one group with their live state.
#[derive(Debug)]
pub struct Balance {
    method: Method,
    /// Primaries first, then backups; the indexes that picks return.
    peers: Vec<Peer>,
    primaries: usize,
    ring: Ring,
}

/// What one request has tried so far.
#[derive(Debug)]
pub struct Attempts {
    tier: Tier,
    tried: Tried,
    key: Key,
    /// Running value of ip_hash and hash, place on the ring of the consistent hash.
    hash: u32,
    rehash: u32,
    /// Draws that met an unusable server. Past [`DRAWS_MAX`] round robin takes over.
    misses: u32,
    random: u64,
    /// The server that the client sticks to, by its id.
    wanted: Option<Box<[u8]>>,
}

/// After so many draws that met an unusable server, hashing and random fall back to round robin, as in nginx.
const DRAWS_MAX: u32 = 20;

/// A set of servers by index.
#[derive(Debug, Default, Clone)]
pub struct Tried(SmallVec<[u64; 2]>);

impl Tried {
    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    pub fn insert(&mut self, index: usize) {
        if self.0.len() <= index / 64 {
            self.0.resize(index / 64 + 1, 0);
        }
        self.0[index / 64] |= 1 << (index % 64);
    }
}

impl Attempts {
    /// `key` is the client's address for ip_hash, the rendered key for the hashes, [`Key::None`] otherwise.
    /// `seed` feeds the random methods.
    pub fn new(key: Key, seed: u64) -> Attempts {
        Attempts {
            tier: Tier::Primary,
            tried: Tried::default(),
            key,
            hash: hash::IP_HASH_START,
            rehash: 0,
            misses: 0,
            random: seed | 1,
            wanted: None,
        }
    }

    /// The client has been at this server before and shall find back to it.
    pub fn sticking_to(mut self, sid: Option<&[u8]>) -> Attempts {
        self.wanted = sid.map(Into::into);
        self
    }

    /// Nothing has been tried yet.
    pub fn is_first(&self) -> bool {
        self.tried.0.iter().all(|word| *word == 0)
    }

    /// Who has waited looks at all servers again, as one that has just come: only what was tried stays so.
    pub fn start_over(&mut self) {
        self.tier = Tier::Primary;
        (self.hash, self.rehash, self.misses) = (hash::IP_HASH_START, 0, 0);
    }

    /// The id of the server that the client sticks to.
    pub fn wanted(&self) -> Option<&[u8]> {
        self.wanted.as_deref()
    }

    pub fn has_tried(&self, index: usize) -> bool {
        self.tried.contains(index)
    }

    /// xorshift64*: spread is all that is asked of it.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

impl Balance {
    /// `peers`: primaries first, then backups.
    pub fn new(method: Method, mut peers: Vec<Peer>) -> Balance {
        debug_assert!(peers.is_sorted_by_key(|peer| peer.terms.tier), "backups come last");
        let primaries = peers.iter().take_while(|peer| peer.terms.tier == Tier::Primary).count();
        if peers.iter().any(|peer| !peer.terms.slow_start.is_zero()) {
            peers.iter_mut().for_each(Peer::refine);
        }
        let ring = match method {
            Method::ConsistentHash(_) => Ring::new(&peers[..primaries]),
            _ => Ring::default(),
        };
        Balance { method, peers, primaries, ring }
    }

    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    pub fn peers_mut(&mut self) -> &mut [Peer] {
        &mut self.peers
    }

    /// The one server of a group is never counted as failed and never tried again.
    pub fn is_single(&self) -> bool {
        self.peers.len() == 1
    }

    /// How many servers a request may try, as nginx counts: those that are not `down`.
    pub fn tries_max(&self) -> usize {
        self.peers.iter().filter(|peer| peer.terms.duty == Duty::Up).count()
    }

    /// The next server of this request; it counts as in use until [`Balance::on_end`]. `None`: no live upstreams.
    pub fn pick(&mut self, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        if attempts.tier == Tier::Primary {
            let picked = self.pick_primary(attempts, now);
            if picked.is_some() || self.primaries == self.peers.len() {
                return picked;
            }
            attempts.tier = Tier::Backup;
        }
        let backups = self.primaries..self.peers.len();
        let index = match self.method {
            Method::LeastConn => self.least_conn(backups, attempts, now),
            Method::LeastTime(by) => self.least_time(by, backups, attempts, now),
            _ => self.round_robin(backups, attempts, now),
        };
        self.take(index?, attempts, now)
    }

    fn pick_primary(&mut self, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        let primaries = 0..self.primaries;
        let index = if self.is_single() {
            self.only_server(attempts, now)
        } else {
            match self.method {
                Method::RoundRobin => self.round_robin(primaries, attempts, now),
                Method::LeastConn => self.least_conn(primaries, attempts, now),
                Method::LeastTime(by) => self.least_time(by, primaries, attempts, now),
                Method::IpHash | Method::Hash(_) => self.by_hash(attempts, now),
                Method::ConsistentHash(_) => self.by_ring(attempts, now),
                Method::Random => self.random(attempts, now),
                Method::RandomTwo(better) => self.random_two(better, attempts, now),
            }
        };
        self.take(index?, attempts, now)
    }

    fn take(&mut self, index: usize, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        attempts.tried.insert(index);
        let counts_inflight = self.counts_inflight();
        let peer = &mut self.peers[index];
        peer.on_picked(now);
        if counts_inflight {
            peer.times.on_picked(now);
        }
        Some(index)
    }

    fn counts_inflight(&self) -> bool {
        matches!(self.method, Method::LeastTime(LeastTime { inflight: true, .. }))
    }

    /// The head of an answer has come. True where that has been counted and must not be again.
    pub fn on_header(&mut self, picked: Picked, took: Duration, now: Duration) -> bool {
        let Method::LeastTime(LeastTime { until: Until::Header, inflight: true }) = self.method else {
            return false;
        };
        if let Some(peer) = self.peers.get_mut(picked.index) {
            peer.times.on_header(took);
            peer.times.on_done(picked.at, Some(now));
        }
        true
    }

    /// The server has switched protocols.
    pub fn on_switched(&mut self, picked: Picked, now: Duration) {
        if let Some(peer) = self.peers.get_mut(picked.index) {
            peer.on_alive(Some(now));
        }
    }

    /// A request to this server is over; without `now` its end was not seen. Returns true when the server has just
    /// been taken out of the rotation.
    pub fn on_end(&mut self, picked: Picked, ending: Ending, now: Option<Duration>) -> bool {
        let single = self.is_single();
        let is_inflight = self.counts_inflight() && !picked.has_header;
        let Some(peer) = self.peers.get_mut(picked.index) else { return false };
        if is_inflight {
            peer.times.on_done(picked.at, now);
        }
        if let Ending::Answered(times) = ending {
            peer.times.on_answered(times, picked.has_header);
        }
        match (single, ending, now) {
            (true, ..) => peer.on_single_end(),
            (false, Ending::Failed, Some(now)) => return peer.on_failure(now),
            (false, Ending::Failed, None) => peer.on_left(),
            (false, _, now) => peer.on_success(now),
        }
        false
    }

    fn is_open(&self, index: usize, attempts: &Attempts, now: Duration) -> bool {
        !attempts.tried.contains(index) && self.peers[index].unusable(now).is_none()
    }

    fn only_server(&self, attempts: &Attempts, now: Duration) -> Option<usize> {
        if let Some(index) = self.wanted(&(0..1), attempts, now) {
            return Some(index);
        }
        let peer = &self.peers[0];
        let is_open = peer.terms.duty == Duty::Up && peer.checks.unusable().is_none() && !peer.is_full();
        (is_open && !attempts.tried.contains(0)).then_some(0)
    }

    /// The server that the client sticks to, if it can be asked.
    fn wanted(&self, range: &Range<usize>, attempts: &Attempts, now: Duration) -> Option<usize> {
        let sid = attempts.wanted.as_deref()?;
        let index = range.clone().find(|index| self.peers[*index].terms.sid.text().as_bytes() == sid)?;
        let is_open = !attempts.tried.contains(index) && self.peers[index].unusable_for_own(now).is_none();
        is_open.then_some(index)
    }

    /// Smooth weighted round robin over some of the servers.
    fn round_robin(&mut self, range: Range<usize>, attempts: &Attempts, now: Duration) -> Option<usize> {
        let wanted = self.wanted(&range, attempts, now);
        if let Some(wanted) = wanted
            && self.is_overdrawn(wanted, &range)
        {
            return Some(wanted);
        }
        let mut best: Option<usize> = None;
        let mut total = 0;
        for index in range {
            if !self.is_open(index, attempts, now) {
                continue;
            }
            total += self.peers[index].gain(now);
            let current = self.peers[index].current_weight();
            if best.is_none_or(|best| current > self.peers[best].current_weight()) {
                best = Some(index);
            }
        }
        let best = wanted.or(best)?;
        self.peers[best].pay(total);
        Some(best)
    }

    /// Clients that stick to one server pay for it only so far: else the others would be flooded with new ones.
    fn is_overdrawn(&self, index: usize, range: &Range<usize>) -> bool {
        let others = range.clone().filter(|other| *other != index);
        let weight: i64 = others.map(|other| i64::from(self.peers[other].terms.weight)).sum();
        let peer = &self.peers[index];
        peer.current_weight() <= -weight * peer.unit()
    }

    fn random(&mut self, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        let wanted = self.wanted(&(0..self.primaries), attempts, now);
        if wanted.is_some() && attempts.misses <= DRAWS_MAX && self.primaries > 1 {
            return wanted;
        }
        while attempts.misses <= DRAWS_MAX && self.primaries > 1 {
            let index = self.draw_weighted(attempts);
            if self.is_open(index, attempts, now) {
                return Some(index);
            }
            attempts.misses += 1;
        }
        self.round_robin(0..self.primaries, attempts, now)
    }

    /// Two draws, the better of them wins.
    fn random_two(&mut self, better: Better, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        let wanted = self.wanted(&(0..self.primaries), attempts, now);
        if wanted.is_some() && attempts.misses <= DRAWS_MAX && self.primaries > 1 {
            return wanted;
        }
        let mut first: Option<usize> = None;
        while attempts.misses <= DRAWS_MAX && self.primaries > 1 {
            let index = self.draw_weighted(attempts);
            if first == Some(index) || !self.is_open(index, attempts, now) {
                attempts.misses += 1;
                continue;
            }
            let Some(first) = first else {
                first = Some(index);
                attempts.misses += 1;
                continue;
            };
            let is_first_better = match better {
                Better::LeastConn => self.compare_load(index, first, now).is_gt(),
                Better::LeastTime(until) => {
                    self.compare_time(LeastTime { until, inflight: false }, (index, first), now).is_gt()
                }
            };
            return Some(if is_first_better { first } else { index });
        }
        self.round_robin(0..self.primaries, attempts, now)
    }

    fn draw_weighted(&self, attempts: &mut Attempts) -> usize {
        let total = self.total_weight();
        let drawn = if total == 0 { 0 } else { attempts.draw() % total };
        self.at_weight(drawn)
    }

    fn total_weight(&self) -> u64 {
        self.peers[..self.primaries].iter().map(|peer| u64::from(peer.terms.weight)).sum()
    }

    /// The primary that owns this point of the line on which each has its weight as length.
    fn at_weight(&self, mut point: u64) -> usize {
        for (index, peer) in self.peers[..self.primaries].iter().enumerate() {
            let weight = u64::from(peer.terms.weight);
            if point < weight {
                return index;
            }
            point -= weight;
        }
        0
    }
}

#[cfg(test)]
mod tests;
