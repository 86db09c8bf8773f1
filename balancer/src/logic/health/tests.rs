//! Failure windows, driven by a clock that is an argument.

use std::time::Duration;

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn peer(max_fails: u32, fail_timeout: u64) -> Peer {
    Peer::new(Terms {
        weight: 4,
        max_conns: 2,
        max_fails,
        fail_timeout: at(fail_timeout),
        ..Terms::new("web-1:8000")
    })
}

#[test]
fn a_server_is_out_for_fail_timeout_after_max_fails() {
    let mut server = peer(2, 10);
    server.on_picked(at(100));
    assert!(!server.on_failure(at(100)));
    assert_eq!(server.unusable(at(100)), None);
    server.on_picked(at(101));
    assert!(server.on_failure(at(101)));
    assert_eq!(server.unusable(at(111)), Some(Unusable::Failed));
    assert_eq!(server.unusable(at(112)), None);
}

#[test]
fn after_the_window_one_request_probes() {
    let mut server = peer(1, 10);
    server.on_picked(at(100));
    server.on_failure(at(100));
    server.on_picked(at(111));
    assert_eq!(server.unusable(at(112)), Some(Unusable::Failed), "the probe is under way");
    server.on_success(Some(at(112)));
    assert_eq!(server.unusable(at(112)), None);
    assert_eq!(server.fails(), 0);
}

#[test]
fn without_max_fails_nothing_is_counted_against_it() {
    let mut server = peer(0, 10);
    for second in 0..20 {
        server.on_picked(at(second));
        assert!(!server.on_failure(at(second)));
        assert_eq!(server.unusable(at(second)), None);
    }
}

#[test]
fn a_failure_costs_weight_that_grows_back() {
    let mut server = peer(2, 10);
    server.on_picked(at(1));
    server.on_failure(at(1));
    assert_eq!([(); 4].map(|()| server.gain(at(1))), [2, 3, 4, 4]);
}

#[test]
fn max_conns_makes_it_full() {
    let mut server = peer(1, 10);
    server.on_picked(at(1));
    assert_eq!(server.unusable(at(1)), None);
    server.on_picked(at(1));
    assert_eq!(server.unusable(at(1)), Some(Unusable::Full));
    server.on_success(Some(at(112)));
    assert_eq!(server.unusable(at(1)), None);
}

#[test]
fn a_reload_keeps_failures_and_load() {
    let mut before = peer(1, 60);
    before.on_picked(at(1));
    before.on_picked(at(1));
    before.on_failure(at(2));
    let mut after = peer(3, 60);
    after.terms.weight = 1;
    after.inherit(&before, at(3));
    assert_eq!((after.conns, after.fails(), after.terms.max_fails), (1, 1, 3));
    assert_eq!(after.gain(at(3)), 0, "the weight that failures took stays lowered");
}

#[test]
fn failures_are_timed_in_whole_seconds() {
    let mut server = peer(1, 1);
    server.on_picked(Duration::from_millis(100_900));
    server.on_failure(Duration::from_millis(100_900));
    assert_eq!(server.unusable(Duration::from_millis(101_999)), Some(Unusable::Failed));
    assert_eq!(server.back_at(Duration::from_millis(101_999)), Some(at(102)));
    assert_eq!(server.unusable(at(102)), None);
}

#[test]
fn a_slow_start_gives_the_weight_back_bit_by_bit() {
    let mut server = peer(1, 10);
    server.terms.slow_start = at(8);
    server.refine();
    assert_eq!(server.weight(at(1)), 400, "never at the start of the process");
    server.on_picked(at(1));
    server.on_failure(at(1));
    server.on_picked(at(20));
    server.on_success(Some(at(20)));
    assert_eq!([20, 22, 24, 28, 30].map(|second| server.weight(at(second))), [0, 100, 200, 400, 400]);
    let down = Peer { terms: Terms { duty: Duty::Down, ..server.terms.clone() }, ..server.clone() };
    server.inherit(&down, at(50));
    assert_eq!(server.weight(at(52)), 100, "a server that the operator has let in again");
}

#[test]
fn what_drains_serves_its_own_clients_only() {
    let mut server = peer(1, 10);
    server.terms.duty = Duty::Drain;
    assert_eq!(server.unusable(at(1)), Some(Unusable::Draining));
    assert_eq!(server.unusable_for_own(at(1)), None);
    server.on_picked(at(1));
    server.on_failure(at(1));
    assert_eq!(server.unusable_for_own(at(2)), Some(Unusable::Failed));
}

#[test]
fn the_time_out_of_rotation_is_counted() {
    let mut server = peer(1, 10);
    server.on_picked(at(100));
    server.on_failure(at(100));
    assert_eq!(server.history.downtime(at(105)), at(5));
    server.on_picked(at(112));
    server.on_success(Some(at(112)));
    assert_eq!((server.history.downtime(at(200)), server.history.unavailable), (at(12), 1));
}
