//! Under load: reloads and a binary upgrade that no request notices, tunnels that outlive both, and a way back.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{Balancer, Client, Origin, PATIENCE, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Serves plain requests, and echoes after an upgrade.
fn origin() -> Origin {
    Origin::scripted(|served| {
        while let Some(head) = served.read_request() {
            if !head.contains("Upgrade: websocket") {
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            served.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            );
            let mut line = [0; 4];
            while served.stream.read_exact(&mut line).is_ok() {
                served.stream.write_all(&line).unwrap();
            }
            return;
        }
    })
}

fn balancer(origins: &[Origin]) -> Balancer {
    balancer_with(origins, "")
}

/// The group `g` as the API shows it to a new connection.
fn group_of(balancer: &Balancer) -> serde_json::Value {
    serde_json::from_str(&balancer.client().get("/api/9/http/upstreams/g").body).unwrap()
}

fn sum_of(group: &serde_json::Value, field: &str) -> u64 {
    group["peers"].as_array().unwrap().iter().map(|peer| peer[field].as_u64().unwrap()).sum()
}

fn balancer_with(origins: &[Origin], more: &str) -> Balancer {
    let servers: String = origins.iter().map(|origin| format!("server 127.0.0.1:{};", origin.port)).collect();
    Balancer::with_workers(
        &format!(
            "upstream g {{ zone g; {servers} {more} keepalive 8; }}\n\
             server {{ listen 127.0.0.1:PORT; add_header X-Pid $pid always; location /api {{ api; }}\n\
             location / {{ proxy_pass http://g;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}"
        ),
        2,
    )
}

fn tunnel(balancer: &Balancer) -> Client {
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    client
}

fn echoes(tunnel: &mut Client, text: &str) {
    tunnel.send(text);
    assert_eq!(tunnel.bytes(text.len()), text.as_bytes());
}

/// Clients that ask without pause, each request on a new connection, until told to stop.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
    last_pid: Mutex<String>,
}

impl Load {
    fn run(&self, port: u16) {
        while !self.is_over.load(Ordering::SeqCst) {
            match ask(port) {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok") => {
                    let pid =
                        common::header(answer.split("\r\n\r\n").next().unwrap(), "x-pid").unwrap().to_owned();
                    *self.last_pid.lock().unwrap() = pid;
                    self.answered.fetch_add(1, Ordering::SeqCst);
                }
                Ok(answer) => self.failed.lock().unwrap().push(answer),
                Err(error) => self.failed.lock().unwrap().push(error.to_string()),
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

fn ask(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Runs the steps under load, and says how many requests were answered. None may fail.
fn under_load(balancer: &Balancer, steps: impl FnOnce(&Load)) -> usize {
    let load = Load::default();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| load.run(balancer.port));
        }
        let _stop = StopOnDrop(&load.is_over);
        load.await_more(100);
        steps(&load);
        load.await_more(100);
    });
    let failed = load.failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} failed, the first: {}\n{}", failed.len(), failed[0], balancer.errors());
    load.answered.into_inner()
}

/// Ends the load even where a step fails: the scope waits for its threads.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn twenty_reloads_under_load_fail_no_request_drop_no_tunnel_and_forget_no_count() {
    let origins = [origin(), origin()];
    let balancer = balancer(&origins);
    let mut tunnel = tunnel(&balancer);
    // A connection that idles holds no configuration.
    let mut idle = balancer.client();
    assert_eq!(idle.get("/api/9").status, 200);
    let answered = under_load(&balancer, |load| {
        for round in 1..=20 {
            balancer.signal_reload();
            let done = format!("generation {round} of the configuration exited");
            load.await_more(20);
            echoes(&mut tunnel, "ping");
            // The tunnel began under the first one and keeps it; the idle connection asks under the second.
            if round == 1 {
                wait_until("the reload is done", || balancer.errors().contains("reconfigured"));
                assert_eq!(idle.get("/api/9").status, 200);
            } else {
                wait_until("the replaced configuration is let go", || balancer.errors().contains(&done));
            }
        }
    });
    echoes(&mut tunnel, "over");
    let group = group_of(&balancer);
    assert_eq!(sum_of(&group, "requests"), answered as u64, "{group}");
    assert_eq!(sum_of(&group, "active"), 1, "the tunnel is still counted");
}

