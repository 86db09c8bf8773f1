//! The algorithms against nginx's own results and against what must hold for any weights.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::conf::upstream::{Sid, Terms};

const NOW: Duration = Duration::from_secs(1000);

fn peer(name: &str, weight: u32) -> Peer {
    Peer::new(Terms { weight, sid: Sid::Route(name.into()), ..Terms::new(name) })
}

fn end(balance: &mut Balance, index: usize, failed: bool, now: Duration) -> bool {
    let picked = Picked { index, at: now, has_header: false };
    balance.on_end(picked, if failed { Ending::Failed } else { Ending::Blameless }, Some(now))
}

fn balance(method: Method, weights: &[u32]) -> Balance {
    let name = |index: usize| format!("127.0.0.1:{}", 8081 + index);
    Balance::new(
        method,
        weights.iter().enumerate().map(|(index, weight)| peer(&name(index), *weight)).collect(),
    )
}

fn backup(mut peer: Peer) -> Peer {
    peer.terms.tier = Tier::Backup;
    peer
}

/// One request that ends well at once.
fn once(balance: &mut Balance, key: Key) -> usize {
    let index = balance.pick(&mut Attempts::new(key, 7), NOW).expect("a server is open");
    end(balance, index, false, NOW);
    index
}

#[test]
fn weights_5_1_1_give_a_a_b_a_c_a_a() {
    let mut group = balance(Method::RoundRobin, &[5, 1, 1]);
    let picks: Vec<usize> = (0..14).map(|_| once(&mut group, Key::None)).collect();
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_retry_goes_to_another_server_until_none_is_left() {
    let mut group = balance(Method::RoundRobin, &[1, 1, 1]);
    let mut attempts = Attempts::new(Key::None, 1);
    let mut picks: Vec<usize> = std::iter::from_fn(|| group.pick(&mut attempts, NOW)).collect();
    picks.sort_unstable();
    assert_eq!(picks, [0, 1, 2]);
}

#[test]
fn backups_serve_only_when_no_primary_can() {
    let peers = vec![peer("a:1", 1), peer("b:1", 1), backup(peer("c:1", 1))];
    let mut group = Balance::new(Method::RoundRobin, peers);
    assert_eq!(once(&mut group, Key::None), 0);
    for index in 0..2 {
        let mut attempts = Attempts::new(Key::None, 1);
        let picked = group.pick(&mut attempts, NOW).unwrap();
        assert!(picked < 2);
        assert!(end(&mut group, picked, true, NOW), "failure {index} takes a server out");
    }
    assert_eq!(once(&mut group, Key::None), 2);
}

#[test]
fn the_only_server_is_never_given_up() {
    let mut group = balance(Method::RoundRobin, &[1]);
    for _ in 0..5 {
        let index = group.pick(&mut Attempts::new(Key::None, 1), NOW).unwrap();
        assert!(!end(&mut group, index, true, NOW));
    }
    assert_eq!(group.peers()[0].conns, 0);
}

#[test]
fn least_conn_prefers_free_servers_and_rotates_among_equals() {
    let mut group = balance(Method::LeastConn, &[1, 1, 1]);
    let held: Vec<usize> =
        (0..6).map(|_| group.pick(&mut Attempts::new(Key::None, 1), NOW).unwrap()).collect();
    assert_eq!(held.iter().filter(|index| **index == 0).count(), 2);
    end(&mut group, 1, false, NOW);
    assert_eq!(group.pick(&mut Attempts::new(Key::None, 1), NOW), Some(1));
    let mut idle = balance(Method::LeastConn, &[1, 1, 1]);
    let picks: Vec<usize> = (0..6).map(|_| once(&mut idle, Key::None)).collect();
    assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
}

/// Computed by hand from the definition: 89, then `(h * 113 + octet) % 6271` over three octets, modulo the weights.
#[test]
fn ip_hash_follows_the_reference_vectors() {
    let reference = |address: [u8; 4], total: u32| {
        let mut hash = 89_u64;
        for octet in &address[..3] {
            hash = (hash * 113 + u64::from(*octet)) % 6271;
        }
        (hash % u64::from(total)) as usize
    };
    let mut group = balance(Method::IpHash, &[1; 10]);
    for address in [[127, 0, 0, 1], [10, 1, 2, 3], [192, 168, 7, 200], [203, 0, 113, 9], [255, 255, 255, 255]]
    {
        let key = || Key::of_client(Some(IpAddr::V4(Ipv4Addr::from(address))), 128);
        assert_eq!(once(&mut group, key()), reference(address, 10), "{address:?}");
    }
    // 127.0.0.x: 89 → 3913 → 3199 → 4040, worked out on paper.
    assert_eq!(once(&mut group, Key::of_client(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), 128)), 0);
}

