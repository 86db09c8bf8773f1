//! How one group takes another's place: servers that stay keep their state, and what is still under way in a group that
//! was replaced is counted in the newest one too. Picking and ending: group.rs.

use std::sync::{Arc, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use super::group::{Group, State, learn_of};
use crate::conf::upstream::{Peer, Upstream};
use crate::logic::choose::Picked;

#[derive(Debug)]
pub(super) struct Successor {
    group: Arc<Group>,
    /// Where each of our servers is there.
    places: Vec<Option<usize>>,
}

impl Group {
    /// Those that were replaced before point at the new group as well: no chain of groups grows behind a connection
    /// that lasts. One change at a time; locks are taken from old to new.
    pub(super) fn succeeding(before: &Arc<Group>, upstream: &Arc<Upstream>, now: Duration) -> Arc<Group> {
        let group = Group::next(before, upstream, now);
        let predecessors: Vec<Arc<Group>> =
            group.lock().predecessors.iter().filter_map(Weak::upgrade).collect();
        predecessors.iter().for_each(|old| old.catch_up());
        group
    }

    /// Both happen under the old group's lock: no request is counted in one of them only.
    fn next(before: &Arc<Group>, upstream: &Arc<Upstream>, now: Duration) -> Arc<Group> {
        // A ring of hashes takes its time.
        let mut group = Group::new(upstream.clone());
        let mut state = before.lock();
        group.take_sessions(before);
        let places = places(&before.upstream.peers, &upstream.peers);
        let taken = group.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        taken.next_id = state.next_id;
        for (new, peer) in taken.balance.peers_mut().iter_mut().enumerate() {
            match places.iter().position(|place| *place == Some(new)) {
                Some(old) => peer.inherit(&state.balance.peers()[old], now),
                None => {
                    peer.id = taken.next_id;
                    taken.next_id += 1;
                }
            }
        }
        taken.predecessors = std::mem::take(&mut state.predecessors);
        taken.predecessors.retain(|old| old.strong_count() > 0);
        taken.predecessors.push(Arc::downgrade(before));
        let group = Arc::new(group);
        state.successor = Some(Successor { group: group.clone(), places });
        state.queue.all().for_each(Waker::wake_by_ref);
        group
    }

    /// Points at our successor's successor, if there is one.
    fn catch_up(&self) {
        let mut state = self.lock();
        let Some(direct) = state.successor.take() else { return };
        let mut between = direct.group.lock();
        match &between.successor {
            Some(further) => state.successor = Some(direct.through(further)),
            None => {
                drop(between);
                state.successor = Some(direct);
                return;
            }
        }
        // A server that is not there: from here on each of us counts its own requests to it.
        for (index, place) in direct.places.iter().enumerate() {
            let Some(place) = *place else { continue };
            if state.place(index).is_none() {
                let own = state.own[index];
                state.balance.peers_mut()[index].conns = own;
                let theirs = &mut between.balance.peers_mut()[place].conns;
                *theirs = theirs.saturating_sub(own);
            }
        }
        drop(between);
        // With the last that is known of the one between it may go: not under our lock.
        drop(state);
        drop(direct);
    }

    fn take_sessions(&mut self, before: &Group) {
        let (Some(learn), Some(known)) = (learn_of(&self.upstream), learn_of(&before.upstream)) else {
            return;
        };
        if learn.zone == known.zone
            && let Some(sessions) = &before.sessions
        {
            let mut kept = sessions.lock().unwrap_or_else(PoisonError::into_inner);
            kept.set_terms(learn.sessions_max, learn.timeout);
            self.sessions = Some(sessions.clone());
        }
    }

    fn loads(&self) -> Vec<u32> {
        let mut state = self.lock();
        state.look_at_successor();
        state.balance.peers().iter().map(|peer| peer.conns).collect()
    }
}

impl State {
    fn place(&self, index: usize) -> Option<usize> {
        self.successor.as_ref()?.places[index]
    }

    pub(super) fn in_successor(&self, picked: Picked) -> Option<(&Arc<Group>, Picked)> {
        let index = self.place(picked.index)?;
        Some((&self.successor.as_ref()?.group, Picked { index, ..picked }))
    }

    /// Who picks in a group that has been replaced sees the load that its servers have by now.
    pub(super) fn look_at_successor(&mut self) {
        let Some(successor) = &self.successor else { return };
        let loads = successor.group.loads();
        for (peer, place) in self.balance.peers_mut().iter_mut().zip(&successor.places) {
            if let Some(place) = place {
                peer.conns = loads[*place];
            }
        }
    }
}

impl Successor {
    pub fn on_picked(&self, index: usize) {
        let Some(place) = self.places[index] else { return };
        let mut state = self.group.lock();
        state.balance.peers_mut()[place].conns += 1;
        if let Some(next) = &state.successor {
            next.on_picked(place);
        }
    }

    fn through(&self, further: &Successor) -> Successor {
        let places = self.places.iter().map(|place| place.and_then(|place| further.places[place]));
        Successor { group: further.group.clone(), places: places.collect() }
    }
}

/// Where each of these servers is among the others: the same line and address. One that is there twice is matched once
/// by each.
fn places(before: &[Peer], after: &[Peer]) -> Vec<Option<usize>> {
    let mut is_taken = vec![false; after.len()];
    let place = |peer: &Peer| {
        let same = |(index, new): (usize, &Peer)| {
            !is_taken[index] && new.address == peer.address && new.terms.server == peer.terms.server
        };
        let place = after.iter().enumerate().position(same)?;
        is_taken[place] = true;
        Some(place)
    };
    before.iter().map(place).collect()
}
