//! Byte scripts: a client that sends exactly what it is told and shows what came back, message by message.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use pgwire::frame::HEAD_LEN;
use pgwire::report::Received;
use pgwire::{Head, backend, frontend, startup};

use crate::world::Pooler;

pub struct Script {
    pub stream: TcpStream,
    unread: Vec<u8>,
    /// The cancel key of the greeting.
    pub key: Option<startup::CancelKey>,
}

/// Builds what is sent.
#[derive(Default, Clone)]
pub struct Batch(pub Vec<u8>);

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn query(mut self, sql: &str) -> Batch {
        frontend::query(&mut self.0, sql);
        self
    }

    pub fn parse(mut self, name: &str, sql: &str) -> Batch {
        frontend::parse(&mut self.0, name, sql);
        self
    }

    pub fn bind(mut self, name: &str, values: &[&str]) -> Batch {
        let values: Vec<Option<&[u8]>> = values.iter().map(|v| Some(v.as_bytes())).collect();
        frontend::bind(&mut self.0, name, &values);
        self
    }

    pub fn describe(mut self, name: &str) -> Batch {
        frontend::describe(&mut self.0, frontend::Target::Statement(name.as_bytes()));
        self
    }

    pub fn close(mut self, name: &str) -> Batch {
        frontend::close(&mut self.0, frontend::Target::Statement(name.as_bytes()));
        self
    }

    pub fn execute(mut self, rows: u32) -> Batch {
        frontend::execute(&mut self.0, rows);
        self
    }

    pub fn sync(mut self) -> Batch {
        frontend::sync(&mut self.0);
        self
    }

    pub fn flush(mut self) -> Batch {
        frontend::flush(&mut self.0);
        self
    }

    pub fn raw(mut self, kind: u8, body: &[u8]) -> Batch {
        self.0.extend(Head { kind, body_len: body.len() as u32 }.to_bytes());
        self.0.extend(body);
        self
    }
}

impl Script {
    pub fn connect(pooler: &Pooler) -> Script {
        Script::connect_with(pooler, &[])
    }

    pub fn connect_with(pooler: &Pooler, more: &[(&str, &str)]) -> Script {
        Script::connect_to(pooler, "postgres", more)
    }

    /// To a database of this name.
    pub fn connect_to(pooler: &Pooler, database: &str, more: &[(&str, &str)]) -> Script {
        Script::open(pooler).log_in(database, more)
    }

    /// To whichever process listens on this port.
    pub fn connect_at(port: u16) -> Script {
        Script::open_at(port).log_in("postgres", &[])
    }

    pub fn log_in(mut self, database: &str, more: &[(&str, &str)]) -> Script {
        let script = &mut self;
        script.send_startup(database, more);
        loop {
            let (kind, body) = script.next();
            match kind {
                b'K' => script.key = backend::parse_backend_key_data(&body).ok(),
                b'Z' => return self,
                b'E' => panic!("login failed: {}", Received::parse(&body).unwrap().summary()),
                _ => {}
            }
        }
    }

    /// The startup message of the user postgres, unless `more` names another.
    pub fn send_startup(&mut self, database: &str, more: &[(&str, &str)]) {
        let mut out = Vec::new();
        let named = [("user", "postgres"), ("database", database)];
        let kept = named.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name));
        startup::startup(&mut out, 0, kept.chain(more).copied());
        self.send_bytes(&out);
    }

    /// A socket on which nothing was said.
    pub fn open(pooler: &Pooler) -> Script {
        Script::open_at(pooler.port)
    }

    fn open_at(port: u16) -> Script {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the pooler listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        Script { stream, unread: Vec::new(), key: None }
    }

    pub fn send(&mut self, batch: Batch) {
        self.send_bytes(&batch.0);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the pooler takes the bytes");
    }

    /// The answer to an encryption request.
    pub fn next_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("the pooler sends a byte");
        byte[0]
    }

    /// The next message.
    pub fn next(&mut self) -> (u8, Vec<u8>) {
        self.try_next().expect("the pooler sends a message")
    }

    /// None: the connection is closed.
    pub fn try_next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(head) = Head::parse(&self.unread).expect("the pooler keeps the protocol")
                && self.unread.len() >= head.total_len()
            {
                let rest = self.unread.split_off(head.total_len());
                let message = std::mem::replace(&mut self.unread, rest);
                return Some((head.kind, message[HEAD_LEN..].to_vec()));
            }
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(len) => self.unread.extend(&buffer[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Kinds of the messages up to this many ReadyForQuery; rows once, errors with their code: `1 2 T D C Z`.
    pub fn replies(&mut self, readies: usize) -> String {
        let mut shown = Vec::new();
        let mut left = readies;
        while left > 0 {
            let Some((kind, body)) = self.try_next() else {
                shown.push("closed".to_string());
                break;
            };
            shown.push(show(kind, &body));
            left -= usize::from(kind == b'Z');
        }
        shown.dedup_by(|a, b| a == b && a == "D");
        shown.join(" ")
    }

    /// Kinds of so many messages.
    pub fn some_replies(&mut self, count: usize) -> String {
        let shown: Vec<String> = (0..count)
            .map(|_| {
                let (kind, body) = self.next();
                show(kind, &body)
            })
            .collect();
        shown.join(" ")
    }

    /// The values of the first column, up to ReadyForQuery.
    pub fn column(&mut self) -> Vec<String> {
        let mut values = Vec::new();
        loop {
            let (kind, body) = self.next();
            match kind {
                b'D' => {
                    let row = backend::parse_data_row(&body).unwrap();
                    values.push(String::from_utf8(row[0].unwrap_or_default().to_vec()).unwrap());
                }
                b'E' => panic!("{}", Received::parse(&body).unwrap().summary()),
                b'Z' => return values,
                _ => {}
            }
        }
    }

    /// All rows up to ReadyForQuery, their values with a blank between.
    pub fn rows(&mut self) -> Vec<String> {
        let mut rows = Vec::new();
        loop {
            let (kind, body) = self.next();
            match kind {
                b'D' => {
                    let row = backend::parse_data_row(&body).unwrap();
                    let text =
                        |cell: &Option<&[u8]>| String::from_utf8_lossy(cell.unwrap_or_default()).into_owned();
                    rows.push(row.iter().map(text).collect::<Vec<_>>().join(" "));
                }
                b'E' => panic!("{}", Received::parse(&body).unwrap().summary()),
                b'Z' => return rows,
                _ => {}
            }
        }
    }

    pub fn value(&mut self, sql: &str) -> String {
        self.send(Batch::new().query(sql));
        self.column().into_iter().next().unwrap_or_default()
    }

    /// The error that ends the connection.
    pub fn last_error(&mut self) -> String {
        let mut last = String::new();
        while let Some((kind, body)) = self.try_next() {
            if kind == b'E' {
                last = Received::parse(&body).unwrap().summary();
            }
        }
        last
    }
}

fn show(kind: u8, body: &[u8]) -> String {
    match kind {
        b'E' => {
            let received = Received::parse(body).unwrap();
            format!("E{}", String::from_utf8_lossy(received.sqlstate.unwrap_or_default()))
        }
        b'Z' if body != b"I" => format!("Z{}", body[0] as char),
        _ => (kind as char).to_string(),
    }
}
