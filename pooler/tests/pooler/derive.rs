//! Deriving keys from passwords is slow, and holds up nobody.

use crate::fake::FakePostgres;
use crate::script::Script;
use crate::world::Pooler;

/// CVE-2026-6669: a million rounds is what we bear with; on the one worker they would stop every client.
#[test]
fn the_many_rounds_that_a_server_may_ask_for_hold_up_no_other_client() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "worker_threads = 1");
    let mut other = Script::connect(&pooler);
    assert_eq!(other.value("SELECT 1"), "1");
    let mut client = Script::open(&pooler);
    client.send_startup("fake", &[("user", "alice")]);
    let mut server = fake.accept();
    server.read_startup();
    server.send_message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let (_, first) = server.next();
    let nonce = first.split("r=").nth(1).unwrap();
    // Without optimization each round takes some thirty times as long.
    let rounds = pgwire::auth::scram::MAX_ITERATIONS / if cfg!(debug_assertions) { 20 } else { 1 };
    server.send_message(b'R', format!("\0\0\0\x0br={nonce}x,s=c2FsdA==,i={rounds}").as_bytes());
    assert_eq!(other.value("SELECT 'served'"), "served");
    server.stream.set_nonblocking(true).unwrap();
    assert!(server.stream.peek(&mut [0]).is_err(), "served while the answer was still being made");
    server.stream.set_nonblocking(false).unwrap();
    assert_eq!(server.next().0, b'p');
}

/// Each login of a user whose password is listed in clear would otherwise cost a derivation.
#[test]
fn a_listed_password_has_one_salt_as_long_as_the_process_lives() {
    let pooler = Pooler::start("auth_type = scram-sha-256");
    let salt = || {
        let mut script = Script::open(&pooler);
        script.send_startup("postgres", &[("user", "alice")]);
        assert_eq!(script.next().0, b'R');
        let mut out = Vec::new();
        pgwire::frontend::sasl_initial(&mut out, pgwire::auth::scram::MECHANISM, b"n,,n=,r=abc");
        script.send_bytes(&out);
        let (_, body) = script.next();
        let text = String::from_utf8(body[4..].to_vec()).unwrap();
        text.split(',').find_map(|field| field.strip_prefix("s=").map(str::to_string)).unwrap()
    };
    assert_eq!(salt(), salt());
}
