//! Ten origins on one thread of their own, which can be killed with all their connections, started again on their port,
//! and made slow. All together count how often each POST came.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::http::{Conn, Ended, argument, header};

/// How long an answer takes; ten times that where the node is slow.
const WORK: Duration = Duration::from_millis(2);

#[derive(Debug, Clone, Copy)]
pub enum Order {
    Kill(usize),
    Start(usize),
    Slow(usize),
    Fast(usize),
}

type Seen = Arc<Mutex<HashMap<u64, u32>>>;

#[derive(Debug)]
pub struct Nodes {
    ports: Vec<u16>,
    orders: mpsc::UnboundedSender<Order>,
    seen: Seen,
}

/// What the tasks of one node share.
#[derive(Debug)]
struct Node {
    port: u16,
    killed: Notify,
    is_slow: Cell<bool>,
    is_alive: Cell<bool>,
    seen: Seen,
}

impl Nodes {
    pub fn start(count: usize) -> Nodes {
        let bind = |_| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let listeners: Vec<TcpListener> = (0..count).map(bind).collect();
        let ports = listeners.iter().map(|l| l.local_addr().expect("it is bound").port()).collect();
        let (orders, mailbox) = mpsc::unbounded_channel();
        let seen = Seen::default();
        let shared = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime.expect("a runtime starts"), live(listeners, mailbox, shared));
        });
        Nodes { ports, orders, seen }
    }

    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub fn order(&self, order: Order) {
        self.orders.send(order).expect("the nodes live as long as the process");
    }

    /// How many POSTs came twice, and how many of those that were answered never came.
    pub fn judge(&self, answered: &[u64]) -> (usize, usize) {
        let seen = self.seen.lock().expect("nobody panics with the lock");
        let twice = seen.values().filter(|times| **times > 1).count();
        (twice, answered.iter().filter(|id| !seen.contains_key(id)).count())
    }
}

async fn live(listeners: Vec<TcpListener>, mut orders: mpsc::UnboundedReceiver<Order>, seen: Seen) {
    let node = |listener: &TcpListener| {
        let port = listener.local_addr().expect("it is bound").port();
        Rc::new(Node {
            port,
            killed: Notify::new(),
            is_slow: Cell::new(false),
            is_alive: Cell::new(true),
            seen: seen.clone(),
        })
    };
    let nodes: Vec<Rc<Node>> = listeners.iter().map(node).collect();
    for (node, listener) in nodes.iter().zip(listeners) {
        tokio::task::spawn_local(accept(node.clone(), listener));
    }
    while let Some(order) = orders.recv().await {
        match order {
            Order::Kill(index) => {
                nodes[index].is_alive.set(false);
                nodes[index].killed.notify_waiters();
            }
            Order::Start(index) if !nodes[index].is_alive.replace(true) => {
                let listener =
                    TcpListener::bind(("127.0.0.1", nodes[index].port)).expect("the port was ours");
                tokio::task::spawn_local(accept(nodes[index].clone(), listener));
            }
            Order::Start(_) => {}
            Order::Slow(index) => nodes[index].is_slow.set(true),
            Order::Fast(index) => nodes[index].is_slow.set(false),
        }
    }
}

async fn accept(node: Rc<Node>, listener: TcpListener) {
    listener.set_nonblocking(true).expect("a socket can be made so");
    let listener = tokio::net::TcpListener::from_std(listener).expect("made for this");
    loop {
        let accepted = tokio::select! {
            () = node.killed.notified() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { return };
        let node = node.clone();
        tokio::task::spawn_local(async move {
            let mut conn = Conn::new(stream);
            tokio::select! {
                () = node.killed.notified() => {}
                () = async { while serve(&node, &mut conn).await.is_ok() {} } => {}
            }
        });
    }
}

async fn serve(node: &Node, conn: &mut Conn) -> Result<(), Ended> {
    let head = conn.head().await?;
    if header(&head, "upgrade").is_some() {
        let switched =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        conn.send(switched.as_bytes()).await?;
        loop {
            let message = conn.take(8).await?;
            conn.send(&message).await?;
        }
    }
    conn.body(&head).await?;
    if head.starts_with("POST") {
        let id = argument(&head, "id").and_then(|id| id.parse().ok()).ok_or(Ended)?;
        *node.seen.lock().expect("nobody panics with the lock").entry(id).or_default() += 1;
    }
    tokio::time::sleep(if node.is_slow.get() { WORK * 10 } else { WORK }).await;
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await
}
