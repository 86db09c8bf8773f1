//! Three origins, the balancer and the clients: the world of one run.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use crate::client::{self, Tally};
use crate::origin;

const ORIGINS: usize = 3;

/// Kills the balancer when the run ends, however it ends.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks `requests` times and tells what came back.
pub fn run(balancer: &Path, requests: u64, seed: u64, clients: u64) -> Rc<Tally> {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let tally = Rc::new(Tally::default());
    let ports: Vec<u16> = (0..ORIGINS).map(|number| start_origin(number, &tally)).collect();
    let port = free_port();
    let _balancer = KillOnDrop(start_balancer(balancer, dir.path(), port, &ports));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        await_port(port).await;
        let tasks: Vec<_> = (0..clients)
            .map(|number| {
                let tally = tally.clone();
                tokio::task::spawn_local(
                    async move { client::run(port, seed, number, requests, &tally).await },
                )
            })
            .collect();
        for task in tasks {
            task.await.expect("a client does not panic");
        }
    });
    tally
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

async fn await_port(port: u16) {
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// On a thread of its own; it lives as long as the process. The first one alone says more than it is asked: of such a
/// server no connection is kept, and kept ones are what this is about.
fn start_origin(number: usize, tally: &Tally) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    listener.set_nonblocking(true).expect("a socket can be made so");
    let kills = tally.kills.clone();
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("made for this");
            origin::accept(listener, number == 0, kills).await;
        });
    });
    port
}

fn start_balancer(binary: &Path, dir: &Path, port: u16, origins: &[u16]) -> Child {
    let servers: String =
        origins.iter().map(|port| format!("server 127.0.0.1:{port} max_fails=0;")).collect();
    let d = dir.display();
    let text = format!(
        "daemon off; worker_processes 2; pid {d}/pid; error_log {d}/error.log crit; events {{ worker_connections 4096; }}\n\
         http {{ access_log off; upstream g {{ {servers} keepalive 32; keepalive_requests 100000; }}\n\
         server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000000; location / {{ proxy_pass http://g;\n\
         proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;\n\
         proxy_read_timeout 200ms; proxy_next_upstream error timeout http_503; proxy_next_upstream_tries 2; }} }} }}\n"
    );
    std::fs::write(dir.join("nginx.conf"), text).expect("the folder is ours");
    let mut command = Command::new(binary);
    command.arg("-p").arg(dir).args(["-c", "nginx.conf", "-e", "early.log"]);
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the balancer starts")
}
