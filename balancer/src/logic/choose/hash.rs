//! Choice by key: nginx's ip_hash and hash to the bit, and the ring of the consistent hash.

use std::net::IpAddr;
use std::time::Duration;

use crc32fast::Hasher;
use smallvec::SmallVec;

use super::{Attempts, Balance, DRAWS_MAX, Method, Peer};

pub(super) const IP_HASH_START: u32 = 89;

/// What a choice by key is made of.
#[derive(Debug, Clone, Default)]
pub enum Key {
    #[default]
    None,
    /// The bytes that are hashed; empty falls back to round robin.
    Bytes(SmallVec<[u8; 16]>),
}

impl Key {
    /// ip_hash's key: three octets of an IPv4 address, of an IPv6 one the first bits, the others taken for zero. A
    /// client on a unix socket counts as 0.0.0.
    pub fn of_client(address: Option<IpAddr>, ipv6_bits: u8) -> Key {
        Key::Bytes(match address {
            Some(IpAddr::V4(address)) => SmallVec::from_slice(&address.octets()[..3]),
            Some(IpAddr::V6(address)) => {
                let kept = u128::MAX.checked_shl(128 - u32::from(ipv6_bits)).unwrap_or(0);
                SmallVec::from_slice(&(u128::from(address) & kept).to_be_bytes())
            }
            None => SmallVec::from_slice(&[0; 3]),
        })
    }

    pub fn text(text: &[u8]) -> Key {
        Key::Bytes(SmallVec::from_slice(text))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Key::None => &[],
            Key::Bytes(bytes) => bytes,
        }
    }
}

/// Points of the consistent hash: 160 per unit of weight, in the manner of ketama.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Sorted by hash, one point per hash; the second field is the first peer with that server name.
    points: Vec<(u32, usize)>,
}

const POINTS_PER_WEIGHT: u32 = 160;

impl Ring {
    pub fn new(peers: &[Peer]) -> Ring {
        let mut points = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            // Addresses of one name share the name's points; round robin chooses among them.
            let owner =
                peers.iter().position(|other| other.terms.server == peer.terms.server).unwrap_or(index);
            let (host, port) = host_and_port(&peer.terms.server);
            let mut base = Hasher::new();
            base.update(host.as_bytes());
            base.update(b"\0");
            base.update(port.as_bytes());
            let mut previous = 0_u32;
            for _ in 0..peer.terms.weight.saturating_mul(POINTS_PER_WEIGHT) {
                let mut point = base.clone();
                point.update(&previous.to_le_bytes());
                previous = point.finalize();
                points.push((previous, owner));
            }
        }
        points.sort_by_key(|(hash, _)| *hash);
        points.dedup_by_key(|(hash, _)| *hash);
        Ring { points }
    }

    /// The first point at or after the hash; one past the end is the first again.
    fn place(&self, hash: u32) -> u32 {
        self.points.partition_point(|(point, _)| *point < hash) as u32
    }
}

/// `web-1:8000` → host and port; a path or an address without a port has no port.
fn host_and_port(server: &str) -> (&str, &str) {
    let bytes = server.as_bytes();
    if bytes.len() >= 5 && bytes[..5].eq_ignore_ascii_case(b"unix:") {
        return (&server[5..], "");
    }
    match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (server, ""),
    }
}

impl Balance {
    /// ip_hash and hash: draw by hash until an open server is met; the running value goes on over retries.
    pub(super) fn by_hash(&mut self, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        if matches!(self.method, Method::Hash(_)) && attempts.rehash == 0 {
            attempts.hash = 0;
        }
        let total = self.total_weight();
        let usable = self.primaries > 1 && total > 0 && !attempts.key.bytes().is_empty();
        let wanted = self.wanted(&(0..self.primaries), attempts, now);
        if wanted.is_some() && usable && attempts.misses <= DRAWS_MAX {
            return wanted;
        }
        while usable && attempts.misses <= DRAWS_MAX {
            let mut hash = attempts.hash;
            match self.method {
                Method::IpHash => hash = ip_hash_round(hash, attempts.key.bytes()),
                _ => hash = hash.wrapping_add(memcached_hash(attempts.rehash, attempts.key.bytes())),
            }
            attempts.hash = hash;
            attempts.rehash += 1;
            let index = self.at_weight(u64::from(hash) % total);
            if self.is_open(index, attempts, now) && self.is_within_bound(index, now) {
                return Some(index);
            }
            attempts.misses += 1;
        }
        self.past_the_hash(attempts, now)
    }

    /// No draw met an open server. The least loaded one is within every bound.
    fn past_the_hash(&mut self, attempts: &Attempts, now: Duration) -> Option<usize> {
        match self.method {
            Method::Hash(0) | Method::ConsistentHash(0) | Method::IpHash => {
                self.round_robin(0..self.primaries, attempts, now)
            }
            _ => self.least_conn(0..self.primaries, attempts, now),
        }
    }

    /// Consistent hash: walk the ring from the key's place to the first name that has an open server.
    pub(super) fn by_ring(&mut self, attempts: &mut Attempts, now: Duration) -> Option<usize> {
        if attempts.key.bytes().is_empty() || self.ring.points.is_empty() {
            return self.round_robin(0..self.primaries, attempts, now);
        }
        if attempts.rehash == 0 {
            attempts.rehash = 1;
            attempts.hash = self.ring.place(crc32fast::hash(attempts.key.bytes()));
        }
        let wanted = self.wanted(&(0..self.primaries), attempts, now);
        if wanted.is_some() && attempts.misses <= DRAWS_MAX {
            return wanted;
        }
        while attempts.misses <= DRAWS_MAX {
            let (_, owner) = self.ring.points[attempts.hash as usize % self.ring.points.len()];
            if let Some(index) = self.among_same_name(owner, attempts, now) {
                return Some(index);
            }
            attempts.hash = attempts.hash.wrapping_add(1);
            attempts.misses += 1;
        }
        self.past_the_hash(attempts, now)
    }

    /// Smooth weighted round robin among the addresses of one server name.
    fn among_same_name(&mut self, owner: usize, attempts: &Attempts, now: Duration) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut total = 0;
        for index in owner..self.primaries {
            if self.peers[index].terms.server != self.peers[owner].terms.server
                || !self.is_open(index, attempts, now)
                || !self.is_within_bound(index, now)
            {
                continue;
            }
            total += self.peers[index].gain(now);
            let current = self.peers[index].current_weight();
            if best.is_none_or(|best| current > self.peers[best].current_weight()) {
                best = Some(index);
            }
        }
        self.peers[best?].pay(total);
        best
    }
}

fn ip_hash_round(hash: u32, key: &[u8]) -> u32 {
    key.iter().fold(hash, |hash, byte| (hash * 113 + u32::from(*byte)) % 6271)
}

/// Cache::Memcached's: `(crc32(REHASH KEY) >> 16) & 0x7fff`, without REHASH the first time.
fn memcached_hash(rehash: u32, key: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    if rehash > 0 {
        hasher.update(rehash.to_string().as_bytes());
    }
    hasher.update(key);
    (hasher.finalize() >> 16) & 0x7fff
}
