//! A client of HTTP/2 that sends bare frames, for what no honest peer does.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET / http://x`, from the static table.
pub const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'x'];

/// These fields as HPACK writes them without its tables: whatever bytes they are of.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer lengths take more than one byte: {text:?}");
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// A client that sends whatever frames it is told.
pub struct Frames {
    pub stream: TcpStream,
}

/// One frame that came.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// Of a GOAWAY.
    fn reason(&self) -> u32 {
        u32::from_be_bytes(self.payload[4..8].try_into().unwrap())
    }
}

impl Frames {
    pub fn connect(port: u16) -> Frames {
        Frames::begin(TcpStream::connect(("127.0.0.1", port)).unwrap())
    }

    /// Over a socket that is not yet connected.
    pub fn over(socket: socket2::Socket, port: u16) -> Frames {
        socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        Frames::begin(socket.into())
    }

    fn begin(mut stream: TcpStream) -> Frames {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut frames = Frames { stream };
        assert!(frames.send(SETTINGS, 0, 0, &[]));
        frames
    }

    /// False once the other side does not listen any more.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).is_ok()
    }

    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The first frame of this kind.
    pub fn first(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }

    /// Why the other side ended the connection; `None`: without a word.
    pub fn goodbye(&mut self) -> Option<u32> {
        self.first(GOAWAY).map(|frame| frame.reason())
    }

    /// Reads on a thread of its own, from now on, so that a word which is said before a reset is heard.
    pub fn listen(&self) -> Listening {
        let mut reader = Frames { stream: self.stream.try_clone().unwrap() };
        // What is sent meanwhile may take its time, and nothing may come back before its end.
        reader.stream.set_read_timeout(Some(PATIENCE * 3)).unwrap();
        Listening(std::thread::spawn(move || {
            let mut heard = Heard::default();
            while let Some(frame) = reader.next() {
                match frame.kind {
                    GOAWAY => heard.goodbye = Some(frame.reason()),
                    DATA => heard.data_len += frame.payload.len(),
                    kind => *heard.others.entry(kind).or_default() += 1,
                }
            }
            heard
        }))
    }
}

/// A connection that is read on another thread.
pub struct Listening(std::thread::JoinHandle<Heard>);

/// What has come until the connection ended.
#[derive(Debug, Default)]
pub struct Heard {
    /// The last reason why the other side ended it.
    pub goodbye: Option<u32>,
    pub data_len: usize,
    /// How many frames of each other kind.
    pub others: BTreeMap<u8, usize>,
}

impl Listening {
    pub fn heard(self) -> Heard {
        self.0.join().unwrap()
    }
}
