//! A world for relay tests: the binary with a configuration, origins that follow a script byte by byte, and a client
//! that says exactly what it is told.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Far more than any step takes: only a hang comes here.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running balancer in its own folder.
pub struct Balancer {
    folder: tempfile::TempDir,
    pub port: u16,
    child: Child,
}

impl Balancer {
    /// `http` is the inside of the http block; `PORT` in it is a free port, `DIR` the balancer's folder.
    pub fn start(http: &str) -> Balancer {
        Balancer::with_workers(http, 1)
    }

    pub fn with_workers(http: &str, workers: usize) -> Balancer {
        Balancer::start_with(&format!("worker_processes {workers};"), http)
    }

    /// `main` are more directives of the main context.
    pub fn start_with(main: &str, http: &str) -> Balancer {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = folder.path().display();
        let http = http.replace("PORT", &port.to_string()).replace("DIR", &dir.to_string());
        let events = if main.contains("events") { "" } else { "events { }" };
        let text = format!(
            "daemon off; pid {dir}/pid; error_log {dir}/error.log info; {main}\n\
             {events}\nhttp {{ access_log {dir}/access.log;\n{http}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_balancer"))
            .arg("-p")
            .arg(folder.path())
            .args(["-c", "nginx.conf", "-e", "early.log"])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut balancer = Balancer { folder, port, child };
        let start = Instant::now();
        let pid = balancer.folder.path().join("pid");
        // One connection and no more: those that were tried and left are connections of a worker's too.
        while !pid.exists() || TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                balancer.child.try_wait().unwrap().is_none(),
                "the balancer ended: {}",
                balancer.errors()
            );
            assert!(start.elapsed() < PATIENCE, "nothing listens on {port}: {}", balancer.errors());
            std::thread::yield_now();
        }
        balancer
    }

    /// One location `/` that passes to these origins.
    pub fn before(origins: &[&Origin], location: &str) -> Balancer {
        let servers: String =
            origins.iter().map(|origin| format!("server 127.0.0.1:{};\n", origin.port)).collect();
        Balancer::start(&format!(
            "upstream origins {{ {servers} keepalive 16; }}\n\
             server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://origins; {location} }} }}"
        ))
    }

    /// A file in the balancer's folder.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }

    /// Reloads, and waits until the new configuration counts.
    pub fn reload(&self) {
        let conf = self.folder.path().join("nginx.conf");
        let text = std::fs::read_to_string(&conf).unwrap();
        let marker = "location = /reloaded { return 204; }";
        std::fs::write(&conf, text.replacen("location / {", &format!("{marker} location / {{"), 1)).unwrap();
        self.signal_reload();
        let start = Instant::now();
        while self.client().get("/reloaded").status != 204 {
            assert!(start.elapsed() < PATIENCE, "the new configuration never came: {}", self.errors());
        }
    }

    /// Reloads, and does not wait.
    pub fn signal_reload(&self) {
        self.signal("reload");
    }

    pub fn signal(&self, order: &str) {
        let status = Command::new(env!("CARGO_BIN_EXE_balancer"))
            .arg("-p")
            .arg(self.folder.path())
            .args(["-c", "nginx.conf", "-e", "early.log", "-s", order])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

/// Asks again until it is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An origin that runs a script for each connection, on its own thread.
pub struct Origin {
    pub port: u16,
    pub connections: Arc<AtomicUsize>,
    /// Heads of all requests, in the order in which scripts read them.
    pub heads: Arc<Mutex<Vec<String>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    is_closed: Arc<AtomicBool>,
}

/// One connection as an origin's script sees it.
pub struct Served {
    pub stream: TcpStream,
    /// Counts from 1.
    pub number: usize,
    heads: Arc<Mutex<Vec<String>>>,
    held: Vec<u8>,
}

impl Origin {
    pub fn scripted(script: impl Fn(&mut Served) + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin {
            port: listener.local_addr().unwrap().port(),
            connections: Arc::default(),
            heads: Arc::default(),
            open: Arc::default(),
            is_closed: Arc::default(),
        };
        let (connections, heads) = (origin.connections.clone(), origin.heads.clone());
        let (open, is_closed, script) = (origin.open.clone(), origin.is_closed.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if is_closed.load(Ordering::SeqCst) {
                    return;
                }
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let (heads, script) = (heads.clone(), script.clone());
                std::thread::spawn(move || {
                    let mut served = Served { stream, number, heads, held: Vec::new() };
                    script(&mut served);
                    let _ = served.stream.shutdown(Shutdown::Both);
                });
            }
        });
        origin
    }

    /// Answers each request of each connection with these bytes.
    pub fn answering(answer: &'static str) -> Origin {
        Origin::scripted(move |served| {
            while served.read_request().is_some() {
                served.send(answer);
            }
        })
    }

    pub fn seen(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Dies at once, with all its connections.
    pub fn kill(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Served {
    /// A whole request: its head; its body is read away. `None` at the end of the connection.
    pub fn read_request(&mut self) -> Option<String> {
        self.read_request_with_body().map(|(head, _)| head)
    }

    pub fn read_request_with_body(&mut self) -> Option<(String, Vec<u8>)> {
        let head = self.read_head()?;
        let body = read_body(&mut self.stream, &mut self.held, &head, false)?;
        Some((head, body))
    }

    pub fn read_head(&mut self) -> Option<String> {
        let head = read_head(&mut self.stream, &mut self.held)?;
        self.heads.lock().unwrap().push(head.clone());
        Some(head)
    }

    /// Bytes behind a head.
    pub fn read_exactly(&mut self, space: &mut [u8]) {
        while self.held.len() < space.len() {
            assert!(fill(&mut self.stream, &mut self.held), "the connection ended");
        }
        space.copy_from_slice(&self.held[..space.len()]);
        self.held.drain(..space.len());
    }

    pub fn send(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes());
    }

    /// Waits until the other side closes.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.held);
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }
}

