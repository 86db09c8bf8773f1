//! Counters that must balance, and room that runs out: trap 31 of docs/pooler-traps.md.

use crate::fake::FakePostgres;
use crate::script::{Batch, Script};
use crate::world::{Pooler, as_the_pooler, wait_until};

fn pool_line(pooler: &Pooler, pool: &str) -> String {
    let pools = pooler.admin("SHOW POOLS");
    pools.lines().find(|line| line.starts_with(pool)).unwrap_or_default().to_string()
}

#[tokio::test]
async fn logins_that_fail_leave_their_places_to_others() {
    let pooler = Pooler::start("auth_type = md5\nmax_client_conn = 5\nmax_user_client_connections = 2");
    for _ in 0..12 {
        let mut wrong = Script::open(&pooler);
        wrong.send_startup("postgres", &[("user", "alice")]);
        assert_eq!(wrong.some_replies(1), "R");
        wrong.send(Batch::new().raw(b'p', b"md5wrong\0"));
        assert!(wrong.last_error().contains("authentication failed"));
        let mut broken = Script::open(&pooler);
        broken.send_bytes(&[0, 0, 0, 3]);
        assert!(!broken.last_error().is_empty());
    }
    let login = || pooler.client_as("alice", "password=alicepw");
    let mut inside = Vec::new();
    for _ in 0..100 {
        inside.extend(login().await);
        if inside.len() == 2 {
            break;
        }
    }
    assert_eq!(inside.len(), 2, "{}", pooler.log());
    let third = login().await.map(|_| ()).unwrap_err();
    assert!(third.as_db_error().unwrap().message().contains("max_user_client_connections"));
}

#[test]
fn servers_that_fail_in_each_stage_of_their_login_leave_their_places_to_others() {
    let fake = FakePostgres::start();
    let settings = "default_pool_size = 1\nmax_db_connections = 1\nserver_login_retry = 1";
    let pooler = Pooler::start_with(&fake.database(), settings);
    let stages: [&[u8]; 4] =
        [b"", b"E\0\0\0\x1aSFATAL\0C53300\0Mfull\0\0\0\0", b"R\0\0\0\x08\0\0\0\0", b"?\0\0\0\x04"];
    for bytes in stages {
        let mut client = Script::open(&pooler);
        client.send_startup("fake", &[]);
        let mut server = fake.accept();
        server.read_startup();
        server.send(bytes);
        drop((server, client));
        wait_until("its place is free", || !pooler.admin("SHOW SERVERS").contains("|fake|"));
    }
    let (mut client, mut server) = fake.meet(&pooler, &[]);
    client.send(Batch::new().query("one"));
    assert_eq!(server.next().1, "one\0");
    server.answer("1");
    assert_eq!(client.column(), ["1"]);
    assert!(pool_line(&pooler, "fake|").contains("|1|0|0|0|"), "{}", pool_line(&pooler, "fake|"));
}

/// Room for sockets that runs out is the machine's trouble: nobody is dropped, nothing spins, and it goes on after it.
#[test]
fn a_process_without_free_sockets_goes_on_when_there_are_some_again() {
    let pooler = Pooler::start("default_pool_size = 1\nmax_client_conn = 500");
    let mut client = Script::connect(&pooler);
    assert_eq!(client.value("SELECT 1"), "1");
    let open = std::fs::read_dir(format!("/proc/{}/fd", pooler.pid())).unwrap().count();
    limit_files(&pooler, open + 4);
    let crowd: Vec<Script> = (0..30).map(|_| Script::open(&pooler)).collect();
    for n in 0..50 {
        assert_eq!(client.value(&format!("SELECT {n}")), n.to_string(), "who is in is served");
    }
    drop(crowd);
    limit_files(&pooler, 1000);
    let mut late = Script::connect(&pooler);
    assert_eq!(late.value("SELECT 'late'"), "late");
    assert!(pooler.log().len() < 1 << 20, "one line per attempt would fill the disk");
}

fn limit_files(pooler: &Pooler, count: usize) {
    let (pid, limit) = (pooler.pid().to_string(), format!("--nofile={count}:"));
    let output = as_the_pooler("prlimit", &["--pid", &pid, &limit]).output().expect("prlimit is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_pool_larger_than_the_databases_limit_stays_within_it() {
    let pooler = Pooler::start("min_pool_size = 5\ndefault_pool_size = 5\nmax_db_connections = 2");
    let mut clients: Vec<Script> = (0..6).map(|_| Script::connect(&pooler)).collect();
    for _ in 0..10 {
        for client in &mut clients {
            client.send(Batch::new().query("SELECT pg_sleep(0.002)"));
        }
        for client in &mut clients {
            assert_eq!(client.replies(1), "T D C Z");
        }
    }
    let opened = pooler.log().matches("new connection to server").count();
    assert!(opened <= 2, "{opened} servers");
}
