//! What operators do to a running pooler: SUSPEND, take-over by a new process, peers, RELOAD, the end.

use std::io::Read;
use std::process::Child;
use std::time::Duration;

use crate::script::{Batch, Script};
use crate::world::{Pooler, postgres, wait_until};

/// A console connection that stays.
fn console(pooler: &Pooler) -> Script {
    Script::connect_to(pooler, "pgbouncer", &[])
}

fn command(console: &mut Script, text: &str) -> String {
    console.send(Batch::new().query(text));
    console.replies(1)
}

fn is_silent(client: &mut Script) -> bool {
    client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let silent = client.stream.read(&mut [0]).is_err();
    client.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    silent
}

fn wait_end(process: &mut Child) {
    wait_until("the old process ends", || matches!(process.try_wait(), Ok(Some(_))));
}

fn cancel(through: &Pooler, key: &pgwire::startup::CancelKey) {
    let mut out = Vec::new();
    pgwire::startup::cancel_request(&mut out, key);
    let mut script = Script::open(through);
    script.send_bytes(&out);
    assert!(script.try_next().is_none(), "a cancel request is never answered");
}

fn wait_until_runs(sql: &str) {
    let running = format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{sql}' AND state = 'active'");
    wait_until("the query runs", || postgres().query(&running).unwrap() != "0");
}

#[test]
fn nothing_is_read_under_suspend_and_all_goes_on_after_resume() {
    let pooler = Pooler::start("");
    let mut console = console(&pooler);
    let mut idle = Script::connect(&pooler);
    let mut in_transaction = Script::connect(&pooler);
    in_transaction.send(Batch::new().query("BEGIN"));
    assert_eq!(in_transaction.replies(1), "C ZT");
    assert_eq!(command(&mut console, "SUSPEND"), "C Z");
    assert!(command(&mut console, "SUSPEND").starts_with('E'), "already suspended");
    assert!(command(&mut console, "PAUSE").starts_with('E'), "already suspended");
    console.send(Batch::new().query("SHOW STATE"));
    assert_eq!(console.rows(), ["active no", "paused no", "suspended yes"]);
    idle.send(Batch::new().query("SELECT 'idle'"));
    in_transaction.send(Batch::new().query("SELECT 'open'"));
    assert!(is_silent(&mut idle) && is_silent(&mut in_transaction));
    assert_eq!(command(&mut console, "RESUME"), "C Z");
    assert_eq!(idle.column(), ["idle"]);
    assert_eq!(in_transaction.column(), ["open"]);
    assert!(command(&mut console, "RESUME").starts_with('E'), "nothing is suspended");
}

#[test]
fn a_suspend_ends_with_the_operator_who_gave_it() {
    let pooler = Pooler::start("");
    let mut operator = console(&pooler);
    let mut client = Script::connect(&pooler);
    assert_eq!(command(&mut operator, "SUSPEND"), "C Z");
    drop(operator);
    assert_eq!(client.value("SELECT 'goes on'"), "goes on");
    pooler.wait_for_log("admin disappeared when suspended, doing RESUME");
}

#[test]
fn a_client_that_takes_nothing_is_closed_after_suspend_timeout() {
    let pooler = Pooler::start("suspend_timeout = 0.3\ntcp_socket_buffer = 4096");
    let mut console = console(&pooler);
    let mut stuck = Script::connect(&pooler);
    stuck.send(Batch::new().query("SELECT repeat('x', 1000000) FROM generate_series(1, 100)"));
    // Sooner or later its socket takes no more.
    wait_until("it is closed because: suspend_timeout", || {
        assert_eq!(command(&mut console, "SUSPEND"), "C Z");
        assert_eq!(command(&mut console, "RESUME"), "C Z");
        pooler.log().contains("closing because: suspend_timeout")
    });
}

