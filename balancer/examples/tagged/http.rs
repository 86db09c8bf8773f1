//! Just enough HTTP over a tokio socket for clients and origins that want to see every byte.

use std::fmt;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A socket, or TLS over one.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + fmt::Debug> Stream for S {}

#[derive(Debug)]
pub struct Conn {
    stream: Box<dyn Stream>,
    held: Vec<u8>,
    /// What of `held` has been used.
    used: usize,
}

/// The connection ended, or what came is no HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

impl Conn {
    pub fn new(stream: TcpStream) -> Conn {
        let _ = stream.set_nodelay(true);
        Conn::over(stream)
    }

    pub fn over(stream: impl Stream + 'static) -> Conn {
        Conn { stream: Box::new(stream), held: Vec::new(), used: 0 }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        // TLS holds back what is not flushed.
        self.stream.write_all(bytes).await.map_err(|_| Ended)?;
        self.stream.flush().await.map_err(|_| Ended)
    }

    /// The next head, first line and all.
    pub async fn head(&mut self) -> Result<String, Ended> {
        loop {
            if let Some(at) = memchr::memmem::find(self.unused(), b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.unused()[..at + 4]).into_owned();
                self.used += at + 4;
                return Ok(head);
            }
            self.fill().await?;
        }
    }

    /// The body that this head announces.
    pub async fn body(&mut self, head: &str) -> Result<Vec<u8>, Ended> {
        if let Some(len) = header(head, "content-length") {
            return self.take(len.parse().map_err(|_| Ended)?).await;
        }
        if header(head, "transfer-encoding").is_none() {
            return Ok(Vec::new());
        }
        let mut body = Vec::new();
        loop {
            let len = usize::from_str_radix(&self.line().await?, 16).map_err(|_| Ended)?;
            body.extend(self.take(len).await?);
            if !self.line().await?.is_empty() {
                return Err(Ended);
            }
            if len == 0 {
                return Ok(body);
            }
        }
    }

    pub async fn take(&mut self, len: usize) -> Result<Vec<u8>, Ended> {
        while self.unused().len() < len {
            self.fill().await?;
        }
        let taken = self.unused()[..len].to_vec();
        self.used += len;
        Ok(taken)
    }

    /// Nothing has come that was not used.
    pub fn is_quiet(&self) -> bool {
        self.unused().is_empty()
    }

    async fn line(&mut self) -> Result<String, Ended> {
        loop {
            if let Some(at) = memchr::memmem::find(self.unused(), b"\r\n") {
                let line = String::from_utf8_lossy(&self.unused()[..at]).into_owned();
                self.used += at + 2;
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    fn unused(&self) -> &[u8] {
        &self.held[self.used..]
    }

    async fn fill(&mut self) -> Result<(), Ended> {
        if self.is_quiet() {
            self.held.clear();
        } else {
            self.held.drain(..self.used);
        }
        self.used = 0;
        self.held.reserve(4096);
        match self.stream.read_buf(&mut self.held).await {
            Ok(len) if len > 0 => Ok(()),
            _ => Err(Ended),
        }
    }
}

pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The value of `name=` in the query of a request.
pub fn argument<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let target = head.split(' ').nth(1)?;
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}
