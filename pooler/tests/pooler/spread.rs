//! Clients share a worker while it carries them, and go to another one when it does not.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fake::{FakePostgres, FakeServer};
use crate::script::{Batch, Script};
use crate::world::{Pooler, free_port, get_page, wait_until};

const CLIENTS: usize = 4;
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

fn sync_until(mut client: Script, over: &AtomicBool) {
    let batch = Batch::new().sync().0.repeat(SYNCS);
    let whole = READY.repeat(SYNCS);
    let mut answer = vec![0; whole.len()];
    while !over.load(Ordering::Relaxed) {
        client.stream.write_all(&batch).expect("the pooler takes the batch");
        client.stream.read_exact(&mut answer).expect("the pooler answers all of it");
        assert!(answer == whole);
    }
}

#[test]
fn a_busy_worker_shares_its_clients_with_another_and_no_answer_is_lost() {
    let fake = FakePostgres::start();
    let port = free_port();
    let settings = format!("metrics_listen_port = {port}\nworker_busy = 30\ndefault_pool_size = {CLIENTS}");
    let pooler = Pooler::start_with(&fake.database(), &settings);
    std::thread::spawn(move || {
        loop {
            let server = fake.accept();
            std::thread::spawn(|| serve(server));
        }
    });
    let metric = |name: &str| -> u64 {
        let page = get_page(port, "/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)).expect("the metric is there");
        line.trim().parse().expect("a number")
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when the test fails: the scope waits for its threads.
        let is_over = Over(&over);
        // All of them first: who comes while another worker helps out already sits there from the start.
        let clients: Vec<Script> = (0..CLIENTS).map(|_| Script::connect_to(&pooler, "fake", &[])).collect();
        for client in clients {
            scope.spawn(|| sync_until(client, &over));
        }
        wait_until("a second worker helps", || metric("pgbouncer_workers_in_use ") == 2);
        wait_until("clients have gone there", || metric("pgbouncer_worker_changes_total ") > 0);
        drop(is_over);
    });
}