#[test]
fn clients_move_to_the_process_that_takes_over() {
    let mut pooler = Pooler::start("default_pool_size = 3");
    let mut idle = Script::connect_with(&pooler, &[("application_name", "before")]);
    idle.send(Batch::new().parse("s1", "SELECT $1::int * 2").sync());
    assert_eq!(idle.replies(1), "1 Z");
    let mut open = Script::connect(&pooler);
    open.send(Batch::new().query("BEGIN"));
    assert_eq!(open.replies(1), "C ZT");
    let backend = open.value("SELECT pg_backend_pid()");
    let mut old = pooler.take_over();
    wait_end(&mut old);
    idle.send(Batch::new().bind("s1", &["21"]).execute(0).sync());
    assert_eq!(idle.column(), ["42"], "its prepared statement came along");
    assert_eq!(idle.value("SHOW application_name"), "before");
    assert_eq!(open.value("SELECT pg_backend_pid()"), backend, "still the same transaction");
    open.send(Batch::new().query("COMMIT"));
    assert_eq!(open.replies(1), "C Z");
    let key = idle.key.clone().unwrap();
    idle.send(Batch::new().query("SELECT pg_sleep(61)"));
    wait_until_runs("SELECT pg_sleep(61)");
    cancel(&pooler, &key);
    assert_eq!(idle.replies(1), "T E57014 Z", "its cancel key is the same");
    assert_eq!(Script::connect(&pooler).value("SELECT 'new'"), "new");
    assert!(
        pooler.folder.path().join(format!(".s.PGSQL.{}", pooler.port)).exists(),
        "the socket's file stays"
    );
}

/// Who connects at the very moment is let in, by one process or the other.
#[test]
fn no_login_fails_while_another_process_takes_over() {
    let mut pooler = Pooler::start("max_client_conn = 1000");
    let port = pooler.port;
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = is_over.clone();
    let logins = std::thread::spawn(move || {
        let mut count = 0;
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            let mut client = Script::connect_at(port);
            assert_eq!(client.value("SELECT 'in'"), "in");
            count += 1;
        }
        count
    });
    for _ in 0..3 {
        let mut old = pooler.take_over();
        wait_end(&mut old);
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let count = logins.join().expect("no login failed");
    assert!(count > 3, "only {count} logins were tried");
}

#[test]
fn a_query_under_way_ends_where_it_began() {
    let mut pooler = Pooler::start("");
    let mut holder = Script::connect(&pooler);
    holder.send(Batch::new().query("BEGIN").query("SELECT pg_advisory_xact_lock(77)"));
    assert_eq!(holder.replies(2), "C ZT T D C ZT");
    let mut waiting = Script::connect(&pooler);
    waiting.send(Batch::new().query("SELECT pg_advisory_xact_lock(77), 'locked'").query("SELECT 'second'"));
    wait_until_runs("SELECT pg_advisory_xact_lock(77), ''locked''");
    let mut old = pooler.take_over();
    pooler.wait_for_log("closing because: moved to another process");
    assert!(matches!(old.try_wait(), Ok(None)), "it waits for the query");
    holder.send(Batch::new().query("COMMIT"));
    assert_eq!(holder.replies(1), "C Z");
    assert_eq!(waiting.replies(2), "T D C Z T D C Z");
    wait_end(&mut old);
    assert_eq!(waiting.value("SELECT 'moved'"), "moved");
}

#[test]
fn a_session_keeps_its_server_in_the_new_process() {
    let mut pooler = Pooler::start("pool_mode = session");
    let mut client = Script::connect(&pooler);
    client.send(Batch::new().query("CREATE TEMP TABLE mine AS SELECT 'kept' AS word"));
    assert_eq!(client.replies(1), "C Z");
    let mut old = pooler.take_over();
    wait_end(&mut old);
    assert_eq!(client.value("SELECT word FROM mine"), "kept");
    assert!(pooler.admin("SHOW SERVERS").contains("|active|"));
    drop(client);
    wait_until("the server is given back", || pooler.admin("SHOW SERVERS").contains("|idle|"));
    assert_eq!(Script::connect(&pooler).value("SELECT to_regclass('mine') IS NULL"), "t", "and is cleaned");
}

