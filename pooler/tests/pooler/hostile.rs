//! Hostile bytes before authentication: others get on while it lasts, and it does not last. Nothing is timed: a good
//! client makes its way step by step while the attacker is held at each of its own.

use std::io::Write;
use std::net::TcpStream;

use crate::script::{Batch, Script};
use crate::world::{Pooler, hba};

/// One worker for all, so that whoever stalls it stalls everybody.
fn one_worker(settings: &str) -> Pooler {
    Pooler::start(&format!("worker_threads = 1\ndefault_pool_size = 2\nmax_client_conn = 500\n{settings}"))
}

/// Logs in, asks something, prepares something: all that a client does.
fn assert_others_get_on(pooler: &Pooler, old: &mut Script) {
    assert_eq!(old.value("SELECT 'old'"), "old");
    let mut new = Script::connect(pooler);
    new.send(Batch::new().parse("s", "SELECT 'new'").bind("s", &[]).execute(0).sync());
    assert_eq!(new.column(), ["new"]);
}

/// Everything that may stand before authentication, and much that may not.
fn openings() -> Vec<Vec<u8>> {
    let mut ssl = Vec::new();
    pgwire::startup::ssl_request(&mut ssl);
    let mut login = Vec::new();
    pgwire::startup::startup(&mut login, 0, [("user", "alice"), ("database", "postgres")]);
    let mut many = Vec::new();
    let pairs = vec![("user", "alice"); 500];
    pgwire::startup::startup(&mut many, 0, pairs);
    vec![
        vec![],
        vec![0],
        vec![0, 0, 0x27, 0x10, 0, 3, 0, 0],
        vec![0xff; 4],
        vec![0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        vec![0x16, 3, 1, 0xff, 0xff],
        ssl,
        login[..login.len() - 1].to_vec(),
        many,
        [login.as_slice(), b"p\x7f\xff\xff\xff"].concat(),
        [login.as_slice(), b"p\x00\x01\x00\x00"].concat(),
        [login.as_slice(), &login].concat(),
        login,
    ]
}

#[test]
fn connections_that_stop_anywhere_before_their_login_hold_nobody_up() {
    let pooler = one_worker("auth_type = trust");
    let mut old = Script::connect(&pooler);
    let mut attackers = Vec::new();
    for opening in openings() {
        for cut in [opening.len() / 2, opening.len()] {
            let mut attacker = Script::open(&pooler);
            attacker.send_bytes(&opening[..cut]);
            attackers.push(attacker);
        }
        assert_others_get_on(&pooler, &mut old);
    }
}

/// The pooler stops reading, or closes: it does not go on collecting what has no end.
#[test]
fn bytes_without_end_before_a_login_are_neither_kept_nor_in_the_way() {
    let pooler = one_worker("auth_type = scram-sha-256\nadmin_users = nobody");
    let before = resident_kib(&pooler);
    let mut floods = Vec::new();
    for opening in openings() {
        let mut attacker = Script::open(&pooler).stream;
        attacker
            .set_write_timeout(Some(std::time::Duration::from_millis(200)))
            .expect("a timeout can be set");
        floods.push(std::thread::spawn(move || flood(&mut attacker, &opening)));
    }
    for _ in 0..20 {
        let mut good = Script::open(&pooler);
        good.send_startup("postgres", &[("user", "bob")]);
        assert_eq!(good.next(), (b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0".to_vec()));
    }
    for flood in floods {
        flood.join().expect("the attacker ends");
    }
    let grown = resident_kib(&pooler).saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} KiB more than before");
}

/// Sends until the pooler has had enough, one way or the other, at most 64 MiB.
fn flood(attacker: &mut TcpStream, opening: &[u8]) {
    let chunk = vec![b'A'; 1 << 20];
    let mut result = attacker.write_all(opening);
    for _ in 0..64 {
        result = result.and_then(|()| attacker.write_all(&chunk));
    }
    assert!(result.is_err(), "64 MiB behind {opening:?} were all taken");
}

fn resident_kib(pooler: &Pooler) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pooler.pid())).expect("the pooler runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("Linux tells it");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Each try costs the pooler a key derivation, of which the attacker chooses nothing; others take their turns between.
#[test]
fn wrong_scram_logins_one_after_the_other_hold_nobody_up() {
    let rules = hba("host all alice all scram-sha-256\nhost all all all trust");
    // Twenty such derivations without optimisation on a busy machine outlast the login's usual minute.
    let pooler = one_worker(&format!("scram_iterations = 100000\nclient_login_timeout = 600\n{rules}"));
    let mut old = Script::connect(&pooler);
    let mut attackers: Vec<Script> = (0..20).map(|n| scram_first(&pooler, n)).collect();
    for attacker in &mut attackers {
        let (kind, body) = attacker.next();
        assert_eq!((kind, &body[..4]), (b'R', &[0, 0, 0, 11][..]));
        let challenge = String::from_utf8_lossy(&body[4..]).into_owned();
        let nonce = challenge.split(',').next().expect("it begins with the nonce");
        let proof = format!("c=biws,{nonce},p={}", "A".repeat(43) + "=");
        attacker.send(Batch::new().raw(b'p', proof.as_bytes()));
        assert_others_get_on(&pooler, &mut old);
    }
    for attacker in &mut attackers {
        assert!(attacker.last_error().contains("authentication failed"));
    }
}

fn scram_first(pooler: &Pooler, n: usize) -> Script {
    let mut script = Script::open(pooler);
    script.send_startup("postgres", &[("user", "alice")]);
    assert_eq!(script.some_replies(1), "R");
    let first = format!("n,,n=,r=attacker{n}");
    let mut body = b"SCRAM-SHA-256\0".to_vec();
    body.extend((first.len() as u32).to_be_bytes());
    body.extend(first.bytes());
    script.send(Batch::new().raw(b'p', &body));
    script
}
