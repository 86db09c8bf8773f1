//! A client that reads answers byte by byte, and believes nothing but what it reads.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Far more than an answer takes, on a busy machine too: only a hang comes here.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    held: Vec<u8>,
}

/// One final answer, with its body read.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// An origin was asked: the balancer says so in `X-Via`.
    pub is_forwarded: bool,
    /// The id that the origin saw.
    pub echo: Option<u64>,
    pub closes: bool,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The connection ended before the first byte.
    Ended,
    /// ... or inside the answer.
    Cut,
    Hangs,
    Malformed,
}

impl Conn {
    pub fn open(port: u16) -> io::Result<Conn> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Conn { stream, held: Vec::new() })
    }

    /// In two writes where `cut` is inside. A peer that has closed already shows when its answer is read.
    pub fn send(&mut self, bytes: &[u8], cut: usize) {
        let (first, second) = bytes.split_at(cut.min(bytes.len()));
        let _ = self.stream.write_all(first).and_then(|()| self.stream.write_all(second));
    }

    /// Nothing has come that was not read.
    pub fn is_quiet(&self) -> bool {
        self.held.is_empty()
    }

    pub fn answer(&mut self, is_head: bool) -> Result<Answer, NoAnswer> {
        loop {
            let head = self.head()?;
            let answer = parse(&head)?;
            if (100..200).contains(&answer.status) && answer.status != 101 {
                continue;
            }
            return self.with_body(answer, &head, is_head);
        }
    }

    fn head(&mut self) -> Result<String, NoAnswer> {
        let mut seen = 0;
        loop {
            let from = seen.max(3) - 3;
            if let Some(at) = memchr::memmem::find(&self.held[from..], b"\r\n\r\n") {
                let head: Vec<u8> = self.held.drain(..from + at + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            seen = self.held.len();
            self.fill()?;
        }
    }

    fn with_body(&mut self, mut answer: Answer, head: &str, is_head: bool) -> Result<Answer, NoAnswer> {
        if is_head || matches!(answer.status, 101 | 204 | 304) {
            return Ok(answer);
        }
        if header(head, "transfer-encoding").is_some() {
            answer.body = self.chunks()?;
        } else if let Some(len) = header(head, "content-length") {
            let len = len.parse().map_err(|_| NoAnswer::Malformed)?;
            answer.body = self.take(len)?;
        } else {
            answer.closes = true;
            while self.fill().is_ok() {}
            answer.body = std::mem::take(&mut self.held);
        }
        Ok(answer)
    }

    fn chunks(&mut self) -> Result<Vec<u8>, NoAnswer> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let len = usize::from_str_radix(&line, 16).map_err(|_| NoAnswer::Malformed)?;
            if len == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(len)?);
            if !self.line()?.is_empty() {
                return Err(NoAnswer::Malformed);
            }
        }
    }

    fn line(&mut self) -> Result<String, NoAnswer> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.held, b"\r\n") {
                let line: Vec<u8> = self.held.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, NoAnswer> {
        while self.held.len() < len {
            self.fill()?;
        }
        Ok(self.held.drain(..len).collect())
    }

    fn fill(&mut self) -> Result<(), NoAnswer> {
        let mut space = [0; 16384];
        let ended = if self.held.is_empty() { NoAnswer::Ended } else { NoAnswer::Cut };
        match self.stream.read(&mut space) {
            Ok(0) => Err(ended),
            Ok(len) => {
                self.held.extend_from_slice(&space[..len]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(NoAnswer::Hangs),
            Err(_) => Err(ended),
        }
    }
}

fn parse(head: &str) -> Result<Answer, NoAnswer> {
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let echo = header(head, "x-echo").or_else(|| header(head, "location"));
    Ok(Answer {
        status: status.ok_or(NoAnswer::Malformed)?,
        is_forwarded: header(head, "x-via").is_some(),
        echo: echo.and_then(id_in),
        closes: header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
        body: Vec::new(),
    })
}

/// The number behind `id=`, in a request line, a query or a log line.
pub fn id_in(text: &str) -> Option<u64> {
    let digits = &text[text.find("id=")? + 3..];
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
