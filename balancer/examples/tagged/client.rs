//! Clients that ask for tagged answers, do what clients do to connections, and look at every tag that comes back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::http::{Conn, Ended, header};
use crate::origin::body_of;
use crate::random::Random;

/// Longer than any answer takes: only a hang comes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all clients have seen.
#[derive(Debug, Default)]
pub struct Tally {
    next_id: Cell<u64>,
    pub asked: Cell<u64>,
    pub outcomes: RefCell<BTreeMap<(&'static str, &'static str), u64>>,
    /// Answers that belong to another request, or to none.
    pub foreign: RefCell<Vec<String>>,
    /// What mixes nothing up and may not be all the same: no answer and no end of the connection.
    pub failed: RefCell<Vec<String>>,
    /// How often an origin has died, by the origins' own count.
    pub kills: Arc<AtomicU64>,
}

impl Tally {
    /// Answers that are not what was asked for, without the request itself being the reason.
    pub fn spoilt(&self) -> u64 {
        let outcomes = self.outcomes.borrow();
        outcomes.iter().filter(|((act, outcome), _)| !is_due(act, outcome)).map(|(_, count)| count).sum()
    }

    /// An origin that dies spoils at most one answer of each client.
    pub fn spoilt_max(&self, clients: u64) -> u64 {
        self.kills.load(Relaxed) * clients
    }

    fn id(&self) -> u64 {
        self.next_id.set(self.next_id.get() + 1);
        self.asked.set(self.asked.get() + 1);
        self.next_id.get()
    }

    fn add(&self, act: &'static str, outcome: &'static str) {
        *self.outcomes.borrow_mut().entry((act, outcome)).or_default() += 1;
    }
}

/// What an act brings about whenever all goes well.
fn is_due(act: &str, outcome: &str) -> bool {
    match act {
        "cut" | "early-close" if outcome == "cut" => true,
        "drop" | "kill" | "early-close" if outcome == "502" => true,
        "late" => outcome == "504",
        "fail" | "upgrade" => outcome == "its own answer, not 200",
        _ => matches!(outcome, "its own answer" | "left"),
    }
}

/// What a client does next, and how often.
const ACTS: &[(&str, usize)] = &[
    ("plain", 600),
    ("pieces", 40),
    ("chunked", 60),
    ("echo", 60),
    ("echo-chunked", 20),
    ("head", 20),
    ("extra", 10),
    ("fail", 10),
    ("drop", 10),
    ("cut", 10),
    ("early", 10),
    ("early-close", 10),
    ("upgrade", 10),
    ("upgrade-refused", 10),
    ("late", 2),
    ("kill", 1),
    ("gone", 10),
    ("cut-body", 10),
];

/// Asks until all clients together have asked `count` times.
pub async fn run(port: u16, seed: u64, number: u64, count: u64, tally: &Tally) {
    let mut random = Random::of_case(seed, number);
    let mut conn = None;
    while tally.asked.get() < count {
        let act = pick(&mut random);
        let open = match conn.take() {
            Some(open) => open,
            None => match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => Conn::new(stream),
                Err(cause) => {
                    tally.failed.borrow_mut().push(format!("no connection: {cause}"));
                    continue;
                }
            },
        };
        let step = perform(open, act, &mut random, tally);
        match tokio::time::timeout(PATIENCE, step).await {
            Ok(kept) => conn = kept,
            Err(_) => tally.failed.borrow_mut().push(format!("{act} hangs")),
        }
    }
}

fn pick(random: &mut Random) -> &'static str {
    let sum: usize = ACTS.iter().map(|(_, weight)| weight).sum();
    let mut at = random.below(sum);
    for (act, weight) in ACTS {
        if at < *weight {
            return act;
        }
        at -= weight;
    }
    "plain"
}

