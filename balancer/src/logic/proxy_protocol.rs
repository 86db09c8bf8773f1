//! The PROXY protocol, versions 1 and 2: whom a proxy in front of us serves. Says which bytes belong to the header, so
//! that what follows is left to whom it is for.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LINE_LEN_MAX: usize = 107;
/// nginx's buffer: what a header of version 2 with its TLVs may take.
const HEADER_LEN_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("broken header")]
pub struct Broken;

/// What the header says; nothing where the proxy speaks for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    pub route: Option<Route>,
    /// Version 2's further values, as they came.
    tlvs: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// As version 1 writes them.
    pub source_text: Box<[u8]>,
    pub destination_text: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// What is told to who stands behind us: where the client is and where it reached us; without them, that nobody knows.
pub fn header(version: Version, ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let ends = ends.map(|(source, destination)| (plain(source), plain(destination)));
    // One family for both is all that the header can say: `real_ip` may have found a client of the other one.
    let ends = ends.map(|(source, destination)| match source.is_ipv4() == destination.is_ipv4() {
        true => (source, destination),
        false => (widened(source), widened(destination)),
    });
    match (version, ends) {
        (Version::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (Version::V1, Some((source, destination))) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (text(source.ip()), text(destination.ip()));
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
        }
        // LOCAL: the connection is our own business.
        (Version::V2, None) => [&SIGNATURE[..], &[0x20, 0, 0, 0]].concat(),
        (Version::V2, Some((source, destination))) => {
            let mut rest = Vec::with_capacity(36);
            for end in [source, destination] {
                match end.ip() {
                    IpAddr::V4(ip) => rest.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => rest.extend_from_slice(&ip.octets()),
                }
            }
            rest.extend_from_slice(&source.port().to_be_bytes());
            rest.extend_from_slice(&destination.port().to_be_bytes());
            let family = if source.is_ipv4() { 0x11 } else { 0x21 };
            let len = if source.is_ipv4() { 12 } else { 36 };
            [&SIGNATURE[..], &[0x21, family, 0, len], &rest].concat()
        }
    }
}

fn widened(end: SocketAddr) -> SocketAddr {
    match end.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
        IpAddr::V6(_) => end,
    }
}

/// Version 1 has an address of IPv6 in groups of digits only, where Rust writes a mapped one with dots.
fn text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            let [.., high, low] = ip.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        ip => ip.to_string(),
    }
}

/// A header on its way in.
#[derive(Debug, Default)]
pub struct Reader {
    data: Vec<u8>,
}

impl Reader {
    pub fn is_whole(&self) -> bool {
        match self.data.starts_with(SIGNATURE) {
            true => self.data.len() >= 16 && self.v2_len() == Ok(self.data.len()),
            false => self.data.ends_with(b"\n") && !SIGNATURE.starts_with(&self.data),
        }
    }

    /// How many of the next bytes belong to the header for certain.
    pub fn wants(&self, next: &[u8]) -> Result<usize, Broken> {
        let have = self.data.len();
        if have >= SIGNATURE.len() && self.data.starts_with(SIGNATURE) {
            let wanted = if have < 16 { 16 } else { self.v2_len()? };
            return Ok((wanted - have).min(next.len()));
        }
        let is_v2 = SIGNATURE.starts_with(&self.data) && next.first() == SIGNATURE.get(have);
        if is_v2 {
            let same = next.iter().zip(&SIGNATURE[have..]).take_while(|(next, known)| next == known).count();
            return Ok(same);
        }
        let line = memchr::memchr(b'\n', next).map_or(next.len(), |at| at + 1);
        let begins = self.data.iter().chain(next).zip(b"PROXY ").all(|(byte, known)| byte == known);
        if begins && have + line <= LINE_LEN_MAX { Ok(line) } else { Err(Broken) }
    }

