//! Cancel requests: trap 24 of docs/pooler-traps.md.

use pgwire::startup::{self, CancelKey, Packet};

use crate::fake::FakePostgres;
use crate::script::{Batch, Script};
use crate::world::{Pooler, drain, wait_until};

fn send_cancel(pooler: &Pooler, key: &CancelKey) -> Script {
    let mut script = Script::open(pooler);
    let mut out = Vec::new();
    startup::cancel_request(&mut out, key);
    script.send_bytes(&out);
    script
}

/// Else the signal, which comes when it comes, hits the query of the next client.
#[test]
fn a_server_is_lent_to_nobody_until_postgres_has_closed_the_cancel_connection() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    let mut other = Script::connect_to(&pooler, "fake", &[]);
    client.send(Batch::new().query("long"));
    assert_eq!(server.next().1, "long\0");
    let _asker = send_cancel(&pooler, client.key.as_ref().unwrap());
    let mut cancel = fake.accept();
    assert!(matches!(cancel.read_packet(), Packet::Cancel(key) if key.process_id == 7));
    // The query ends by itself; the cancel request is still under way.
    server.answer("done");
    assert_eq!(client.column(), ["done"]);
    other.send(Batch::new().query("other"));
    wait_until("the other waits", || pooler.admin("SHOW CLIENTS").contains("|waiting|"));
    assert!(pooler.admin("SHOW SERVERS").contains("|being_canceled|"), "{}", pooler.admin("SHOW SERVERS"));
    drop(cancel);
    assert_eq!(server.next().1, "other\0");
    server.answer("served");
    assert_eq!(other.column(), ["served"]);
}

#[test]
fn a_key_that_nobody_has_is_answered_with_silence_and_reaches_no_server() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("long"));
    server.next();
    let key = client.key.clone().unwrap();
    let mut secret = key.secret.clone();
    secret[0] ^= 1;
    for wrong in [
        CancelKey { process_id: key.process_id ^ 1, secret: key.secret.clone() },
        CancelKey { process_id: key.process_id, secret },
        CancelKey { process_id: key.process_id, secret: vec![0; 256] },
    ] {
        assert!(drain(&mut send_cancel(&pooler, &wrong).stream).is_empty());
    }
    assert!(fake.is_left_alone());
    server.answer("done");
    assert_eq!(client.column(), ["done"]);
}

#[test]
fn a_client_whose_query_has_ended_cancels_nothing() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("short"));
    server.next();
    server.answer("done");
    assert_eq!(client.column(), ["done"]);
    assert!(drain(&mut send_cancel(&pooler, client.key.as_ref().unwrap()).stream).is_empty());
    assert!(fake.is_left_alone());
}

#[test]
fn a_cancel_request_may_come_behind_a_refused_encryption_request() {
    let fake = FakePostgres::start();
    for ask in [startup::ssl_request as fn(&mut Vec<u8>), startup::gssenc_request] {
        let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
        let (mut client, mut server) = fake.meet(&pooler, &[]);
        client.send(Batch::new().query("long"));
        server.next();
        let mut asker = Script::open(&pooler);
        let mut out = Vec::new();
        ask(&mut out);
        asker.send_bytes(&out);
        assert_eq!(asker.next_byte(), b'N');
        let mut out = Vec::new();
        startup::cancel_request(&mut out, client.key.as_ref().unwrap());
        asker.send_bytes(&out);
        let mut cancel = fake.accept();
        assert!(matches!(cancel.read_packet(), Packet::Cancel(_)));
        drop(cancel);
        server.send_message(b'E', b"SERROR\0VERROR\0C57014\0Mcanceling\0\0");
        server.send_message(b'Z', b"I");
        assert_eq!(client.replies(1), "E57014 Z");
    }
}

/// Else it would hit a query of ours, and the client would be told that its parameters were refused.
#[test]
fn a_cancel_request_waits_while_the_server_takes_the_clients_parameters() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "default_pool_size = 1");
    let (mut plain, mut server) = fake.meet(&pooler, &[]);
    let mut client = Script::connect_to(&pooler, "fake", &[("TimeZone", "Asia/Tokyo")]);
    // The first time the query waits for the answer about the parameters; later it is sent right behind them.
    for _ in 0..2 {
        client.send(Batch::new().query("long"));
        assert!(server.next().1.contains("Asia/Tokyo"), "its parameters come first");
        let _asker = send_cancel(&pooler, client.key.as_ref().unwrap());
        let mut cancel = fake.accept();
        wait_until("the request waits", || pooler.admin("SHOW CLIENTS").contains("|waiting_cancel_req|"));
        server.take_parameter("TimeZone", "Asia/Tokyo");
        assert_eq!(server.next().1, "long\0");
        assert!(matches!(cancel.read_packet(), Packet::Cancel(key) if key.process_id == 7));
        drop(cancel);
        server.send_message(b'E', b"SERROR\0VERROR\0C57014\0Mcanceling\0\0");
        server.send_message(b'Z', b"I");
        assert_eq!(client.replies(1), "E57014 Z");
        plain.send(Batch::new().query("plain"));
        assert!(server.next().1.contains("UTC"), "the parameters of the next client");
        server.take_parameter("TimeZone", "UTC");
        assert_eq!(server.next().1, "plain\0");
        server.answer("done");
        assert_eq!(plain.column(), ["done"]);
    }
}

/// A key is 64 bits, of which a peer's number takes at most 16 and the way's length 2.
#[test]
fn keys_are_not_to_be_guessed() {
    let pooler = Pooler::start("");
    let keys: Vec<CancelKey> = (0..20).map(|_| Script::connect(&pooler).key.unwrap()).collect();
    for (index, key) in keys.iter().enumerate() {
        assert!(key.secret.len() >= 4);
        assert!(keys[..index].iter().all(|other| other.secret != key.secret));
    }
    let mut differing = 0_u32;
    for key in &keys {
        let secret = u32::from_be_bytes(key.secret[..4].try_into().unwrap());
        let first = u32::from_be_bytes(keys[0].secret[..4].try_into().unwrap());
        differing |= secret ^ first;
    }
    assert!(differing.count_ones() >= 28, "{differing:032b}");
}