/// Gives the connection back while it can be used.
async fn perform(mut conn: Conn, act: &'static str, random: &mut Random, tally: &Tally) -> Option<Conn> {
    let len = if random.once_in(20) { random.below(30_000) } else { 20 + random.below(300) };
    match act {
        "plain" => {
            let batch: Vec<(u64, usize)> = (0..1 + random.below(8)).map(|_| (tally.id(), len)).collect();
            let text: String = batch.iter().map(|(id, len)| get(*id, "plain", *len)).collect();
            conn.send(text.as_bytes()).await.ok()?;
            for (id, len) in batch {
                let goes_on = expect(&mut conn, act, id, Some(&body_of(&id.to_string(), len)), tally).await;
                if !goes_on {
                    return None;
                }
            }
            conn.is_quiet().then_some(conn)
        }
        "echo" | "echo-chunked" => {
            let id = tally.id();
            let body = body_of(&id.to_string(), len);
            conn.send(&post(id, "echo", &body, act == "echo-chunked")).await.ok()?;
            expect(&mut conn, act, id, Some(&body), tally).await.then_some(conn)
        }
        "early" | "early-close" => {
            let id = tally.id();
            let body = body_of(&id.to_string(), 40_000);
            // An early answer ends the connection while we still send: that is no fault.
            let _ = conn.send(&post(id, act, &body, false)).await;
            expect(&mut conn, act, id, Some(&body_of(&id.to_string(), 10)), tally).await.then_some(conn)
        }
        "upgrade" | "upgrade-refused" => upgrade(conn, act, tally).await,
        "gone" => {
            conn.send(get(tally.id(), "pieces", len).as_bytes()).await.ok()?;
            tally.add(act, "left");
            None
        }
        "cut-body" => {
            let body = post(tally.id(), "echo", &body_of("x", 1000), random.once_in(2));
            conn.send(&body[..body.len() - 300]).await.ok()?;
            tally.add(act, "left");
            None
        }
        "head" => {
            let id = tally.id();
            conn.send(get(id, act, 0).replacen("GET", "HEAD", 1).as_bytes()).await.ok()?;
            let Ok(head) = conn.head().await else {
                ended(act, tally);
                return None;
            };
            tagged(&head, act, id, tally).then_some(conn)
        }
        _ => {
            let id = tally.id();
            conn.send(get(id, act, len).as_bytes()).await.ok()?;
            expect(&mut conn, act, id, Some(&body_of(&id.to_string(), len)), tally).await.then_some(conn)
        }
    }
}

fn get(id: u64, act: &str, len: usize) -> String {
    format!("GET /?id={id}&do={act}&len={len} HTTP/1.1\r\nHost: tagged\r\n\r\n")
}

fn post(id: u64, act: &str, body: &[u8], chunked: bool) -> Vec<u8> {
    let head = format!("POST /?id={id}&do={act} HTTP/1.1\r\nHost: tagged\r\n");
    let mut out = head.into_bytes();
    match chunked {
        false => {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            out.extend_from_slice(body);
        }
        true => {
            out.extend_from_slice(
                format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).as_bytes(),
            );
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n0\r\n\r\n");
        }
    }
    out
}

/// Reads one answer. True while the connection goes on.
async fn expect(conn: &mut Conn, act: &'static str, id: u64, body: Option<&[u8]>, tally: &Tally) -> bool {
    let Ok(head) = conn.head().await else { return ended(act, tally) };
    if !tagged(&head, act, id, tally) {
        return conn.body(&head).await.is_ok() && header(&head, "connection") != Some("close");
    }
    let Ok(came) = conn.body(&head).await else { return ended(act, tally) };
    let is_failure = head.starts_with("HTTP/1.1 503");
    if !is_failure && body.is_some_and(|body| body != came) {
        let text = format!("{act} {id}: a body of {} bytes that is not its own", came.len());
        tally.foreign.borrow_mut().push(text);
    }
    header(&head, "connection") != Some("close")
}

/// The connection ended inside an answer or before it: whenever an origin dies, anybody's may.
fn ended(act: &'static str, tally: &Tally) -> bool {
    tally.add(act, "cut");
    false
}

/// The answer is of an origin, and to this request. Our own pages have no tag.
fn tagged(head: &str, act: &'static str, id: u64, tally: &Tally) -> bool {
    let status = head.get(9..12).unwrap_or_default();
    let Some(tag) = header(head, "x-tag") else {
        let outcome = match status {
            "502" => "502",
            "504" => "504",
            "400" => "400",
            _ => "another page of ours",
        };
        tally.add(act, outcome);
        return false;
    };
    if tag != id.to_string() {
        tally.foreign.borrow_mut().push(format!("{act} {id}: the answer to {tag}"));
    }
    tally.add(act, if status == "200" { "its own answer" } else { "its own answer, not 200" });
    true
}

async fn upgrade(mut conn: Conn, act: &'static str, tally: &Tally) -> Option<Conn> {
    let id = tally.id();
    let what = if act == "upgrade" { "upgrade" } else { "plain" };
    let request = get(id, what, 10).replacen("Host", "Connection: upgrade\r\nUpgrade: websocket\r\nHost", 1);
    conn.send(request.as_bytes()).await.ok()?;
    if act == "upgrade-refused" {
        return expect(&mut conn, act, id, Some(&body_of(&id.to_string(), 10)), tally).await.then_some(conn);
    }
    let Ok(head) = conn.head().await else {
        ended(act, tally);
        return None;
    };
    if !tagged(&head, act, id, tally) {
        return None;
    }
    for round in 0..3 {
        let sent = format!("{round:08}");
        let echoed = match conn.send(sent.as_bytes()).await {
            Ok(()) => conn.take(20).await,
            Err(Ended) => Err(Ended),
        };
        let Ok(echoed) = echoed else {
            tally.add(act, "cut");
            return None;
        };
        if echoed != format!("{id:>12}{sent}").as_bytes() {
            tally.foreign.borrow_mut().push(format!("upgrade {id}: {}", echoed.escape_ascii()));
        }
    }
    None
}
