//! Headers of proxies, whole and in pieces, sound and broken.

use proptest::prelude::*;

use super::*;

/// Fed byte by byte: the header, and how many bytes it took.
fn read(mut data: &[u8], piece_len: usize) -> Result<Option<(Header, usize)>, Broken> {
    let (mut reader, mut used) = (Reader::default(), 0);
    loop {
        if reader.is_whole() {
            return reader.into_header().map(|header| Some((header, used)));
        }
        let piece = &data[..data.len().min(piece_len)];
        if piece.is_empty() {
            return Ok(None);
        }
        let wanted = reader.wants(piece)?;
        reader.take(&piece[..wanted]);
        (data, used) = (&data[wanted..], used + wanted);
    }
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[0x20 | command, family], &len, rest].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0, 80];

#[test]
fn version_1_names_both_ends_and_what_follows_is_not_its_own() {
    let text = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 5678\r\nGET / HTTP/1.1\r\n";
    for piece_len in [1, 7, 1000] {
        let (header, used) = read(text, piece_len).unwrap().unwrap();
        let route = header.route.unwrap();
        assert_eq!(
            (route.source, route.destination),
            ("192.0.2.1:1234".parse().unwrap(), "192.0.2.2:5678".parse().unwrap())
        );
        assert_eq!(&text[used..], b"GET / HTTP/1.1\r\n");
    }
    let (header, _) = read(b"PROXY TCP6 2001:DB8::1 2001:db8::2 1 2\r\n", 3).unwrap().unwrap();
    assert_eq!(&*header.route.unwrap().source_text, b"2001:DB8::1");
    let (header, _) = read(b"PROXY UNKNOWN 1 2 3 4 5\r\n", 3).unwrap().unwrap();
    assert_eq!(header, Header::default());
}

#[test]
fn broken_lines_are_refused() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1234\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1234 5678\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 70000\r\n",
        "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
    ] {
        assert!(read(line.as_bytes(), 1000).is_err(), "{line}");
    }
    assert!(read(&[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(), 10).is_err());
}

#[test]
fn version_2_names_both_ends_and_carries_values() {
    let tlvs = [&[1, 0, 2][..], b"h2", &[0x20, 0, 10, 5, 0, 0, 0, 1, 0x22, 0, 2], b"cn", &[0xae, 0, 1, b'x']]
        .concat();
    let data = v2(1, 0x11, &[&V4[..], &tlvs].concat());
    for piece_len in [1, 15, 1000] {
        let (header, used) = read(&[&data[..], b"GET"].concat(), piece_len).unwrap().unwrap();
        assert_eq!(used, data.len());
        assert_eq!(header.route.as_ref().unwrap().source, "192.0.2.1:4660".parse().unwrap());
        let told = |name: &str| header.tlv(name).map(|value| String::from_utf8_lossy(&value).into_owned());
        assert_eq!((told("alpn"), told("0x01")), (Some("h2".into()), Some("h2".into())));
        assert_eq!((told("ssl_verify"), told("ssl_cn")), (Some("1".into()), Some("cn".into())));
        assert_eq!((told("0x000ae"), told("netns"), told("ssl_version")), (Some("x".into()), None, None));
    }
}

#[test]
fn version_2_without_ends_names_nobody() {
    for (command, family) in [(0, 0x11), (1, 0x00), (1, 0x12), (1, 0x31)] {
        let (header, _) = read(&v2(command, family, &V4), 1000).unwrap().unwrap();
        assert_eq!(header, Header::default());
    }
    assert!(read(&v2(1, 0x21, &V4), 1000).is_err());
    assert!(read(&v2(1, 0x11, &[0; 5000]), 1000).is_err());
    let mut third = v2(1, 0x11, &V4);
    third[12] = 0x31;
    assert!(read(&third, 1000).is_err());
}

#[test]
fn a_client_of_another_family_than_its_listener_is_told_in_the_wider_one() {
    let ends = Some(("[2001:db8::1]:1234".parse().unwrap(), "192.0.2.2:80".parse().unwrap()));
    // In the digits that the specification knows, which has no dots in an address of TCP6.
    assert_eq!(header(Version::V1, ends), b"PROXY TCP6 2001:db8::1 ::ffff:c000:202 1234 80\r\n");
    let data = header(Version::V2, ends);
    assert_eq!((data[12], data[13], data.len()), (0x21, 0x21, 16 + 36));
}

proptest! {
    #[test]
    fn any_bytes_are_read_alike_whole_and_split(
        start in prop_oneof![Just(SIGNATURE.to_vec()), Just(b"PROXY TCP4 ".to_vec()), Just(Vec::new())],
        rest in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let data = [start, rest].concat();
        prop_assert_eq!(read(&data, 1), read(&data, 1000));
    }

    #[test]
    fn what_is_told_is_what_is_read(
        is_v1: bool, source: (std::net::IpAddr, u16), destination: (std::net::IpAddr, u16), is_known: bool,
    ) {
        let end = |(ip, port): (IpAddr, u16)| SocketAddr::new(ip.to_canonical(), port);
        let (source, destination) = (end(source), end(destination));
        let version = if is_v1 { Version::V1 } else { Version::V2 };
        let data = header(version, is_known.then_some((source, destination)));
        let (read, taken) = read(&data, 1000).unwrap().unwrap();
        prop_assert_eq!(taken, data.len());
        let told = read.route.map(|route| (route.source, route.destination));
        // One family for both is all that the header can say.
        let as_told = |end: SocketAddr| match (end.ip(), source.is_ipv4() == destination.is_ipv4()) {
            (IpAddr::V4(ip), false) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
            _ => end,
        };
        prop_assert_eq!(told, is_known.then_some((as_told(source), as_told(destination))));
    }

    #[test]
    fn no_values_panic(tlvs in proptest::collection::vec(any::<u8>(), 0..60), name in "(ssl_)?(0x)?[a-f0-9]{0,6}|alpn|ssl|ssl_verify|ssl_cn") {
        let _ = Header { route: None, tlvs }.tlv(&name);
    }
}
