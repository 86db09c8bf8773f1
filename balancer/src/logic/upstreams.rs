//! The live state of all upstream groups, shared by all workers: one short lock per group, taken when a server is
//! picked and when its request ends, so that every count is exact. Which server is `choose`'s to say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::choose::{self, Attempts, Balance};
use super::health::{Peer as LivePeer, Terms, Unusable};
use crate::conf::settings::Http;
use crate::conf::upstream::{Address, Method, Origin, Peer, Upstream, UpstreamId};

/// The groups of one generation of the configuration, by `UpstreamId`.
#[derive(Debug, Default)]
pub struct Set {
    groups: Vec<Arc<Group>>,
}

/// One group of servers.
#[derive(Debug)]
pub struct Group {
    name: Box<str>,
    origin: Origin,
    method: choose::Method,
    pub peers: Vec<Peer>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    balance: Balance,
    /// The group that took over on a reload: requests that still hold a server here are counted there too.
    successor: Option<Successor>,
}

#[derive(Debug)]
struct Successor {
    group: Arc<Group>,
    /// Where each of our servers is there.
    places: Vec<Option<usize>>,
}

impl Set {
    /// Groups that did not change stay as they are; in the others, servers that stay keep their state.
    pub fn new(http: &Http, previous: Option<&Set>) -> Set {
        let group_of = |upstream: &Arc<Upstream>| {
            let same_name =
                |group: &&Arc<Group>| group.name == upstream.name && group.origin == upstream.origin;
            match previous.and_then(|set| set.groups.iter().find(same_name)) {
                Some(before) if before.is_same(upstream) => before.clone(),
                Some(before) => Group::succeeding(before, upstream),
                None => Arc::new(Group::new(upstream)),
            }
        };
        Set { groups: http.upstreams.iter().map(group_of).collect() }
    }

    pub fn group(&self, id: UpstreamId) -> &Group {
        &self.groups[id.0]
    }

    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }
}

impl Group {
    pub fn new(upstream: &Upstream) -> Group {
        let peers = upstream.peers.clone();
        Group::of(upstream.name.clone(), upstream.origin, method_of(&upstream.method), peers)
    }

    /// A group of one address that only the request knows: the target of a `proxy_pass` with variables.
    pub fn single(name: &str, address: Address) -> Group {
        let peer = Peer {
            server: name.into(),
            name: address.to_string().into(),
            address,
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
        };
        Group::of(name.into(), Origin::Implicit, choose::Method::RoundRobin, vec![peer])
    }

    fn of(name: Box<str>, origin: Origin, method: choose::Method, peers: Vec<Peer>) -> Group {
        let balance = Balance::new(method, peers.iter().map(live).collect());
        Group { name, origin, method, peers, state: Mutex::new(State { balance, successor: None }) }
    }

    /// Both happen under the old group's lock: no request is counted in one of them only.
    fn succeeding(before: &Arc<Group>, upstream: &Upstream) -> Arc<Group> {
        let mut state = before.lock();
        let group = Arc::new(Group::new(upstream));
        let place = |peer: &Peer| {
            group.peers.iter().position(|new| new.address == peer.address && new.server == peer.server)
        };
        let places: Vec<Option<usize>> = before.peers.iter().map(place).collect();
        let mut balance = group.lock();
        for (old, new) in places.iter().enumerate() {
            if let Some(new) = new {
                balance.balance.peers_mut()[*new].inherit(&state.balance.peers()[old]);
            }
        }
        drop(balance);
        state.successor = Some(Successor { group: group.clone(), places });
        group
    }

    fn is_same(&self, upstream: &Upstream) -> bool {
        self.method == method_of(&upstream.method) && self.peers == upstream.peers
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn method(&self) -> choose::Method {
        self.method
    }

    pub fn is_single(&self) -> bool {
        self.peers.len() == 1
    }

    /// How many servers a request may try.
    pub fn tries_max(&self) -> u32 {
        self.lock().balance.tries_max() as u32
    }

    /// The next server of this request, counted as in use until the lease ends. `None`: no live upstreams.
    pub fn pick(&self, attempts: &mut Attempts, now: Duration) -> Option<Lease<'_>> {
        let mut state = self.lock();
        let index = state.balance.pick(attempts, now)?;
        if let Some(successor) = &state.successor {
            successor.on_picked(index);
        }
        Some(Lease { group: self, index, is_open: true })
    }

    /// Why a server would be passed over now; for the log and the status page.
    pub fn unusable(&self, index: usize, now: Duration) -> Option<Unusable> {
        self.lock().balance.peers().get(index)?.unusable(now)
    }

    /// Reads the live state of all servers, for metrics and status.
    pub fn with_peers<T>(&self, read: impl FnOnce(&[LivePeer]) -> T) -> T {
        read(self.lock().balance.peers())
    }

    fn on_end(&self, index: usize, failed: bool, now: Duration) -> bool {
        let mut state = self.lock();
        let ejected = state.balance.on_end(index, failed, now);
        if let Some(successor) = &state.successor {
            successor.on_end(index, failed, now);
        }
        ejected
    }

    /// A panic in another worker leaves counts that are whole: each change is one call.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Successor {
    fn on_picked(&self, index: usize) {
        let Some(place) = self.places[index] else { return };
        let mut state = self.group.lock();
        state.balance.peers_mut()[place].conns += 1;
        if let Some(next) = &state.successor {
            next.on_picked(place);
        }
    }

    fn on_end(&self, index: usize, failed: bool, now: Duration) {
        if let Some(place) = self.places[index] {
            self.group.on_end(place, failed, now);
        }
    }
}

/// The right to one request at one server. Dropped, it ends without blame: the client left, or the task did.
#[derive(Debug)]
pub struct Lease<'a> {
    group: &'a Group,
    index: usize,
    is_open: bool,
}

impl<'a> Lease<'a> {
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn peer(&self) -> &'a Peer {
        &self.group.peers[self.index]
    }

    /// The request is over. True when this failure has just taken the server out of the rotation.
    pub fn end(mut self, failed: bool, now: Duration) -> bool {
        self.is_open = false;
        self.group.on_end(self.index, failed, now)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.group.on_end(self.index, false, Duration::ZERO);
        }
    }
}

fn live(peer: &Peer) -> LivePeer {
    LivePeer::new(Terms {
        server: peer.server.clone(),
        weight: peer.weight,
        max_conns: peer.max_conns,
        max_fails: peer.max_fails,
        fail_timeout: peer.fail_timeout,
        backup: peer.backup,
        down: peer.down,
    })
}

fn method_of(method: &Method) -> choose::Method {
    match method {
        Method::RoundRobin => choose::Method::RoundRobin,
        Method::LeastConn => choose::Method::LeastConn,
        Method::IpHash => choose::Method::IpHash,
        Method::Hash { .. } => choose::Method::Hash,
        Method::ConsistentHash { .. } => choose::Method::ConsistentHash,
        Method::Random => choose::Method::Random,
        Method::RandomTwo => choose::Method::RandomTwo,
    }
}

#[cfg(test)]
mod tests;
