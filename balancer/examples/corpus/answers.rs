//! Generated answers of an origin: valid ones in every form, and hostile ones. After a hostile answer comes a poison,
//! an answer to a request that nobody sent: no client may ever see it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

use crate::client::{Conn, NoAnswer, id_in};
use crate::drive::{CANARY, Plan, Tally};
use crate::random::Random;

const POISON_ID: u64 = 666;
const POISON: &[u8] = b"HTTP/1.1 200 OK\r\nX-Echo: id=666\r\nContent-Length: 6\r\n\r\npoison";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Whole,
    /// Never whole: 502, or an answer that is visibly cut.
    Broken,
    Either,
}

struct Case {
    kind: &'static str,
    expect: Expect,
    bytes: Vec<u8>,
    /// What the client must get, when it gets a whole answer.
    body: Vec<u8>,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Waits,
    Closes,
    Poisons,
}

const LENGTH_LINES: &[&str] = &[
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 0",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length: -5",
    "Content-Length: 5 5",
    "Content-Length: 0x5",
    "Content-Length:",
    "Content-Length: 18446744073709551621",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked;x",
];
const BAD_LINES: &[&str] = &[
    "X : a",
    " X: a",
    "X: a\r\n b",
    ": a",
    "no colon",
    "X: a\0b",
    "X: a\rb",
    "X\0: a",
    "Content-Length : 5",
];
const BAD_STATUS: &[&str] = &[
    "HTTP/2.0 200 OK",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 099 No",
    "HTTP/1.1  200 OK",
    "http/1.1 200 OK",
    "ICY 200 OK",
    "HTTP/1.1 200 O\0K",
    "HTTP/1.1 101 Switching Protocols",
    " HTTP/1.1 200 OK",
    "HTTP/1.1 OK",
    "GET / HTTP/1.1",
];
const BAD_CHUNKS: &[&str] = &[
    "5\r\nhello\r\n-0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhelloX0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "g\r\nhello\r\n0\r\n\r\n",
    "10000000000000000\r\nhello",
    "5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
    "5\r\nhello\r\n0\r\n: 1\r\n\r\n",
    "5;a\n\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
];

fn case(seed: u64, number: u64) -> Case {
    let mut random = Random::of_case(seed, number);
    let len = if random.once_in(5) { random.below(40000) } else { random.below(200) };
    let body = random.text(len, b"abc \r\nHTTP/1.1 200");
    let head = format!(
        "{}\r\nX-Echo: id={number}\r\n",
        random.pick(&["HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.0 200 ok \u{e9}"])
    );
    let made = |kind, expect, lines: &str, tail: &[u8], body: Vec<u8>, then| {
        let mut bytes = format!("{head}{lines}\r\n").into_bytes();
        bytes.extend_from_slice(tail);
        Case { kind, expect, bytes, body, then }
    };
    let length = format!("Content-Length: {}\r\n", body.len());
    match random.below(14) {
        0 => made("content-length", Expect::Whole, &length, &body, body.clone(), Then::Waits),
        1 => made("until close", Expect::Whole, "Connection: close\r\n", &body, body.clone(), Then::Closes),
        2 | 3 => chunked(&mut random, number, body),
        4 => {
            let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
            let mut case =
                made("interim answers before", Expect::Whole, &length, &body, body.clone(), Then::Waits);
            case.bytes.splice(0..0, interim.bytes());
            case
        }
        5 => {
            let mut tail = body.clone();
            tail.extend_from_slice(POISON);
            made("unasked bytes after it", Expect::Whole, &length, &tail, body, Then::Waits)
        }
        6..13 => broken(&mut random, &head, &body),
        _ => {
            mutated(&mut random, made("mutated", Expect::Either, &length, &body, body.clone(), Then::Closes))
        }
    }
}

