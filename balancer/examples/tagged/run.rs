//! Three origins of each kind, the balancer and the clients: the world of one run.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::tally::Tally;
use crate::ways::Upstream;
use crate::{client, h2_client, h2_origin, origin};

/// Of each kind.
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
    let tls = acceptor(dir.path());
    let start = |kind| (0..ORIGINS).map(|number| start_origin(kind, number, (&tls, &tally))).collect();
    let ports: [Vec<u16>; 3] = [Upstream::Clear, Upstream::Tls, Upstream::Http2].map(start);
    let port = free_port();
    let _balancer = KillOnDrop(start_balancer(balancer, dir.path(), port, &ports));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        await_port(port).await;
        let tasks: Vec<_> = (0..clients)
            .map(|number| {
                let tally = tally.clone();
                tokio::task::spawn_local(async move {
                    match number % 2 {
                        0 => client::run(port, seed, number, requests, &tally).await,
                        _ => h2_client::run(port, seed, number, requests, &tally).await,
                    }
                })
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

/// A certificate as openssl makes it.
fn acceptor(dir: &Path) -> TlsAcceptor {
    let made = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=origin -days 3"
                .split(' '),
        )
        .args(["-keyout", "origin.key", "-out", "origin.crt"])
        .current_dir(dir)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let certificate = CertificateDer::from_pem_file(dir.join("origin.crt")).expect("openssl wrote it");
    let key = PrivateKeyDer::from_pem_file(dir.join("origin.key")).expect("openssl wrote it");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}

/// On a thread of its own; it lives as long as the process. The first of a kind alone says more than it is asked: of such a
/// server no connection is kept, and kept ones are what this is about.
fn start_origin(kind: Upstream, number: usize, (tls, tally): (&TlsAcceptor, &Tally)) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    listener.set_nonblocking(true).expect("a socket can be made so");
    let (kills, tls) = (tally.kills.clone(), (kind == Upstream::Tls).then(|| tls.clone()));
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("made for this");
            match kind {
                Upstream::Http2 => h2_origin::accept(listener, kills).await,
                Upstream::Clear | Upstream::Tls => origin::accept(listener, tls, number == 0, kills).await,
            }
        });
    });
    port
}

fn group(name: &str, ports: &[u16]) -> String {
    let servers: String = ports.iter().map(|port| format!("server 127.0.0.1:{port} max_fails=0;")).collect();
    format!("upstream {name} {{ {servers} keepalive 32; keepalive_requests 100000; }}\n")
}

fn start_balancer(binary: &Path, dir: &Path, port: u16, origins: &[Vec<u16>; 3]) -> Child {
    let [clear, tls, http2] = origins;
    let groups = [group("clear", clear), group("tls", tls), group("http2", http2)].concat();
    let d = dir.display();
    let text = format!(
        "daemon off; worker_processes 2; pid {d}/pid; error_log {d}/error.log crit; events {{ worker_connections 4096; }}\n\
         http {{ access_log off; {groups} proxy_read_timeout 400ms; proxy_next_upstream error timeout http_503;\n\
         proxy_next_upstream_tries 2; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection $http_connection;\n\
         server {{ listen 127.0.0.1:{port}; http2 on; keepalive_requests 1000000000;\n\
         location /clear {{ proxy_pass http://clear; }} location /tls {{ proxy_pass https://tls; }}\n\
         location /http2 {{ proxy_http_version 2; proxy_set_header Host tagged; proxy_pass http://http2; }} }} }}\n"
    );
    std::fs::write(dir.join("nginx.conf"), text).expect("the folder is ours");
    let mut command = Command::new(binary);
    command.arg("-p").arg(dir).args(["-c", "nginx.conf", "-e", "early.log"]);
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the balancer starts")
}
