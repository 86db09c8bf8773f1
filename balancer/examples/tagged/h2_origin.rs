//! The origin over HTTP/2: what it does to streams, and to connections.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::http::argument;
use crate::origin::{LATE, body_of};

/// `kills` counts how often one has died.
pub async fn accept(listener: TcpListener, kills: Arc<AtomicU64>) {
    let killed = Rc::new(Notify::new());
    while let Ok((stream, _)) = listener.accept().await {
        let (killed, kills) = (killed.clone(), kills.clone());
        tokio::task::spawn_local(async move {
            let ends = Ends { own: Rc::new(Notify::new()), all: killed.clone(), kills };
            let own = ends.own.clone();
            tokio::select! {
                () = killed.notified() => {}
                () = own.notified() => {}
                () = serve(stream, ends) => {}
            }
        });
    }
}

/// How a stream ends its connection, or all of its origin.
#[derive(Clone)]
struct Ends {
    own: Rc<Notify>,
    all: Rc<Notify>,
    kills: Arc<AtomicU64>,
}

async fn serve(stream: TcpStream, ends: Ends) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let ends = ends.clone();
        // A stream that has ended meanwhile needs no answer.
        tokio::task::spawn_local(async move { drop(answer(request, respond, ends).await) });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    ends: Ends,
) -> Result<(), h2::Error> {
    let line = format!("{} {} HTTP/2", request.method(), request.uri());
    let (id, act) = (argument(&line, "id").unwrap_or("0"), argument(&line, "do").unwrap_or("plain"));
    let len = argument(&line, "len").and_then(|len| len.parse().ok()).unwrap_or(10);
    let mut asked = request.into_body();
    match act {
        "early" => {
            send(&mut respond, head(id, 200, Some(10)), &[&body_of(id, 10)])?;
            return whole(&mut asked).await.map(drop);
        }
        // What is still to come of the body is not waited for.
        "early-close" => return send(&mut respond, head(id, 200, Some(10)), &[&body_of(id, 10)]),
        _ => {}
    }
    let body = whole(&mut asked).await?;
    let own = body_of(id, len);
    match act {
        "drop" => ends.own.notify_one(),
        "kill" => {
            ends.kills.fetch_add(1, Relaxed);
            ends.all.notify_waiters();
        }
        "cut" => {
            let mut stream = respond.send_response(head(id, 200, Some(len + 1000)), false)?;
            stream.send_data(own.into(), false)?;
            // The half of it shall be on its way.
            tokio::task::yield_now().await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "late" => {
            tokio::time::sleep(LATE).await;
            send(&mut respond, head(id, 200, Some(len)), &[&own])?;
        }
        "fail" => send(&mut respond, head(id, 503, Some(4)), &[b"busy"])?,
        "head" => drop(respond.send_response(head(id, 200, Some(1000)), true)?),
        "pieces" => {
            let pieces: Vec<&[u8]> = own.chunks(len / 3 + 1).collect();
            send(&mut respond, head(id, 200, Some(len)), &pieces)?;
        }
        "chunked" => {
            let pieces: Vec<&[u8]> = own.chunks(100).collect();
            send(&mut respond, head(id, 200, None), &pieces)?;
        }
        "echo" => send(&mut respond, head(id, 200, Some(body.len())), &[&body])?,
        _ => send(&mut respond, head(id, 200, Some(len)), &[&own])?,
    }
    Ok(())
}

fn head(id: &str, status: u16, len: Option<usize>) -> Response<()> {
    let head = Response::builder().status(status).header("x-tag", id);
    let head = match len {
        Some(len) => head.header("content-length", len),
        None => head,
    };
    head.body(()).expect("it is well made")
}

fn send(respond: &mut SendResponse<Bytes>, head: Response<()>, pieces: &[&[u8]]) -> Result<(), h2::Error> {
    let mut stream = respond.send_response(head, false)?;
    for piece in pieces {
        stream.send_data(Bytes::copy_from_slice(piece), false)?;
    }
    stream.send_data(Bytes::new(), true)
}

async fn whole(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut came = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        came.extend_from_slice(&data);
    }
    Ok(came)
}