/// Answers that may not look whole. `head` is a status line with the id.
fn broken(random: &mut Random, head: &str, body: &[u8]) -> Case {
    let made = |kind, text: String, tail: &[u8], then| {
        let bytes = [text.as_bytes(), b"\r\n", tail].concat();
        Case { kind, expect: Expect::Broken, bytes, body: Vec::new(), then }
    };
    let line = |line: &str| format!("{head}{line}\r\n");
    match random.below(7) {
        0 => made("cut content-length", line("Content-Length: 50000"), body, Then::Closes),
        1 => made("bad framing", line(random.pick(LENGTH_LINES)), b"hello", Then::Poisons),
        2 => made("bad header line", line(random.pick(BAD_LINES)), b"", Then::Poisons),
        3 => {
            let rest = head.split_once("\r\n").map_or("", |(_, rest)| rest);
            let text = format!("{}\r\n{rest}Content-Length: 0\r\n", random.pick(BAD_STATUS));
            made("bad status line", text, b"", Then::Poisons)
        }
        4 => {
            let chunks = random.pick(BAD_CHUNKS).as_bytes();
            made("bad chunks", line("Transfer-Encoding: chunked"), chunks, Then::Poisons)
        }
        5 => made("cut chunks", line("Transfer-Encoding: chunked"), b"ff\r\nhello", Then::Closes),
        _ => Case {
            kind: "no answer",
            expect: Expect::Broken,
            bytes: Vec::new(),
            body: Vec::new(),
            then: Then::Closes,
        },
    }
}

fn chunked(random: &mut Random, number: u64, body: Vec<u8>) -> Case {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nX-Echo: id={number}\r\nTransfer-Encoding: {}\r\n\r\n",
        random.pick(&["chunked", "Chunked"])
    )
    .into_bytes();
    let mut at = 0;
    while at < body.len() {
        let len = (1 + random.below(5000)).min(body.len() - at);
        let line = format!(
            "{}{len:x}{}\r\n",
            random.pick(&["", "0", "000"]),
            random.pick(&["", ";a=b", " ;a", ";a=\"b\""])
        );
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(&body[at..at + len]);
        bytes.extend_from_slice(b"\r\n");
        at += len;
    }
    bytes.extend_from_slice(
        random
            .pick(&["0\r\n\r\n", "000\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n", "0;a\r\nX-A:\tb \r\n\r\n"])
            .as_bytes(),
    );
    Case { kind: "chunked", expect: Expect::Whole, bytes, body, then: Then::Waits }
}

fn mutated(random: &mut Random, mut case: Case) -> Case {
    let head_len = memchr::memmem::find(&case.bytes, b"\r\n\r\n").unwrap_or(case.bytes.len());
    let at = random.below(head_len);
    let byte = b"\r\n\0 \t:;,\x0b\x7f\xff9A"[random.below(13)];
    match random.once_in(2) {
        true => case.bytes[at] = byte,
        false => case.bytes.insert(at, byte),
    }
    case
}

/// An origin that gives the case whose number the request names. Returns its port.
pub fn scripted_origin(seed: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, seed));
        }
    });
    port
}

fn serve(mut stream: TcpStream, seed: u64) {
    let _ = stream.set_nodelay(true);
    let mut held = Vec::new();
    let mut space = [0; 4096];
    loop {
        while let Some(at) = memchr::memmem::find(&held, b"\r\n\r\n") {
            let head: Vec<u8> = held.drain(..at + 4).collect();
            let head = String::from_utf8_lossy(&head);
            let number = id_in(&head).unwrap_or(0);
            let goes_on = match head.starts_with("GET /canary") {
                true => {
                    let canary =
                        format!("HTTP/1.1 200 OK\r\nX-Echo: id={number}\r\nContent-Length: 2\r\n\r\nok");
                    stream.write_all(canary.as_bytes()).is_ok()
                }
                false => give(&mut stream, &case(seed, number), number),
            };
            if !goes_on {
                return;
            }
        }
        match stream.read(&mut space) {
            Ok(len) if len > 0 => held.extend_from_slice(&space[..len]),
            _ => return,
        }
    }
}