#[test]
fn a_key_from_a_peer_is_passed_on_to_it() {
    let first = Pooler::start("peer_id = 1");
    let second = Pooler::start(&format!("peer_id = 2\n[peers]\n1 = host=127.0.0.1 port={}", first.port));
    let mut client = Script::connect(&first);
    client.send(Batch::new().query("SELECT pg_sleep(62)"));
    wait_until_runs("SELECT pg_sleep(62)");
    assert_eq!(second.admin("SHOW PEER_POOLS"), "");
    cancel(&second, client.key.as_ref().unwrap());
    assert_eq!(client.replies(1), "T E57014 Z");
    assert_eq!(second.admin("SHOW PEER_POOLS"), "1|0|0|0|0");
    assert!(second.admin("SHOW PEERS").starts_with("1|127.0.0.1|"));
    assert!(second.admin("SHOW LISTS").contains("peer_pools|1"));
}

#[test]
fn cancel_requests_queue_where_the_peers_pool_is_full() {
    let peer = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = peer.local_addr().unwrap().port();
    let peers = format!("[peers]\n1 = host=127.0.0.1 port={port} pool_size=1");
    let pooler = Pooler::start(&format!("peer_id = 2\nserver_tls_sslmode = disable\n{peers}"));
    let key = pgwire::startup::CancelKey { process_id: 0x0001_0000, secret: vec![9, 9, 9, 3] };
    let mut out = Vec::new();
    pgwire::startup::cancel_request(&mut out, &key);
    let mut askers: Vec<Script> = (0..2).map(|_| Script::open(&pooler)).collect();
    askers.iter_mut().for_each(|asker| asker.send_bytes(&out));
    let carried = || {
        let (mut stream, _) = peer.accept().unwrap();
        let mut request = [0; 16];
        stream.read_exact(&mut request).unwrap();
        assert_eq!(request[..15], out[..15], "the same key");
        assert_eq!(request[15], 2, "with one hop less");
        stream
    };
    let first = carried();
    wait_until("the second waits", || pooler.admin("SHOW PEER_POOLS") == "1|1|1|1|0");
    let clients = pooler.admin("SHOW CLIENTS");
    assert!(clients.contains("|active_cancel_req|") && clients.contains("|waiting_cancel_req|"), "{clients}");
    drop(first);
    drop(carried());
    wait_until("both are over", || pooler.admin("SHOW PEER_POOLS") == "1|0|0|0|0");
    assert!(askers.iter_mut().all(|asker| asker.try_next().is_none()), "nobody is told anything");
}

#[test]
fn a_cancel_request_waits_no_longer_than_allowed() {
    let peer = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = peer.local_addr().unwrap().port();
    let peers = format!("[peers]\n1 = host=127.0.0.1 port={port}");
    let settings = "peer_id = 2\ncancel_wait_timeout = 0.2\nserver_tls_sslmode = disable";
    let pooler = Pooler::start(&format!("{settings}\n{peers}"));
    let key = pgwire::startup::CancelKey { process_id: 0x0001_0000, secret: vec![9, 9, 9, 3] };
    cancel(&pooler, &key);
    pooler.wait_for_log("closing because: cancel_wait_timeout");
    wait_until("its place is free", || pooler.admin("SHOW PEER_POOLS") == "1|0|0|0|0");
}

#[test]
fn a_request_that_nobody_knows_does_not_travel_for_ever() {
    // Each takes the other for the maker of keys with the id 3.
    let first = Pooler::start("peer_id = 1");
    let second = Pooler::start(&format!("peer_id = 2\n[peers]\n3 = host=127.0.0.1 port={}", first.port));
    first.add_settings(&format!("[peers]\n3 = host=127.0.0.1 port={}", second.port));
    first.admin("RELOAD");
    let key = pgwire::startup::CancelKey { process_id: 0x0003_0000, secret: vec![0, 0, 0, 3] };
    cancel(&first, &key);
    let exhausted = "failed to forward cancel request because its TTL was exhausted";
    wait_until(exhausted, || first.log().contains(exhausted) || second.log().contains(exhausted));
    assert_eq!(second.admin("SHOW PEER_POOLS"), "3|0|0|0|0");
}

