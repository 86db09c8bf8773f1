//! No descriptors left: who is there is served, who comes waits. And nothing turns in circles over input that is not whole.

use std::time::{Duration, Instant};

use crate::OK;
use crate::common::{Balancer, Client, Origin, wait_until};
use crate::frames::Frames;
use crate::keys::Keys;

/// worker/doors.rs waits so long after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
const FAILURES: u32 = 3;

fn start(limit: &str, origin: &Origin) -> Balancer {
    let http = format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ return 200 here; }}\n\
         location /origin {{ proxy_pass http://127.0.0.1:{}; }} }}",
        origin.port
    );
    Balancer::start_with(&format!("worker_processes 1; {limit}"), &http)
}

/// Descriptors that a balancer has open while it serves one client.
fn needed(origin: &Origin) -> usize {
    let balancer = start("", origin);
    let mut client = balancer.client();
    assert_eq!(client.get("/").body, "here");
    std::fs::read_dir(format!("/proc/{}/fd", balancer.pid())).unwrap().count()
}

#[test]
fn without_descriptors_the_busy_are_served_and_those_who_come_wait_until_some_are_free() {
    const ROOM: usize = 8;
    let origin = Origin::answering(OK);
    let balancer = start(&format!("worker_rlimit_nofile {};", needed(&origin) + ROOM), &origin);
    let mut kept = balancer.client();
    assert_eq!(kept.get("/").body, "here");
    let began = Instant::now();
    // Who has begun to ask makes room for nobody.
    kept.send("GET / HTTP/1.1\r\n");
    let begin = |_| {
        let mut client = balancer.client();
        client.send("GET / HTTP/1.1\r\n");
        client
    };
    let crowd: Vec<Client> = (0..ROOM * 3).map(begin).collect();
    let mut late = balancer.client();
    late.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let failures = || balancer.errors().matches("accept4() failed").count();
    wait_until("there is no descriptor left", || failures() >= FAILURES as usize);
    // Never sooner, however slow the machine is: whoever tried again at once has failed as often within a millisecond.
    assert!(began.elapsed() >= ACCEPT_PAUSE * (FAILURES - 1), "accept turns in circles");
    assert_eq!(kept.send("Host: a\r\n\r\n").response().body, "here", "who was there is served");
    kept.send("GET /origin HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(kept.response().status, 500, "an upstream takes a descriptor too: nginx's status");
    drop(crowd);
    assert_eq!(late.response().body, "here", "who waited is served");
    assert_eq!(balancer.client().get("/origin").body, "ok");
}

/// What a process has used of its processors, by the clock that ticks a hundred times in a second.
fn used(balancer: &Balancer) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", balancer.pid())).unwrap();
    // Behind the program's name: the state is the third field, utime and stime are the 14th and the 15th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn input_that_is_not_whole_is_waited_for_and_burns_nothing() {
    const WAIT: Duration = Duration::from_secs(1);
    let keys = Keys::new();
    keys.own("one.test", "ec");
    let origin = Origin::scripted(|served| {
        served.read_request();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n00000000");
        served.read_to_end();
    });
    let tls = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let balancer = Balancer::start(&format!(
        "client_header_timeout 1s; client_body_timeout 1s; proxy_read_timeout 1s; lingering_time 0;\n\
         server {{ listen 127.0.0.1:PORT; http2 on; listen 127.0.0.1:{tls} ssl; {}\n\
         location / {{ proxy_pass http://127.0.0.1:{}; proxy_request_buffering on; }} }}",
        keys.shown("one.test"),
        origin.port
    ));
    let (before, began) = (used(&balancer), Instant::now());
    let mut clients: Vec<Client> = (0..5).map(|_| balancer.client()).collect();
    let post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    clients[0].send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    clients[1].send(&format!("{post}3;{}", "a".repeat(3000)));
    clients[2].send(&format!("{post}3\r\nabc\r\n0\r\nX: 1\r"));
    clients[3].send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    clients[4].send("PRI * HTTP/2.0\r\n\r\nSM\r");
    clients.push(Client::connect(tls));
    clients[5].send("\x16\x03\x01\x02");
    let mut pinging = Frames::connect(balancer.port);
    std::io::Write::write_all(&mut pinging.stream, b"\0\0\x08\x06\0\0\0\0\0abc").unwrap();
    for client in &mut clients {
        client.rest();
    }
    assert_eq!(pinging.goodbye(), Some(0));
    // They were waited for, which is what the test is about; and all that while one who burns would have burnt.
    let (lasted, burnt) = (began.elapsed(), used(&balancer) - before);
    assert!(lasted >= WAIT, "{lasted:?}: who was to be waited for was sent away");
    assert!(burnt < lasted / 3, "{burnt:?} of {lasted:?}");
}