/// A client with one connection.
pub struct Client {
    pub stream: TcpStream,
    held: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

impl Client {
    pub fn connect(port: u16) -> Client {
        Client::connect_to(Ipv4Addr::LOCALHOST, port)
    }

    pub fn connect_to(address: Ipv4Addr, port: u16) -> Client {
        let stream = TcpStream::connect((address, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, held: Vec::new() }
    }

    pub fn send(&mut self, text: &str) -> &mut Client {
        self.stream.write_all(text.as_bytes()).unwrap();
        self
    }

    /// `GET` over this connection.
    pub fn get(&mut self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).response()
    }

    pub fn response(&mut self) -> Response {
        self.try_response().expect("a whole answer")
    }

    /// `None` when the connection ends before the answer is whole.
    pub fn try_response(&mut self) -> Option<Response> {
        self.response_to(false)
    }

    pub fn response_to_head(&mut self) -> Response {
        self.response_to(true).expect("a whole answer")
    }

    fn response_to(&mut self, is_head: bool) -> Option<Response> {
        let head = self.head()?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let bodyless = is_head || matches!(status, 100..=199 | 204 | 304);
        let body = read_body(&mut self.stream, &mut self.held, &head, bodyless)?;
        Some(Response { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    pub fn head(&mut self) -> Option<String> {
        read_head(&mut self.stream, &mut self.held)
    }

    /// Exactly so many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.held.len() < len {
            assert!(fill(&mut self.stream, &mut self.held), "the connection ended");
        }
        self.held.drain(..len).collect()
    }

    /// Everything until the connection ends; an error that is not a clean end is said.
    pub fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut rest = std::mem::take(&mut self.held);
        let is_clean = self.stream.read_to_end(&mut rest).is_ok();
        (rest, is_clean)
    }
}

pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn fill(stream: &mut TcpStream, held: &mut Vec<u8>) -> bool {
    let mut space = [0; 16384];
    match stream.read(&mut space) {
        Ok(0) | Err(_) => false,
        Ok(len) => {
            held.extend_from_slice(&space[..len]);
            true
        }
    }
}

fn read_head(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            return Some(String::from_utf8_lossy(&held.drain(..at + 4).collect::<Vec<_>>()).into_owned());
        }
        if !fill(stream, held) {
            return None;
        }
    }
}

fn read_body(stream: &mut TcpStream, held: &mut Vec<u8>, head: &str, bodyless: bool) -> Option<Vec<u8>> {
    let is_response = head.starts_with("HTTP/");
    if bodyless {
        return Some(Vec::new());
    }
    if header(head, "transfer-encoding").is_some() {
        return read_chunks(stream, held);
    }
    match header(head, "content-length") {
        Some(len) => {
            let len: usize = len.parse().ok()?;
            while held.len() < len {
                if !fill(stream, held) {
                    return None;
                }
            }
            Some(held.drain(..len).collect())
        }
        None if is_response => {
            while fill(stream, held) {}
            Some(std::mem::take(held))
        }
        None => Some(Vec::new()),
    }
}

fn read_chunks(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = loop {
            if let Some(at) = held.windows(2).position(|window| window == b"\r\n") {
                break held.drain(..at + 2).collect::<Vec<_>>();
            }
            if !fill(stream, held) {
                return None;
            }
        };
        let len = usize::from_str_radix(std::str::from_utf8(&line[..line.len() - 2]).ok()?, 16).ok()?;
        while held.len() < len + 2 {
            if !fill(stream, held) {
                return None;
            }
        }
        body.extend(held.drain(..len));
        held.drain(..2);
        if len == 0 {
            return Some(body);
        }
    }
}
