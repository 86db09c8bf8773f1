//! Cancel requests: our key → the client → the server it holds, or → the peer that made the key. The server serves nobody
//! else until Postgres has closed the connection that carried the cancel, else the next client's query would be hit.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pgwire::startup::{self, CancelKey};
use tokio::sync::oneshot;

use crate::clients::{ClientEntry, Doing, Order};
use crate::connect;
use crate::house::House;
use crate::logic::cancel_key::{ClientKey, Route};
use crate::logic::ledger::PoolKey;
use crate::wire::Wire;

/// Where a request ended that was not sent on, for the log.
type Dropped = &'static str;

/// A limit of zero means "for ever"; a request whose connection hangs must still end some day.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// About what a server takes for the client's parameters.
const ROUND_TRIP: Duration = Duration::from_millis(1);

/// Requests to one pool or peer share a line: so many at a time, the rest in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    Pool(PoolKey),
    Peer(u16),
}

/// Cancel requests of one lane, for the console.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Waiting for their turn.
    pub waiting: usize,
    /// Connecting.
    pub dialing: usize,
    /// Sent; the other side has not closed the connection yet.
    pub sent: usize,
}

/// All cancel requests under way.
#[derive(Debug, Default)]
pub struct Desk {
    lines: Mutex<HashMap<Lane, Line>>,
}

#[derive(Debug, Default)]
struct Line {
    dialing: usize,
    sent: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// The right to be under way in a lane. Dropping it gives it to the next in line.
struct Turn {
    house: Arc<House>,
    lane: Lane,
    is_sent: bool,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn({:?}, is_sent: {})", self.lane, self.is_sent)
    }
}

/// A cancel request from `asker`. Nothing is ever answered: the asker learns nothing, right or wrong. The result is for the
/// log.
pub async fn forward(house: &Arc<House>, asker: &ClientEntry, key: &CancelKey) -> Dropped {
    let Ok(secret) = key.secret.as_slice().try_into() else { return "failed cancel request" };
    let own_id = house.settings_cached(|s| s.peer_id);
    let limit = house.settings_cached(|s| s.cancel_wait_timeout);
    let limit = if limit.is_zero() { WAIT_MAX } else { limit };
    let request = async {
        match ClientKey::from_halves(key.process_id, secret).route(own_id) {
            Route::Here(key) => to_server(house, asker, key).await,
            Route::Peer(peer, key) => to_peer(house, asker, peer, key).await,
            Route::Exhausted => "failed to forward cancel request because its TTL was exhausted",
        }
    };
    tokio::time::timeout(limit, request).await.unwrap_or("cancel_wait_timeout")
}

async fn to_server(house: &Arc<House>, asker: &ClientEntry, key: ClientKey) -> Dropped {
    let Some(entry) = house.clients.by_key(key) else { return "failed cancel request" };
    let Some(login) = entry.login.get() else { return "failed cancel request" };
    let Some(pool) = login.pool.clone() else {
        entry.give(Order::Cancelled);
        return "cancel request for console client";
    };
    if entry.doing() == Doing::Waiting {
        // Nothing runs yet: the answer is ours.
        entry.give(Order::Cancelled);
        return "cancel request for waiting client";
    }
    let Some((server, info)) = house.pools.held_by(pool.key, entry.id) else {
        return "cancel request for idle client";
    };
    // Cancels may use as many connections again as the pool itself: a full pool must not keep them out.
    let room = house.pools.cancel_room(pool.key);
    let mut turn = take_turn(house, asker, Lane::Pool(pool.key), room).await;
    let Ok(wire) = connect::connect_only(house, &info.target).await else { return "connect failed" };
    // Only now: while it was on its way the query may have ended, and the server may serve somebody else.
    let Some(parked) = house.pools.begin_cancel(house, server, info.id, entry.id) else {
        return "not sending cancel request for client that is now idle";
    };
    // What is ours would be hit, and the client told that its parameters were refused.
    while matches!(entry.doing(), Doing::Waiting | Doing::Syncing)
        && house.pools.held_by(pool.key, entry.id).is_some()
    {
        tokio::time::sleep(ROUND_TRIP).await;
    }
    turn.on_connected(asker);
    send(wire, &info.target.key).await;
    drop(parked);
    "successfully sent cancel request"
}

