//! The same clients over HTTP/2: several requests at once over one connection, streams that are given up.

use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::net::TcpStream;

use crate::client::{PATIENCE, judge, length};
use crate::origin::body_of;
use crate::random::Random;
use crate::tally::Tally;
use crate::ways::{Act, CUT, LEFT, OWN, Spoken, Way, pick};

type What = (Way, &'static Act);

/// One connection, and the task that drives it.
struct Conn {
    send: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Asks until all clients together have asked `count` times.
pub async fn run(port: u16, seed: u64, number: u64, count: u64, tally: &Tally) {
    let mut random = Random::of_case(seed, number);
    let mut conn = None;
    while tally.asked.get() < count {
        let what = pick(Spoken::Http2, &mut random);
        let open = match conn.take() {
            Some(open) => open,
            None => match connect(port).await {
                Some(open) => open,
                None => {
                    tally.failed.borrow_mut().push("no connection of HTTP/2".into());
                    continue;
                }
            },
        };
        tally.on_done();
        let step = perform(&open, what, &mut random, tally);
        match tokio::time::timeout(PATIENCE, step).await {
            Ok(goes_on) => conn = goes_on.then_some(open),
            Err(_) => tally.failed.borrow_mut().push(format!("{}, {} hangs", what.0.name(), what.1.name)),
        }
    }
}

async fn connect(port: u16) -> Option<Conn> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let _ = stream.set_nodelay(true);
    let (send, connection) = h2::client::handshake(stream).await.ok()?;
    // How it ends is seen by those who wait for its streams.
    let driver = tokio::task::spawn_local(async move { drop(connection.await) });
    Some(Conn { send, driver })
}

/// True while the connection goes on.
async fn perform(conn: &Conn, what: What, random: &mut Random, tally: &Tally) -> bool {
    let len = length(random);
    let own_body = |id: u64, len: usize| body_of(&id.to_string(), len);
    match what.1.name {
        "plain" => {
            let ids: Vec<u64> = (0..1 + random.below(8)).map(|_| tally.id()).collect();
            let asking = ids.iter().map(|id| async move {
                let stream = open(conn, request(what.0, Method::GET, *id, "plain", len), None).await;
                expect(stream, what, *id, &own_body(*id, len), tally).await
            });
            join_all(asking).await.into_iter().all(|goes_on| goes_on)
        }
        "echo" | "echo-chunked" => {
            let id = tally.id();
            let body = own_body(id, len);
            let mut request = request(what.0, Method::POST, id, "echo", len);
            if what.1.name == "echo" {
                request.headers_mut().insert("content-length", body.len().into());
            }
            expect(open(conn, request, Some(&body)).await, what, id, &body, tally).await
        }
        "early" | "early-close" => {
            let id = tally.id();
            let request = request(what.0, Method::POST, id, what.1.name, len);
            let stream = open(conn, request, Some(&own_body(id, 40_000))).await;
            expect(stream, what, id, &own_body(id, 10), tally).await
        }
        "head" => {
            let id = tally.id();
            let stream = open(conn, request(what.0, Method::HEAD, id, "head", 0), None).await;
            expect(stream, what, id, b"", tally).await
        }
        "gone" => {
            let stream = open(conn, request(what.0, Method::GET, tally.id(), "pieces", len), None).await;
            tally.add(what, LEFT);
            // Sometimes it is on its way by then.
            if random.once_in(2) {
                tokio::task::yield_now().await;
            }
            stream.is_some()
        }
        "cut-body" => {
            let stream = begin(conn, request(what.0, Method::POST, tally.id(), "echo", len), false).await;
            tally.add(what, LEFT);
            let Some((_, mut body)) = stream else { return false };
            let is_sent = body.send_data(body_of("x", 700).into(), false).is_ok();
            tokio::task::yield_now().await;
            body.send_reset(Reason::CANCEL);
            is_sent
        }
        name => {
            let id = tally.id();
            let stream = open(conn, request(what.0, Method::GET, id, name, len), None).await;
            expect(stream, what, id, &own_body(id, len), tally).await
        }
    }
}

fn request(way: Way, method: Method, id: u64, act: &str, len: usize) -> Request<()> {
    let uri = format!("http://tagged{}?id={id}&do={act}&len={len}", way.location());
    Request::builder().method(method).uri(uri).body(()).expect("it is well made")
}

type Stream = (h2::client::ResponseFuture, SendStream<Bytes>);

async fn begin(conn: &Conn, request: Request<()>, is_whole: bool) -> Option<Stream> {
    conn.send.clone().ready().await.ok()?.send_request(request, is_whole).ok()
}

/// The request with its body.
async fn open(conn: &Conn, request: Request<()>, body: Option<&[u8]>) -> Option<Stream> {
    let (answer, mut stream) = begin(conn, request, body.is_none()).await?;
    if let Some(body) = body {
        // An early answer may have ended the stream.
        let _ = stream.send_data(Bytes::copy_from_slice(body), true);
    }
    Some((answer, stream))
}

/// Reads one answer. True while the connection goes on: a stream that is cut cuts no other.
async fn expect(stream: Option<Stream>, what: What, id: u64, body: &[u8], tally: &Tally) -> bool {
    let Some((answer, _sending)) = stream else {
        tally.add(what, CUT);
        return false;
    };
    let answer: Response<RecvStream> = match answer.await {
        Ok(answer) => answer,
        Err(error) => {
            tally.add(what, CUT);
            return error.is_reset();
        }
    };
    let (head, mut stream) = answer.into_parts();
    let tag = head.headers.get("x-tag").and_then(|tag| tag.to_str().ok());
    let outcome = judge(head.status.as_str(), tag, what, id, tally);
    let mut came = Vec::new();
    while let Some(data) = stream.data().await {
        let data = match data {
            Ok(data) => data,
            Err(error) => {
                tally.add(what, CUT);
                return error.is_reset();
            }
        };
        let _ = stream.flow_control().release_capacity(data.len());
        came.extend_from_slice(&data);
    }
    if outcome == OWN && came != body {
        tally.on_foreign(what, id, &format!("a body of {} bytes that is not its own", came.len()));
    }
    tally.add(what, outcome);
    true
}
