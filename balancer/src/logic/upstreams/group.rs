//! One group of servers behind its lock: picking, waiting, ending. The hand-over to a successor: succession.rs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use super::succession::Successor;
use crate::conf::build::NAMELESS;
use crate::conf::check::CheckTerms;
use crate::conf::upstream::{
    Address, Keepalive, Method, Origin, Peer, StickyKind, StickyLearn, Terms, Upstream, UpstreamId,
};
use crate::logic::choose::{self, Attempts, Balance, Ending, Picked};
use crate::logic::health::{Peer as LivePeer, Turn, Unusable};
use crate::logic::memory::{GroupMemory, KnownPeer};
use crate::logic::queue::{Queue, Ticket};
use crate::logic::sticky::Sessions;

/// One group of servers.
#[derive(Debug)]
pub struct Group {
    pub(super) upstream: Arc<Upstream>,
    method: choose::Method,
    /// `sticky learn`: the same over changes of the configuration.
    pub(super) sessions: Option<Arc<Mutex<Sessions>>>,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub balance: Balance,
    pub queue: Queue<Waker>,
    /// Of the next server that is new.
    pub next_id: u32,
    /// Requests in flight that were picked here, by server.
    pub own: Vec<u32>,
    /// The group that took over: requests that still hold a server here are counted there too.
    pub successor: Option<Successor>,
    /// Groups whose place this one has taken, as long as something is under way in them.
    pub predecessors: Vec<Weak<Group>>,
}

/// While a group is being replaced, servers become free elsewhere; who waits here looks again after so long.
const SUCCEEDED_PAUSE: Duration = Duration::from_millis(20);

/// What the status shows of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    pub len: usize,
    pub overflows: u64,
}

impl Group {
    pub fn new(upstream: Arc<Upstream>) -> Group {
        let method = method_of(&upstream.method);
        let mut peers: Vec<LivePeer> =
            upstream.peers.iter().map(|peer| LivePeer::new(peer.terms.clone())).collect();
        let mut next_id = 0;
        for peer in &mut peers {
            peer.id = next_id;
            next_id += 1;
        }
        let sessions = learn_of(&upstream)
            .map(|learn| Arc::new(Mutex::new(Sessions::new(learn.sessions_max, learn.timeout))));
        let own = vec![0; peers.len()];
        let balance = Balance::new(method, peers);
        let (queue, predecessors) = (Queue::default(), Vec::new());
        let state = State { balance, queue, next_id, own, successor: None, predecessors };
        Group { upstream, method, sessions, state: Mutex::new(state) }
    }

    /// A group that only the request knows: the target of a `proxy_pass` with variables.
    pub fn own(name: &str, addresses: impl IntoIterator<Item = Address>) -> Group {
        Group::new(Arc::new(Upstream {
            id: UpstreamId(usize::MAX),
            name: name.into(),
            origin: Origin::Implicit,
            method: Method::RoundRobin,
            peers: addresses.into_iter().map(|address| Peer::at(address, Terms::new(name))).collect(),
            named: Vec::new(),
            naming: NAMELESS,
            keepalive: Keepalive::default(),
            sticky: None,
            queue: None,
            zone: None,
            state_file: None,
        }))
    }

    /// What templates say cannot be compared: a group that has any is made anew.
    pub(super) fn is_same(&self, upstream: &Upstream) -> bool {
        let has_templates = matches!(upstream.method, Method::Hash { .. } | Method::ConsistentHash { .. })
            || upstream.sticky.is_some();
        let ours = &self.upstream;
        !has_templates
            && ours.sticky.is_none()
            && self.method == method_of(&upstream.method)
            && ours.id == upstream.id
            && ours.peers == upstream.peers
            && ours.named == upstream.named
            && ours.naming == upstream.naming
            && ours.queue == upstream.queue
            && ours.zone == upstream.zone
            && ours.state_file == upstream.state_file
            && ours.keepalive == upstream.keepalive
            && ours.ipv6_bits() == upstream.ipv6_bits()
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    pub fn name(&self) -> &str {
        &self.upstream.name
    }

    pub fn peers(&self) -> &[Peer] {
        &self.upstream.peers
    }

    pub fn is_single(&self) -> bool {
        self.upstream.peers.len() == 1
    }

    /// How many servers a request may try.
    pub fn tries_max(&self) -> u32 {
        self.lock().balance.tries_max() as u32
    }

    /// The next server of this request, counted as in use until the lease ends. `None`: no live upstreams, or others
    /// have waited longer for one.
    pub fn pick(&self, attempts: &mut Attempts, now: Duration) -> Option<Lease<'_>> {
        let mut state = self.lock();
        if !state.queue.is_empty() && attempts.is_first() {
            return None;
        }
        self.pick_in(&mut state, attempts, now)
    }

