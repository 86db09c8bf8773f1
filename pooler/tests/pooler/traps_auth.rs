//! Authentication on both sides: traps by their number in docs/pooler-traps.md.

use std::sync::atomic::{AtomicU64, Ordering};

use pgwire::startup;

use crate::fake::FakePostgres;
use crate::script::{Batch, Script};
use crate::world::{Pooler, hba, postgres, wait_until, write};

/// Trap 26: a server that asks for less than SCRAM does not get a password that only proves itself by SCRAM.
#[test]
fn a_server_is_not_given_a_secret_that_it_asks_for_in_a_weaker_way() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "");
    let verifier =
        postgres().query("SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_user'").unwrap();
    let users = format!("\"postgres\" \"\"\n\"scram_user\" \"{verifier}\"\n");
    std::fs::write(pooler.folder.path().join("users.txt"), users).unwrap();
    pooler.admin("RELOAD");
    for request in [&[0, 0, 0, 3][..], &[0, 0, 0, 5, 1, 2, 3, 4]] {
        let mut client = Script::open(&pooler);
        client.send_startup("fake", &[("user", "scram_user")]);
        let mut server = fake.accept();
        server.read_startup();
        server.send_message(b'R', request);
        while let Some((kind, body)) = server.try_next() {
            assert_ne!(kind, b'p', "it was given {body:?}");
        }
        pooler.admin("RELOAD");
    }
}

/// Trap 26: whoever does not know the password cannot sign, and is not Postgres.
#[test]
fn a_server_that_cannot_prove_itself_by_scram_is_refused() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "");
    let mut client = Script::open(&pooler);
    client.send_startup("fake", &[("user", "alice")]);
    let mut server = fake.accept();
    server.read_startup();
    let nonce = ask_scram(&mut server);
    let challenge = format!("\0\0\0\x0br={nonce}theirs,s=c2FsdHNhbHQ=,i=4096");
    server.send_message(b'R', challenge.as_bytes());
    assert_eq!(server.next().0, b'p');
    // In one write: the pooler may hang up at the first of them.
    let proof = b"\0\0\0\x0cv=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    server.send(&Batch::new().raw(b'R', proof).raw(b'R', b"\0\0\0\0").raw(b'Z', b"I").0);
    assert!(matches!(server.try_next(), None | Some((b'X', _))));
}

/// Starts SCRAM as a server and gives the client's nonce.
fn ask_scram(server: &mut crate::fake::FakeServer) -> String {
    server.send_message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let (_, first) = server.next();
    first.split("r=").nth(1).expect("the first message has a nonce").to_string()
}

/// CVE-2026-6669, CVE-2026-6665, CVE-2026-6668: numbers and lengths of a hostile server are bounded.
#[test]
fn a_hostile_scram_challenge_stops_nobody() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "worker_threads = 1\nserver_login_retry = 1");
    let challenges: [fn(&str) -> String; 6] = [
        |nonce| format!("r={nonce}x,s=c2FsdA==,i=2147483647"),
        |nonce| format!("r={nonce}x,s=c2FsdA==,i=99999999999999999999"),
        |nonce| format!("r={nonce}x,s=c2FsdA==,i=0"),
        |nonce| format!("r={nonce}{},s=c2FsdA==,i=4096", "x".repeat(60_000)),
        |nonce| format!("r={nonce}x,s={},i=4096", "A".repeat(100_000)),
        |nonce| format!("r=other{nonce},s=c2FsdA==,i=4096"),
    ];
    let mut other = Script::connect(&pooler);
    for challenge in challenges {
        let mut client = Script::open(&pooler);
        client.send_startup("fake", &[("user", "alice")]);
        let mut server = fake.accept();
        server.read_startup();
        let nonce = ask_scram(&mut server);
        server.send_message(b'R', format!("\0\0\0\x0b{}", challenge(&nonce)).as_bytes());
        assert_eq!(other.value("SELECT 'served'"), "served");
        // Refused at once, or answered and then told that it was wrong.
        if matches!(server.try_next(), Some((b'p', _))) {
            server.send_message(b'E', b"SFATAL\0C28P01\0Mno\0\0");
        }
        drop((server, client));
        wait_until("the failure is over", || !pooler.admin("SHOW SERVERS").contains("|fake|"));
    }
}

