//! The binary as operators use it: test, start, reload, reopen, quit, stop. Each test has its own folder and ports.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_balancer");
/// Far more than any step takes: only a hang comes here.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a configuration, and the process that runs it.
struct World {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl World {
    /// `PORT` in the text is a free port, `DIR` the folder.
    fn new(http: &str) -> World {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let world = World { folder: tempfile::tempdir().unwrap(), port, child: None };
        world.configure(http);
        world
    }

    fn configure(&self, http: &str) {
        let dir = self.folder.path().display().to_string();
        let http = http.replace("PORT", &self.port.to_string()).replace("DIR", &dir);
        let text = format!(
            "daemon off; pid {dir}/pid; error_log {dir}/error.log info; worker_processes 2;\nevents {{ }}\n\
             http {{ access_log {dir}/access.log;\n{http}\n}}\n"
        );
        fs::write(self.path("nginx.conf"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .arg("-p")
            .arg(self.folder.path())
            .args(["-c", "nginx.conf", "-e", "early.log"])
            .args(arguments);
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn start(mut self) -> World {
        self.child = Some(self.command(&[]).stderr(Stdio::null()).spawn().unwrap());
        self.wait_until("the pid file is there", || self.path("pid").exists());
        self
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}\n{}", self.read("error.log"));
            std::thread::yield_now();
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn get(&self, path: &str) -> String {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, order: &str) {
        let output = self.ask(&["-s", order]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The exit of the process.
    fn ended(&mut self) -> bool {
        let mut child = self.child.take().unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.success();
            }
            if Instant::now() > end {
                child.kill().unwrap();
                panic!("did not end:\n{}", self.read("error.log"));
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const SERVER: &str = "server { listen 127.0.0.1:PORT; location / { return 200 one; } }";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_good_configuration_passes_the_test_and_a_bad_one_names_the_line() {
    let world = World::new(SERVER);
    let output = world.ask(&["-t"]);
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("test is successful"));
    assert_eq!(text(&world.ask(&["-t", "-q"]).stderr), "");
    let dump = text(&world.ask(&["-T"]).stdout);
    assert!(dump.contains("# configuration file") && dump.contains("return 200 one"));
    world.configure("server { listen 127.0.0.1:PORT;\nnonsense on;\n}");
    let output = world.ask(&["-t"]);
    assert!(!output.status.success());
    let complaint = text(&output.stderr);
    assert!(complaint.contains("[emerg] unknown directive \"nonsense\" in"), "{complaint}");
    assert!(complaint.contains("nginx.conf:5") && complaint.contains("test failed"), "{complaint}");
}

#[test]
fn versions_are_told_as_nginx_tells_them() {
    let world = World::new(SERVER);
    assert!(text(&world.ask(&["-v"]).stderr).starts_with("nginx version: nginx/"));
    assert!(text(&world.ask(&["-V"]).stderr).contains("configure arguments: --with"));
}

#[test]
fn a_reload_takes_the_new_configuration_and_keeps_the_old_one_when_it_is_bad() {
    let world = World::new(SERVER).start();
    assert!(world.get("/").ends_with("one"));
    world.configure(&SERVER.replace("one", "two"));
    world.signal("reload");
    world.wait_until("the new answer is given", || world.get("/").ends_with("two"));
    world.configure("server { listen 127.0.0.1:PORT; bogus; }");
    let pid = world.read("pid").trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP).unwrap();
    world.wait_until("the mistake is logged", || {
        world.read("error.log").contains("unknown directive \"bogus\"")
    });
    assert!(world.get("/").ends_with("two"));
}

#[test]
fn a_connection_outlives_a_reload() {
    let world = World::new(SERVER).start();
    let mut kept = world.connect();
    let mut ask = |expected: &str| {
        write!(kept, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(expected.as_bytes()) {
            let mut piece = [0; 1024];
            let len = kept.read(&mut piece).unwrap();
            assert!(len > 0, "closed after {}", text(&answer));
            answer.extend_from_slice(&piece[..len]);
        }
    };
    ask("one");
    world.configure(&SERVER.replace("one", "two"));
    world.signal("reload");
    world.wait_until("the reload is done", || world.read("error.log").contains("reconfigured"));
    world.wait_until("the new answer is given", || world.get("/").ends_with("two"));
    ask("two");
}

#[test]
fn quit_lets_what_is_under_way_end() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let mut world = World::new(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://{address}; }} }}"
    ))
    .start();
    let mut client = world.connect();
    write!(client, "GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let (mut origin, _) = upstream.accept().unwrap();
    let mut piece = [0; 1024];
    assert!(origin.read(&mut piece).unwrap() > 0);
    world.signal("quit");
    world.wait_until("no new connection is taken", || TcpStream::connect(("127.0.0.1", world.port)).is_err());
    origin.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    assert!(world.ended());
    assert!(!world.path("pid").exists());
    assert!(
        world.read("access.log").contains("\"GET /slow HTTP/1.1\" 200 4"),
        "{}",
        world.read("access.log")
    );
}

/// What an idle client finds that sends its next request after the order to quit.
/// A client that has had an answer, and the balancer, which has been told to quit and takes no new connection.
fn idle_client_of_a_balancer_that_quits(http: &str) -> (World, TcpStream) {
    let world = World::new(&format!("{http}\n{SERVER}")).start();
    let mut client = world.connect();
    write!(client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"one") {
        let mut piece = [0; 1024];
        let len = client.read(&mut piece).unwrap();
        assert!(len > 0, "closed after {}", text(&answer));
        answer.extend_from_slice(&piece[..len]);
    }
    world.signal("quit");
    world.wait_until("no new connection is taken", || TcpStream::connect(("127.0.0.1", world.port)).is_err());
    (world, client)
}

#[test]
fn keepalive_min_timeout_spares_idle_clients_when_the_balancer_quits() {
    let (mut world, mut client) = idle_client_of_a_balancer_that_quits("keepalive_min_timeout 20s;");
    write!(client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut second = String::new();
    client.read_to_string(&mut second).unwrap();
    assert!(second.starts_with("HTTP/1.1 200") && second.contains("Connection: close"), "{second}");
    assert!(world.ended());
}

#[test]
fn idle_clients_are_left_at_once_when_the_balancer_quits() {
    let (mut world, mut client) = idle_client_of_a_balancer_that_quits("");
    // Nothing is asked: a request that came before its worker heard of the end would be answered.
    assert_eq!(client.read(&mut [0; 1024]).unwrap(), 0);
    assert!(world.ended());
}

#[test]
fn keepalive_min_timeout_bounds_the_end_of_idle_clients() {
    let mut world = World::new(&format!("keepalive_min_timeout 100ms;\n{SERVER}")).start();
    let mut client = world.connect();
    write!(client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert!(client.read(&mut [0; 1024]).unwrap() > 0);
    world.signal("quit");
    assert!(world.ended(), "an idle client does not hold the balancer beyond its time");
    assert_eq!(client.read(&mut [0; 1024]).unwrap(), 0);
}

#[test]
fn stop_ends_at_once() {
    let mut world = World::new(SERVER).start();
    let mut idle = world.connect();
    write!(idle, "GET / HT").unwrap();
    world.signal("stop");
    assert!(world.ended());
    assert!(!world.path("pid").exists());
}

#[test]
fn reopen_writes_to_new_files() {
    let world = World::new(SERVER).start();
    world.get("/before");
    world.wait_until("the line is written", || world.read("access.log").contains("/before"));
    fs::rename(world.path("access.log"), world.path("access.old")).unwrap();
    world.signal("reopen");
    world.wait_until("the new file is there", || world.path("access.log").exists());
    world.get("/after");
    world.wait_until("the line is in the new file", || world.read("access.log").contains("/after"));
    assert!(!world.read("access.old").contains("/after"));
}

#[test]
fn a_taken_address_is_an_error_with_its_name() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let world = World::new(&format!("server {{ listen {address}; }}"));
    let output = world.ask(&[]);
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains(&format!("bind() to {address} failed")),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_listener_that_is_gone_takes_no_connections_and_a_new_one_does() {
    let world = World::new(SERVER).start();
    let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.configure(&format!("server {{ listen {other}; return 200 other; }}"));
    world.signal("reload");
    world.wait_until("the new address answers", || TcpStream::connect(other).is_ok());
    world.wait_until("the old address is closed", || TcpStream::connect(("127.0.0.1", world.port)).is_err());
}

#[test]
fn the_ops_port_tells_metrics_and_health() {
    let ops = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::new("server { listen 127.0.0.1:PORT; return 200 one; }");
    let child = world.command(&[]).env("BALANCER_OPS_PORT", ops.port().to_string()).spawn();
    world.child = Some(child.unwrap());
    world.wait_until("the pid file is there", || world.path("pid").exists());
    world.get("/");
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(ops).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask("/health/ready").starts_with("HTTP/1.1 200"));
    let metrics = ask("/metrics");
    assert!(metrics.contains("balancer_requests_total 1"), "{metrics}");
    let health =
        |port: &str| world.command(&["--healthcheck"]).env("BALANCER_OPS_PORT", port).output().unwrap();
    assert!(health(&ops.port().to_string()).status.success());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let told = health(&nobody.to_string());
    assert!(!told.status.success());
    assert!(text(&told.stderr).contains("nobody answers on 127.0.0.1"), "{}", text(&told.stderr));
}

#[test]
fn a_stop_waits_no_longer_for_a_tunnel_than_the_environment_lets_it() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://{}; proxy_http_version 1.1; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}",
        upstream.local_addr().unwrap()
    ));
    let child = world.command(&[]).env("BALANCER_DRAIN_TIMEOUT", "0.1").spawn();
    world.child = Some(child.unwrap());
    world.wait_until("the pid file is there", || world.path("pid").exists());
    let mut client = world.connect();
    write!(client, "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    let (mut origin, _) = upstream.accept().unwrap();
    let mut piece = [0; 1024];
    assert!(origin.read(&mut piece).unwrap() > 0);
    origin
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .unwrap();
    assert!(client.read(&mut piece).unwrap() > 0);
    world.signal("quit");
    assert!(world.ended());
    assert_eq!(client.read(&mut piece).unwrap_or_default(), 0);
}

#[test]
fn a_listener_whose_backlog_changes_stays_open() {
    let world = World::new(SERVER).start();
    world.configure("server { listen 127.0.0.1:PORT backlog=64; location / { return 200 two; } }");
    world.signal("reload");
    world.wait_until("the new answer is given", || world.get("/").ends_with("two"));
}

#[test]
fn as_a_daemon_the_caller_gets_its_prompt_back() {
    let world = World::new(SERVER);
    let text = world.read("nginx.conf").replace("daemon off;", "daemon on;");
    fs::write(world.path("nginx.conf"), text).unwrap();
    assert!(world.ask(&[]).status.success(), "the parent ends well");
    world.wait_until("the pid file is there", || world.path("pid").exists());
    assert!(world.get("/").ends_with("one"));
    world.signal("stop");
    world.wait_until("the pid file is gone", || !world.path("pid").exists());
}
