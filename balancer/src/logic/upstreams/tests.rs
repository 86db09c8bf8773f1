//! Counts that stay exact, whatever happens to leases and configurations.

use std::task::Waker;

use proptest::prelude::*;

use super::*;
use crate::conf::build::NAMELESS;
use crate::conf::upstream::{Address, Duty, Keepalive, Method, Origin, Peer, QueueTerms, Terms, Tier};
use crate::logic::choose::{Attempts, Ending, Key};
use crate::logic::health::Unusable;

fn upstream(ports: &[u16]) -> Upstream {
    let peer = |port: &u16| {
        let terms = Terms { max_conns: 2, ..Terms::new(&format!("127.0.0.1:{port}")) };
        Peer::at(Address::Tcp(([127, 0, 0, 1], *port).into()), terms)
    };
    Upstream {
        id: UpstreamId(0),
        name: "g".into(),
        origin: Origin::Block,
        method: Method::RoundRobin,
        peers: ports.iter().map(peer).collect(),
        named: Vec::new(),
        naming: NAMELESS,
        keepalive: Keepalive::default(),
        sticky: None,
        queue: None,
        zone: None,
        state_file: None,
    }
}

fn http(ports: &[u16]) -> Http {
    Http { upstreams: vec![Arc::new(upstream(ports))], ..Http::default() }
}

fn set(ports: &[u16], before: Option<&Set>) -> Set {
    Set::new(&http(ports), before, Duration::from_secs(1))
}

fn attempts() -> Attempts {
    Attempts::new(Key::None, 1)
}

fn conns(set: &Set) -> Vec<u32> {
    set.group(UpstreamId(0)).with_peers(|peers| peers.iter().map(|peer| peer.conns).collect())
}

#[test]
fn a_dropped_lease_gives_its_place_back_without_blame() {
    let set = set(&[1, 2], None);
    let group = set.group(UpstreamId(0));
    let lease = group.pick(&mut attempts(), Duration::ZERO).expect("a live server");
    assert_eq!(conns(&set), [1, 0]);
    drop(lease);
    assert_eq!(conns(&set), [0, 0]);
    assert_eq!(group.unusable(0, Duration::ZERO), None);
}

#[test]
fn a_failed_server_is_passed_over_and_said_so_once() {
    let set = set(&[1, 2], None);
    let group = set.group(UpstreamId(0));
    let now = Duration::from_secs(100);
    let lease = group.pick(&mut attempts(), now).expect("a live server");
    assert!(lease.end(Ending::Failed, now));
    assert_eq!(group.unusable(0, now), Some(Unusable::Failed));
    let next = group.pick(&mut attempts(), now).expect("the other server");
    assert_eq!(next.index(), 1);
}

#[test]
fn a_server_that_has_failed_is_back_when_a_connection_to_it_has_switched_protocols_and_not_when_that_ends() {
    let set = set(&[1, 2], None);
    let group = set.group(UpstreamId(0));
    let failed = Duration::from_secs(100);
    let first = group.pick(&mut attempts(), failed).expect("a live server");
    let index = first.index();
    assert!(first.end(Ending::Failed, failed));
    let later = Duration::from_secs(200);
    // Its weight comes back with each choice: the other one has its turn twice before.
    let mut leases: Vec<Lease<'_>> =
        (0..3).map(|_| group.pick(&mut attempts(), later).expect("a live server")).collect();
    let probe =
        leases.iter().position(|lease| lease.index() == index).expect("its time is over: it is tried");
    assert_eq!(group.unusable(index, later), Some(Unusable::Failed), "one probe at a time");
    leases[probe].on_switched(later);
    assert_eq!(group.unusable(index, later), None);
    leases.clear();
    assert_eq!(conns(&set), [0, 0]);
}

#[test]
fn an_unchanged_group_is_the_same_after_a_reload() {
    let before = set(&[1, 2], None);
    let after = set(&[1, 2], Some(&before));
    assert!(Arc::ptr_eq(&before.groups[0], &after.groups[0]));
}