    pub fn take(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    fn v2_len(&self) -> Result<usize, Broken> {
        let len = 16 + usize::from(u16::from_be_bytes([self.data[14], self.data[15]]));
        if self.data[12] >> 4 == 2 && len <= HEADER_LEN_MAX { Ok(len) } else { Err(Broken) }
    }

    /// What the whole header says.
    pub fn into_header(self) -> Result<Header, Broken> {
        match self.data.starts_with(SIGNATURE) {
            true => v2(&self.data),
            false => v1(&self.data),
        }
    }
}

fn v1(line: &[u8]) -> Result<Header, Broken> {
    let line = line.strip_suffix(b"\r\n").and_then(|line| line.strip_prefix(b"PROXY ")).ok_or(Broken)?;
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Header::default());
    }
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [family, source, destination, source_port, destination_port] = words[..] else { return Err(Broken) };
    let address = |text: &[u8]| -> Option<IpAddr> {
        let ip: IpAddr = std::str::from_utf8(text).ok()?.parse().ok()?;
        (family == if ip.is_ipv4() { b"TCP4" } else { b"TCP6" }).then_some(ip)
    };
    let port = |text: &[u8]| -> Option<u16> {
        let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
    };
    let end = |ip: &[u8], at: &[u8]| Some(SocketAddr::new(address(ip)?, port(at)?));
    let route = Route {
        source: end(source, source_port).ok_or(Broken)?,
        destination: end(destination, destination_port).ok_or(Broken)?,
        source_text: source.into(),
        destination_text: destination.into(),
    };
    Ok(Header { route: Some(route), tlvs: Vec::new() })
}

fn v2(data: &[u8]) -> Result<Header, Broken> {
    let (command, family, transport) = (data[12] & 15, data[13] >> 4, data[13] & 15);
    let rest = &data[16..];
    // LOCAL, datagrams and unix sockets name nobody.
    if command != 1 || transport != 1 || !matches!(family, 1 | 2) {
        return Ok(Header::default());
    }
    let ip_len = if family == 1 { 4 } else { 16 };
    let ends = rest.get(..2 * ip_len + 4).ok_or(Broken)?;
    let ip = |from: usize| -> Option<IpAddr> {
        let octets = ends.get(from..from + ip_len)?;
        let v4 = <[u8; 4]>::try_from(octets).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
        v4.or_else(|_| <[u8; 16]>::try_from(octets).map(|octets| IpAddr::from(Ipv6Addr::from(octets)))).ok()
    };
    let port = |from: usize| u16::from_be_bytes([ends[from], ends[from + 1]]);
    let source = SocketAddr::new(ip(0).ok_or(Broken)?, port(2 * ip_len));
    let destination = SocketAddr::new(ip(ip_len).ok_or(Broken)?, port(2 * ip_len + 2));
    let text = |end: SocketAddr| end.ip().to_string().into_bytes().into();
    let route = Route { source, destination, source_text: text(source), destination_text: text(destination) };
    Ok(Header { route: Some(route), tlvs: rest[ends.len()..].to_vec() })
}

/// The names that nginx has for types, of the header and of its part about TLS.
const TYPES: [(&str, u8); 5] =
    [("alpn", 0x01), ("authority", 0x02), ("unique_id", 0x05), ("ssl", 0x20), ("netns", 0x30)];
const SSL_TYPES: [(&str, u8); 5] =
    [("version", 0x21), ("cn", 0x22), ("cipher", 0x23), ("sig_alg", 0x24), ("key_alg", 0x25)];
const SSL: u8 = 0x20;
/// Before the values of the part about TLS: one byte of flags, four of the verification's result.
const SSL_HEAD_LEN: usize = 5;

impl Header {
    /// `$proxy_protocol_tlv_NAME`: by nginx's names, or by number (`0xae`).
    pub fn tlv(&self, name: &str) -> Option<Vec<u8>> {
        let Some(name) = name.strip_prefix("ssl_") else {
            return find(&self.tlvs, kind(name, &TYPES)?).map(<[u8]>::to_vec);
        };
        let ssl = find(&self.tlvs, SSL).filter(|ssl| ssl.len() >= SSL_HEAD_LEN)?;
        let (head, values) = ssl.split_at(SSL_HEAD_LEN);
        if name == "verify" {
            let result = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            return Some(result.to_string().into_bytes());
        }
        find(values, kind(name, &SSL_TYPES)?).map(<[u8]>::to_vec)
    }
}

fn kind(name: &str, known: &[(&str, u8)]) -> Option<u8> {
    match name.strip_prefix("0x") {
        Some(number) => u32::from_str_radix(number, 16).ok().and_then(|number| u8::try_from(number).ok()),
        None => known.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind),
    }
}

fn find(mut tlvs: &[u8], wanted: u8) -> Option<&[u8]> {
    while let [kind, high, low, rest @ ..] = tlvs {
        let value = rest.get(..usize::from(u16::from_be_bytes([*high, *low])))?;
        if *kind == wanted {
            return Some(value);
        }
        tlvs = &rest[value.len()..];
    }
    None
}
