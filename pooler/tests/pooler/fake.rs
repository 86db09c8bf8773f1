//! A Postgres that the test plays itself, for what a real one cannot be made to do.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use pgwire::backend::{self, TransactionStatus};
use pgwire::startup::{self, CancelKey, Packet};
use pgwire::{Head, frame};

use crate::script::{Batch, Script};
use crate::world::{Pooler, write};

pub struct FakePostgres {
    listener: TcpListener,
}

/// One connection of the pooler.
pub struct FakeServer {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl FakePostgres {
    pub fn start() -> FakePostgres {
        FakePostgres { listener: TcpListener::bind(("127.0.0.1", 0)).expect("a port is free") }
    }

    /// The line of `[databases]` that leads here.
    pub fn database(&self) -> String {
        let port = self.listener.local_addr().expect("it has an address").port();
        format!("fake = host=127.0.0.1 port={port}")
    }

    /// The pooler's next connection, before anything was said on it.
    pub fn accept(&self) -> FakeServer {
        let (stream, _) = self.listener.accept().expect("the pooler connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        FakeServer { stream, unread: Vec::new() }
    }

    /// No connection is waiting to be accepted.
    pub fn is_left_alone(&self) -> bool {
        self.listener.set_nonblocking(true).expect("a listener can be set");
        let nobody = self.listener.accept().is_err();
        self.listener.set_nonblocking(false).expect("a listener can be set");
        nobody
    }

    /// Lets the first client of a pool in, and gives the server connection whose greeting it gets.
    pub fn meet(&self, pooler: &Pooler, more: &[(&str, &str)]) -> (Script, FakeServer) {
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let mut server = self.accept();
                server.read_startup();
                server.greet();
                server
            });
            let client = Script::connect_to(pooler, "fake", more);
            (client, server.join().expect("the server is met"))
        })
    }
}

impl FakeServer {
    /// Reads the startup message; TLS is declined.
    pub fn read_startup(&mut self) -> startup::Startup {
        loop {
            match self.read_packet() {
                Packet::SslRequest | Packet::GssEncRequest => write(&mut self.stream, b"N"),
                Packet::Startup(startup) => return startup,
                Packet::Cancel(_) => panic!("a cancel request instead of a startup message"),
            }
        }
    }

    pub fn read_packet(&mut self) -> Packet {
        loop {
            if let Some((packet, len)) = startup::parse(&self.unread).expect("the pooler keeps the protocol")
            {
                self.unread.drain(..len);
                return packet;
            }
            assert!(self.fill(), "the pooler has closed the connection");
        }
    }

    pub fn greet(&mut self) {
        let mut out = Vec::new();
        backend::authentication_ok(&mut out);
        for (name, value) in [("server_version", "15.0"), ("client_encoding", "UTF8"), ("TimeZone", "UTC")] {
            backend::parameter_status(&mut out, name, value);
        }
        backend::backend_key_data(&mut out, &CancelKey { process_id: 7, secret: vec![1, 2, 3, 4] });
        backend::ready_for_query(&mut out, TransactionStatus::Idle);
        self.send(&out);
    }

    pub fn send(&mut self, bytes: &[u8]) {
        write(&mut self.stream, bytes);
    }

    pub fn send_message(&mut self, kind: u8, body: &[u8]) {
        self.send(&Batch::new().raw(kind, body).0);
    }

    /// Whether all that was sent has reached the pooler's socket and was taken out of it.
    pub fn is_read(&self) -> bool {
        let port =
            |address: std::io::Result<std::net::SocketAddr>| format!(":{:04X}", address.unwrap().port());
        let (here, there) = (port(self.stream.local_addr()), port(self.stream.peer_addr()));
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux lists its sockets");
        let queues = |from: &str, to: &str| {
            sockets.lines().find_map(|line| {
                // Number, local address, remote address, state, tx_queue:rx_queue.
                let columns: Vec<&str> = line.split_whitespace().collect();
                let is_it = columns[1].ends_with(from) && columns[2].ends_with(to);
                is_it.then(|| columns[4].to_string())
            })
        };
        let (own, theirs) = (queues(&here, &there), queues(&there, &here));
        own.is_some_and(|q| q.starts_with("00000000:")) && theirs.is_some_and(|q| q.ends_with(":00000000"))
    }

    /// Answers a query with one row.
    pub fn answer(&mut self, value: &str) {
        let mut out = Vec::new();
        backend::data_row(&mut out, [Some(value.as_bytes())].into_iter());
        backend::command_complete(&mut out, "SELECT 1");
        backend::ready_for_query(&mut out, TransactionStatus::Idle);
        self.send(&out);
    }

    /// Answers the query that sets one.
    pub fn take_parameter(&mut self, name: &str, value: &str) {
        let mut out = Vec::new();
        backend::parameter_status(&mut out, name, value);
        backend::command_complete(&mut out, "SET");
        backend::ready_for_query(&mut out, TransactionStatus::Idle);
        self.send(&out);
    }

    /// The pooler's next message, its body as text.
    pub fn next(&mut self) -> (u8, String) {
        self.try_next().expect("the pooler sends a message")
    }

    /// None: the connection is closed.
    pub fn try_next(&mut self) -> Option<(u8, String)> {
        loop {
            if let Some(head) = Head::parse(&self.unread).expect("the pooler keeps the protocol")
                && self.unread.len() >= head.total_len()
            {
                let rest = self.unread.split_off(head.total_len());
                let message = std::mem::replace(&mut self.unread, rest);
                let body = String::from_utf8_lossy(&message[frame::HEAD_LEN..]).into_owned();
                return Some((head.kind, body));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(len) => {
                self.unread.extend(&buffer[..len]);
                len > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}
