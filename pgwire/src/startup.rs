//! The packets before the first message: encryption requests, cancel requests and the startup message. They have no kind.

use crate::build;
use crate::read::{Malformed, Reader};

/// Postgres' own bound; a longer one is no startup packet.
pub const MAX_LEN: usize = 10_000;

const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;
const SSL_REQUEST: u32 = (1234 << 16) | 5679;
const GSSENC_REQUEST: u32 = (1234 << 16) | 5680;

/// Protocol 3.2 allows cancel keys from 4 to 256 bytes.
pub const CANCEL_KEY_LEN: std::ops::RangeInclusive<usize> = 4..=256;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    SslRequest,
    GssEncRequest,
    Cancel(CancelKey),
    Startup(Startup),
}

/// The process id and secret of a running query's connection.
#[derive(Clone, PartialEq, Eq)]
pub struct CancelKey {
    pub process_id: u32,
    pub secret: Vec<u8>,
}

/// A key opens the door to cancelling a query: it is not shown.
impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey({}, {} bytes)", self.process_id, self.secret.len())
    }
}

/// What kind of connection the startup parameter `replication` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    #[default]
    None,
    /// Bound to a database: SQL and logical replication.
    Logical,
    /// The whole cluster's log; knows replication commands only.
    Physical,
}

impl Replication {
    /// `database`, or a boolean as Postgres spells them: true, yes, on, 1 and their beginnings. None: Postgres refuses it.
    pub fn parse(text: &str) -> Option<Replication> {
        let text = text.to_ascii_lowercase();
        let begins = |word: &str, len_min: usize| text.len() >= len_min && word.starts_with(&text);
        if text == "database" {
            Some(Replication::Logical)
        } else if begins("true", 1) || begins("yes", 1) || text == "on" || text == "1" {
            Some(Replication::Physical)
        } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
            Some(Replication::None)
        } else {
            None
        }
    }

    /// As it is written in a startup message.
    pub fn as_str(self) -> &'static str {
        match self {
            Replication::None => "no",
            Replication::Logical => "database",
            Replication::Physical => "yes",
        }
    }
}

/// A startup message of protocol 3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    pub minor: u16,
    /// All parameters but protocol extensions, in order, `user` and `database` included.
    pub parameters: Vec<(String, String)>,
    /// Names that start with `_pq_.`: extensions, which the server may decline.
    pub extensions: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    #[error("startup packet has the impossible length {0}")]
    Length(u32),
    /// Also what a browser or a TLS client on a plain port sends.
    #[error("unsupported protocol version {0}.{1}")]
    Version(u16, u16),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Reads the packet at the start of `bytes` and the number of bytes it took; None when more have to come.
pub fn parse(bytes: &[u8]) -> Result<Option<(Packet, usize)>, StartupError> {
    let Some(&head) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let announced = u32::from_be_bytes(head);
    let len = announced as usize;
    if !(8..=MAX_LEN).contains(&len) {
        return Err(StartupError::Length(announced));
    }
    if bytes.len() < len {
        return Ok(None);
    }
    let mut reader = Reader::new(&bytes[4..len]);
    let code = reader.u32()?;
    let packet = match code {
        SSL_REQUEST => reader.end().map(|()| Packet::SslRequest)?,
        GSSENC_REQUEST => reader.end().map(|()| Packet::GssEncRequest)?,
        CANCEL_REQUEST => Packet::Cancel(parse_cancel(reader)?),
        _ if code >> 16 == 3 => Packet::Startup(parse_parameters(code as u16, reader)?),
        _ => return Err(StartupError::Version((code >> 16) as u16, code as u16)),
    };
    Ok(Some((packet, len)))
}

fn parse_cancel(mut reader: Reader<'_>) -> Result<CancelKey, Malformed> {
    let process_id = reader.u32()?;
    if !CANCEL_KEY_LEN.contains(&reader.rest().len()) {
        return Err(Malformed("a cancel key has 4 to 256 bytes"));
    }
    Ok(CancelKey { process_id, secret: reader.rest().to_vec() })
}

fn parse_parameters(minor: u16, mut reader: Reader<'_>) -> Result<Startup, Malformed> {
    let mut startup = Startup { minor, ..Startup::default() };
    loop {
        let name = reader.str()?;
        if name.is_empty() {
            break;
        }
        let pair = (name.to_string(), reader.str()?.to_string());
        if name.starts_with("_pq_.") {
            startup.extensions.push(pair);
        } else {
            startup.parameters.push(pair);
        }
    }
    reader.end()?;
    Ok(startup)
}

impl Startup {
    /// The last value given for this name, as Postgres takes it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The database, which is the user's name when it is not given or empty.
    pub fn database(&self) -> Option<&str> {
        self.get("database").filter(|name| !name.is_empty()).or_else(|| self.get("user"))
    }

    /// Whether the server has to answer with NegotiateProtocolVersion: it speaks only 3.`newest` and no extension.
    pub fn must_negotiate(&self, newest: u16) -> bool {
        self.minor > newest || !self.extensions.is_empty()
    }
}

