//! What comes before authentication: traps by their number in docs/pooler-traps.md.

use std::io::{Read, Write};
use std::net::TcpStream;

use pgwire::startup;

use crate::script::Script;
use crate::world::{Certificates, Pooler, drain, tls_client};

fn startup_bytes(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    startup::startup(&mut out, 0, pairs.iter().copied());
    out
}

/// Trap 29.
#[test]
fn a_startup_message_may_come_byte_by_byte() {
    let pooler = Pooler::start("");
    let bytes = startup_bytes(&[("user", "postgres"), ("database", "postgres")]);
    let mut script = Script::open(&pooler);
    for byte in &bytes {
        script.send_bytes(&[*byte]);
    }
    assert!(script.replies(1).ends_with('Z'));
    for cut in 1..bytes.len() {
        let mut script = Script::open(&pooler);
        script.send_bytes(&bytes[..cut]);
        script.send_bytes(&bytes[cut..]);
        assert!(script.replies(1).ends_with('Z'), "cut at {cut}");
    }
}

/// Trap 29.
#[test]
fn without_a_database_it_is_the_users_own() {
    let pooler = Pooler::start("");
    let mut script = Script::open(&pooler);
    script.send_bytes(&startup_bytes(&[("user", "postgres")]));
    assert!(script.replies(1).ends_with('Z'));
    assert_eq!(script.value("SELECT current_database()"), "postgres");
    let mut nobody = Script::open(&pooler);
    nobody.send_bytes(&startup_bytes(&[("database", "postgres")]));
    assert!(nobody.last_error().contains("no username supplied"));
}

/// Trap 29 and CVE-2026-6664: a length is not believed before it is checked.
#[test]
fn startup_lengths_that_cannot_be_are_refused_at_once() {
    let pooler = Pooler::start("");
    for len in [0, 1, 4, 7, 10_001, 0x7fff_ffff, 0x8000_0000_u32, 0xffff_ffff] {
        let mut script = Script::open(&pooler);
        script.send_bytes(&[len.to_be_bytes(), [0, 3, 0, 0]].concat());
        drain(&mut script.stream);
    }
    assert_eq!(Script::connect(&pooler).value("SELECT 'fine'"), "fine");
}

/// CVE-2015-4054 and CVE-2026-19888: messages in the place of the startup message.
#[test]
fn messages_before_the_startup_message_end_the_connection() {
    let pooler = Pooler::start("");
    for bytes in [
        &b"p\0\0\0\x0apasswd\0"[..],
        b"Q\0\0\0\x0dSELECT 1\0",
        b"X\0\0\0\x04",
        b"S\0\0\0\x04",
        b"\0\0\0\x08\x04\xd2\x16\x2e",
        b"\0\0\0\x09\0\x03\0\0\0",
    ] {
        let mut script = Script::open(&pooler);
        script.send_bytes(bytes);
        script.stream.shutdown(std::net::Shutdown::Write).unwrap();
        drain(&mut script.stream);
    }
    assert_eq!(Script::connect(&pooler).value("SELECT 'fine'"), "fine");
}

/// Trap 15 and CVE-2026-6664: in the place of the password.
#[test]
fn password_messages_of_impossible_lengths_end_the_connection() {
    for method in ["plain", "md5", "scram-sha-256"] {
        let pooler = Pooler::start(&format!("auth_type = {method}"));
        for bytes in [
            &b"p\0\0\0\0"[..],
            b"p\0\0\0\x03",
            b"p\xff\xff\xff\xff",
            b"p\x7f\xff\xff\xff",
            b"p\0\0\0\x04",
            b"p\0\0\0\x06ab",
            b"Q\0\0\0\x05\0",
        ] {
            let mut script = Script::open(&pooler);
            script.send_startup("postgres", &[("user", "alice")]);
            assert_eq!(script.some_replies(1), "R");
            script.send_bytes(bytes);
            assert!(script.last_error().contains("FATAL"), "{method} {bytes:?}");
        }
    }
}

/// CVE-2026-107349 and trap 29.
#[test]
fn options_without_a_name_are_refused() {
    let pooler = Pooler::start("");
    for options in ["-c=", "-c =x", "-c", "--", "--=", "-c statement_timeout"] {
        let mut script = Script::open(&pooler);
        script.send_startup("postgres", &[("options", options)]);
        assert!(script.last_error().contains("unsupported options startup parameter"), "{options}");
    }
    let escaped = r"-c statement_timeout=7\000 -c search_path=a\ b";
    let mut script = Script::connect_with(&pooler, &[("options", escaped)]);
    assert_eq!(script.value("SHOW statement_timeout"), "7s");
}

/// Trap 25, CVE-2021-3935, CVE-2021-43766: in clear behind an encryption request of either kind.
#[test]
fn bytes_behind_an_encryption_request_are_never_read_as_messages() {
    let pooler = Pooler::start("");
    for ask in [startup::ssl_request as fn(&mut Vec<u8>), startup::gssenc_request] {
        let mut out = Vec::new();
        ask(&mut out);
        out.extend(startup_bytes(&[("user", "postgres"), ("database", "postgres")]));
        let mut script = Script::open(&pooler);
        script.send_bytes(&out);
        assert!(drain(&mut script.stream).is_empty());
    }
}

/// Encryption may be asked for again and again; the startup message must still come in time, and others go on.
#[test]
fn endless_encryption_requests_get_nobody_in() {
    let pooler = Pooler::start("client_login_timeout = 1");
    let mut script = Script::open(&pooler);
    let mut out = Vec::new();
    startup::gssenc_request(&mut out);
    for _ in 0..3 {
        script.send_bytes(&out);
        assert_eq!(script.next_byte(), b'N');
    }
    assert_eq!(Script::connect(&pooler).value("SELECT 'fine'"), "fine");
    assert!(script.last_error().contains("client_login_timeout"));
}

/// Trap 25: a TLS connection that did not begin as one of Postgres may have been meant for somebody else.
#[test]
fn tls_without_an_ssl_request_has_to_name_postgres_in_its_alpn() {
    let certs = Certificates::copy();
    let pooler = Pooler::start(&certs.client_tls());
    let login = startup_bytes(&[("user", "postgres"), ("database", "postgres")]);
    let direct = |alpn: &[&[u8]]| over_tls(Script::open(&pooler).stream, alpn, &login);
    assert!(direct(&[b"postgresql"]).starts_with(b"R"));
    assert!(direct(&[b"http/1.1", b"postgresql"]).starts_with(b"R"));
    assert_eq!(direct(&[]), b"", "no protocol is named");
    assert_eq!(direct(&[b"http/1.1"]), b"", "another protocol is named");
    // Who asked with SSLRequest has said what it speaks.
    let mut asked = Script::open(&pooler);
    let mut request = Vec::new();
    startup::ssl_request(&mut request);
    asked.send_bytes(&request);
    assert_eq!(asked.next_byte(), b'S');
    assert!(over_tls(asked.stream, &[], &login).starts_with(b"R"));
}

/// What the pooler says first to this message over TLS: nothing where it ends the connection.
fn over_tls(stream: TcpStream, alpn: &[&[u8]], message: &[u8]) -> Vec<u8> {
    let mut wire = tls_client(stream, alpn);
    let mut first = vec![0; 1];
    match wire.write_all(message).and_then(|()| wire.read(&mut first)) {
        Ok(len) => first[..len].to_vec(),
        Err(_) => Vec::new(),
    }
}
