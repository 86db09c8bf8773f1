//! Clients of HTTP/2 that give up one stream: its request ends at the origin, and the others go on.

use std::sync::{Arc, Condvar, Mutex, mpsc};

use crate::OK;
use crate::common::{Balancer, Origin, PATIENCE, Served};
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, block};

const CANCEL: [u8; 4] = 8u32.to_be_bytes();

/// What an origin tells of its requests, by their paths.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Asked(String),
    /// The connection ended, and so much had come behind the head.
    Ended(String, usize),
}

/// Answers `/kept` when it is released; says nothing to `/silent` and half an answer to `/begun`, and waits for the end of
/// their connections.
struct Held {
    origin: Origin,
    told: mpsc::Receiver<Told>,
    is_released: Arc<(Mutex<bool>, Condvar)>,
}

impl Held {
    fn new() -> Held {
        let (tell, told) = mpsc::channel();
        let tell = Mutex::new(tell);
        let is_released = Arc::<(Mutex<bool>, Condvar)>::default();
        let released = is_released.clone();
        let origin = Origin::scripted(move |served| serve(served, &tell, &released));
        Held { origin, told, is_released }
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    fn release(&self) {
        *self.is_released.0.lock().unwrap() = true;
        self.is_released.1.notify_all();
    }
}

fn serve(served: &mut Served, tell: &Mutex<mpsc::Sender<Told>>, released: &(Mutex<bool>, Condvar)) {
    let Some(head) = served.read_head() else { return };
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let say = |told| tell.lock().unwrap().send(told).unwrap();
    say(Told::Asked(path.clone()));
    if path == "/kept" {
        let (lock, wakes) = released;
        let waited = wakes.wait_timeout_while(lock.lock().unwrap(), PATIENCE, |released| !*released);
        drop(waited.unwrap());
        return served.send(OK);
    }
    if path == "/begun" {
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    }
    let behind = served.read_to_end().len();
    say(Told::Ended(path, behind));
}

fn ask(client: &mut Frames, stream: u32, method: &str, path: &str) {
    let end = if method == "POST" { 0 } else { END_STREAM };
    let head = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
    assert!(client.send(HEADERS, END_HEADERS | end, stream, &block(&head)));
}

fn asked(path: &str) -> Told {
    Told::Asked(path.to_owned())
}

fn begin(held: &Held) -> (Balancer, Frames) {
    let balancer = crate::heads::before(&held.origin, "proxy_request_buffering off;");
    let mut client = Frames::connect(balancer.port);
    ask(&mut client, 1, "GET", "/kept");
    assert_eq!(held.next(), asked("/kept"));
    (balancer, client)
}

/// The stream that was under way all the time ends well, and a new one is served; no other was reset by us.
fn assert_goes_on(held: &Held, client: &mut Frames, stream: u32) {
    held.release();
    ask(client, stream, "GET", "/kept");
    let mut whole = Vec::new();
    while whole.len() < 2 {
        let frame = client.next().expect("the connection goes on");
        assert!(frame.kind != RST_STREAM, "{frame:?}");
        if frame.ends_stream() {
            whole.push(frame.stream);
        }
    }
    whole.sort_unstable();
    assert_eq!(whole, [1, stream]);
}

#[test]
fn a_stream_given_up_before_its_answer_ends_its_request_and_no_other() {
    let held = Held::new();
    let (_balancer, mut client) = begin(&held);
    ask(&mut client, 3, "GET", "/silent");
    assert_eq!(held.next(), asked("/silent"));
    client.send(RST_STREAM, 0, 3, &CANCEL);
    assert_eq!(held.next(), Told::Ended("/silent".into(), 0));
    assert_goes_on(&held, &mut client, 5);
}

#[test]
fn a_stream_given_up_in_its_answer_ends_its_request_and_no_other() {
    let held = Held::new();
    let (_balancer, mut client) = begin(&held);
    ask(&mut client, 3, "GET", "/begun");
    assert_eq!(held.next(), asked("/begun"));
    assert_eq!(client.first(DATA).unwrap().payload, b"abc");
    client.send(RST_STREAM, 0, 3, &CANCEL);
    assert_eq!(held.next(), Told::Ended("/begun".into(), 0));
    assert_goes_on(&held, &mut client, 5);
}

#[test]
fn a_stream_given_up_in_its_body_ends_its_request_and_no_other() {
    let held = Held::new();
    let (_balancer, mut client) = begin(&held);
    ask(&mut client, 3, "POST", "/silent");
    client.send(DATA, 0, 3, b"abc");
    assert_eq!(held.next(), asked("/silent"));
    client.send(RST_STREAM, 0, 3, &CANCEL);
    let Told::Ended(path, behind) = held.next() else { panic!("its connection goes on") };
    // Never its last chunk: that would be a whole body.
    assert!(path == "/silent" && behind <= b"3\r\nabc\r\n".len(), "{behind} bytes of {path}");
    assert_goes_on(&held, &mut client, 5);
}

#[test]
fn a_connection_that_ends_takes_all_its_requests_with_it() {
    let held = Held::new();
    let balancer = crate::heads::before(&held.origin, "");
    let mut client = Frames::connect(balancer.port);
    for stream in [1, 3, 5] {
        ask(&mut client, stream, "GET", "/silent");
        assert_eq!(held.next(), asked("/silent"));
    }
    drop(client);
    for _ in 0..3 {
        assert_eq!(held.next(), Told::Ended("/silent".into(), 0));
    }
}