#[test]
fn clients_of_a_database_that_reload_removed_are_told() {
    let pg_port = postgres().port;
    let pooler = Pooler::start_with(&format!("gone = host=127.0.0.1 port={pg_port} dbname=postgres"), "");
    let mut client = Script::connect_to(&pooler, "gone", &[]);
    let mut other = Script::connect(&pooler);
    assert_eq!(client.value("SELECT 1"), "1");
    pooler.replace_settings("\ngone = ", "\n;gone = ");
    pooler.admin("RELOAD");
    assert!(client.last_error().contains("database removed"));
    assert_eq!(other.value("SELECT 'unharmed'"), "unharmed");
}

#[test]
fn after_kill_nobody_is_there_any_more() {
    let pooler = Pooler::start("");
    let mut console = console(&pooler);
    for _ in 0..10 {
        let mut clients: Vec<Script> = (0..5).map(|_| Script::connect(&pooler)).collect();
        assert_eq!(command(&mut console, "KILL postgres"), "C Z");
        console.send(Batch::new().query("SHOW CLIENTS"));
        assert_eq!(console.rows().len(), 1, "only this console");
        assert!(clients.iter_mut().all(|client| client.last_error().contains("database removed")));
        assert_eq!(command(&mut console, "RESUME postgres"), "C Z");
    }
}

#[test]
fn under_wait_for_servers_an_idle_client_may_stay_until_it_asks() {
    let mut pooler = Pooler::start("");
    let mut open = Script::connect(&pooler);
    open.send(Batch::new().query("BEGIN"));
    assert_eq!(open.replies(1), "C ZT");
    let mut idle = Script::connect(&pooler);
    pooler.admin("SHUTDOWN WAIT_FOR_SERVERS");
    assert_eq!(open.value("SELECT 'in the transaction'"), "in the transaction");
    assert!(is_silent(&mut idle), "nobody sends it away");
    idle.send(Batch::new().query("SELECT 1"));
    assert!(idle.last_error().contains("server shutting down"));
    open.send(Batch::new().query("COMMIT"));
    assert_eq!(open.some_replies(2), "C Z");
    pooler.wait_end();
    assert!(!pooler.folder.path().join(format!(".s.PGSQL.{}", pooler.port)).exists());
}

/// Under SUSPEND connections wait in the kernel's queue.
#[test]
fn whoever_had_connected_before_the_shutdown_is_served() {
    let mut pooler = Pooler::start("");
    let mut stays = Script::connect(&pooler);
    let mut console = console(&pooler);
    assert_eq!(command(&mut console, "SUSPEND"), "C Z");
    let queued = Script::open(&pooler);
    assert_eq!(command(&mut console, "SHUTDOWN WAIT_FOR_CLIENTS"), "C Z");
    drop(console);
    let mut queued = queued.log_in("postgres", &[]);
    assert_eq!(queued.value("SELECT 'served'"), "served");
    let refused = || std::net::TcpStream::connect(("127.0.0.1", pooler.port)).is_err();
    wait_until("nobody else gets in", refused);
    assert_eq!(stays.value("SELECT 'stays'"), "stays");
    drop((stays, queued));
    pooler.wait_end();
}

#[test]
fn a_fast_exit_leaves_no_server_connection_behind() {
    let mut pooler = Pooler::start("");
    let mut client = Script::connect_with(&pooler, &[("application_name", "fast exit")]);
    client.send(Batch::new().query("SELECT pg_sleep(63)"));
    wait_until_runs("SELECT pg_sleep(63)");
    pooler.signal("QUIT");
    pooler.wait_end();
    assert!(client.try_next().is_none());
}

