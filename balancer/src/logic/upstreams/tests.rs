//! Counts that stay exact, whatever happens to leases and configurations.

use super::*;
use proptest::prelude::*;

fn upstream(ports: &[u16]) -> Upstream {
    let peers = ports
        .iter()
        .map(|port| Peer {
            server: format!("127.0.0.1:{port}").into(),
            address: Address::Tcp(([127, 0, 0, 1], *port).into()),
            name: format!("127.0.0.1:{port}").into(),
            weight: 1,
            max_conns: 2,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
        })
        .collect();
    let keepalive = crate::conf::upstream::Keepalive {
        idle_max: 1,
        requests_max: 1,
        time: Duration::ZERO,
        timeout: Duration::ZERO,
    };
    Upstream {
        id: UpstreamId(0),
        name: "g".into(),
        origin: Origin::Block,
        method: Method::RoundRobin,
        peers,
        keepalive,
    }
}

fn http(ports: &[u16]) -> Http {
    Http { upstreams: vec![Arc::new(upstream(ports))], ..Http::default() }
}

fn attempts() -> Attempts {
    Attempts::new(choose::Key::None, 1)
}

fn conns(set: &Set) -> Vec<u32> {
    set.group(UpstreamId(0)).with_peers(|peers| peers.iter().map(|peer| peer.conns).collect())
}

#[test]
fn a_dropped_lease_gives_its_place_back_without_blame() {
    let set = Set::new(&http(&[1, 2]), None);
    let group = set.group(UpstreamId(0));
    let lease = group.pick(&mut attempts(), Duration::ZERO).expect("a live server");
    assert_eq!(conns(&set), [1, 0]);
    drop(lease);
    assert_eq!(conns(&set), [0, 0]);
    assert_eq!(group.unusable(0, Duration::ZERO), None);
}

#[test]
fn a_failed_server_is_passed_over_and_said_so_once() {
    let set = Set::new(&http(&[1, 2]), None);
    let group = set.group(UpstreamId(0));
    let now = Duration::from_secs(100);
    let lease = group.pick(&mut attempts(), now).expect("a live server");
    assert!(lease.end(true, now));
    assert_eq!(group.unusable(0, now), Some(Unusable::Failed));
    let next = group.pick(&mut attempts(), now).expect("the other server");
    assert_eq!(next.index(), 1);
}

#[test]
fn an_unchanged_group_is_the_same_after_a_reload() {
    let before = Set::new(&http(&[1, 2]), None);
    let after = Set::new(&http(&[1, 2]), Some(&before));
    assert!(Arc::ptr_eq(&before.groups[0], &after.groups[0]));
}

proptest! {
    #[test]
    fn requests_in_flight_are_counted_exactly_over_reloads(
        steps in proptest::collection::vec((0u8..4, proptest::sample::subsequence(vec![1u16, 2, 3, 4], 1..=4)), 1..40)
    ) {
        let sets = std::cell::RefCell::new(vec![Arc::new(Set::new(&http(&[1, 2]), None))]);
        let leaked: &'static std::cell::RefCell<Vec<Arc<Set>>> = Box::leak(Box::new(sets));
        let mut open: Vec<Lease<'static>> = Vec::new();
        for (kind, ports) in steps {
            let current: &'static Set = Box::leak(Box::new(leaked.borrow().last().expect("never empty").clone()));
            match kind {
                0 | 1 => open.extend(current.group(UpstreamId(0)).pick(&mut attempts(), Duration::from_secs(1))),
                2 if !open.is_empty() => drop(open.remove(0)),
                _ => leaked.borrow_mut().push(Arc::new(Set::new(&http(&ports), Some(current)))),
            }
            let latest = leaked.borrow().last().expect("never empty").clone();
            for (peer, conns) in latest.group(UpstreamId(0)).peers.iter().zip(conns(&latest)) {
                let held = open.iter().filter(|lease| lease.peer().address == peer.address).count();
                prop_assert!(conns as usize <= held, "{} has {conns} of {held}", peer.name);
            }
        }
        open.clear();
        let latest = leaked.borrow().last().expect("never empty").clone();
        prop_assert!(conns(&latest).iter().all(|conns| *conns == 0));
    }
}
