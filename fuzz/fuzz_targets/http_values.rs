//! Values of header fields and paths that the balancer takes apart.
#![no_main]

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use balancer::logic::cookies::{Flags, attributes, write};
use balancer::logic::h1::target;
use balancer::logic::selection::{Selection, Thing, Wishes, select};
use balancer::logic::{agents, codings, real_ip};
use libfuzzer_sys::fuzz_target;

const LEN: u64 = 100;

fn client_address(value: &[u8]) {
    let is_trusted = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10);
    // The nearest proxy wrote the last address: nothing to the left of one that is not trusted counts.
    let honest = [value, b", 192.0.2.1"].concat();
    let found = real_ip::client(&[&honest], true, is_trusted);
    assert_eq!(found, Some((IpAddr::from([192, 0, 2, 1]), None)));
    let _ = real_ip::client(&[value], true, is_trusted);
}

fn cookie(value: &[u8]) {
    let mut flags = Flags::default();
    for word in [&b"secure"[..], b"httponly", b"samesite=lax"] {
        assert!(flags.add(word));
    }
    let mut parts = attributes(value);
    let first = parts[0].clone();
    flags.apply(&mut parts);
    assert_eq!(parts[0], first);
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    write(&parts, &mut once);
    let mut parts = attributes(&once);
    flags.apply(&mut parts);
    write(&parts, &mut twice);
    assert_eq!(once, twice, "flags that are set are set already");
}

fn range(value: &[u8]) {
    let wishes = Wishes {
        range: Some(value),
        if_range: Some(value),
        if_match: Some(value),
        if_none_match: Some(value),
        if_modified_since: Some(value),
        if_unmodified_since: Some(value),
    };
    let alone = Wishes { range: Some(value), ..Wishes::default() };
    for wishes in [wishes, alone] {
        let selection = select(&wishes, Thing { tag: b"\"5-a\"", modified: UNIX_EPOCH, len: LEN });
        if let Selection::Part(start, end) = selection {
            assert!(start < end && end <= LEN);
        }
    }
}

/// What comes out stays below the root, however it was written.
fn path(value: &[u8]) {
    let mut out = Vec::new();
    let value = [b"/", value].concat();
    if target::normalise(&value, true, &mut out).is_ok() {
        assert_eq!(out.first(), Some(&b'/'));
        assert!(!out.contains(&0));
        assert!(out.split(|byte| *byte == b'/').all(|part| part != b"." && part != b".."));
    }
}

fuzz_target!(|value: &[u8]| {
    client_address(value);
    cookie(value);
    range(value);
    path(value);
    let _ = codings::accepts_gzip(value);
    let _ = (agents::is_msie6(value), agents::is_safari(value));
    let (host, port) = target::split_port(value);
    assert_eq!(host.len() + port.map_or(0, |port| port.len() + 1), value.len());
});