#[test]
fn the_console_tells_names_sockets_and_memory() {
    let pg_port = postgres().port;
    let pooler = Pooler::start_with(&format!("named = host=localhost port={pg_port} dbname=postgres"), "");
    assert_eq!(pooler.admin("SHOW DNS_HOSTS"), "", "nobody has asked yet");
    let mut client = Script::connect_to(&pooler, "named", &[]);
    client.send(Batch::new().query("BEGIN"));
    assert_eq!(client.replies(1), "C ZT");
    let hosts = pooler.admin("SHOW DNS_HOSTS");
    assert!(hosts.starts_with("localhost|") && hosts.contains("127.0.0.1"), "{hosts}");
    assert!(pooler.admin("SHOW LISTS").contains("dns_names|1"));
    let fds = pooler.admin("SHOW FDS");
    let rows: Vec<Vec<&str>> = fds.lines().map(|line| line.split('|').collect()).collect();
    let of = |task: &str| rows.iter().filter(|row| row[1] == task).collect::<Vec<_>>();
    assert_eq!(of("pooler").len(), 2, "TCP and unix: {fds}");
    let (clients, servers) = (of("client"), of("server"));
    let holder = clients.iter().find(|row| row[3] == "named").expect("the client is listed");
    assert_eq!((servers.len(), holder[7]), (1, servers[0][0]), "it holds that server: {fds}");
    let mem = pooler.admin("SHOW MEM");
    let clients = mem.lines().find(|line| line.starts_with("client_cache|")).expect("clients take memory");
    let numbers: Vec<u64> = clients.split('|').skip(1).map(|n| n.parse().unwrap()).collect();
    assert_eq!((numbers[1], numbers[3]), (2, 2 * numbers[0]), "the client and this console: {clients}");
}

#[test]
fn only_a_process_of_our_own_user_may_take_over() {
    let pooler = Pooler::start("");
    let mut console = console(&pooler);
    console.send(Batch::new().query("HAND_OVER"));
    let (kind, body) = console.next();
    let text = String::from_utf8_lossy(&body);
    assert!(kind == b'E' && text.contains("only a process of the same user may take over"), "{text}");
    assert_eq!(Script::connect(&pooler).value("SELECT 'unharmed'"), "unharmed");
}

#[test]
fn a_database_is_paused_before_anybody_has_asked_for_it() {
    let pooler = Pooler::start("");
    let mut console = console(&pooler);
    for (stop, database) in [("PAUSE", "postgres"), ("KILL", "other")] {
        assert_eq!(command(&mut console, &format!("{stop} {database}")), "C Z");
        let mut client = Script::open(&pooler);
        client.send_startup(database, &[]);
        assert!(is_silent(&mut client), "it waits for RESUME");
        assert!(command(&mut console, "SUSPEND").starts_with('E'), "cannot suspend with paused databases");
        assert_eq!(command(&mut console, &format!("RESUME {database}")), "C Z");
        while client.next().0 != b'Z' {}
        assert_eq!(client.value("SELECT 'served'"), "served");
    }
}

#[test]
fn what_was_paused_by_its_name_is_resumed_by_its_name() {
    let pooler = Pooler::start("");
    let mut console = console(&pooler);
    let mut client = Script::connect(&pooler);
    assert_eq!(command(&mut console, "PAUSE postgres"), "C Z");
    assert!(command(&mut console, "RESUME").starts_with('E'), "the pooler is not paused");
    assert_eq!(command(&mut console, "PAUSE"), "C Z");
    assert!(command(&mut console, "PAUSE other").starts_with('E'), "all is paused already");
    assert!(command(&mut console, "KILL").starts_with('E'), "all is paused already");
    assert_eq!(command(&mut console, "RESUME"), "C Z");
    client.send(Batch::new().query("SELECT 'resumed'"));
    assert!(is_silent(&mut client));
    assert_eq!(command(&mut console, "RESUME postgres"), "C Z");
    assert_eq!(client.column(), ["resumed"]);
}