#[test]
fn servers_keep_their_id_and_new_ones_get_new_ones() {
    let ids = |set: &Set| -> Vec<u32> {
        set.group(UpstreamId(0)).with_peers(|peers| peers.iter().map(|peer| peer.id).collect())
    };
    let first = set(&[1, 2], None);
    assert_eq!(ids(&first), [0, 1]);
    let second = first.with(&Arc::new(upstream(&[2, 3])), Duration::ZERO);
    assert_eq!(ids(&second), [1, 2]);
    let third = second.with(&Arc::new(upstream(&[1, 2])), Duration::ZERO);
    assert_eq!(ids(&third), [3, 1], "an id is never used again");
}

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

fn queued() -> Set {
    let mut upstream = upstream(&[1]);
    upstream.queue = Some(QueueTerms { len_max: 2, timeout: Duration::from_secs(1) });
    Set::new(&Http { upstreams: vec![Arc::new(upstream)], ..Http::default() }, None, Duration::ZERO)
}

#[test]
fn who_waits_is_woken_and_served_in_turn_and_nobody_overtakes() {
    let set = queued();
    let group = set.group(UpstreamId(0));
    let now = Duration::from_secs(1);
    let mut held: Vec<Lease<'_>> = (0..2).filter_map(|_| group.pick(&mut attempts(), now)).collect();
    assert_eq!(held.len(), 2);
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    let wakers: Vec<Waker> = bells.iter().map(|bell| Waker::from(bell.clone())).collect();
    let seats: Vec<Seat<'_>> = wakers.iter().filter_map(|waker| group.enqueue(waker)).collect();
    assert!(group.enqueue(&wakers[0]).is_none(), "the queue is full");
    assert_eq!(group.queue(), QueueState { len: 2, overflows: 1 });
    assert!(seats[0].pick(&mut attempts(), now, &wakers[0]).is_err());
    held.pop().expect("two are held").end(Ending::Blameless, now);
    assert_eq!(bells.each_ref().map(|bell| bell.0.load(std::sync::atomic::Ordering::SeqCst)), [1, 0]);
    assert!(group.pick(&mut attempts(), now).is_none(), "those who wait come first");
    assert!(seats[1].pick(&mut attempts(), now, &wakers[1]).is_err(), "and in their order");
    assert!(seats[0].pick(&mut attempts(), now, &wakers[0]).is_ok());
    drop(seats);
    assert_eq!(group.queue().len, 0);
}

/// Two servers for one request at a time each; nobody is there for the others.
fn narrow(change: impl FnOnce(&mut Upstream)) -> Set {
    let mut upstream = upstream(&[1, 2]);
    upstream.peers.iter_mut().for_each(|peer| peer.terms.max_conns = 1);
    upstream.queue = Some(QueueTerms { len_max: 2, timeout: Duration::from_secs(1) });
    change(&mut upstream);
    Set::new(&Http { upstreams: vec![Arc::new(upstream)], ..Http::default() }, None, Duration::ZERO)
}

#[test]
fn who_waits_gets_a_primary_that_is_free_again_though_it_has_looked_at_the_backups() {
    let set = narrow(|upstream| {
        upstream.peers[1].terms.tier = Tier::Backup;
        upstream.peers[1].terms.duty = Duty::Down;
    });
    let group = set.group(UpstreamId(0));
    let now = Duration::from_secs(1);
    let held = group.pick(&mut attempts(), now).expect("the primary");
    let mut waiting = attempts();
    assert!(group.pick(&mut waiting, now).is_none());
    let seat = group.enqueue(Waker::noop()).expect("room in the queue");
    assert!(seat.pick(&mut waiting, now, Waker::noop()).is_err());
    drop(held);
    let lease = seat.pick(&mut waiting, now, Waker::noop());
    assert_eq!(lease.ok().map(|lease| lease.index()), Some(0));
}

