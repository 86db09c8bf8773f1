//! Patches in, groups out; and what a state file keeps is what comes back.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::conf::blocks;
use crate::conf::build::NAMELESS;
use crate::conf::table::Context;
use crate::conf::upstream::{Keepalive, Method, Origin, UpstreamId};

fn group(method: Method, servers: &[&str]) -> Upstream {
    let peer = |server: &&str| Peer::at(Address::Tcp(server.parse().unwrap()), Terms::new(server));
    Upstream {
        id: UpstreamId(0),
        name: "g".into(),
        origin: Origin::Block,
        method,
        peers: servers.iter().map(peer).collect(),
        named: Vec::new(),
        naming: NAMELESS,
        keepalive: Keepalive::default(),
        sticky: None,
        queue: None,
        zone: Some("z".into()),
        state_file: None,
    }
}

fn add(server: &str, body: &str) -> Edit {
    let patch = patch_of(body.as_bytes()).unwrap();
    Edit::Add { server: server.into(), addresses: vec![Address::Tcp(server.parse().unwrap())], patch }
}

#[test]
fn servers_are_added_changed_and_removed() {
    let before = group(Method::RoundRobin, &["10.0.0.1:80", "10.0.0.2:80"]);
    let added =
        apply(&before, &[0, 1], add("10.0.0.3:80", r#"{"weight": 4, "drain": true, "slow_start": "30s"}"#));
    let added = added.unwrap();
    let new = &added.peers[2].terms;
    assert_eq!((new.weight, new.duty, new.slow_start), (4, Duty::Drain, Duration::from_secs(30)));
    let patch = patch_of(br#"{"down": true, "route": "r1"}"#).unwrap();
    let changed = apply(&added, &[0, 1, 7], Edit::Change { id: 7, patch }).unwrap();
    assert_eq!((changed.peers[2].terms.duty, changed.peers[2].terms.sid.text()), (Duty::Down, "r1"));
    assert_eq!(changed.peers[2].terms.weight, 4, "what is not named stays");
    let removed = apply(&changed, &[0, 1, 7], Edit::Remove { id: 0 }).unwrap();
    let names: Vec<&str> = removed.peers.iter().map(|peer| &*peer.name).collect();
    assert_eq!(names, ["10.0.0.2:80", "10.0.0.3:80"]);
    assert_eq!(apply(&before, &[0, 1], Edit::Remove { id: 9 }).unwrap_err(), Refusal::ServerNotFound(9));
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let hashed = group(Method::Random, &["10.0.0.1:80"]);
    let refusal = |edit: Edit| apply(&hashed, &[0], edit).unwrap_err();
    assert_eq!(refusal(add("10.0.0.3:80", r#"{"backup": true}"#)), Refusal::NotSupported("backup"));
    assert_eq!(refusal(add("10.0.0.3:80", r#"{"slow_start": "1s"}"#)), Refusal::NotSupported("slow_start"));
    let patch = patch_of(br#"{"backup": true}"#).unwrap();
    assert_eq!(refusal(Edit::Change { id: 0, patch }), Refusal::Immutable("backup"));
    for (body, expected) in [
        ("[]", Refusal::Json),
        ("{", Refusal::Json),
        (r#"{"weight": 0}"#, Refusal::BadValue("weight".into())),
        (r#"{"weight": -1}"#, Refusal::BadValue("weight".into())),
        (r#"{"weight": 65536}"#, Refusal::BadValue("weight".into())),
        (r#"{"fail_timeout": 3153600001}"#, Refusal::BadValue("fail_timeout".into())),
        (r#"{"slow_start": 18446744073709551615}"#, Refusal::BadValue("slow_start".into())),
        (r#"{"slow_start": "101y"}"#, Refusal::BadValue("slow_start".into())),
        (r#"{"max_conns": "many"}"#, Refusal::BadValue("max_conns".into())),
        (r#"{"route": "a; down"}"#, Refusal::BadValue("route".into())),
        (r#"{"colour": 1}"#, Refusal::UnknownField("colour".into())),
    ] {
        assert_eq!(patch_of(body.as_bytes()), Err(expected), "{body}");
    }
}

#[test]
fn the_most_that_can_be_asked_for_can_be_read_back() {
    let body = r#"{"weight": 65535, "fail_timeout": "100y", "slow_start": 3153600000}"#;
    let changed = apply(&group(Method::RoundRobin, &[]), &[], add("10.0.0.3:80", body)).unwrap();
    let text = state_text(&changed);
    let nodes = blocks::fragment(text.as_bytes(), Path::new("state"), Context::UPSTREAM).unwrap();
    let read = crate::conf::build::server_terms(&nodes[0]).unwrap();
    assert_eq!((read.weight, read.fail_timeout.as_secs()), (65_535, 3_153_600_000));
}

proptest! {
    #[test]
    fn a_state_file_is_read_back_as_it_was_written(
        weight in 1_u32..9, max_conns in 0_u32..3, max_fails in 0_u32..3, times in (0_u64..20, 0_u64..20),
        route in "[a-z0-9]{0,8}", is_backup in any::<bool>(), duty in 0_usize..3,
    ) {
        let mut terms = Terms::new("10.0.0.1:80");
        (terms.weight, terms.max_conns, terms.max_fails) = (weight, max_conns, max_fails);
        terms.fail_timeout = Duration::from_secs(times.0);
        terms.slow_start = Duration::from_secs(times.1);
        terms.tier = if is_backup { Tier::Backup } else { Tier::Primary };
        terms.duty = [Duty::Up, Duty::Drain, Duty::Down][duty];
        if !route.is_empty() {
            terms.sid = Sid::Route(route.as_str().into());
        }
        let text = server_line(&terms, "");
        let nodes = blocks::fragment(text.as_bytes(), Path::new("state"), Context::UPSTREAM).unwrap();
        prop_assert_eq!(nodes.len(), 1);
        prop_assert_eq!(crate::conf::build::server_terms(&nodes[0]).unwrap(), terms);
    }
}
