//! Clients of HTTP/1.1 that ask for tagged answers, do what clients do to connections, and look at every tag that comes
//! back.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::http::{Conn, Ended, header};
use crate::origin::body_of;
use crate::random::Random;
use crate::tally::Tally;
use crate::ways::{Act, CUT, LEFT, OWN, OWN_FAILURE, Spoken, Way, pick};

/// Longer than any answer takes: only a hang comes here.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked for, and where.
type What = (Way, &'static Act);

/// Asks until all clients together have asked `count` times.
pub async fn run(port: u16, seed: u64, number: u64, count: u64, tally: &Tally) {
    let mut random = Random::of_case(seed, number);
    let mut conn = None;
    while tally.asked.get() < count {
        let what = pick(Spoken::Http1, &mut random);
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
        tally.on_done();
        let step = perform(open, what, &mut random, tally);
        match tokio::time::timeout(PATIENCE, step).await {
            Ok(kept) => conn = kept,
            Err(_) => tally.failed.borrow_mut().push(format!("{}, {} hangs", what.0.name(), what.1.name)),
        }
    }
}

/// How long an answer shall be.
pub fn length(random: &mut Random) -> usize {
    if random.once_in(20) { random.below(30_000) } else { 20 + random.below(300) }
}

/// Gives the connection back while it can be used.
async fn perform(mut conn: Conn, what: What, random: &mut Random, tally: &Tally) -> Option<Conn> {
    let len = length(random);
    let (way, act) = what;
    match act.name {
        "plain" => {
            let ids: Vec<u64> = (0..1 + random.below(8)).map(|_| tally.id()).collect();
            let text: String = ids.iter().map(|id| get(way, *id, "plain", len)).collect();
            // Who cannot send hears so where the answers should come.
            let _ = conn.send(text.as_bytes()).await;
            let mut goes_on = true;
            for id in ids {
                if goes_on {
                    goes_on = expect(&mut conn, what, id, &body_of(&id.to_string(), len), tally).await;
                } else {
                    tally.add(what, CUT);
                }
            }
            (goes_on && conn.is_quiet()).then_some(conn)
        }
        "echo" | "echo-chunked" => {
            let id = tally.id();
            let body = body_of(&id.to_string(), len);
            let _ = conn.send(&post(way, id, "echo", &body, act.name == "echo-chunked")).await;
            expect(&mut conn, what, id, &body, tally).await.then_some(conn)
        }
        "early" | "early-close" => {
            let id = tally.id();
            let body = body_of(&id.to_string(), 40_000);
            // An early answer ends the connection while we still send: that is no fault.
            let _ = conn.send(&post(way, id, act.name, &body, false)).await;
            expect(&mut conn, what, id, &body_of(&id.to_string(), 10), tally).await.then_some(conn)
        }
        "upgrade" | "upgrade-refused" => upgrade(conn, what, tally).await,
        "gone" => {
            let _ = conn.send(get(way, tally.id(), "pieces", len).as_bytes()).await;
            tally.add(what, LEFT);
            None
        }
        "cut-body" => {
            let body = post(way, tally.id(), "echo", &body_of("x", 1000), random.once_in(2));
            let _ = conn.send(&body[..body.len() - 300]).await;
            tally.add(what, LEFT);
            None
        }
        "head" => {
            let id = tally.id();
            let _ = conn.send(get(way, id, act.name, 0).replacen("GET", "HEAD", 1).as_bytes()).await;
            let Ok(head) = conn.head().await else {
                tally.add(what, CUT);
                return None;
            };
            let outcome = tagged(&head, what, id, tally);
            tally.add(what, outcome);
            (outcome == OWN).then_some(conn)
        }
        _ => {
            let id = tally.id();
            let _ = conn.send(get(way, id, act.name, len).as_bytes()).await;
            expect(&mut conn, what, id, &body_of(&id.to_string(), len), tally).await.then_some(conn)
        }
    }
}

fn get(way: Way, id: u64, act: &str, len: usize) -> String {
    format!("GET {}?id={id}&do={act}&len={len} HTTP/1.1\r\nHost: tagged\r\n\r\n", way.location())
}

fn post(way: Way, id: u64, act: &str, body: &[u8], chunked: bool) -> Vec<u8> {
    let head = format!("POST {}?id={id}&do={act} HTTP/1.1\r\nHost: tagged\r\n", way.location());
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
async fn expect(conn: &mut Conn, what: What, id: u64, body: &[u8], tally: &Tally) -> bool {
    // The connection may end inside an answer or before it: whenever an origin dies, anybody's may.
    let Ok(head) = conn.head().await else {
        tally.add(what, CUT);
        return false;
    };
    let outcome = tagged(&head, what, id, tally);
    let Ok(came) = conn.body(&head).await else {
        tally.add(what, CUT);
        return false;
    };
    if outcome == OWN && body != came {
        tally.on_foreign(what, id, &format!("a body of {} bytes that is not its own", came.len()));
    }
    tally.add(what, outcome);
    header(&head, "connection") != Some("close")
}

/// What the head says: the answer is of an origin, and to this request. Our own pages have no tag.
fn tagged(head: &str, what: What, id: u64, tally: &Tally) -> &'static str {
    let status = head.get(9..12).unwrap_or_default();
    judge(status, header(head, "x-tag"), what, id, tally)
}

pub fn judge(status: &str, tag: Option<&str>, what: What, id: u64, tally: &Tally) -> &'static str {
    match (tag, status) {
        (Some(tag), _) if tag != id.to_string() => {
            tally.on_foreign(what, id, &format!("the answer to {tag}"));
            OWN_FAILURE
        }
        (Some(_), "200" | "101") => OWN,
        (Some(_), _) => OWN_FAILURE,
        (None, "502") => "502",
        (None, "504") => "504",
        (None, "400") => "400",
        (None, _) => "another page of ours",
    }
}

async fn upgrade(mut conn: Conn, what: What, tally: &Tally) -> Option<Conn> {
    let id = tally.id();
    let (way, act) = what;
    let is_refused = act.name == "upgrade-refused";
    let asked = if is_refused { "plain" } else { "upgrade" };
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\nHost";
    let _ = conn.send(get(way, id, asked, 10).replacen("Host", upgrade, 1).as_bytes()).await;
    if is_refused {
        return expect(&mut conn, what, id, &body_of(&id.to_string(), 10), tally).await.then_some(conn);
    }
    let outcome = match conn.head().await {
        Ok(head) => tagged(&head, what, id, tally),
        Err(Ended) => CUT,
    };
    for round in 0..3 {
        if outcome != OWN {
            break;
        }
        let sent = format!("{round:08}");
        let echoed = match conn.send(sent.as_bytes()).await {
            Ok(()) => conn.take(20).await,
            Err(Ended) => Err(Ended),
        };
        let Ok(echoed) = echoed else {
            tally.add(what, CUT);
            return None;
        };
        if echoed != format!("{id:>12}{sent}").as_bytes() {
            tally.on_foreign(what, id, &echoed.escape_ascii().to_string());
        }
    }
    tally.add(what, outcome);
    None
}
