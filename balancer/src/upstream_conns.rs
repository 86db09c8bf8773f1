//! Connections to upstreams that wait for their next request, per worker. Given back they are kept, dropped they are
//! closed; the last one in is the first one out, because its peer is the least likely to have given up on it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::conf::upstream::{Address, Keepalive};
use crate::tls::connect::TlsPeer;
use crate::wire::Wire;

/// One connection to an upstream server.
#[derive(Debug)]
pub struct UpstreamConn {
    pub wire: Wire,
    pub protocol: Protocol,
    pub opened: Instant,
    /// Requests that it has served.
    pub requests: u64,
}

/// What is spoken on a connection besides bytes: a request that means another cannot use it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Protocol {
    pub tls: Option<TlsPeer>,
    pub http2: bool,
}

/// Which stack. The address is checked too: a request that began before a reload knows servers by their old numbers.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub group: usize,
    pub peer: usize,
    pub address: &'a Address,
}

/// The idle connections of one worker.
#[derive(Debug, Default)]
pub struct UpstreamConns {
    groups: RefCell<Vec<Stacks>>,
}

/// The idle connections of one group: a stack per server.
#[derive(Debug, Default)]
struct Stacks {
    name: Box<str>,
    len: usize,
    peers: Vec<Stack>,
}

#[derive(Debug)]
struct Stack {
    address: Address,
    /// Oldest first.
    idle: Vec<Idle>,
}

/// Since when, and what.
type Idle = (Instant, UpstreamConn);

impl UpstreamConns {
    /// Arranges the stacks for a generation of the configuration; connections to servers that stay are kept.
    pub fn arrange(&self, groups: &[(&str, Vec<Address>)]) {
        let mut current = self.groups.borrow_mut();
        let mut before: HashMap<(Box<str>, Address), Vec<Idle>> = HashMap::new();
        for stacks in current.drain(..) {
            let name = stacks.name;
            before.extend(stacks.peers.into_iter().map(|stack| ((name.clone(), stack.address), stack.idle)));
        }
        for (name, addresses) in groups {
            let mut stack = |address: &Address| {
                let idle = before.remove(&(Box::from(*name), address.clone())).unwrap_or_default();
                Stack { address: address.clone(), idle }
            };
            let peers: Vec<Stack> = addresses.iter().map(&mut stack).collect();
            let len = peers.iter().map(|stack| stack.idle.len()).sum();
            current.push(Stacks { name: Box::from(*name), len, peers });
        }
    }

    /// The connection to this server that was used last, speaks this protocol and is still good.
    pub fn take(
        &self,
        place: Place<'_>,
        protocol: &Protocol,
        (idle_max, now): (Duration, Instant),
    ) -> Option<UpstreamConn> {
        let mut groups = self.groups.borrow_mut();
        let stacks = groups.get_mut(place.group)?;
        let stack = stacks.peers.get_mut(place.peer).filter(|stack| stack.address == *place.address)?;
        while let Some(last) = stack.idle.iter().rposition(|(_, conn)| conn.protocol == *protocol) {
            let (since, mut conn) = stack.idle.remove(last);
            stacks.len -= 1;
            if now.saturating_duration_since(since) < idle_max && is_quiet(&mut conn) {
                return Some(conn);
            }
        }
        None
    }

    /// Keeps a connection on which nothing is owed in either direction.
    pub fn give_back(&self, place: Place<'_>, conn: UpstreamConn, terms: &Keepalive, now: Instant) {
        let outworn = conn.requests >= terms.requests_max || now.duration_since(conn.opened) >= terms.time;
        let mut groups = self.groups.borrow_mut();
        let Some(stacks) = groups.get_mut(place.group).filter(|_| terms.idle_max > 0 && !outworn) else {
            return;
        };
        if stacks.len >= terms.idle_max {
            stacks.drop_oldest();
        }
        let stack = stacks.peers.get_mut(place.peer);
        if let Some(stack) = stack.filter(|stack| stack.address == *place.address) {
            stack.idle.push((now, conn));
            stacks.len += 1;
        }
    }

    /// Closes what has idled too long, and what the other side has closed or spoken on unasked.
    pub fn tidy(&self, timeout_of: impl Fn(usize) -> Duration, now: Instant) {
        for (group, stacks) in self.groups.borrow_mut().iter_mut().enumerate() {
            let timeout = timeout_of(group);
            for stack in &mut stacks.peers {
                stack.idle.retain_mut(|(since, conn)| now.duration_since(*since) < timeout && is_quiet(conn));
            }
            stacks.len = stacks.peers.iter().map(|stack| stack.idle.len()).sum();
        }
    }

    /// Idle connections of a group, for metrics.
    pub fn len(&self, group: usize) -> usize {
        self.groups.borrow().get(group).map_or(0, |stacks| stacks.len)
    }

    pub fn close_all(&self) {
        for stacks in self.groups.borrow_mut().iter_mut() {
            stacks.peers.iter_mut().for_each(|stack| stack.idle.clear());
            stacks.len = 0;
        }
    }
}

impl Stacks {
    fn drop_oldest(&mut self) {
        let oldest =
            self.peers.iter_mut().filter(|stack| !stack.idle.is_empty()).min_by_key(|stack| stack.idle[0].0);
        if let Some(stack) = oldest {
            stack.idle.remove(0);
            self.len -= 1;
        }
    }
}

/// Nothing came on it: neither the end nor bytes that nobody asked for (another client's answer, for all we know).
fn is_quiet(conn: &mut UpstreamConn) -> bool {
    conn.wire.try_read(&mut [0]).is_none()
}