#[test]
fn who_waits_for_long_is_still_chosen_for_by_its_key_and_its_session() {
    let by_address: fn(&mut Upstream) = |upstream| upstream.method = Method::IpHash { ipv6_bits: 128 };
    let by_session: fn(&mut Upstream) = |upstream| upstream.method = Method::Random;
    for (change, sticks) in [(by_address, false), (by_session, true)] {
        for host in 0..8 {
            let set = narrow(change);
            let group = set.group(UpstreamId(0));
            let sid = group.peers()[host % 2].terms.sid.text().as_bytes();
            let key = || Key::of_client(Some([10, 0, host as u8, 1].into()), 128);
            let mine = || Attempts::new(key(), 1).sticking_to(sticks.then_some(sid));
            let now = Duration::from_secs(1);
            let home = group.pick(&mut mine(), now).expect("a live server").index();
            let mut held: Vec<Lease<'_>> = (0..2).filter_map(|_| group.pick(&mut attempts(), now)).collect();
            let mut waiting = mine();
            let seat = group.enqueue(Waker::noop()).expect("room in the queue");
            for _ in 0..30 {
                assert!(seat.pick(&mut waiting, now, Waker::noop()).is_err());
            }
            held.clear();
            let lease = seat.pick(&mut waiting, now, Waker::noop());
            assert_eq!(lease.ok().map(|lease| lease.index()), Some(home));
        }
    }
}

