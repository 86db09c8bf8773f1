//! Ten origins under load while one is killed and started again, one becomes ten times slower, and the configuration is
//! reloaded twenty times: no idempotent request fails, no POST reaches origins twice, no tunnel is dropped.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Balancer, Client, wait_until};

/// How long an answer takes; ten times that when the node is slow.
const WORK: Duration = Duration::from_millis(1);
const ROUNDS: usize = 20;
const CLIENTS: usize = 16;
/// One in so many sends POSTs.
const POSTS_EACH: usize = 4;

/// What all origins have seen of each POST.
type Seen = Arc<Mutex<HashMap<u64, usize>>>;

/// One origin that can be killed and started again on its port.
struct Node {
    port: u16,
    seen: Seen,
    is_slow: Arc<AtomicBool>,
    life: Mutex<Option<Life>>,
}

/// One run of a node.
struct Life {
    is_over: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    acceptor: std::thread::JoinHandle<()>,
}

impl Node {
    fn new(seen: &Seen) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let node = Node { port, seen: seen.clone(), is_slow: Arc::default(), life: Mutex::default() };
        node.live(listener);
        node
    }

    fn live(&self, listener: TcpListener) {
        let (is_over, open) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (ends, connections) = (is_over.clone(), open.clone());
        let (seen, is_slow) = (self.seen.clone(), self.is_slow.clone());
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (seen, is_slow) = (seen.clone(), is_slow.clone());
                std::thread::spawn(move || serve(stream, &seen, &is_slow));
            }
        });
        *self.life.lock().unwrap() = Some(Life { is_over, open, acceptor });
    }

    /// With all connections, in the midst of whatever they carry.
    fn kill(&self) {
        let life = self.life.lock().unwrap().take().unwrap();
        life.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        life.acceptor.join().unwrap();
        life.open.lock().unwrap().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    fn start_again(&self) {
        self.live(TcpListener::bind(("127.0.0.1", self.port)).unwrap());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.life.lock().unwrap().is_some() {
            self.kill();
        }
    }
}

fn serve(stream: TcpStream, seen: &Seen, is_slow: &AtomicBool) {
    let mut out = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(lines.read_line(&mut head), Ok(len) if len > 0) {
                return;
            }
        }
        if head.contains("Upgrade: websocket") {
            let switched =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            let mut line = [0; 4];
            let _ = out.write_all(switched.as_bytes());
            while lines.read_exact(&mut line).is_ok() && out.write_all(&line).is_ok() {}
            return;
        }
        if let Some(id) = common::header(&head, "x-id") {
            *seen.lock().unwrap().entry(id.parse().unwrap()).or_default() += 1;
        }
        let work = if is_slow.load(Ordering::SeqCst) { WORK * 10 } else { WORK };
        #[allow(
            clippy::disallowed_methods,
            reason = "the origin's work takes time; nothing waits for it by sleeping"
        )]
        std::thread::sleep(work);
        if out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
    next_id: AtomicU64,
    posts_answered: Mutex<Vec<u64>>,
    posts_refused: AtomicUsize,
}

impl Load {
    /// One client on one connection. It may be closed between two requests, never in one.
    fn run(&self, port: u16, posts: bool) {
        let mut client = Client::connect(port);
        while !self.is_over.load(Ordering::SeqCst) {
            let id = self.next_id.fetch_add(1, Ordering::SeqCst);
            let response = match posts {
                true => client.send(&format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nContent-Length: 2\r\n\r\nhi"
                )),
                false => client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            }
            .try_response();
            match response {
                Some(response) if response.status == 200 => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    if posts {
                        self.posts_answered.lock().unwrap().push(id);
                    }
                }
                // A POST that its server took to the grave cannot be sent again: 502 is the truth.
                Some(response) if posts && response.status == 502 => {
                    self.posts_refused.fetch_add(1, Ordering::SeqCst);
                }
                other => self.failed.lock().unwrap().push(format!("{other:?}")),
            }
            if !self.failed.lock().unwrap().is_empty() {
                return;
            }
        }
    }

    fn await_more(&self, count: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + count;
        wait_until("more requests are answered", || {
            self.answered.load(Ordering::SeqCst) >= goal || !self.failed.lock().unwrap().is_empty()
        });
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn tunnel(balancer: &Balancer) -> Client {
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    client
}

#[test]
fn deaths_slowness_and_reloads_fail_no_idempotent_request_and_double_no_post() {
    let seen = Seen::default();
    let nodes: Vec<Node> = (0..10).map(|_| Node::new(&seen)).collect();
    let servers: String =
        nodes.iter().map(|node| format!("server 127.0.0.1:{} fail_timeout=1s;", node.port)).collect();
    let balancer = Balancer::with_workers(
        &format!(
            "upstream g {{ least_conn; {servers} keepalive 32; }}\n\
             server {{ listen 127.0.0.1:PORT; keepalive_requests 1000000; location / {{ proxy_pass http://g;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; }} }}"
        ),
        2,
    );
    // Two tunnels to two nodes that will live.
    let mut tunnels: Vec<Client> = (0..2).map(|_| tunnel(&balancer)).collect();
    let load = Load::default();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (load, port) = (&load, balancer.port);
            scope.spawn(move || load.run(port, client % POSTS_EACH == 0));
        }
        let _stop = StopOnDrop(&load.is_over);
        load.await_more(200);
        for round in 0..ROUNDS {
            match round % 4 {
                0 => nodes[5 + round % 5].kill(),
                1 => nodes[9].is_slow.store(true, Ordering::SeqCst),
                2 => nodes[5 + (round - 2) % 5].start_again(),
                _ => nodes[9].is_slow.store(false, Ordering::SeqCst),
            }
            balancer.signal_reload();
            load.await_more(100);
            for tunnel in &mut tunnels {
                tunnel.send("ping");
                assert_eq!(tunnel.bytes(4), b"ping");
            }
        }
    });
    let failed = load.failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} failed, the first: {}\n{}", failed.len(), failed[0], balancer.errors());
    let seen = seen.lock().unwrap();
    let doubled: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "POSTs that came twice: {doubled:?}");
    let lost = load.posts_answered.into_inner().unwrap().iter().filter(|id| !seen.contains_key(id)).count();
    assert_eq!(lost, 0, "answered and never seen");
    // A client has one request under way, and one round in four kills.
    let doomed = ROUNDS / 4 * (CLIENTS / POSTS_EACH);
    let refused = load.posts_refused.into_inner();
    assert!(refused <= doomed, "{refused} POSTs were refused, {doomed} can have been at nodes that died");
}