    fn pick_in(&self, state: &mut State, attempts: &mut Attempts, now: Duration) -> Option<Lease<'_>> {
        state.look_at_successor();
        let index = state.balance.pick(attempts, now)?;
        state.own[index] += 1;
        if let Some(successor) = &state.successor {
            successor.on_picked(index);
        }
        Some(Lease { group: self, picked: Picked { index, at: now, has_header: false }, is_open: true })
    }

    /// A place among those who wait; `None` where there is no queue, or no room in it.
    pub fn enqueue(&self, waker: &Waker) -> Option<Seat<'_>> {
        let terms = self.upstream.queue?;
        let ticket = self.lock().queue.enter(waker.clone(), terms.len_max)?;
        Some(Seat { group: self, ticket })
    }

    pub fn queue(&self) -> QueueState {
        let state = self.lock();
        QueueState { len: state.queue.len(), overflows: state.queue.overflows() }
    }

    /// Why a server would be passed over now; for the log and the status page.
    pub fn unusable(&self, index: usize, now: Duration) -> Option<Unusable> {
        self.lock().balance.peers().get(index)?.unusable(now)
    }

    /// Which servers a pick would pass over now, and why: `10.0.0.2:80=failed 10.0.0.3:80=tried`.
    pub fn passed_over(&self, attempts: &Attempts, now: Duration) -> String {
        let state = self.lock();
        let reason = |(index, live): (usize, &LivePeer)| {
            let why = if attempts.has_tried(index) {
                Some("tried")
            } else {
                live.unusable(now).map(Unusable::name)
            };
            why.map(|why| format!("{}={why}", self.upstream.peers[index].name))
        };
        let reasons: Vec<String> = state.balance.peers().iter().enumerate().filter_map(reason).collect();
        reasons.join(" ")
    }

    /// Reads the live state of all servers, for metrics and status.
    pub fn with_peers<T>(&self, read: impl FnOnce(&[LivePeer]) -> T) -> T {
        read(self.lock().balance.peers())
    }

    /// Active checks of this server are about to begin.
    pub fn begin_checks(&self, index: usize, terms: CheckTerms) {
        if let Some(peer) = self.lock().balance.peers_mut().get_mut(index) {
            peer.checks.begin(terms);
        }
    }

    /// So many checks look after these servers: what others have found no longer counts.
    pub fn keep_checks(&self, count: usize) {
        let mut state = self.lock();
        state.balance.peers_mut().iter_mut().for_each(|peer| peer.checks.keep(count));
        state.wake_first();
    }

    /// An active check has ended.
    pub fn on_check(&self, index: usize, passed: bool, terms: CheckTerms, now: Duration) -> Option<Turn> {
        let mut state = self.lock();
        let turn = state.balance.peers_mut().get_mut(index)?.on_check(passed, terms, now);
        if turn == Some(Turn::Healthy) {
            state.wake_first();
        }
        turn
    }

    /// The server that a learnt session belongs to.
    pub fn session(&self, name: &[u8], now: Duration) -> Option<Box<str>> {
        self.with_sessions(|sessions| sessions.find(name, now).map(Into::into))?
    }

    /// `sticky learn`: this server has answered that session. One that was only looked up is not made.
    pub fn learn(&self, name: &[u8], sid: &str, creates: bool, now: Duration) {
        self.with_sessions(|sessions| match creates {
            true => sessions.learn(name, sid, now),
            false => sessions.touch(name, sid, now),
        });
    }

    fn with_sessions<T>(&self, with: impl FnOnce(&mut Sessions) -> T) -> Option<T> {
        let sessions = self.sessions.as_ref()?;
        Some(with(&mut sessions.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// What a process that takes our place should know.
    pub(super) fn memory(&self) -> GroupMemory {
        let state = self.lock();
        let known = |(peer, live): (&Peer, &LivePeer)| KnownPeer {
            server: peer.terms.server.clone(),
            address: peer.name.clone(),
            memory: live.memory(),
        };
        GroupMemory {
            name: self.upstream.name.clone(),
            next_id: state.next_id,
            peers: self.upstream.peers.iter().zip(state.balance.peers()).map(known).collect(),
            sessions: self.with_sessions(|sessions| sessions.known()).unwrap_or_default(),
        }
    }

    /// Goes on where the group of that name in another process was. Servers that it did not know get new ids.
    pub(super) fn recall(&self, memory: GroupMemory) {
        let mut state = self.lock();
        state.next_id = memory.next_id;
        let mut known = memory.peers;
        for (index, peer) in self.upstream.peers.iter().enumerate() {
            let same = |known: &KnownPeer| known.server == peer.terms.server && known.address == peer.name;
            match known.iter().position(same) {
                Some(found) => state.balance.peers_mut()[index].recall(known.swap_remove(found).memory),
                None => {
                    state.balance.peers_mut()[index].id = state.next_id;
                    state.next_id += 1;
                }
            }
        }
        self.with_sessions(|sessions| sessions.recall(memory.sessions));
    }

    fn on_header(&self, picked: Picked, took: Duration, now: Duration) -> bool {
        let mut state = self.lock();
        if let Some((successor, picked)) = state.in_successor(picked) {
            successor.on_header(picked, took, now);
        }
        state.balance.on_header(picked, took, now)
    }

    fn on_switched(&self, picked: Picked, now: Duration) {
        let mut state = self.lock();
        if let Some((successor, picked)) = state.in_successor(picked) {
            successor.on_switched(picked, now);
        }
        state.balance.on_switched(picked, now);
    }

    /// A request that was picked here is over.
    fn on_end(&self, picked: Picked, ending: Ending, now: Option<Duration>) -> bool {
        let mut state = self.lock();
        state.own[picked.index] -= 1;
        state.on_end(picked, ending, now)
    }

    /// A panic in another worker leaves counts that are whole: each change is one call.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn on_end(&mut self, picked: Picked, ending: Ending, now: Option<Duration>) -> bool {
        let ejected = self.balance.on_end(picked, ending, now);
        if let Some((successor, picked)) = self.in_successor(picked) {
            successor.lock().on_end(picked, ending, now);
        }
        self.wake_first();
        ejected
    }

    fn wake_first(&self) {
        if let Some(waker) = self.queue.first() {
            waker.wake_by_ref();
        }
    }
}

/// A place in a group's queue. Dropped, it is given up, and the next one moves up.
#[derive(Debug)]
pub struct Seat<'a> {
    group: &'a Group,
    ticket: Ticket,
}