fn pid_in(balancer: &Balancer, name: &str) -> Option<Pid> {
    let text = std::fs::read_to_string(balancer.path(name)).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

/// Ends the process that took over, whatever becomes of the test.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

#[test]
fn a_binary_upgrade_under_load_fails_no_request_and_leaves_tunnels_to_end_by_themselves() {
    let origins = [origin(), origin()];
    // One server is dead, and known to be for an hour.
    let balancer = balancer_with(&origins, "server 127.0.0.1:1 fail_timeout=1h;");
    let mut tunnel = tunnel(&balancer);
    let mut successor = None;
    under_load(&balancer, |load| {
        let before = group_of(&balancer);
        assert_eq!(before["peers"][2]["state"], serde_json::json!("unavail"), "{before}");
        kill(balancer.pid(), Signal::SIGUSR2).unwrap();
        wait_until("the new process is there", || {
            pid_in(&balancer, "pid").is_some_and(|pid| pid != balancer.pid())
        });
        assert_eq!(pid_in(&balancer, "pid.oldbin"), Some(balancer.pid()));
        let new = Successor(pid_in(&balancer, "pid").unwrap());
        load.await_more(200);
        kill(balancer.pid(), Signal::SIGQUIT).unwrap();
        let new_pid = new.0.to_string();
        successor = Some(new);
        load.await_more(200);
        assert_eq!(*load.last_pid.lock().unwrap(), new_pid, "only the new process takes connections");
        echoes(&mut tunnel, "ping");
        load.await_more(200);
        let after = group_of(&balancer);
        assert!(
            sum_of(&after, "requests") >= sum_of(&before, "requests") + 400,
            "it goes on counting: {after}"
        );
        assert_eq!(after["peers"][2]["state"], before["peers"][2]["state"], "it knows who is dead");
        assert_eq!(after["peers"][2]["requests"], before["peers"][2]["requests"], "and did not try");
    });
    echoes(&mut tunnel, "last");
    drop(tunnel);
    wait_until("the old process has ended", || !balancer.path("pid.oldbin").exists());
    assert!(ask(balancer.port).unwrap().ends_with("ok"));
    drop(successor);
}

#[test]
fn an_upgrade_that_fails_leaves_everything_as_it_was() {
    let origins = [origin()];
    let balancer = balancer(&origins);
    let conf = balancer.path("nginx.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, format!("nonsense;\n{text}")).unwrap();
    kill(balancer.pid(), Signal::SIGUSR2).unwrap();
    wait_until("the failure is told", || balancer.errors().contains("new binary process"));
    wait_until("the pid file is back", || pid_in(&balancer, "pid") == Some(balancer.pid()));
    assert!(!balancer.path("pid.oldbin").exists());
    assert!(ask(balancer.port).unwrap().ends_with("ok"));
    std::fs::write(&conf, text).unwrap();
    balancer.signal_reload();
    wait_until("it still reloads", || balancer.errors().contains("reconfigured"));
}

#[test]
fn after_winch_the_old_process_rests_and_hangup_brings_it_back() {
    let origins = [origin()];
    let balancer = balancer(&origins);
    kill(balancer.pid(), Signal::SIGUSR2).unwrap();
    wait_until("the new process is there", || {
        pid_in(&balancer, "pid").is_some_and(|pid| pid != balancer.pid())
    });
    let new = Successor(pid_in(&balancer, "pid").unwrap());
    kill(balancer.pid(), Signal::SIGWINCH).unwrap();
    let answers_as =
        |pid: Pid| ask(balancer.port).is_ok_and(|answer| answer.contains(&format!("X-Pid: {pid}\r\n")));
    wait_until("the old one takes nothing", || (0..20).all(|_| answers_as(new.0)));
    kill(balancer.pid(), Signal::SIGHUP).unwrap();
    kill(new.0, Signal::SIGQUIT).unwrap();
    wait_until("the old one answers again", || (0..20).all(|_| answers_as(balancer.pid())));
    wait_until("it has its name back", || pid_in(&balancer, "pid") == Some(balancer.pid()));
}
