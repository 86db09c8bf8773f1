//! The same requests through a real nginx and through us, before the same origins: the same servers chosen, one by one,
//! for round robin, least_conn, ip_hash, hash and consistent hash, over random weights, down, dead and full servers. One
//! worker each, and no failure window that ends meanwhile.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod nginx;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};

use common::{Balancer, Client, Origin, PATIENCE, wait_until};
use nginx::Nginx;

const GROUPS_PER_METHOD: usize = 12;
/// `PICKS` in the environment says another number, for a long run.
const PICKS: usize = 4800;
const METHODS: [&str; 5] = ["", "least_conn;", "ip_hash;", "hash $arg_key;", "hash $arg_key consistent;"];
/// So many of them, the first, take backups; nginx refuses them with the others.
const METHODS_WITH_BACKUPS: usize = 2;

/// xorshift64: the same worlds in every run, so that what fails once fails again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

/// Requests that are held at their origin, by the id in their path.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    /// Which port each came to.
    arrived: HashMap<String, u16>,
    released: HashSet<String>,
}

impl Gate {
    fn hold(&self, id: &str, port: u16) {
        let mut state = self.state.lock().unwrap();
        state.arrived.insert(id.to_owned(), port);
        self.changed.notify_all();
        let held = self.changed.wait_timeout_while(state, PATIENCE, |state| !state.released.contains(id));
        drop(held.unwrap());
    }

    fn release(&self, id: &str) {
        self.state.lock().unwrap().released.insert(id.to_owned());
        self.changed.notify_all();
    }

    fn has(&self, id: &str) -> bool {
        self.state.lock().unwrap().arrived.contains_key(id)
    }

    fn port_of(&self, id: &str) -> u16 {
        self.state.lock().unwrap().arrived[id]
    }
}

