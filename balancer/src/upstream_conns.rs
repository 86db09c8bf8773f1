//! Connections to upstreams that wait for their next request, per worker. Given back they are kept, dropped they are
//! closed; the last one in is the first one out, because its peer is the least likely to have given up on it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::conf::upstream::{Address, Keepalive};
use crate::tls::connect::TlsPeer;
use crate::wire::Wire;
use crate::worker::connections::Slot;

/// How long nothing is kept of a server that says more than it was asked. Its next unasked bytes may come after its
/// connection was lent, and then HTTP/1.1 has nothing by which to tell them from the answer.
const DISTRUST_TIME: Duration = Duration::from_secs(10);
/// Bytes within this time of an answer belong to that answer; later they are the server's farewell (408) as a rule.
const AFTERMATH: Duration = Duration::from_secs(1);

/// One connection to an upstream server.
#[derive(Debug)]
pub struct UpstreamConn {
    pub wire: Wire,
    pub protocol: Protocol,
    pub opened: Instant,
    /// Requests that it has served.
    pub requests: u64,
    pub slot: Slot,
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
    distrusted_until: Option<Instant>,
}

/// Since when, and what.
type Idle = (Instant, UpstreamConn);

impl UpstreamConns {
    /// Arranges the stacks for a generation of the configuration; connections to servers that stay are kept.
    pub fn arrange(&self, groups: &[(&str, Vec<Address>)]) {
        let mut current = self.groups.borrow_mut();
        let mut before: HashMap<(Box<str>, Address), Stack> = HashMap::new();
        for stacks in current.drain(..) {
            let name = stacks.name;
            let peers = stacks.peers.into_iter();
            before.extend(peers.map(|stack| ((name.clone(), stack.address.clone()), stack)));
        }
        for (name, addresses) in groups {
            let mut stack = |address: &Address| {
                let known = before.remove(&(Box::from(*name), address.clone()));
                known.unwrap_or_else(|| Stack::new(address.clone()))
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
        let Stacks { peers, len, .. } = groups.get_mut(place.group)?;
        let stack = peers.get_mut(place.peer).filter(|stack| stack.address == *place.address)?;
        while let Some(last) = stack.idle.iter().rposition(|(_, conn)| conn.protocol == *protocol) {
            let (since, mut conn) = stack.idle.remove(last);
            *len -= 1;
            let idled = now.saturating_duration_since(since);
            match Sound::of(&mut conn) {
                Sound::Quiet if idled < idle_max => {
                    conn.slot.end_idle();
                    return Some(conn);
                }
                Sound::Speaks if idled < AFTERMATH => *len -= stack.distrust(now),
                Sound::Quiet | Sound::Speaks | Sound::Ended => {}
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
        let stack = stack.filter(|stack| stack.address == *place.address && stack.is_trusted(now));
        if let Some(stack) = stack {
            conn.slot.begin_idle();
            stack.idle.push((now, conn));
            stacks.len += 1;
        }
    }

    /// The server has sent more than it was asked for. True when that is news.
    pub fn distrust(&self, place: Place<'_>, now: Instant) -> bool {
        let mut groups = self.groups.borrow_mut();
        let Some(Stacks { peers, len, .. }) = groups.get_mut(place.group) else { return false };
        let stack = peers.get_mut(place.peer).filter(|stack| stack.address == *place.address);
        let Some(stack) = stack else { return false };
        let was_trusted = stack.is_trusted(now);
        *len -= stack.distrust(now);
        was_trusted
    }

    /// Closes what has idled too long, and what the other side has closed or spoken on unasked.
    pub fn tidy(&self, timeout_of: impl Fn(usize) -> Duration, now: Instant) {
        for (group, stacks) in self.groups.borrow_mut().iter_mut().enumerate() {
            let timeout = timeout_of(group);
            for stack in &mut stacks.peers {
                stack.tidy(timeout, now);
            }
            stacks.len = stacks.peers.iter().map(|stack| stack.idle.len()).sum();
        }
    }

    /// Closes the idle connection that has this slot, for want of room. Of those to its server none has idled longer.
    pub fn close(&self, slot: usize) {
        for stacks in self.groups.borrow_mut().iter_mut() {
            let is_it =
                |stack: &&mut Stack| stack.idle.first().is_some_and(|(_, conn)| conn.slot.number() == slot);
            if let Some(stack) = stacks.peers.iter_mut().find(is_it) {
                stack.idle.remove(0);
                stacks.len -= 1;
                return;
            }
        }
        debug_assert!(false, "who was told to go is the first of its stack");
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

impl Stack {
    fn new(address: Address) -> Stack {
        Stack { address, idle: Vec::new(), distrusted_until: None }
    }

    fn is_trusted(&self, now: Instant) -> bool {
        self.distrusted_until.is_none_or(|until| now >= until)
    }

    /// Closes all that is idle; gives how many they were.
    fn distrust(&mut self, now: Instant) -> usize {
        self.distrusted_until = Some(now + DISTRUST_TIME);
        self.idle.drain(..).count()
    }

    fn tidy(&mut self, timeout: Duration, now: Instant) {
        let mut speaks = false;
        self.idle.retain_mut(|(since, conn)| {
            let idled = now.saturating_duration_since(*since);
            let sound = Sound::of(conn);
            speaks |= sound == Sound::Speaks && idled < AFTERMATH;
            sound == Sound::Quiet && idled < timeout
        });
        if speaks {
            self.distrust(now);
        }
    }
}

/// What came on a connection on which nothing is owed, as far as the kernel has told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sound {
    Quiet,
    Ended,
    /// Bytes that nobody asked for: another client's answer, for all we know.
    Speaks,
}

impl Sound {
    fn of(conn: &mut UpstreamConn) -> Sound {
        match conn.wire.try_read(&mut [0]) {
            None => Sound::Quiet,
            Some(Ok(0) | Err(_)) => Sound::Ended,
            Some(Ok(_)) => Sound::Speaks,
        }
    }
}