#[test]
fn ip_hash_moves_only_the_clients_of_a_server_that_is_out() {
    let mut group = balance(Method::IpHash, &[1; 5]);
    let client = |n: u8| Key::of_client(Some(IpAddr::V4(Ipv4Addr::new(10, n, n, 1))), 128);
    let before: Vec<usize> = (0..=255).map(|n| once(&mut group, client(n))).collect();
    group.peers_mut()[2].terms.duty = Duty::Down;
    for n in 0..=255_u8 {
        let after = once(&mut group, client(n));
        assert!(after != 2);
        if before[usize::from(n)] != 2 {
            assert_eq!(after, before[usize::from(n)]);
        }
    }
}

#[test]
fn the_ring_moves_only_the_keys_of_a_server_that_is_out() {
    let mut group = balance(Method::ConsistentHash(0), &[1; 5]);
    let key = |n: u32| Key::text(format!("/object/{n}").as_bytes());
    let before: Vec<usize> = (0..500).map(|n| once(&mut group, key(n))).collect();
    for server in 0..5 {
        assert!(before.iter().filter(|index| **index == server).count() > 50, "server {server} is used");
    }
    group.peers_mut()[3].terms.duty = Duty::Down;
    for n in 0..500_u32 {
        let after = once(&mut group, key(n));
        assert!(after != 3);
        if before[n as usize] != 3 {
            assert_eq!(after, before[n as usize]);
        }
    }
}

#[test]
fn random_two_takes_the_less_loaded_of_two() {
    let mut group = balance(Method::RandomTwo(Better::LeastConn), &[1; 4]);
    let mut most = 0;
    for seed in 0..400_u64 {
        group.pick(&mut Attempts::new(Key::None, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), NOW).unwrap();
        let loads: Vec<u32> = group.peers().iter().map(|peer| peer.conns).collect();
        most = most.max(loads.iter().max().unwrap() - loads.iter().min().unwrap());
    }
    assert!(most < 12, "loads stay close together, differed by {most}");
}

fn answered(balance: &mut Balance, index: usize, ms: u64) {
    let took = Duration::from_millis(ms);
    let times = AnswerTimes { header: took, total: took };
    balance.on_end(Picked { index, at: NOW, has_header: false }, Ending::Answered(times), Some(NOW + took));
}

#[test]
fn least_time_prefers_the_fast_one_until_it_has_too_much_to_do() {
    let by = LeastTime { until: Until::LastByte, inflight: false };
    let mut group = balance(Method::LeastTime(by), &[1, 1]);
    for (index, ms) in [(0, 100), (1, 10)] {
        assert_eq!(group.pick(&mut Attempts::new(Key::None, 1), NOW), Some(index));
        answered(&mut group, index, ms);
    }
    // 120 ms against 20 ms for each of those it holds and one more.
    let picks: Vec<usize> =
        (0..7).filter_map(|_| group.pick(&mut Attempts::new(Key::None, 1), NOW)).collect();
    assert_eq!(picks[..5], [1, 1, 1, 1, 1]);
    assert_eq!(picks.iter().filter(|index| **index == 0).count(), 1);
}