fn give(stream: &mut TcpStream, case: &Case, number: u64) -> bool {
    let cut = if number.is_multiple_of(3) { case.bytes.len() / 2 } else { 0 };
    let (first, second) = case.bytes.split_at(cut);
    let given = stream.write_all(first).and_then(|()| stream.write_all(second)).is_ok();
    match case.then {
        Then::Waits => given,
        Then::Closes => false,
        Then::Poisons => stream.write_all(POISON).is_ok(),
    }
}

/// Asks for each case, and for a canary behind it.
pub fn run(port: u16, plan: Plan) -> Tally {
    let whole = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for thread in 0..plan.threads {
            let whole = &whole;
            scope.spawn(move || {
                let mut tally = Tally::default();
                let mut conn = None;
                for number in (plan.first + thread..plan.first + plan.count).step_by(plan.threads as usize) {
                    one(&mut conn, port, (plan.seed, number), &mut tally);
                }
                whole.lock().expect("nobody panics with the lock").merge(tally);
            });
        }
    });
    whole.into_inner().expect("nobody panics with the lock")
}

fn one(conn: &mut Option<Conn>, port: u16, (seed, number): (u64, u64), tally: &mut Tally) {
    let case = case(seed, number);
    let mut open = match conn.take().map_or_else(|| Conn::open(port), Ok) {
        Ok(open) => open,
        Err(cause) => return tally.fault(format!("answer {number}: no connection: {cause}")),
    };
    let canary = number + CANARY;
    let text = format!(
        "GET /a?id={number} HTTP/1.1\r\nHost: a\r\n\r\nGET /canary?id={canary} HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    open.send(text.as_bytes(), text.len());
    match judge(&case, number, &mut open) {
        Ok((outcome, goes_on)) => {
            tally.add(case.kind, outcome);
            if !goes_on {
                return;
            }
        }
        Err(fault) => {
            let text = case.bytes[..case.bytes.len().min(400)].escape_ascii();
            return tally.fault(format!(
                "answer {number} ({}), expected {:?}: {fault}\n    {text}",
                case.kind, case.expect
            ));
        }
    }
    match open.answer(false) {
        Ok(second) if second.status == 200 && second.echo == Some(canary) && open.is_quiet() => {
            *conn = Some(open);
        }
        // What was left of a changed answer may come when the canary has been sent: no answer, and no mix-up.
        Ok(second) if case.expect == Expect::Either && second.status == 502 => {}
        Ok(second) => tally.fault(format!("answer {number} ({}): not the canary's: {second:?}", case.kind)),
        Err(none) => tally.fault(format!("answer {number} ({}): for the canary {none:?}", case.kind)),
    }
}

/// What became of it, and whether the connection goes on.
fn judge(case: &Case, number: u64, conn: &mut Conn) -> Result<(String, bool), String> {
    match conn.answer(false) {
        Ok(answer) if answer.echo == Some(POISON_ID) || answer.body.ends_with(b"poison") => {
            Err("poison".into())
        }
        Ok(answer) if answer.closes => Err(format!("{} and the connection ends for nothing", answer.status)),
        Ok(answer) if answer.status == 502 && answer.echo.is_none() => match case.expect {
            Expect::Whole => Err("refused with 502".into()),
            _ => Ok(("502".into(), true)),
        },
        Ok(answer) if case.expect == Expect::Broken => Err(format!("a whole answer: {answer:?}")),
        Ok(answer)
            if case.expect == Expect::Whole && (answer.echo != Some(number) || answer.body != case.body) =>
        {
            Err(format!("not what the origin sent: {} {} bytes", answer.status, answer.body.len()))
        }
        Ok(_) => Ok(("whole".into(), true)),
        Err(NoAnswer::Cut | NoAnswer::Ended) if case.expect != Expect::Whole => {
            Ok(("visibly cut".into(), false))
        }
        Err(none) => Err(format!("{none:?}")),
    }
}