fn origin(gate: &Arc<Gate>) -> Origin {
    let gate = gate.clone();
    Origin::scripted(move |served| {
        let port = served.stream.local_addr().unwrap().port();
        while let Some(head) = served.read_request() {
            let path = head.split(' ').nth(1).unwrap();
            if let Some((_, id)) = path.split_once("hold=") {
                gate.hold(id, port);
            }
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    })
}

/// Groups of random servers, a location for each.
fn http_block(dice: &mut Dice, live: &[u16], dead: &[u16]) -> String {
    let mut groups = String::new();
    let mut locations = String::new();
    for (kind, method) in METHODS.iter().enumerate() {
        for group in 0..GROUPS_PER_METHOD {
            let name = format!("u{kind}_{group}");
            let _ = writeln!(groups, "upstream {name} {{ {method}");
            let mut ports: Vec<u16> = live.iter().chain(dead).copied().collect();
            for place in 0..2 + dice.below(5) {
                let port = ports.swap_remove(dice.below(ports.len()));
                let _ =
                    write!(groups, " server 127.0.0.1:{port} weight={} fail_timeout=1h", 1 + dice.below(6));
                let _ = write!(groups, " max_fails={}", dice.below(3));
                if place > 1 && dice.one_in(4) {
                    groups.push_str(" down");
                } else if place > 1 && kind < METHODS_WITH_BACKUPS && dice.one_in(5) {
                    groups.push_str(" backup");
                }
                if dice.one_in(4) {
                    let _ = write!(groups, " max_conns={}", 1 + dice.below(2));
                }
                groups.push_str(";\n");
            }
            // Without kept connections a long run would use up the machine's ports.
            groups.push_str(" keepalive 32; keepalive_requests 1000000; }\n");
            let _ = writeln!(locations, "location /{name}/ {{ proxy_pass http://{name}; }}");
        }
    }
    format!(
        "{groups} server {{ listen 127.0.0.1:PORT; keepalive_requests 1000000; set_real_ip_from 127.0.0.1;\n\
         real_ip_header X-Real-IP; proxy_http_version 1.1; proxy_set_header Connection \"\"; add_header X-Upstream $upstream_addr always; {locations} }}"
    )
}

/// One proxy with a connection for plain requests and those that are held.
struct Side {
    name: &'static str,
    port: u16,
    client: Client,
    held: Vec<(String, Client)>,
}

impl Side {
    fn new(name: &'static str, port: u16) -> Side {
        Side { name, port, client: Client::connect(port), held: Vec::new() }
    }

    /// Who answered, after whom.
    fn ask(&mut self, path: &str, ip: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Real-IP: {ip}\r\n\r\n");
        let response = self.client.send(&request).response();
        format!("{} from {}", response.status, response.header("x-upstream").unwrap_or("nobody"))
    }

    /// Sends a request that stays at its origin; `None` when it was answered at once.
    fn hold(&mut self, gate: &Gate, path: &str, ip: &str, number: usize) -> Option<u16> {
        let id = format!("{}-{number}", self.name);
        let mut client = Client::connect(self.port);
        client.send(&format!("GET {path}&hold={id} HTTP/1.1\r\nHost: a\r\nX-Real-IP: {ip}\r\n\r\n"));
        client.stream.set_nonblocking(true).unwrap();
        wait_until("it is held or refused", || gate.has(&id) || client.stream.peek(&mut [0]).is_ok());
        client.stream.set_nonblocking(false).unwrap();
        if !gate.has(&id) {
            return None;
        }
        let port = gate.port_of(&id);
        self.held.push((id, client));
        Some(port)
    }

    fn release(&mut self, gate: &Gate, at: usize) {
        let (id, mut client) = self.held.swap_remove(at);
        gate.release(&id);
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn we_choose_the_servers_that_nginx_chooses() {
    let gate = Arc::new(Gate::default());
    let origins: Vec<Origin> = (0..6).map(|_| origin(&gate)).collect();
    let live: Vec<u16> = origins.iter().map(|origin| origin.port).collect();
    // Bound and not listening: nobody else gets these ports, and nobody answers there.
    let refusing: Vec<socket2::Socket> = (0..2).map(|_| bound()).collect();
    let dead: Vec<u16> = refusing.iter().map(port_of).collect();
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let http = http_block(&mut dice, &live, &dead);
    let nginx = Nginx::start(&http);
    let balancer = Balancer::start(&http);
    let mut sides = [Side::new("nginx", nginx.port), Side::new("us", balancer.port)];
    let wanted = picks_wanted();
    let (mut picks, mut step) = (0, 0);
    for kind in 0..METHODS.len() {
        for group in 0..GROUPS_PER_METHOD {
            let end = picks + wanted.div_ceil(METHODS.len() * GROUPS_PER_METHOD);
            while picks < end {
                step += 1;
                let ip = format!("10.{}.{}.7", dice.below(8), dice.below(8));
                let path = format!("/u{kind}_{group}/?key={}", dice.below(40));
                let context = || format!("step {step} in group u{kind}_{group} of\n{http}");
                match dice.below(10) {
                    0 | 1 => {
                        let ports = sides.each_mut().map(|side| side.hold(&gate, &path, &ip, step));
                        assert_eq!(ports[0], ports[1], "held at {}", context());
                    }
                    2 | 3 if !sides[0].held.is_empty() => {
                        let at = dice.below(sides[0].held.len());
                        sides.iter_mut().for_each(|side| side.release(&gate, at));
                        continue;
                    }
                    _ => {
                        let answers = sides.each_mut().map(|side| side.ask(&path, &ip));
                        assert_eq!(answers[0], answers[1], "{}", context());
                    }
                }
                picks += 1;
            }
            while !sides[0].held.is_empty() {
                sides.iter_mut().for_each(|side| side.release(&gate, 0));
            }
        }
    }
    println!("{picks} picks, {step} steps: the same");
}

#[test]
fn backups_are_refused_with_the_methods_with_which_nginx_refuses_them() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for (kind, method) in METHODS.iter().enumerate() {
        let text = format!(
            "pid {0}/pid; error_log {0}/log; events {{ }} http {{ access_log off; upstream u {{ {method}\n\
             server 127.0.0.1:1; server 127.0.0.1:2 backup; }} }}",
            dir.display()
        );
        std::fs::write(dir.join("nginx.conf"), text).unwrap();
        let takes = |program: &str| {
            let mut command = Command::new(program);
            command.args(["-t", "-c", "nginx.conf", "-e", "early.log", "-p"]).arg(dir);
            let told = command.output().expect("both programs are here");
            (told.status.success(), String::from_utf8_lossy(&told.stderr).contains("parameter \"backup\""))
        };
        let expected = (kind < METHODS_WITH_BACKUPS, kind >= METHODS_WITH_BACKUPS);
        assert_eq!(takes("nginx"), expected, "nginx: {method}");
        assert_eq!(takes(env!("CARGO_BIN_EXE_balancer")), expected, "{method}");
    }
}

#[allow(clippy::disallowed_methods, reason = "a test has no other door for a number")]
fn picks_wanted() -> usize {
    std::env::var("PICKS").map_or(PICKS, |picks| picks.parse().unwrap())
}

fn bound() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

fn port_of(socket: &socket2::Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}
