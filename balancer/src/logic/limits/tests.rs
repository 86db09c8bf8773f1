//! The limits through time, against models simple enough to be right.

use proptest::prelude::*;

use super::*;

fn asked<'a>(zone: &'a RequestZone, rate: u64, burst: u64, key: &str) -> Asked<'a> {
    Asked { zone, rate, burst: burst * 1000, delay_after: 0, key: key.into() }
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn one_request_per_second_passes_and_those_between_are_refused() {
    let zone = RequestZone::new(1 << 20);
    assert_eq!(admit(&[asked(&zone, 1000, 0, "a")], at(0)), Admission::Pass);
    assert_eq!(admit(&[asked(&zone, 1000, 0, "a")], at(400)), Admission::Refuse { index: 0, excess: 600 });
    assert_eq!(admit(&[asked(&zone, 1000, 0, "b")], at(400)), Admission::Pass);
    assert_eq!(admit(&[asked(&zone, 1000, 0, "a")], at(1000)), Admission::Pass);
}

#[test]
fn a_burst_is_delayed_to_the_rate_and_what_exceeds_it_is_refused() {
    let zone = RequestZone::new(1 << 20);
    let ask = |now| admit(&[asked(&zone, 1000, 2, "a")], at(now));
    assert_eq!(ask(0), Admission::Pass);
    assert_eq!(ask(0), Admission::Delay { wait: at(1000), index: 0, excess: 1000 });
    assert_eq!(ask(0), Admission::Delay { wait: at(2000), index: 0, excess: 2000 });
    assert_eq!(ask(0), Admission::Refuse { index: 0, excess: 3000 });
    assert_eq!(ask(1000), Admission::Delay { wait: at(2000), index: 0, excess: 2000 });
}

#[test]
fn a_request_that_one_limit_refuses_is_counted_by_none() {
    let (slow, fast) = (RequestZone::new(1 << 20), RequestZone::new(1 << 20));
    let ask = |now| admit(&[asked(&fast, 1000, 5, "a"), asked(&slow, 10, 0, "a")], at(now));
    assert_eq!(ask(0), Admission::Pass);
    for _ in 0..20 {
        assert!(matches!(ask(0), Admission::Refuse { index: 1, .. }));
    }
    assert_eq!(
        admit(&[asked(&fast, 1000, 5, "a")], at(0)),
        Admission::Delay { wait: at(1000), index: 0, excess: 1000 }
    );
}

#[test]
fn an_empty_key_is_not_limited() {
    let zone = RequestZone::new(1 << 20);
    for _ in 0..5 {
        assert_eq!(admit(&[asked(&zone, 1, 0, "")], at(0)), Admission::Pass);
    }
}

#[test]
fn a_zone_never_outgrows_its_memory_and_forgets_what_was_used_longest_ago() {
    let zone = RequestZone::new(1000);
    for n in 0..100 {
        admit(&[asked(&zone, 1, 0, &n.to_string())], at(n));
    }
    assert!(zone.lock().count() <= 10);
    assert!(matches!(admit(&[asked(&zone, 1, 0, "99")], at(100)), Admission::Refuse { .. }));
    assert_eq!(admit(&[asked(&zone, 1, 0, "0")], at(100)), Admission::Pass);
}

#[test]
fn buckets_that_ran_empty_a_minute_ago_make_room_by_themselves() {
    let zone = RequestZone::new(1 << 20);
    for key in ["a", "b", "c"] {
        admit(&[asked(&zone, 1000, 0, key)], at(0));
    }
    admit(&[asked(&zone, 1000, 0, "d")], at(60_000));
    assert_eq!(zone.lock().count(), 2);
}

#[test]
fn a_place_is_free_again_once_it_is_dropped() {
    let zone = Arc::new(ConnectionZone::new(1 << 20));
    let first = zone.take(b"a", 1).expect("a place");
    assert!(zone.take(b"a", 1).is_none());
    assert!(zone.take(b"b", 1).is_some());
    drop(first);
    assert_eq!(zone.taken(b"a"), 0);
    assert!(zone.take(b"a", 1).is_some());
}

#[test]
fn counts_without_memory_refuse_rather_than_forget() {
    let zone = Arc::new(ConnectionZone::new(200));
    let held = [zone.take(b"a", 9), zone.take(b"b", 9)];
    assert!(held.iter().all(Option::is_some));
    assert!(zone.take(b"c", 9).is_none());
    assert!(zone.take(b"a", 9).is_some());
}

/// What passes of requests that many workers ask for at once, each in an order of zones of its own.
fn passed_at_once(ask: impl Fn(usize) -> Admission + Sync) -> usize {
    let start = std::sync::Barrier::new(4);
    let worker = &|worker: usize| {
        start.wait();
        (0..4).filter(|_| !matches!(ask(worker), Admission::Refuse { .. })).count()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|index| scope.spawn(move || worker(index))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker ends well")).sum()
    })
}

#[test]
fn workers_that_ask_at_once_get_no_more_through_than_one() {
    let zones = [RequestZone::new(1 << 24), RequestZone::new(1 << 24)];
    for round in 0..2000 {
        let key = round.to_string();
        let passed = passed_at_once(|worker| {
            let (mine, other) = (&zones[worker % 2], &zones[(worker + 1) % 2]);
            admit(&[asked(mine, 1, 1, &key), asked(other, 1, 1, &key)], at(0))
        });
        assert_eq!(passed, 2, "the first and one as burst, in round {round}");
    }
}

proptest! {
    /// Whatever the times: over any span no more pass than rate and burst allow.
    #[test]
    fn no_more_pass_than_rate_and_burst_allow(
        rate in 1u64..5000,
        burst in 0u64..5,
        gaps in proptest::collection::vec(0u64..2000, 1..200),
    ) {
        let zone = RequestZone::new(1 << 20);
        let (mut now, mut passed) = (0, 0u64);
        for gap in gaps {
            now += gap;
            let admission = admit(&[asked(&zone, rate, burst, "k")], at(now));
            passed += u64::from(!matches!(admission, Admission::Refuse { .. }));
            prop_assert!(passed <= 1 + burst + rate * now / 1_000_000 + 1, "{} passed in {} ms", passed, now);
        }
    }

    /// Places against a plain count.
    #[test]
    fn places_are_counted_exactly(steps in proptest::collection::vec((0u8..3, any::<bool>()), 0..100)) {
        let zone = Arc::new(ConnectionZone::new(1 << 20));
        let mut held: Vec<Vec<Place>> = vec![Vec::new(), Vec::new(), Vec::new()];
        for (key, takes) in steps {
            let places = &mut held[usize::from(key)];
            if takes {
                let place = zone.take(&[key], 4);
                prop_assert_eq!(place.is_some(), places.len() < 4);
                places.extend(place);
            } else {
                places.pop();
            }
            prop_assert_eq!(zone.taken(&[key]) as usize, held[usize::from(key)].len());
        }
    }
}
