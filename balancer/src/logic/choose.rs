//! Which server gets the next request: nginx's algorithms, to the pick. No sockets, no clock, no locks: the caller
//! holds the lock and says what time it is.

mod hash;

use std::cmp::Ordering;
use std::ops::Range;
use std::time::Duration;

use smallvec::SmallVec;

pub use self::hash::Key;
use self::hash::Ring;
use super::health::Peer;

/// How servers are chosen. The key of a hash is the caller's to compute: see [`Attempts::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    RoundRobin,
    LeastConn,
    IpHash,
    Hash,
    ConsistentHash,
    Random,
    /// `random two least_conn`.
    RandomTwo,
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
}

/// After so many draws that met an unusable server, hashing and random fall back to round robin, as in nginx.
const DRAWS_MAX: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Primary,
    Backup,
}

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
        }
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
    pub fn new(method: Method, peers: Vec<Peer>) -> Balance {
        let primaries = peers.iter().take_while(|peer| !peer.terms.backup).count();
        debug_assert!(peers[primaries..].iter().all(|peer| peer.terms.backup), "backups come last");
        let ring = match method {
            Method::ConsistentHash => Ring::new(&peers[..primaries]),
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
        self.peers.iter().filter(|peer| !peer.terms.down).count()
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
            _ => self.round_robin(backups, attempts, now),
        };
        self.take(index?, attempts, now)
    }

    fn pick_primary(&mut self, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        let index = if self.is_single() {
            self.only_server(attempts)
        } else {
            match self.method {
                Method::RoundRobin => self.round_robin(0..self.primaries, attempts, now),
                Method::LeastConn => self.least_conn(0..self.primaries, attempts, now),
                Method::IpHash | Method::Hash => self.by_hash(attempts, now),
                Method::ConsistentHash => self.by_ring(attempts, now),
                Method::Random => self.random(attempts, now),
                Method::RandomTwo => self.random_two(attempts, now),
            }
        };
        self.take(index?, attempts, now)
    }

    fn take(&mut self, index: usize, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        attempts.tried.insert(index);
        self.peers[index].on_picked(now);
        Some(index)
    }

    /// A request to this server is over. Returns true when it has just been taken out of the rotation.
    pub fn on_end(&mut self, index: usize, failed: bool, now: Duration) -> bool {
        let single = self.is_single();
        let Some(peer) = self.peers.get_mut(index) else { return false };
        match (single, failed) {
            (true, _) => peer.on_single_end(),
            (false, false) => peer.on_success(),
            (false, true) => return peer.on_failure(now),
        }
        false
    }

    fn is_open(&self, index: usize, attempts: &Attempts, now: Duration) -> bool {
        !attempts.tried.contains(index) && self.peers[index].unusable(now).is_none()
    }

    fn only_server(&self, attempts: &Attempts) -> Option<usize> {
        let peer = &self.peers[0];
        (!attempts.tried.contains(0) && !peer.terms.down && !peer.is_full()).then_some(0)
    }

    /// Smooth weighted round robin over some of the servers.
    fn round_robin(&mut self, range: Range<usize>, attempts: &Attempts, now: Duration) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut total = 0;
        for index in range {
            if !self.is_open(index, attempts, now) {
                continue;
            }
            total += self.peers[index].gain();
            let current = self.peers[index].current_weight();
            if best.is_none_or(|best| current > self.peers[best].current_weight()) {
                best = Some(index);
            }
        }
        self.peers[best?].pay(total);
        best
    }

    /// Fewest requests per weight; among equals, round robin from the first of them on.
    fn least_conn(&mut self, range: Range<usize>, attempts: &Attempts, now: Duration) -> Option<usize> {
        let end = range.end;
        let mut best: Option<usize> = None;
        let mut many = false;
        for index in range.filter(|index| self.is_open(*index, attempts, now)) {
            match best.map(|best| self.compare_load(index, best)) {
                None | Some(Ordering::Less) => {
                    best = Some(index);
                    many = false;
                }
                Some(Ordering::Equal) => many = true,
                Some(Ordering::Greater) => {}
            }
        }
        let first = best?;
        if !many {
            return best;
        }
        let (mut best, mut total) = (first, 0);
        for index in first..end {
            if !self.is_open(index, attempts, now) || self.compare_load(index, first).is_ne() {
                continue;
            }
            total += self.peers[index].gain();
            if self.peers[index].current_weight() > self.peers[best].current_weight() {
                best = index;
            }
        }
        self.peers[best].pay(total);
        Some(best)
    }

    fn random(&mut self, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        while attempts.misses <= DRAWS_MAX && self.primaries > 1 {
            let index = self.draw_weighted(attempts);
            if self.is_open(index, attempts, now) {
                return Some(index);
            }
            attempts.misses += 1;
        }
        self.round_robin(0..self.primaries, attempts, now)
    }

    /// Two draws, the less loaded of them wins.
    fn random_two(&mut self, attempts: &mut Attempts, now: Duration) -> Option<usize> {
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
            return Some(if self.compare_load(index, first).is_gt() { first } else { index });
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

    /// Requests in flight per weight.
    fn compare_load(&self, left: usize, right: usize) -> Ordering {
        let (left, right) = (&self.peers[left], &self.peers[right]);
        let scaled = |one: &Peer, other: &Peer| u64::from(one.conns) * u64::from(other.terms.weight);
        scaled(left, right).cmp(&scaled(right, left))
    }
}

#[cfg(test)]
mod tests;
