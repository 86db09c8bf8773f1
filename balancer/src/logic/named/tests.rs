use proptest::prelude::*;

use super::*;
use crate::conf::build::NAMELESS;
use crate::conf::upstream::{Keepalive, Method, Origin, Terms, UpstreamId};

fn named(line: u32, service: Option<&str>) -> NamedServer {
    let terms = Terms::new("web.example:80");
    NamedServer { line, host: "web.example".into(), port: 80, service: service.map(Into::into), terms }
}

/// A fixed server, then those known by name.
fn group(named: Vec<NamedServer>) -> Upstream {
    let fixed = Peer::at(Address::Tcp(([127, 0, 0, 1], 80).into()), Terms::new("127.0.0.1:80"));
    Upstream {
        id: UpstreamId(0),
        name: "g".into(),
        origin: Origin::Block,
        method: Method::RoundRobin,
        peers: vec![fixed],
        named,
        naming: NAMELESS,
        keepalive: Keepalive::default(),
        sticky: None,
        queue: None,
        zone: Some("z".into()),
        state_file: None,
    }
}

fn target(last: u8) -> Target {
    let address = ([10, 0, 0, last], 80).into();
    Target { address, name: "node".into(), weight: 7, is_backup: false }
}

fn shown(upstream: &Upstream) -> Vec<&str> {
    upstream.peers.iter().map(|peer| &*peer.name).collect()
}

#[test]
fn what_stays_keeps_its_place_and_other_servers_are_not_touched() {
    let group = group(vec![named(1, None), named(2, None)]);
    let group = resolved(&group, &named(1, None), &[target(1), target(2), target(3)]).unwrap();
    let group = resolved(&group, &named(2, None), &[target(1)]).unwrap();
    let group = resolved(&group, &named(1, None), &[target(4), target(3)]).unwrap();
    assert_eq!(shown(&group), ["127.0.0.1:80", "10.0.0.3:80", "10.0.0.1:80", "10.0.0.4:80"]);
    assert!(resolved(&group, &named(9, None), &[]).is_none());
}

#[test]
fn an_answer_that_was_asked_for_another_server_on_the_same_line_is_nobodys() {
    let group = group(vec![named(1, None)]);
    let other = [
        NamedServer { host: "old.example".into(), ..named(1, None) },
        NamedServer { port: 81, ..named(1, None) },
        named(1, Some("http")),
    ];
    for asked in other {
        assert!(resolved(&group, &asked, &[target(1)]).is_none(), "{asked:?}");
    }
    assert!(resolved(&group, &named(1, None), &[target(1)]).is_some());
}

#[test]
fn records_of_services_tell_weight_and_backup_unless_the_line_does() {
    let mut weighted = named(2, Some("http"));
    weighted.terms.weight = 3;
    let group = group(vec![named(1, Some("http")), weighted]);
    let spare = Target { is_backup: true, ..target(2) };
    let group = resolved(&group, &named(1, Some("http")), &[spare, target(1)]).unwrap();
    let group = resolved(&group, &named(2, Some("http")), &[target(3)]).unwrap();
    let terms = |index: usize| {
        let terms = &group.peers[index].terms;
        (&*terms.server, terms.weight, terms.tier)
    };
    assert_eq!(shown(&group), ["127.0.0.1:80", "10.0.0.1:80", "10.0.0.3:80", "10.0.0.2:80"]);
    assert_eq!(terms(1), ("node", 7, Tier::Primary));
    assert_eq!(terms(2), ("node", 3, Tier::Primary));
    assert_eq!(terms(3), ("node", 7, Tier::Backup));
}

#[test]
fn a_new_configuration_begins_with_what_was_known_at_its_own_port() {
    let before = resolved(&group(vec![named(1, None)]), &named(1, None), &[target(1), target(2)]).unwrap();
    let moved = NamedServer { port: 81, ..named(5, None) };
    let other = NamedServer { host: "other.example".into(), ..named(6, None) };
    let after = inherited(&group(vec![moved, other]), &before);
    assert_eq!(shown(&after), ["127.0.0.1:80", "10.0.0.1:81", "10.0.0.2:81"]);
}

proptest! {
    /// However often names change: a server has exactly the addresses that were told last.
    #[test]
    fn a_server_has_what_was_told_last(
        told in prop::collection::vec((0..3u32, prop::collection::vec(1..6u8, 0..5)), 1..20),
    ) {
        let mut group = group((0..3).map(|line| named(line, None)).collect());
        let mut last = [const { Vec::new() }; 3];
        for (line, addresses) in told {
            let targets: Vec<Target> = addresses.iter().map(|last| target(*last)).collect();
            group = resolved(&group, &named(line, None), &targets).unwrap();
            last[line as usize] = addresses;
            for (line, addresses) in last.iter().enumerate() {
                let of_line = group.peers.iter().filter(|peer| peer.line == Some(line as u32));
                let mut found: Vec<String> = of_line.map(|peer| peer.name.to_string()).collect();
                let mut wanted: Vec<String> = addresses.iter().map(|last| format!("10.0.0.{last}:80")).collect();
                found.sort();
                wanted.sort();
                prop_assert_eq!(found, wanted);
            }
            prop_assert_eq!(group.peers[0].line, None);
        }
    }
}
