//! Connections for one client alone.

use super::*;

impl World {
    fn dial_for(&mut self, client: ClientId) -> (ServerKey, Settled) {
        let chore = self.ledger.next_chore(self.pool, self.now);
        let Some(Chore::Dial { server, dedicated_to, .. }) = chore else { panic!("a dial, not {chore:?}") };
        assert_eq!(dedicated_to, Some(client));
        (server, self.ledger.ready(server, self.now))
    }
}

#[test]
fn a_dedicated_connection_is_dialed_and_closed_after_its_use() {
    let mut w = World::new(limits(2));
    w.ledger.borrow_dedicated(w.pool, 1, 0, w.now);
    let (server, settled) = w.dial_for(1);
    assert_eq!(settled, Settled::Hand { client: 1 });
    assert_eq!(w.ledger.give_back(server, w.now), Settled::Close(CloseReason::DedicatedOver));
}

#[test]
fn an_idle_server_is_not_lent_but_evicted_for_it_when_the_pool_is_full() {
    let mut w = World::new(limits(1));
    let idle = w.lend_first(1);
    w.ledger.give_back(idle, w.now);
    w.ledger.borrow_dedicated(w.pool, 2, 0, w.now);
    let evicted = Some(Chore::Close { server: idle, reason: CloseReason::Evicted });
    assert_eq!(w.ledger.next_chore(w.pool, w.now), evicted);
    assert_eq!(w.ledger.next_chore(w.pool, w.now), None, "no room yet");
    w.ledger.remove(idle);
    assert_eq!(w.dial_for(2).1, Settled::Hand { client: 2 });
}

#[test]
fn a_server_that_comes_back_makes_room_for_the_one_who_waits_longest() {
    let mut w = World::new(limits(1));
    let server = w.lend_first(1);
    w.ledger.borrow_dedicated(w.pool, 2, 0, w.now);
    w.ledger.borrow(w.pool, 3, 0, w.now + MS(1));
    assert_eq!(w.ledger.give_back(server, w.now), Settled::Close(CloseReason::Evicted));
    w.ledger.remove(server);
    let (own, settled) = w.dial_for(2);
    assert_eq!(settled, Settled::Hand { client: 2 });
    assert_eq!(w.ledger.next_chore(w.pool, w.now), None, "the pool is full");
    w.ledger.give_back(own, w.now);
    w.ledger.remove(own);
    assert_eq!(w.dial(), Settled::Hand { client: 3 });
}

#[test]
fn who_came_before_it_is_served_before_it() {
    let mut w = World::new(limits(1));
    let server = w.lend_first(1);
    w.ledger.borrow(w.pool, 2, 0, w.now);
    w.ledger.borrow_dedicated(w.pool, 3, 0, w.now + MS(1));
    assert_eq!(w.ledger.give_back(server, w.now), Settled::Hand { client: 2 });
    assert_eq!(w.ledger.give_back(server, w.now), Settled::Close(CloseReason::Evicted));
}

#[test]
fn a_client_that_gave_up_during_its_dial_leaves_nothing_behind() {
    let mut w = World::new(limits(1));
    w.ledger.borrow_dedicated(w.pool, 1, 0, w.now);
    let Some(Chore::Dial { server, .. }) = w.ledger.next_chore(w.pool, w.now) else { panic!("a dial") };
    assert!(w.ledger.stop_waiting(w.pool, 1));
    assert_eq!(w.ledger.ready(server, w.now), Settled::Close(CloseReason::DedicatedOver));
    w.ledger.remove(server);
    assert_eq!((w.ledger.count(w.pool), w.ledger.hungry().count()), (0, 0));
}

#[test]
fn what_one_client_may_not_do_is_no_failure_of_the_pool() {
    let mut w = World::new(limits(1));
    w.ledger.borrow_dedicated(w.pool, 1, 0, w.now);
    let Some(Chore::Dial { server, .. }) = w.ledger.next_chore(w.pool, w.now) else { panic!("a dial") };
    assert_eq!(w.ledger.dial_failed(server, w.now), Some(1));
    assert!(!w.ledger.is_hopeless(w.pool));
    w.lend_first(2);
}

#[test]
fn a_connection_that_became_obsolete_while_it_was_dialed_is_dialed_again() {
    let mut w = World::new(limits(1));
    w.ledger.borrow_dedicated(w.pool, 1, 0, w.now);
    let Some(Chore::Dial { server, .. }) = w.ledger.next_chore(w.pool, w.now) else { panic!("a dial") };
    w.ledger.make_obsolete(|_| true);
    assert_eq!(w.ledger.ready(server, w.now), Settled::Close(CloseReason::Obsolete));
    w.ledger.remove(server);
    assert_eq!(w.dial_for(1).1, Settled::Hand { client: 1 });
}

#[test]
fn obsolete_servers_are_known_with_their_clients() {
    let mut w = World::new(limits(2));
    w.lend_first(1);
    w.ledger.borrow_dedicated(w.pool, 2, 1, w.now);
    w.dial_for(2);
    assert!(w.ledger.obsolete_lent(false).is_empty());
    w.ledger.make_obsolete(|_| true);
    assert_eq!(w.ledger.obsolete_lent(true), [(2, 1)]);
    assert_eq!(w.ledger.obsolete_lent(false).len(), 2);
}