/// Trap 25, CVE-2021-43767: what a server says in clear behind its S is not read as encrypted.
#[test]
fn bytes_behind_a_servers_consent_to_tls_end_the_connection() {
    let fake = FakePostgres::start();
    let pooler = Pooler::start_with(&fake.database(), "server_tls_sslmode = require");
    let mut client = Script::open(&pooler);
    client.send_startup("fake", &[]);
    let mut server = fake.accept();
    assert!(matches!(server.read_packet(), startup::Packet::SslRequest));
    write(&mut server.stream, b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    let mut hello = Vec::new();
    let _ = std::io::Read::read_to_end(&mut server.stream, &mut hello);
    assert_eq!(hello, b"", "neither a message in clear nor a greeting of TLS");
    drop(server);
    assert!(!pooler.admin("SHOW SERVERS").contains("|active|"));
}

/// Trap 26: names that exist and names that do not are not to be told apart.
#[test]
fn a_user_who_does_not_exist_is_asked_the_same_as_one_who_does() {
    let pooler = Pooler::start("auth_type = scram-sha-256");
    let challenge = |user: &str, nonce: &str| {
        let mut script = Script::open(&pooler);
        script.send_startup("postgres", &[("user", user)]);
        assert_eq!(script.next(), (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec()));
        let first = format!("n,,n=,r={nonce}");
        let mut body = b"SCRAM-SHA-256\0".to_vec();
        body.extend((first.len() as u32).to_be_bytes());
        body.extend(first.bytes());
        script.send(Batch::new().raw(b'p', &body));
        let (kind, body) = script.next();
        assert_eq!((kind, &body[..4]), (b'R', &[0, 0, 0, 11][..]));
        let text = String::from_utf8(body[4..].to_vec()).unwrap();
        let field =
            |name: &str| text.split(',').find_map(|f| f.strip_prefix(name).map(str::to_string)).unwrap();
        (field("s="), field("i="))
    };
    let (known, unknown) = (challenge("alice", "one"), challenge("nobody_here", "one"));
    assert_eq!((known.0.len(), &known.1), (unknown.0.len(), &unknown.1));
    assert_eq!(unknown, challenge("nobody_here", "two"), "the salt of nobody does not change either");
    assert_ne!(unknown.0, challenge("somebody_else", "two").0);
}

/// A database whose users are looked up, and a role of its own for each test.
fn lookup(role: &str, definition: &str) -> (Pooler, String) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let role = format!("{role}_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let made = format!("SET password_encryption = 'scram-sha-256'; CREATE ROLE {role} {definition}");
    postgres().query(&made).unwrap();
    let database =
        format!("looked = host=127.0.0.1 port={} dbname=postgres auth_user=postgres", postgres().port);
    (Pooler::start_with(&database, "auth_type = scram-sha-256"), role)
}

async fn refused(pooler: &Pooler, user: &str, more: &str) -> String {
    let more = format!("dbname=looked {more}");
    match pooler.client_as(user, &more).await {
        Ok(_) => panic!("{user} got in"),
        Err(error) => error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_string()),
    }
}

/// CVE-2025-2291 and trap 27: the default auth_query.
#[tokio::test]
async fn a_password_that_has_expired_lets_nobody_in() {
    let (pooler, role) = lookup("expired", "LOGIN PASSWORD 'pw' VALID UNTIL '2001-01-01'");
    refused(&pooler, &role, "password=pw").await;
    postgres().query(&format!("ALTER ROLE {role} VALID UNTIL 'infinity'")).unwrap();
    let more = "dbname=looked password=pw";
    assert!(pooler.client_as(&role, more).await.is_ok(), "the test's own question is right");
}

/// Trap 27.
#[tokio::test]
async fn a_role_that_may_not_log_in_is_not_let_in() {
    let (pooler, role) = lookup("nologin", "NOLOGIN PASSWORD 'pw'");
    refused(&pooler, &role, "password=pw").await;
}

/// CVE-2025-12819: what a client asks for before it is known must not bend the query that looks it up.
#[tokio::test]
async fn a_clients_search_path_does_not_reach_the_lookup() {
    let (pooler, role) = lookup("bent", "LOGIN PASSWORD 'pw'");
    let trap = "CREATE SCHEMA bait CREATE VIEW pg_authid AS SELECT 'nobody_at_all'::name AS rolname, \
                'plain'::text AS rolpassword, true AS rolcanlogin, NULL::timestamptz AS rolvaliduntil";
    postgres().query(trap).unwrap();
    let options = "options='-c search_path=bait,pg_catalog'";
    refused(&pooler, "nobody_at_all", &format!("password=plain {options}")).await;
    let client = pooler.client_as(&role, &format!("dbname=looked password=pw {options}")).await.unwrap();
    let path: String = client.query_one("SHOW search_path", &[]).await.unwrap().get(0);
    assert!(path.starts_with("bait"), "for the client itself it counts: {path}");
}

