//! Failure windows, driven by a clock that is an argument.

use std::time::Duration;

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn peer(max_fails: u32, fail_timeout: u64) -> Peer {
    Peer::new(Terms {
        server: "web-1:8000".into(),
        weight: 4,
        max_conns: 2,
        max_fails,
        fail_timeout: at(fail_timeout),
        backup: false,
        down: false,
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
    server.on_success();
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
    assert_eq!([server.gain(), server.gain(), server.gain(), server.gain()], [2, 3, 4, 4]);
}

#[test]
fn max_conns_makes_it_full() {
    let mut server = peer(1, 10);
    server.on_picked(at(1));
    assert_eq!(server.unusable(at(1)), None);
    server.on_picked(at(1));
    assert_eq!(server.unusable(at(1)), Some(Unusable::Full));
    server.on_success();
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
    after.inherit(&before);
    assert_eq!((after.conns, after.fails(), after.terms.max_fails), (1, 1, 3));
    assert_eq!(after.gain(), 0, "the weight that failures took stays lowered");
}
