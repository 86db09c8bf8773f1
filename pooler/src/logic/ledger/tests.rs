mod dedicated;

use super::*;
use proptest::prelude::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn rules() -> Rules {
    Rules {
        round_robin: false,
        check_after: Some(Duration::from_secs(30)),
        idle_timeout: Some(Duration::from_secs(600)),
        login_retry: Duration::from_secs(15),
        reserve_after: Duration::from_secs(5),
    }
}

fn limits(size: usize) -> PoolLimits {
    PoolLimits { size, reserve: 0, min: 0, lifetime: Duration::from_secs(3600), keep_without_clients: false }
}

struct World {
    ledger: Ledger,
    pool: PoolKey,
    now: Instant,
}

impl World {
    fn new(limits: PoolLimits) -> World {
        let mut ledger = Ledger::new(rules());
        let (database, user) = (ledger.add_database(0), ledger.add_user(0));
        let pool = ledger.add_pool(database, user, limits);
        ledger.join(pool);
        World { ledger, pool, now: Instant::now() }
    }

    fn dial(&mut self) -> Settled {
        let Some(Chore::Dial { server, .. }) = self.ledger.next_chore(self.pool, self.now) else {
            panic!("a dial was expected");
        };
        self.ledger.ready(server, self.now)
    }

    fn lend_first(&mut self, client: ClientId) -> ServerKey {
        assert_eq!(self.ledger.borrow(self.pool, client, 0, self.now), Borrow::Wait);
        assert_eq!(self.dial(), Settled::Hand { client });
        self.ledger.held_by(self.pool, client).unwrap()
    }
}

#[test]
fn the_first_client_waits_for_a_dial_and_the_next_gets_the_idle_server() {
    let mut w = World::new(limits(2));
    let server = w.lend_first(1);
    assert_eq!(w.ledger.give_back(server, w.now), Settled::Idle);
    assert_eq!(w.ledger.borrow(w.pool, 2, 0, w.now), Borrow::Lend(server));
}

#[test]
fn waiters_are_served_in_order() {
    let mut w = World::new(limits(1));
    let server = w.lend_first(1);
    for client in 2..5 {
        assert_eq!(w.ledger.borrow(w.pool, client, 0, w.now), Borrow::Wait);
        assert_eq!(w.ledger.next_chore(w.pool, w.now), None, "the pool is full");
    }
    for client in 2..5 {
        assert_eq!(w.ledger.give_back(server, w.now), Settled::Hand { client });
    }
    assert_eq!(w.ledger.give_back(server, w.now), Settled::Idle);
}

#[test]
fn a_waiter_of_the_same_worker_goes_first_but_not_for_long() {
    let mut w = World::new(limits(1));
    let server = w.lend_first(1);
    w.ledger.borrow(w.pool, 2, 1, w.now);
    w.ledger.borrow(w.pool, 3, 0, w.now + MS(5));
    w.ledger.borrow(w.pool, 4, 0, w.now + MS(50));
    assert_eq!(w.ledger.give_back(server, w.now + MS(60)), Settled::Hand { client: 3 });
    assert_eq!(w.ledger.give_back(server, w.now + MS(61)), Settled::Hand { client: 2 });
}

#[test]
fn an_idle_server_of_the_same_worker_is_preferred() {
    let mut w = World::new(limits(2));
    let a = w.lend_first(1);
    let b = {
        w.ledger.borrow(w.pool, 2, 1, w.now);
        assert_eq!(w.dial(), Settled::Hand { client: 2 });
        w.ledger.held_by(w.pool, 2).unwrap()
    };
    w.ledger.give_back(a, w.now);
    w.ledger.give_back(b, w.now);
    assert_eq!(w.ledger.borrow(w.pool, 3, 0, w.now), Borrow::Lend(a));
}

#[test]
fn the_reserve_opens_only_after_its_timeout() {
    let mut w = World::new(PoolLimits { reserve: 1, ..limits(1) });
    w.lend_first(1);
    w.ledger.borrow(w.pool, 2, 0, w.now);
    assert_eq!(w.ledger.next_chore(w.pool, w.now + MS(4999)), None);
    let chore = w.ledger.next_chore(w.pool, w.now + MS(5000));
    assert!(matches!(chore, Some(Chore::Dial { reserve: true, .. })));
}