#[test]
fn with_inflight_a_server_that_does_not_answer_loses_its_good_name() {
    let by = LeastTime { until: Until::Header, inflight: true };
    let mut group = balance(Method::LeastTime(by), &[1, 1]);
    for (index, ms) in [(0, 5), (1, 50)] {
        assert_eq!(group.pick(&mut Attempts::new(Key::None, 1), NOW), Some(index));
        answered(&mut group, index, ms);
    }
    let mut stuck = Attempts::new(Key::None, 1);
    assert_eq!(group.pick(&mut stuck, NOW), Some(0));
    let later = NOW + Duration::from_secs(2);
    assert_eq!(group.pick(&mut Attempts::new(Key::None, 1), later), Some(1));
}

#[test]
fn a_client_that_sticks_gets_its_server_by_every_method_and_others_get_their_share() {
    let methods = [
        Method::RoundRobin,
        Method::LeastConn,
        Method::IpHash,
        Method::Hash(0),
        Method::ConsistentHash(0),
        Method::Random,
        Method::RandomTwo(Better::LeastConn),
        Method::LeastTime(LeastTime { until: Until::Header, inflight: false }),
    ];
    for method in methods {
        let mut group = balance(method, &[1, 2, 3]);
        for seed in 0..50 {
            let mut attempts = Attempts::new(Key::text(b"key"), seed).sticking_to(Some(b"127.0.0.1:8083"));
            assert_eq!(group.pick(&mut attempts, NOW), Some(2), "{method:?}");
            end(&mut group, 2, false, NOW);
            assert_ne!(group.pick(&mut attempts, NOW), Some(2), "{method:?}: a retry goes elsewhere");
        }
        group.peers_mut()[2].terms.duty = Duty::Drain;
        let mut attempts = Attempts::new(Key::text(b"key"), 1).sticking_to(Some(b"127.0.0.1:8083"));
        assert_eq!(group.pick(&mut attempts, NOW), Some(2), "{method:?}: draining serves its own");
    }
    let mut group = balance(Method::RoundRobin, &[1, 1, 1]);
    for _ in 0..60 {
        let mut attempts = Attempts::new(Key::None, 1).sticking_to(Some(b"127.0.0.1:8081"));
        group.pick(&mut attempts, NOW);
    }
    let picks: Vec<usize> = (0..9).map(|_| once(&mut group, Key::None)).collect();
    let most = [0, 1, 2].map(|server| picks.iter().filter(|pick| **pick == server).count());
    assert!(most.iter().all(|count| (2..=4).contains(count)), "{picks:?}");
}

#[test]
fn ip_hash_can_look_at_the_network_part_of_ipv6_only() {
    let client = |last: u16| Some(IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 7, 9, 1, 2, 3, last)));
    let mut group = balance(Method::IpHash, &[1; 7]);
    let mut spread = |bits: u8| {
        let picks: Vec<usize> =
            (0..40).map(|last| once(&mut group, Key::of_client(client(last), bits))).collect();
        picks.iter().collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!(spread(64), 1);
    assert!(spread(128) > 3);
}

#[test]
fn weights_that_come_back_slowly_get_little_at_first() {
    let mut servers = vec![peer("a:1", 1), peer("b:1", 1)];
    servers[1].terms.slow_start = Duration::from_secs(10);
    let mut group = Balance::new(Method::RoundRobin, servers);
    let share = |group: &mut Balance, now: Duration| {
        let picks = (0..110).filter(|_| {
            let index = group.pick(&mut Attempts::new(Key::None, 1), now).unwrap();
            end(group, index, false, now);
            index == 1
        });
        picks.count()
    };
    assert_eq!(share(&mut group, NOW), 55);
    let before = Peer::new(Terms { duty: Duty::Down, ..group.peers()[1].terms.clone() });
    group.peers_mut()[1].inherit(&before, NOW);
    assert_eq!(share(&mut group, NOW), 0);
    assert_eq!(share(&mut group, NOW + Duration::from_secs(1)), 10);
    assert!((54..=56).contains(&share(&mut group, NOW + Duration::from_secs(10))));
}