/// CVE-2015-6817: a lookup that finds nothing, or fails, makes nobody the auth_user.
#[tokio::test]
async fn a_lookup_that_fails_lets_nobody_in() {
    let database = format!(
        "looked = host=127.0.0.1 port={} dbname=postgres auth_user=postgres auth_query='SELECT 1/0, $1::text'",
        postgres().port
    );
    let pooler = Pooler::start_with(&database, "auth_type = md5");
    refused(&pooler, "unknown_to_all", "password=x").await;
    refused(&pooler, "", "password=x").await;
}

/// Trap 27: a name is a value of the query, never a part of it.
#[tokio::test]
async fn a_users_name_is_no_sql() {
    let (pooler, _) = lookup("quoted", "LOGIN PASSWORD 'pw'");
    refused(&pooler, "'x'' OR true; DROP TABLE numbers; --'", "password=pw").await;
    assert_eq!(postgres().query("SELECT count(*) FROM numbers").unwrap(), "1000");
}

/// Trap 28.
#[tokio::test]
async fn a_reload_forgets_users_and_passwords_that_are_not_listed_any_more() {
    let pooler = Pooler::start("auth_type = md5");
    assert!(pooler.client_as("alice", "password=alicepw").await.is_ok());
    std::fs::write(pooler.folder.path().join("users.txt"), "\"postgres\" \"\"\n\"bob\" \"changed\"\n")
        .unwrap();
    pooler.signal("HUP");
    pooler.wait_for_log("got SIGHUP");
    let mut tries = 0;
    while pooler.client_as("bob", "password=changed").await.is_err() {
        tries += 1;
        assert!(tries < 1000, "the new password never counts");
    }
    assert!(pooler.client_as("bob", "password=bobpw").await.is_err(), "the old password is forgotten");
    assert!(pooler.client_as("alice", "password=alicepw").await.is_err(), "she is not on the list any more");
}

/// Trap 28, pgbouncer#944: what a client proved about itself says nothing about the user whom the database forces.
#[tokio::test]
async fn a_forced_user_is_not_proven_by_the_keys_of_the_client() {
    let database =
        format!("forced = host=127.0.0.1 port={} dbname=postgres user=scram_user", postgres().port);
    let rules = hba("host pgbouncer postgres all trust\nhost all all all scram-sha-256");
    let pooler = Pooler::start_with(&database, &format!("{rules}\nserver_login_retry = 0"));
    // With the same keys as the forced user: sent in her place they would be taken.
    let verifier =
        postgres().query("SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_user'").unwrap();
    let users = pooler.folder.path().join("users.txt");
    std::fs::write(&users, format!("\"postgres\" \"\"\n\"alice\" \"{verifier}\"\n")).unwrap();
    pooler.admin("RELOAD");
    let more = "dbname=forced password=secret";
    assert!(pooler.client_as("alice", more).await.is_err(), "nobody knows the forced user's password");
    std::fs::write(
        &users,
        format!("\"postgres\" \"\"\n\"alice\" \"{verifier}\"\n\"scram_user\" \"secret\"\n"),
    )
    .unwrap();
    pooler.admin("RELOAD");
    let client = pooler.client_as("alice", more).await.unwrap();
    let user: String = client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    assert_eq!(user, "scram_user");
}

/// Trap 28: the first line that fits decides, whatever comes behind it.
#[tokio::test]
async fn the_first_hba_line_that_fits_decides() {
    let pooler = Pooler::start(&hba("host all bob 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 trust"));
    assert!(pooler.client_as("alice", "").await.is_ok());
    assert!(pooler.client_as("bob", "").await.is_err());
    let only_tls = Pooler::start(&hba("hostssl all all all trust\nhostnossl all bob all trust"));
    assert!(only_tls.client_as("bob", "").await.is_ok());
    assert!(only_tls.client_as("alice", "").await.is_err(), "without TLS no line fits her");
}