#[test]
fn a_failed_dial_rests_and_leaves_no_count_behind() {
    let mut w = World::new(limits(1));
    w.ledger.borrow(w.pool, 1, 0, w.now);
    let Some(Chore::Dial { server, .. }) = w.ledger.next_chore(w.pool, w.now) else { panic!() };
    w.ledger.dial_failed(server, w.now);
    assert_eq!(w.ledger.count(w.pool), 0);
    assert!(w.ledger.is_hopeless(w.pool));
    assert_eq!(w.ledger.next_chore(w.pool, w.now + MS(14_999)), None);
    assert!(w.ledger.next_chore(w.pool, w.now + MS(15_000)).is_some());
}

#[test]
fn a_pool_under_a_full_database_evicts_the_longest_idle_server() {
    let mut ledger = Ledger::new(rules());
    let (database, user, other) = (ledger.add_database(1), ledger.add_user(0), ledger.add_user(0));
    let (first, second) =
        (ledger.add_pool(database, user, limits(5)), ledger.add_pool(database, other, limits(5)));
    let now = Instant::now();
    ledger.borrow(first, 1, 0, now);
    let Some(Chore::Dial { server, .. }) = ledger.next_chore(first, now) else { panic!() };
    assert_eq!(ledger.ready(server, now), Settled::Hand { client: 1 });
    ledger.borrow(second, 2, 0, now);
    assert_eq!(ledger.next_chore(second, now), None, "the only connection is in use");
    ledger.give_back(server, now);
    assert_eq!(ledger.next_chore(second, now), Some(Chore::Close { server, reason: CloseReason::Evicted }));
    ledger.remove(server);
    assert!(matches!(ledger.next_chore(second, now), Some(Chore::Dial { .. })));
}

#[test]
fn an_idle_server_past_the_check_delay_is_asked_first() {
    let mut w = World::new(limits(1));
    let server = w.lend_first(1);
    w.ledger.give_back(server, w.now);
    let later = w.now + Duration::from_secs(31);
    assert_eq!(w.ledger.counts(w.pool, later).used, 1);
    assert_eq!(w.ledger.borrow(w.pool, 2, 0, later), Borrow::Wait);
    assert_eq!(w.ledger.next_chore(w.pool, later), Some(Chore::Check { server }));
    assert_eq!(w.ledger.next_chore(w.pool, later), None);
    assert_eq!(w.ledger.ready(server, later), Settled::Hand { client: 2 });
}

#[test]
fn a_paused_pool_lends_nothing_and_closes_what_comes_back() {
    let mut w = World::new(limits(2));
    let server = w.lend_first(1);
    assert!(w.ledger.pause(None).is_empty());
    assert_eq!(w.ledger.borrow(w.pool, 2, 0, w.now), Borrow::Wait);
    assert!(!w.ledger.is_quiet(None));
    assert_eq!(w.ledger.give_back(server, w.now), Settled::Close(CloseReason::Paused));
    w.ledger.remove(server);
    assert!(w.ledger.is_quiet(None));
    assert_eq!(w.ledger.next_chore(w.pool, w.now), None);
    w.ledger.resume(None);
    assert!(w.ledger.next_chore(w.pool, w.now).is_some());
}

#[test]
fn a_server_under_cancel_is_parked_until_the_cancel_is_over() {
    let mut w = World::new(limits(1));
    let server = w.lend_first(1);
    assert!(!w.ledger.begin_cancel(server, 2), "not held by that client");
    assert!(w.ledger.begin_cancel(server, 1));
    assert_eq!(w.ledger.give_back(server, w.now), Settled::Parked);
    w.ledger.borrow(w.pool, 2, 0, w.now);
    assert_eq!(w.ledger.end_cancel(server, w.now), Some(Settled::Hand { client: 2 }));
}

#[test]
fn a_server_past_its_lifetime_is_closed_when_given_back_and_not_all_at_once() {
    let mut w = World::new(limits(2));
    let a = w.lend_first(1);
    let b = w.lend_first(2);
    let later = w.now + Duration::from_secs(3600);
    assert_eq!(w.ledger.give_back(a, later), Settled::Close(CloseReason::LifetimeOver));
    w.ledger.remove(a);
    assert_eq!(w.ledger.give_back(b, later), Settled::Idle, "one per lifetime / size");
}

#[test]
fn the_minimum_is_kept_only_while_there_are_clients() {
    let mut w = World::new(PoolLimits { min: 1, ..limits(2) });
    w.ledger.leave(w.pool);
    assert_eq!(w.ledger.next_chore(w.pool, w.now), None);
    w.ledger.join(w.pool);
    assert_eq!(w.dial(), Settled::Idle);
    assert_eq!(w.ledger.next_chore(w.pool, w.now), None);
}

