//! Choices that a comparison with nginx cannot show, because they go by chance, by time, or by our own rule.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{Balancer, Client, Origin, PATIENCE, wait_until};

/// Origins that say which they are; a path with `held` waits for its leave.
#[derive(Default)]
struct Gate {
    /// Where requests are or were held, in their order, and whether they may go.
    held: Mutex<(Vec<u16>, bool)>,
    opened: Condvar,
}

impl Gate {
    fn origin(self: &Arc<Gate>) -> Origin {
        let gate = self.clone();
        Origin::scripted(move |served| {
            let port = served.stream.local_addr().unwrap().port();
            while let Some(head) = served.read_request() {
                if head.contains("held") {
                    let mut held = gate.held.lock().unwrap();
                    held.0.push(port);
                    drop(gate.opened.wait_timeout_while(held, PATIENCE, |held| !held.1).unwrap());
                }
                served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{port:05}"));
            }
        })
    }

    fn open(&self) {
        self.held.lock().unwrap().1 = true;
        self.opened.notify_all();
    }

    fn places(&self) -> Vec<u16> {
        self.held.lock().unwrap().0.clone()
    }

    /// A request that stays at its origin, and which that is.
    fn hold(&self, balancer: &Balancer) -> (Client, u16) {
        let mut client = balancer.client();
        let before = self.places().len();
        client.send("GET /held?key=a HTTP/1.1\r\nHost: a\r\n\r\n");
        wait_until("it is held", || self.places().len() > before);
        (client, self.places()[before])
    }
}

/// So many origins behind one group.
fn world(gate: &Arc<Gate>, many: usize, group: &str) -> (Vec<Origin>, Balancer) {
    let origins: Vec<Origin> = (0..many).map(|_| gate.origin()).collect();
    let servers: String = origins.iter().map(|origin| format!("server 127.0.0.1:{};", origin.port)).collect();
    let balancer = Balancer::start(&format!(
        "upstream group {{ {group} {servers} }}\n\
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://group; }} }}"
    ));
    (origins, balancer)
}

/// Who answers so many requests, one after the other.
fn answering(balancer: &Balancer, many: usize) -> Vec<u16> {
    let mut client = balancer.client();
    (0..many).map(|_| client.get("/?key=a").body.parse().unwrap()).collect()
}

#[test]
fn random_two_takes_the_one_that_has_less_to_do_and_random_any() {
    let gate = Arc::new(Gate::default());
    let (_origins, balancer) = world(&gate, 2, "random two least_conn;");
    let (mut client, busy) = gate.hold(&balancer);
    assert!(!answering(&balancer, 20).contains(&busy));
    gate.open();
    assert_eq!(client.response().status, 200);

    let gate = Arc::new(Gate::default());
    let (_origins, balancer) = world(&gate, 2, "random;");
    let (_client, busy) = gate.hold(&balancer);
    let answered = answering(&balancer, 100);
    assert!(answered.contains(&busy) && answered.iter().any(|port| *port != busy));
    assert!(answered.windows(2).any(|pair| pair[0] == pair[1]), "they take turns: {answered:?}");
    gate.open();
}

#[test]
fn least_time_leaves_out_the_server_that_took_long() {
    let gate = Arc::new(Gate::default());
    let (_origins, balancer) = world(&gate, 2, "least_time header;");
    let (mut client, slow) = gate.hold(&balancer);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        answering(&balancer, 1);
    }
    gate.open();
    assert_eq!(client.response().status, 200);
    assert!(!answering(&balancer, 20).contains(&slow));
}

#[test]
fn a_key_goes_elsewhere_where_its_server_has_more_than_its_share() {
    for (group, is_bounded) in
        [("hash $arg_key consistent; hash_balance_factor 120;", true), ("hash $arg_key consistent;", false)]
    {
        let gate = Arc::new(Gate::default());
        let (_origins, balancer) = world(&gate, 3, group);
        let own = answering(&balancer, 1)[0];
        let held = [gate.hold(&balancer), gate.hold(&balancer)];
        assert_eq!(held[0].1, own);
        assert_eq!(held[1].1 != own, is_bounded, "{group}");
        gate.open();
        held.into_iter().for_each(|(mut client, _)| assert_eq!(client.response().status, 200));
        assert_eq!(answering(&balancer, 3), [own; 3]);
    }
}
