//! An origin that does what the request's `do` asks for, good or bad, and tags each answer with the request's id: in clear
//! or over TLS.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::http::{Conn, Ended, argument, header};

/// Longer than the balancer's `proxy_read_timeout`: the answer comes when nobody waits for it.
pub const LATE: Duration = Duration::from_millis(800);

/// `talks`: it may say more than it is asked. `kills` counts how often one has died.
pub async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, talks: bool, kills: Arc<AtomicU64>) {
    let killed = Rc::new(Notify::new());
    while let Ok((stream, _)) = listener.accept().await {
        let (killed, kills, tls) = (killed.clone(), kills.clone(), tls.clone());
        tokio::task::spawn_local(async move {
            let serving = async {
                let Some(mut conn) = welcome(stream, tls).await else { return };
                while serve(&mut conn, (&killed, &kills), talks).await.is_ok() {}
            };
            tokio::select! {
                // An origin that dies takes all its connections with it, whatever they carry.
                () = killed.notified() => {}
                () = serving => {}
            }
        });
    }
}

async fn welcome(stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<Conn> {
    let _ = stream.set_nodelay(true);
    match tls {
        None => Some(Conn::over(stream)),
        Some(tls) => tls.accept(stream).await.ok().map(Conn::over),
    }
}

/// One request. `Err` closes the connection.
async fn serve(conn: &mut Conn, (killed, kills): (&Notify, &AtomicU64), talks: bool) -> Result<(), Ended> {
    let head = conn.head().await?;
    let id = argument(&head, "id").ok_or(Ended)?;
    let act = argument(&head, "do").unwrap_or("plain");
    match act {
        "early" => {
            conn.send(&plain(id, 10)).await?;
            conn.body(&head).await?;
            return Ok(());
        }
        "early-close" => {
            conn.send(&plain(id, 10)).await?;
            return Err(Ended);
        }
        "upgrade" => return tunnel(conn, id).await,
        _ => {}
    }
    let body = conn.body(&head).await?;
    let len = argument(&head, "len").and_then(|len| len.parse().ok()).unwrap_or(10);
    match act {
        "drop" => return Err(Ended),
        "kill" => {
            kills.fetch_add(1, Relaxed);
            killed.notify_waiters();
            return Err(Ended);
        }
        "late" => {
            tokio::time::sleep(LATE).await;
            conn.send(&plain(id, len)).await?;
        }
        "cut" => {
            let answer = plain(id, len + 1000);
            conn.send(&answer[..answer.len() - 500]).await?;
            return Err(Ended);
        }
        "extra" if talks => {
            let mut answer = plain(id, len);
            answer.extend(plain("666", 6));
            conn.send(&answer).await?;
        }
        "fail" => {
            let answer = format!("HTTP/1.1 503 Busy\r\nX-Tag: {id}\r\nContent-Length: 4\r\n\r\nbusy");
            conn.send(answer.as_bytes()).await?;
        }
        "head" => {
            let answer = format!("HTTP/1.1 200 OK\r\nX-Tag: {id}\r\nContent-Length: 1000\r\n\r\n");
            conn.send(answer.as_bytes()).await?;
        }
        "pieces" => {
            let answer = plain(id, len);
            for piece in answer.chunks(answer.len() / 3 + 1) {
                conn.send(piece).await?;
                tokio::task::yield_now().await;
            }
        }
        "chunked" => conn.send(&chunked(id, len)).await?,
        "echo" => conn.send(&answer(id, &body)).await?,
        _ => conn.send(&plain(id, len)).await?,
    }
    if header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
        return Err(Ended);
    }
    Ok(())
}

fn answer(id: &str, body: &[u8]) -> Vec<u8> {
    let mut out =
        format!("HTTP/1.1 200 OK\r\nX-Tag: {id}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

/// A body that belongs to one request and no other.
pub fn body_of(id: &str, len: usize) -> Vec<u8> {
    id.bytes().chain(*b":").cycle().take(len).collect()
}

fn plain(id: &str, len: usize) -> Vec<u8> {
    answer(id, &body_of(id, len))
}

fn chunked(id: &str, len: usize) -> Vec<u8> {
    let mut out =
        format!("HTTP/1.1 200 OK\r\nX-Tag: {id}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for piece in body_of(id, len).chunks(100) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// Switches protocols, and gives back what comes with the tag before it.
async fn tunnel(conn: &mut Conn, id: &str) -> Result<(), Ended> {
    let switched = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-Tag: {id}\r\n\r\n"
    );
    conn.send(switched.as_bytes()).await?;
    loop {
        let came = conn.take(8).await?;
        conn.send(format!("{id:>12}").as_bytes()).await?;
        conn.send(&came).await?;
    }
}