#[derive(Debug, Clone)]
enum Event {
    Borrow(u8, u8, u8),
    BorrowAlone(u8, u8, u8),
    GiveBack(u8),
    Lose(u8),
    Dial(u8, bool),
    StopWaiting(u8),
    Tick(u16),
    Pause(bool),
    Reconnect,
    Cancel(u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..3u8, 0..12u8, 0..2u8).prop_map(|(p, c, w)| Event::Borrow(p, c, w)),
        1 => (0..3u8, 0..12u8, 0..2u8).prop_map(|(p, c, w)| Event::BorrowAlone(p, c, w)),
        4 => any::<u8>().prop_map(Event::GiveBack),
        1 => any::<u8>().prop_map(Event::Lose),
        4 => (0..3u8, any::<bool>()).prop_map(|(p, ok)| Event::Dial(p, ok)),
        1 => (0..12u8).prop_map(Event::StopWaiting),
        2 => any::<u16>().prop_map(Event::Tick),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => Just(Event::Reconnect),
        1 => any::<u8>().prop_map(Event::Cancel),
    ];
    proptest::collection::vec(event, 0..200)
}

/// A client of the model: at most one of them is true for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Away,
    Waiting(PoolKey),
    /// For a connection of its own.
    WaitingAlone(PoolKey),
    Holding(PoolKey, ServerKey),
    HoldingAlone(PoolKey, ServerKey),
}

struct Model {
    ledger: Ledger,
    pools: Vec<PoolKey>,
    clients: Vec<Is>,
    parked: Vec<ServerKey>,
    now: Instant,
}

impl Model {
    fn new() -> Model {
        let mut ledger = Ledger::new(rules());
        let (one, two) = (ledger.add_database(4), ledger.add_database(0));
        let (alice, bob) = (ledger.add_user(0), ledger.add_user(3));
        let reserve = PoolLimits { reserve: 1, ..limits(2) };
        let pools = vec![
            ledger.add_pool(one, alice, reserve),
            ledger.add_pool(one, bob, limits(3)),
            ledger.add_pool(two, bob, PoolLimits { min: 1, keep_without_clients: true, ..limits(3) }),
        ];
        Model { ledger, pools, clients: vec![Is::Away; 12], parked: Vec::new(), now: Instant::now() }
    }

    fn settle(&mut self, server: ServerKey, settled: Settled, pool: PoolKey) {
        match settled {
            Settled::Hand { client } => {
                let is = &mut self.clients[client as usize];
                *is = match *is {
                    Is::Waiting(of) if of == pool => Is::Holding(pool, server),
                    Is::WaitingAlone(of) if of == pool => Is::HoldingAlone(pool, server),
                    other => panic!("only a waiter is handed a server, not {other:?}"),
                };
            }
            Settled::Idle => {}
            Settled::Parked => self.parked.push(server),
            Settled::Close(_) => self.ledger.remove(server),
        }
    }

    fn holders(&self) -> Vec<(usize, PoolKey, ServerKey)> {
        let holding = |(i, is): (usize, &Is)| match is {
            Is::Holding(pool, server) | Is::HoldingAlone(pool, server) => Some((i, *pool, *server)),
            _ => None,
        };
        self.clients.iter().enumerate().filter_map(holding).collect()
    }