async fn to_peer(house: &Arc<House>, asker: &ClientEntry, id: u16, key: ClientKey) -> Dropped {
    let settings = house.settings();
    let Some(peer) = settings.peers.get(&id) else { return "could not find peer to forward request to" };
    let size = peer.pool_size.unwrap_or(settings.default_pool_size) as usize;
    let mut turn = take_turn(house, asker, Lane::Peer(id), size).await;
    let Ok(wire) = connect::connect_peer(house, &peer.host, peer.port).await else { return "connect failed" };
    turn.on_connected(asker);
    send(wire, &key.to_cancel_key()).await;
    "successfully sent cancel request"
}

async fn send(mut wire: Wire, key: &CancelKey) {
    let mut out = Vec::new();
    startup::cancel_request(&mut out, key);
    if wire.write_all(&out).await.is_err() {
        return;
    }
    // Postgres closes the connection when the signal is sent, a peer when its own request is over.
    let mut nothing = [0; 64];
    while matches!(wire.read(&mut nothing).await, Ok(len) if len > 0) {}
}

/// Waits while `room` requests of this lane are under way; one may always go.
async fn take_turn(house: &Arc<House>, asker: &ClientEntry, lane: Lane, room: usize) -> Turn {
    asker.set_doing(Doing::CancelWaiting, Instant::now());
    let next = {
        let mut lines = house.cancels.lock();
        let line = lines.entry(lane).or_default();
        if line.under_way() < room.max(1) {
            line.dialing += 1;
            return Turn { house: house.clone(), lane, is_sent: false };
        }
        let (sender, next) = oneshot::channel();
        line.waiting.push_back(sender);
        next
    };
    next.await.expect("a line lasts as long as somebody is under way in it, and he hands on his turn")
}

impl ClientKey {
    pub fn to_cancel_key(self) -> CancelKey {
        CancelKey { process_id: self.process_id(), secret: self.secret().to_vec() }
    }
}

impl Desk {
    pub fn counts(&self, lane: Lane) -> Counts {
        self.lock().get(&lane).map_or(Counts::default(), Line::counts)
    }

    /// Peers that a request has been passed to since the start.
    pub fn peers(&self) -> Vec<(u16, Counts)> {
        let lines = self.lock();
        let mut peers: Vec<_> = lines
            .iter()
            .filter_map(|(lane, line)| match lane {
                Lane::Peer(id) => Some((*id, line.counts())),
                Lane::Pool(_) => None,
            })
            .collect();
        peers.sort_by_key(|(id, _)| *id);
        peers
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lane, Line>> {
        self.lines.lock().expect("no code panics while it holds the lines of cancel requests")
    }
}

impl Line {
    fn under_way(&self) -> usize {
        self.dialing + self.sent
    }

    fn counts(&self) -> Counts {
        let waiting = self.waiting.iter().filter(|turn| !turn.is_closed()).count();
        Counts { waiting, dialing: self.dialing, sent: self.sent }
    }
}

impl Turn {
    fn on_connected(&mut self, asker: &ClientEntry) {
        asker.set_doing(Doing::Cancelling, Instant::now());
        if let Some(line) = self.house.cancels.lock().get_mut(&self.lane) {
            line.dialing -= 1;
            line.sent += 1;
            self.is_sent = true;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut lines = self.house.cancels.lock();
        let Some(line) = lines.get_mut(&self.lane) else { return };
        if self.is_sent {
            line.sent -= 1;
        } else {
            line.dialing -= 1;
        }
        line.waiting.retain(|turn| !turn.is_closed());
        if let Some(next) = line.waiting.pop_front() {
            line.dialing += 1;
            drop(lines);
            // Somebody who gives up at this very moment drops it, and so hands it on.
            let _ = next.send(Turn { house: self.house.clone(), lane: self.lane, is_sent: false });
            return;
        }
        // Pools come and go; peers stay in the list once they were used.
        if line.under_way() == 0 && matches!(self.lane, Lane::Pool(_)) {
            lines.remove(&self.lane);
        }
    }
}