pub fn ssl_request(out: &mut Vec<u8>) {
    build::sized(out, |out| build::u32(out, SSL_REQUEST));
}

pub fn gssenc_request(out: &mut Vec<u8>) {
    build::sized(out, |out| build::u32(out, GSSENC_REQUEST));
}

pub fn cancel_request(out: &mut Vec<u8>, key: &CancelKey) {
    build::sized(out, |out| {
        build::u32(out, CANCEL_REQUEST);
        build::u32(out, key.process_id);
        out.extend(&key.secret);
    });
}

/// A startup message of protocol 3.`minor`.
pub fn startup<'a>(out: &mut Vec<u8>, minor: u16, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) {
    build::sized(out, |out| {
        build::u32(out, (3 << 16) | u32::from(minor));
        for (name, value) in parameters {
            build::cstr(out, name);
            build::cstr(out, value);
        }
        out.push(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> Packet {
        let (packet, len) = parse(bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        packet
    }

    #[test]
    fn a_startup_message_is_read_at_every_split() {
        let mut wire = Vec::new();
        startup(&mut wire, 0, [("user", "u"), ("options", "-c a=b"), ("_pq_.x", "1"), ("user", "v")]);
        for cut in 0..wire.len() {
            assert_eq!(parse(&wire[..cut]), Ok(None), "at {cut}");
        }
        let Packet::Startup(read) = whole(&wire) else { panic!("not a startup message") };
        assert_eq!(
            (read.get("user"), read.database(), read.get("options")),
            (Some("v"), Some("v"), Some("-c a=b"))
        );
        assert_eq!(read.extensions, [("_pq_.x".to_string(), "1".to_string())]);
        assert!(read.must_negotiate(0));
    }

    /// libpq 19 asks for 3.9999 and a made-up extension, to see whether servers negotiate.
    #[test]
    fn a_greased_startup_message_asks_for_negotiation() {
        let mut wire = Vec::new();
        startup(&mut wire, 9999, [("user", "u"), ("_pq_.test_protocol_negotiation", "")]);
        let Packet::Startup(read) = whole(&wire) else { panic!("not a startup message") };
        assert!(read.must_negotiate(2));
        assert_eq!(read.minor, 9999);
    }

    #[test]
    fn requests_are_read_again() {
        let key = CancelKey { process_id: 7, secret: vec![9; 32] };
        let mut wire = Vec::new();
        cancel_request(&mut wire, &key);
        assert_eq!(whole(&wire), Packet::Cancel(key));
        assert_eq!(whole(&[0, 0, 0, 8, 4, 210, 22, 47]), Packet::SslRequest);
        assert_eq!(whole(&[0, 0, 0, 8, 4, 210, 22, 48]), Packet::GssEncRequest);
    }

    #[test]
    fn replication_is_a_word_or_a_boolean() {
        let read = |text| Replication::parse(text);
        assert_eq!(read("database"), Some(Replication::Logical));
        for text in ["true", "TRUE", "t", "yes", "y", "on", "1"] {
            assert_eq!(read(text), Some(Replication::Physical), "{text}");
        }
        for text in ["false", "f", "no", "n", "off", "of", "0"] {
            assert_eq!(read(text), Some(Replication::None), "{text}");
        }
        for text in ["", "o", "2", "maybe", "data", "databases", "trues"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        for kind in [Replication::None, Replication::Logical, Replication::Physical] {
            assert_eq!(read(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn what_follows_a_request_is_left() {
        let bytes = [0, 0, 0, 8, 4, 210, 22, 47, 1, 2, 3];
        assert_eq!(parse(&bytes), Ok(Some((Packet::SslRequest, 8))));
    }

    #[test]
    fn bad_packets_are_errors() {
        let version = parse(&[0, 0, 0, 8, 0, 2, 0, 1]);
        assert_eq!(version, Err(StartupError::Version(2, 1)));
        assert_eq!(parse(b"GET / HTTP/1.1"), Err(StartupError::Length(0x4745_5420)));
        assert!(matches!(parse(&[0, 0, 0, 9, 0, 3, 0, 0, b'u']), Err(StartupError::Malformed(_))));
        assert!(matches!(parse(&[0, 0, 0, 8, 0, 3, 0, 0]), Err(StartupError::Malformed(_))));
        let short_key = [0, 0, 0, 15, 4, 210, 22, 46, 0, 0, 0, 1, 1, 2, 3];
        assert!(matches!(parse(&short_key), Err(StartupError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in prop::collection::vec(any::<u8>(), 4..80), kind in 0u32..6) {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            if let Some(code) = bytes.get_mut(4..8) {
                let codes = [3 << 16, CANCEL_REQUEST, SSL_REQUEST, GSSENC_REQUEST, 2 << 16, (3 << 16) | 2];
                code.copy_from_slice(&codes[kind as usize].to_be_bytes());
            }
            let _ = parse(&bytes);
        }
    }
}
