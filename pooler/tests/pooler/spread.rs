//! Clients share a worker while it carries them, and go to another one when it does not.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::fake::{FakePostgres, FakeServer};
use crate::script::{Batch, Script};
use crate::world::{Certificates, Pooler, free_port, get_page, tls_client, wait_until};

const CLIENTS: usize = 4;
const ASKING: usize = 6;
/// In one batch. Each costs the pooler some work, and the two around it next to nothing.
const SYNCS: usize = 2000;
const SYNC_LEN: usize = 5;
const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn serve(mut server: FakeServer) {
    server.read_startup();
    server.greet();
    let mut space = [0; 65536];
    let mut rest = 0;
    while let Ok(len @ 1..) = server.stream.read(&mut space) {
        let syncs = (rest + len) / SYNC_LEN;
        rest = (rest + len) % SYNC_LEN;
        if server.stream.write_all(&READY.repeat(syncs)).is_err() {
            return;
        }
    }
}

fn sync_until(mut client: impl Read + Write, over: &AtomicBool) {
    let batch = Batch::new().sync().0.repeat(SYNCS);
    let whole = READY.repeat(SYNCS);
    let mut answer = vec![0; whole.len()];
    while !over.load(Ordering::Relaxed) {
        client.write_all(&batch).expect("the pooler takes the batch");
        client.flush().expect("the pooler takes the batch");
        client.read_exact(&mut answer).expect("the pooler answers all of it");
        assert!(answer == whole);
    }
}

fn metric(port: u16, name: &str) -> u64 {
    let page = get_page(port, "/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name)).expect("the metric is there");
    line.trim().parse().expect("a number")
}

fn wait_for_changes(port: u16) {
    wait_until("a second worker helps", || metric(port, "pgbouncer_workers_in_use ") == 2);
    wait_until("clients have gone there", || metric(port, "pgbouncer_worker_changes_total ") > 0);
}

/// Clients that have connected by `connect` make one worker busy until some of them are on the other one.
fn busy_clients_are_spread<C>(settings: &str, connect: impl Fn(&Pooler) -> C)
where
    C: Read + Write + Send,
{
    let fake = FakePostgres::start();
    let port = free_port();
    let settings =
        format!("metrics_listen_port = {port}\nworker_busy = 30\ndefault_pool_size = {CLIENTS}\n{settings}");
    let pooler = Pooler::start_with(&fake.database(), &settings);
    std::thread::spawn(move || {
        loop {
            let server = fake.accept();
            std::thread::spawn(|| serve(server));
        }
    });
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when the test fails: the scope waits for its threads.
        let is_over = Over(&over);
        // All of them first: who comes while another worker helps out already sits there from the start.
        let clients: Vec<C> = (0..CLIENTS).map(|_| connect(&pooler)).collect();
        for client in clients {
            scope.spawn(|| sync_until(client, &over));
        }
        wait_for_changes(port);
        drop(is_over);
    });
}

#[test]
fn a_busy_worker_shares_its_clients_with_another_and_no_answer_is_lost() {
    busy_clients_are_spread("", |pooler| Script::connect_to(pooler, "fake", &[]).stream);
}

#[test]
fn who_holds_a_server_for_a_session_goes_together_with_it() {
    busy_clients_are_spread("pool_mode = session", |pooler| Script::connect_to(pooler, "fake", &[]).stream);
}

#[test]
fn what_tls_knows_of_a_connection_goes_along() {
    let certificates = Certificates::copy();
    busy_clients_are_spread(&certificates.client_tls(), |pooler| {
        let mut tls = tls_client(Script::open(pooler).stream, &[b"postgresql"]);
        let mut login = Vec::new();
        pgwire::startup::startup(&mut login, 0, [("user", "postgres"), ("database", "fake")]);
        tls.write_all(&login).expect("the pooler takes the login");
        let mut greeting = Vec::new();
        while !greeting.ends_with(&READY) {
            let mut byte = [0];
            tls.read_exact(&mut byte).expect("the pooler greets");
            greeting.push(byte[0]);
        }
        tls
    });
}

/// Asks again and again by a statement of its own, and gives what ended it.
fn ask_until(mut client: Script, own: i32, answered: &AtomicU32, over: &AtomicBool) -> String {
    client.send(Batch::new().parse("mine", &format!("SELECT {own} + $1::int")).sync());
    assert_eq!(client.replies(1), "1 Z");
    let mut asked = 0;
    while !over.load(Ordering::Relaxed) {
        asked += 1;
        client.send(Batch::new().bind("mine", &[&asked.to_string()]).execute(0).sync());
        let (kind, body) = client.next();
        if kind == b'E' {
            return pgwire::report::Received::parse(&body).expect("a report").summary();
        }
        assert_eq!(kind, b'2');
        assert_eq!(client.column(), [(own + asked).to_string()]);
        answered.fetch_add(1, Ordering::Relaxed);
    }
    "over".to_string()
}

#[test]
fn clients_that_change_workers_obey_the_console_and_go_to_the_process_that_takes_over() {
    let port = free_port();
    let settings = format!("metrics_listen_port = {port}\nworker_busy = 10\ndefault_pool_size = 3");
    let mut pooler = Pooler::start(&settings);
    let over = AtomicBool::new(false);
    let answered: [AtomicU32; ASKING] = Default::default();
    // As few as do not keep a second worker busy by their logins, as above; more than there are servers.
    let clients: Vec<Script> = (0..ASKING).map(|_| Script::connect(&pooler)).collect();
    let victim = Script::connect_with(&pooler, &[("application_name", "victim")]);
    let mut console = Script::connect_to(&pooler, "pgbouncer", &[]);
    std::thread::scope(|scope| {
        let is_over = Over(&over);
        let over = &over;
        let victim = scope.spawn(move || ask_until(victim, 0, &AtomicU32::new(0), over));
        let asking: Vec<_> = clients
            .into_iter()
            .zip(&answered)
            .zip(1..)
            .map(|((client, answered), n)| {
                scope.spawn(move || ask_until(client, n * 100_000_000, answered, over))
            })
            .collect();
        wait_for_changes(port);
        for command in ["SUSPEND", "RESUME", "PAUSE", "RESUME", "RELOAD", "RECONNECT"].repeat(3) {
            console.send(Batch::new().query(command));
            assert_eq!(console.replies(1), "C Z", "{command}");
        }
        console.send(Batch::new().query("SHOW CLIENTS"));
        let rows: Vec<String> = console.rows().into_iter().filter(|row| !row.contains("pgbouncer")).collect();
        assert_eq!(rows.len(), ASKING + 1, "each is listed once: {rows:?}");
        let row = rows.iter().find(|row| row.contains(" victim ")).expect("it is listed");
        let id = row.rsplit(' ').next().expect("the last column is the id");
        console.send(Batch::new().query(&format!("KILL_CLIENT {id}")));
        assert_eq!(console.replies(1), "C Z");
        assert!(victim.join().expect("it asks until it is killed").contains("admin forced disconnect"));
        let mut old = pooler.take_over();
        wait_until("the old process ends", || matches!(old.try_wait(), Ok(Some(_))));
        answered.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        wait_until("all are served by the new one", || {
            answered.iter().all(|count| count.load(Ordering::Relaxed) > 1)
        });
        drop(is_over);
        for client in asking {
            assert_eq!(client.join().expect("it asks to the end"), "over");
        }
    });
}
