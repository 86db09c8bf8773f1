//! Clients that ask at a set rate, and WebSockets that talk all the while.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::http::Conn;

/// A WebSocket says something this often.
const TALK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
pub struct Tally {
    pub is_over: Cell<bool>,
    next_id: Cell<u64>,
    pub gets: Cell<u64>,
    /// Ids of POSTs that were answered with 200.
    pub posts: RefCell<Vec<u64>>,
    /// POSTs that their origin took to the grave.
    pub refused: Cell<u64>,
    /// Answers that had begun.
    pub cut: Cell<u64>,
    pub failed: RefCell<Vec<String>>,
    pub messages: Cell<u64>,
    pub dropped: RefCell<Vec<String>>,
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

pub async fn await_port(port: u16) {
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// One client on one connection: three GETs for each POST.
pub async fn ask(port: u16, number: u64, pause: Duration, tally: Rc<Tally>) {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return tally.failed.borrow_mut().push("no connection".into());
    };
    let mut conn = Conn::new(stream);
    let mut due = Instant::now();
    for turn in number.. {
        if tally.is_over.get() {
            return;
        }
        due = (due + pause).max(Instant::now() - Duration::from_secs(1));
        tokio::time::sleep_until(due).await;
        let goes_on =
            if turn % 4 == 0 { post(&mut conn, &tally).await } else { get(&mut conn, &tally).await };
        if !goes_on {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => conn = Conn::new(stream),
                Err(cause) => return tally.failed.borrow_mut().push(format!("no connection: {cause}")),
            }
        }
    }
}

async fn get(conn: &mut Conn, tally: &Tally) -> bool {
    let sent = conn.send(b"GET / HTTP/1.1\r\nHost: chaos\r\n\r\n").await;
    let head = match sent {
        Ok(()) => conn.head().await,
        ended => ended.map(|()| String::new()),
    };
    let Ok(head) = head else {
        tally.failed.borrow_mut().push("GET: the connection ended".into());
        return false;
    };
    if !head.starts_with("HTTP/1.1 200") {
        tally.failed.borrow_mut().push(format!("GET: {}", head.lines().next().unwrap_or_default()));
    }
    if conn.body(&head).await.is_err() {
        count(&tally.cut);
        return false;
    }
    count(&tally.gets);
    true
}

async fn post(conn: &mut Conn, tally: &Tally) -> bool {
    let id = tally.next_id.replace(tally.next_id.get() + 1);
    let request = format!("POST /?id={id} HTTP/1.1\r\nHost: chaos\r\nContent-Length: 2\r\n\r\nhi");
    let head = match conn.send(request.as_bytes()).await {
        Ok(()) => conn.head().await,
        ended => ended.map(|()| String::new()),
    };
    let Ok(head) = head else {
        tally.failed.borrow_mut().push(format!("POST {id}: the connection ended"));
        return false;
    };
    match head.get(9..12) {
        Some("200") => tally.posts.borrow_mut().push(id),
        Some("502" | "504") => count(&tally.refused),
        other => tally.failed.borrow_mut().push(format!("POST {id}: {other:?}")),
    }
    let is_whole = conn.body(&head).await.is_ok();
    if !is_whole {
        count(&tally.cut);
    }
    is_whole
}

/// One WebSocket, opened once.
pub async fn talk(port: u16, tally: Rc<Tally>) {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return tally.dropped.borrow_mut().push("no connection".into());
    };
    let mut conn = Conn::new(stream);
    let request = "GET /ws HTTP/1.1\r\nHost: chaos\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switched = match conn.send(request.as_bytes()).await {
        Ok(()) => conn.head().await,
        ended => ended.map(|()| String::new()),
    };
    if !switched.is_ok_and(|head| head.starts_with("HTTP/1.1 101")) {
        return tally.dropped.borrow_mut().push("no tunnel".into());
    }
    while !tally.is_over.get() {
        tokio::time::sleep(TALK_INTERVAL).await;
        let echoed = match conn.send(b"8 bytes!").await {
            Ok(()) => conn.take(8).await,
            ended => ended.map(|()| Vec::new()),
        };
        if echoed.is_err() {
            return tally.dropped.borrow_mut().push("the tunnel ended".into());
        }
        count(&tally.messages);
    }
}
