//! Who the client is behind trusted proxies: the address that `set_real_ip_from` and `real_ip_header` lead to.

use std::net::{IpAddr, SocketAddr};

/// The address in `values`, where each is one value of the header, in order. Read from the right, because the left
/// end is whatever the client wrote. `recursive` goes on past addresses that are trusted themselves.
pub fn client(
    values: &[&[u8]],
    recursive: bool,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<(IpAddr, Option<u16>)> {
    let mut found = None;
    for member in values.iter().rev().flat_map(|value| value.rsplit(|byte| matches!(byte, b',' | b' '))) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        // What cannot be read ends the search: nothing left of it can be trusted.
        let Some(address) = parse(member) else { break };
        found = Some(address);
        if !recursive || !is_trusted(address.0) {
            break;
        }
    }
    found
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn parse(text: &[u8]) -> Option<(IpAddr, Option<u16>)> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip.to_canonical(), None));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_canonical(), Some(address.port())));
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse::<IpAddr>().ok().map(|ip| (ip.to_canonical(), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ten(ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 10)
    }

    fn found(values: &[&str], recursive: bool) -> Option<String> {
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        client(&values, recursive, ten).map(|(ip, port)| match port {
            Some(port) => SocketAddr::new(ip, port).to_string(),
            None => ip.to_string(),
        })
    }

    #[test]
    fn the_last_address_counts_or_the_last_that_is_not_trusted() {
        assert_eq!(found(&["1.1.1.1, 2.2.2.2, 10.0.0.1"], false).as_deref(), Some("10.0.0.1"));
        assert_eq!(found(&["1.1.1.1, 2.2.2.2, 10.0.0.1"], true).as_deref(), Some("2.2.2.2"));
        assert_eq!(found(&["1.1.1.1", "10.0.0.2, 10.0.0.1"], true).as_deref(), Some("1.1.1.1"));
        assert_eq!(found(&["10.0.0.2"], true).as_deref(), Some("10.0.0.2"));
        assert_eq!(found(&[], true), None);
    }

    #[test]
    fn ports_and_brackets_are_understood_and_rubbish_ends_the_search() {
        assert_eq!(found(&["[2001:db8::1]:80"], false).as_deref(), Some("[2001:db8::1]:80"));
        assert_eq!(found(&["[2001:db8::1]"], false).as_deref(), Some("2001:db8::1"));
        assert_eq!(found(&["1.2.3.4:5"], false).as_deref(), Some("1.2.3.4:5"));
        assert_eq!(found(&["::ffff:1.2.3.4"], false).as_deref(), Some("1.2.3.4"));
        assert_eq!(found(&["6.6.6.6, unknown, 10.0.0.1"], true).as_deref(), Some("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn what_the_client_wrote_to_the_left_changes_nothing(prefix in "[ -~]{0,40}", last in 1u8..10) {
            let honest = format!("{last}.2.3.4");
            let forged = format!("{prefix}, {honest}");
            prop_assert_eq!(found(&[&forged], true), found(&[&honest], true));
        }
    }
}