    fn chores(&mut self, pool: PoolKey, ok: bool) {
        for _ in 0..20 {
            let Some(chore) = self.ledger.next_chore(pool, self.now) else { return };
            match chore {
                Chore::Close { server, .. } => self.ledger.remove(server),
                Chore::Dial { server, .. } | Chore::Check { server } if ok => {
                    let settled = self.ledger.ready(server, self.now);
                    self.settle(server, settled, pool);
                }
                Chore::Dial { server, dedicated_to, .. } => {
                    assert_eq!(self.ledger.dial_failed(server, self.now), dedicated_to);
                    if let Some(client) = dedicated_to {
                        assert_eq!(self.clients[client as usize], Is::WaitingAlone(pool));
                        self.clients[client as usize] = Is::Away;
                    }
                }
                Chore::Check { server } => self.ledger.remove(server),
            }
        }
        panic!("chores must come to an end");
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Borrow(p, c, worker) => {
                let pool = self.pools[p as usize];
                if self.clients[c as usize] != Is::Away {
                    return;
                }
                self.clients[c as usize] = match self.ledger.borrow(pool, c.into(), worker.into(), self.now) {
                    Borrow::Lend(server) => Is::Holding(pool, server),
                    Borrow::Wait => Is::Waiting(pool),
                };
            }
            Event::BorrowAlone(p, c, worker) => {
                let pool = self.pools[p as usize];
                if self.clients[c as usize] == Is::Away {
                    self.ledger.borrow_dedicated(pool, c.into(), worker.into(), self.now);
                    self.clients[c as usize] = Is::WaitingAlone(pool);
                }
            }
            Event::GiveBack(n) => self.end_lease(n, true),
            Event::Lose(n) => self.end_lease(n, false),
            Event::Dial(p, ok) => self.chores(self.pools[p as usize], ok),
            Event::StopWaiting(c) => {
                if let Is::Waiting(pool) | Is::WaitingAlone(pool) = self.clients[c as usize] {
                    assert!(self.ledger.stop_waiting(pool, c.into()));
                    self.clients[c as usize] = Is::Away;
                }
            }
            Event::Tick(ms) => {
                self.now += Duration::from_millis(u64::from(ms) * 20);
                for (server, _) in self.ledger.expired(self.now) {
                    self.ledger.remove(server);
                }
            }
            Event::Pause(true) => {
                for server in self.ledger.pause(None) {
                    self.ledger.remove(server);
                }
            }
            Event::Pause(false) => self.ledger.resume(None),
            Event::Reconnect => {
                for server in self.ledger.make_obsolete(|_| true) {
                    self.ledger.remove(server);
                }
            }
            Event::Cancel(n) => self.cancel(n),
        }
    }

    fn end_lease(&mut self, n: u8, clean: bool) {
        let holders = self.holders();
        let Some((client, pool, server)) = holders.get(n as usize % holders.len().max(1)).copied() else {
            return;
        };
        let was = std::mem::replace(&mut self.clients[client], Is::Away);
        if !clean {
            return self.ledger.remove(server);
        }
        let settled = self.ledger.give_back(server, self.now);
        if was == Is::HoldingAlone(pool, server) {
            assert_eq!(settled, Settled::Close(CloseReason::DedicatedOver), "used once");
        }
        self.settle(server, settled, pool);
    }

    fn cancel(&mut self, n: u8) {
        let holders = self.holders();
        if n.is_multiple_of(2)
            && let Some((client, _, server)) = holders.get(n as usize % holders.len().max(1)).copied()
        {
            assert!(self.ledger.begin_cancel(server, client as ClientId));
        } else if let Some(server) = self.parked.pop() {
            let pool = self.ledger.servers(self.now).find(|v| v.server == server).unwrap().pool;
            while self.ledger.place_of(server) == Some(Place::Parked) {
                if let Some(settled) = self.ledger.end_cancel(server, self.now) {
                    self.settle(server, settled, pool);
                    break;
                }
            }
        }
    }

    fn check(&self) {
        let mut per_pool = [0; 3];
        for view in self.ledger.servers(self.now) {
            per_pool[view.pool.0 as usize] += 1;
            if let Place::Lent(client) = view.place {
                let is = self.clients[client as usize];
                let holds = [Is::Holding(view.pool, view.server), Is::HoldingAlone(view.pool, view.server)];
                assert!(holds.contains(&is), "one owner, not {is:?}");
            }
        }
        for (pool, count) in self.pools.iter().zip(per_pool) {
            assert_eq!(self.ledger.count(*pool), count);
            let counts = self.ledger.counts(*pool, self.now);
            let waits = [Is::Waiting(*pool), Is::WaitingAlone(*pool)];
            let waiting = self.clients.iter().filter(|is| waits.contains(is)).count();
            assert_eq!(counts.waiting, waiting);
            assert_eq!(self.ledger.hungry().any(|p| p == *pool), waiting > 0);
        }
        assert!(per_pool[0] <= 3 && per_pool[1] <= 3 && per_pool[2] <= 3, "pool sizes hold");
        assert!(per_pool[0] + per_pool[1] <= 4, "max_db_connections holds");
        assert!(per_pool[1] + per_pool[2] <= 3, "max_user_connections holds");
        for (client, pool, server) in self.holders() {
            assert_eq!(self.ledger.held_by(pool, client as ClientId), Some(server));
        }
    }
}

proptest! {
    #[test]
    fn limits_and_single_ownership_hold_whatever_happens(events in events()) {
        let mut model = Model::new();
        for event in events {
            model.take(event);
            model.check();
        }
    }

    #[test]
    fn nobody_waits_while_a_server_is_idle(events in events()) {
        let mut model = Model::new();
        for event in events {
            model.take(event);
            if model.ledger.is_all_paused() {
                continue;
            }
            for pool in model.pools.clone() {
                model.chores(pool, true);
                let counts = model.ledger.counts(pool, model.now);
                // Who wants a connection of its own has no use for an idle one.
                let is_waiting = model.clients.contains(&Is::Waiting(pool));
                prop_assert!(!is_waiting || counts.idle + counts.used == 0);
            }
        }
    }
}