fn any_method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![
        Method::RoundRobin,
        Method::LeastConn,
        Method::IpHash,
        Method::Hash(0),
        Method::ConsistentHash(0),
        Method::Random,
        Method::RandomTwo(Better::LeastConn),
        Method::RandomTwo(Better::LeastTime(Until::Header)),
        Method::LeastTime(LeastTime { until: Until::LastByte, inflight: false }),
        Method::LeastTime(LeastTime { until: Until::Header, inflight: true }),
        Method::Hash(125),
        Method::ConsistentHash(150),
    ])
}

proptest! {
    /// Over a whole cycle each server gets exactly its weight, whatever the weights.
    #[test]
    fn round_robin_is_exact_over_a_cycle(weights in prop::collection::vec(1_u32..20, 2..8)) {
        let mut group = balance(Method::RoundRobin, &weights);
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..weights.iter().sum::<u32>() {
            counts[once(&mut group, Key::None)] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    /// Never a server that is down, failed, full or tried; one is found whenever one is open.
    #[test]
    fn a_pick_is_open_and_found_when_there_is_one(
        method in any_method(),
        servers in prop::collection::vec((1_u32..5, any::<bool>(), 0_u32..3), 2..12),
        key in any::<[u8; 4]>(),
        steps in prop::collection::vec((any::<bool>(), any::<bool>()), 1..60),
    ) {
        let peers = servers.iter().enumerate().map(|(index, (weight, down, max_conns))| {
            let mut one = peer(&format!("s{}:80", index / 2), *weight);
            one.terms.duty = if *down { Duty::Down } else { Duty::Up };
            one.terms.max_conns = *max_conns;
            one
        });
        let mut group = Balance::new(method, peers.collect());
        let mut held = Vec::new();
        for (step, (ends, fails)) in steps.into_iter().enumerate() {
            let now = NOW + Duration::from_secs(step as u64);
            let open = group.peers().iter().filter(|peer| peer.unusable(now).is_none()).count();
            let key = Key::of_client(Some(IpAddr::V4(Ipv4Addr::from(key))), 128);
            let states: Vec<_> = group.peers().iter().map(|peer| peer.unusable(now)).collect();
            let picked = group.pick(&mut Attempts::new(key, step as u64), now);
            prop_assert_eq!(picked.is_some(), open > 0);
            if let Some(index) = picked {
                prop_assert_eq!(states[index], None);
                held.push(index);
            }
            if ends && let Some(index) = held.pop() {
                end(&mut group, index, fails, now);
            }
        }
        let in_flight: u32 = group.peers().iter().map(|peer| peer.conns).sum();
        prop_assert_eq!(in_flight as usize, held.len());
    }

    /// With a bound, no server ever has more than its part of the average, rounded up, whatever the keys.
    #[test]
    fn a_bounded_hash_never_overloads_a_server(
        is_ring in any::<bool>(), percent in 101_u32..200, weights in prop::collection::vec(1_u32..4, 2..7),
        keys in prop::collection::vec(0_u8..4, 1..80),
    ) {
        let method = if is_ring { Method::ConsistentHash(percent) } else { Method::Hash(percent) };
        let mut group = balance(method, &weights);
        let whole: u32 = weights.iter().sum();
        for (step, key) in (1_u32..).zip(keys) {
            let index = group.pick(&mut Attempts::new(Key::text(&[key]), 1), NOW).unwrap();
            let bound = (u64::from(percent) * u64::from(step * weights[index])).div_ceil(100 * u64::from(whole));
            prop_assert!(u64::from(group.peers()[index].conns) <= bound);
        }
    }

    /// A request that goes on trying meets every open server exactly once.
    #[test]
    fn retries_meet_every_server_once(method in any_method(), count in 2_usize..70, seed in any::<u64>()) {
        let mut group = balance(method, &vec![1; count]);
        let mut attempts = Attempts::new(Key::text(&seed.to_le_bytes()), seed);
        let mut picks: Vec<usize> = std::iter::from_fn(|| group.pick(&mut attempts, NOW)).collect();
        picks.sort_unstable();
        prop_assert_eq!(picks, (0..count).collect::<Vec<_>>());
    }
}