impl<'a> Seat<'a> {
    /// A server, if it is this request's turn and one is free. `Err` says when to look again unasked, if ever.
    pub fn pick(
        &self,
        attempts: &mut Attempts,
        now: Duration,
        waker: &Waker,
    ) -> Result<Lease<'a>, Option<Duration>> {
        attempts.start_over();
        let mut state = self.group.lock();
        if state.queue.is_first(self.ticket)
            && let Some(lease) = self.group.pick_in(&mut state, attempts, now)
        {
            state.queue.leave(self.ticket);
            // One wake-up may stand for two servers that became free.
            state.wake_first();
            return Ok(lease);
        }
        state.queue.rewake(self.ticket, waker.clone());
        let soon = state.successor.as_ref().map(|_| now + SUCCEEDED_PAUSE);
        let back = state.balance.peers().iter().filter_map(|peer| peer.back_at(now)).min();
        Err(soon.into_iter().chain(back).min())
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        let was_first = state.queue.is_first(self.ticket);
        state.queue.leave(self.ticket);
        if was_first {
            state.wake_first();
        }
    }
}

/// The right to one request at one server. Dropped, it ends without blame: the client left, or the task did.
#[derive(Debug)]
pub struct Lease<'a> {
    group: &'a Group,
    picked: Picked,
    is_open: bool,
}

impl<'a> Lease<'a> {
    pub fn index(&self) -> usize {
        self.picked.index
    }

    pub fn peer(&self) -> &'a Peer {
        &self.group.upstream.peers[self.picked.index]
    }

    pub fn group(&self) -> &'a Group {
        self.group
    }

    /// The head of the answer has come.
    pub fn on_header(&mut self, took: Duration, now: Duration) {
        self.picked.has_header = self.group.on_header(self.picked, took, now);
    }

    /// The server has switched protocols, for a connection that may last.
    pub fn on_switched(&self, now: Duration) {
        self.group.on_switched(self.picked, now);
    }

    /// The request is over. True when this failure has just taken the server out of the rotation.
    pub fn end(mut self, ending: Ending, now: Duration) -> bool {
        self.is_open = false;
        self.group.on_end(self.picked, ending, Some(now))
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.group.on_end(self.picked, Ending::Blameless, None);
        }
    }
}

pub(super) fn learn_of(upstream: &Upstream) -> Option<&StickyLearn> {
    match &upstream.sticky.as_ref()?.kind {
        StickyKind::Learn(learn) => Some(learn),
        StickyKind::Route | StickyKind::Cookie(_) => None,
    }
}

fn method_of(method: &Method) -> choose::Method {
    match method {
        Method::RoundRobin => choose::Method::RoundRobin,
        Method::LeastConn => choose::Method::LeastConn,
        Method::LeastTime(by) => choose::Method::LeastTime(*by),
        Method::IpHash { .. } => choose::Method::IpHash,
        Method::Hash { balance_percent, .. } => choose::Method::Hash(*balance_percent),
        Method::ConsistentHash { balance_percent, .. } => choose::Method::ConsistentHash(*balance_percent),
        Method::Random => choose::Method::Random,
        Method::RandomTwo(better) => choose::Method::RandomTwo(*better),
    }
}