#[test]
fn a_seat_that_is_given_up_wakes_the_next() {
    let set = queued();
    let group = set.group(UpstreamId(0));
    let bell = Arc::new(Bell::default());
    let first = group.enqueue(Waker::noop());
    let _second = group.enqueue(&Waker::from(bell.clone()));
    drop(first);
    assert_eq!(bell.0.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[test]
fn a_request_of_an_old_generation_sees_the_load_of_the_new_one() {
    let before = set(&[1], None);
    let after = set(&[1, 2], Some(&before));
    let now = Duration::from_secs(1);
    let held: Vec<Lease<'_>> =
        (0..4).filter_map(|_| after.group(UpstreamId(0)).pick(&mut attempts(), now)).collect();
    assert_eq!(held.len(), 4);
    assert!(before.group(UpstreamId(0)).pick(&mut attempts(), now).is_none(), "max_conns holds for both");
}

fn weighing(weight: u32) -> Arc<Upstream> {
    let mut upstream = upstream(&[1, 2]);
    upstream.peers.iter_mut().for_each(|peer| (peer.terms.weight, peer.terms.max_conns) = (weight, 0));
    Arc::new(upstream)
}

fn picks(set: &Set, count: usize) -> Vec<usize> {
    let pick =
        |_| set.group(UpstreamId(0)).pick(&mut attempts(), Duration::ZERO).expect("a live server").index();
    (0..count).map(pick).collect()
}

#[test]
fn servers_take_turns_at_once_when_their_weights_have_changed() {
    for (before, after) in [(1000, 1), (1, 1000), (3, 2)] {
        let http = Http { upstreams: vec![weighing(before)], ..Http::default() };
        let old = Set::new(&http, None, Duration::ZERO);
        assert_eq!(picks(&old, 1), [0]);
        let new = old.with(&weighing(after), Duration::ZERO);
        assert_eq!(picks(&new, 4), [1, 0, 1, 0], "from {before} to {after}");
    }
}

#[test]
fn a_server_that_is_given_a_greater_weight_has_it_at_once() {
    let old = set(&[1, 2], None).with(&weighing(1), Duration::ZERO);
    assert_eq!(picks(&old, 2), [0, 1]);
    let mut heavy = (*weighing(1)).clone();
    heavy.peers[0].terms.weight = 9;
    let picked = picks(&old.with(&Arc::new(heavy), Duration::ZERO), 10);
    assert_eq!(picked.iter().filter(|index| **index == 0).count(), 9);
}

/// A stack that a recursion over many groups would overflow.
fn in_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(run);
    thread.expect("a thread can be started").join().expect("the thread ends well");
}

#[test]
fn a_hundred_thousand_changes_under_one_open_request_leave_one_group_and_need_no_stack() {
    in_a_small_stack(|| {
        let first = set(&[1, 2], None);
        let held = first.group(UpstreamId(0)).pick(&mut attempts(), Duration::ZERO).expect("a live server");
        let servers = [upstream(&[1, 2]), upstream(&[1, 3])].map(Arc::new);
        let mut latest = first.with(&servers[1], Duration::ZERO);
        let second = Arc::downgrade(latest.group(UpstreamId(0)));
        for change in 0..100_000 {
            latest = latest.with(&servers[change % 2], Duration::ZERO);
        }
        assert!(second.upgrade().is_none(), "nobody uses it");
        assert_eq!(conns(&latest), [1, 0]);
        let other = first.group(UpstreamId(0)).pick(&mut attempts(), Duration::ZERO);
        assert_eq!(other.expect("the other server").index(), 1);
        assert_eq!(conns(&latest), [1, 0], "that server was made anew: the request is not its");
        assert!(held.end(Ending::Failed, Duration::from_secs(9)));
        assert_eq!(conns(&latest), [0, 0]);
        let group = latest.group(UpstreamId(0));
        assert_eq!(group.unusable(0, Duration::from_secs(9)), Some(Unusable::Failed));
    });
}

#[test]
fn a_generation_counts_its_own_requests_at_a_server_that_the_newest_one_has_not() {
    let first = set(&[1], None);
    let second = first.with(&Arc::new(upstream(&[1, 2])), Duration::ZERO);
    let now = Duration::from_secs(1);
    let old = first.group(UpstreamId(0)).pick(&mut attempts(), now).expect("a live server");
    assert_eq!(conns(&second), [1, 0]);
    let third = second.with(&Arc::new(upstream(&[2])), Duration::ZERO);
    assert_eq!((conns(&first), conns(&second), conns(&third)), (vec![1], vec![0, 0], vec![0]));
    drop(old);
    assert_eq!((conns(&first), conns(&second)), (vec![0], vec![0, 0]));
}

proptest! {
    #[test]
    fn requests_in_flight_are_counted_exactly_over_reloads(
        steps in proptest::collection::vec((0u8..4, proptest::sample::subsequence(vec![1u16, 2, 3, 4], 1..=4)), 1..40)
    ) {
        let sets = std::cell::RefCell::new(vec![Arc::new(set(&[1, 2], None))]);
        let leaked: &'static std::cell::RefCell<Vec<Arc<Set>>> = Box::leak(Box::new(sets));
        let mut open: Vec<Lease<'static>> = Vec::new();
        for (kind, ports) in steps {
            let current: &'static Set = Box::leak(Box::new(leaked.borrow().last().expect("never empty").clone()));
            match kind {
                0 | 1 => open.extend(current.group(UpstreamId(0)).pick(&mut attempts(), Duration::from_secs(1))),
                2 if !open.is_empty() => drop(open.remove(0)),
                _ => leaked.borrow_mut().push(Arc::new(set(&ports, Some(current)))),
            }
            let latest = leaked.borrow().last().expect("never empty").clone();
            for (peer, conns) in latest.group(UpstreamId(0)).peers().iter().zip(conns(&latest)) {
                let held = open.iter().filter(|lease| lease.peer().address == peer.address).count();
                prop_assert!(conns as usize <= held, "{} has {conns} of {held}", peer.name);
            }
        }
        open.clear();
        let latest = leaked.borrow().last().expect("never empty").clone();
        prop_assert!(conns(&latest).iter().all(|conns| *conns == 0));
    }
}
