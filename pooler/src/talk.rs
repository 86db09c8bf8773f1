//! Whole messages, one at a time, over a wire: for logins and the console. The relay does without.

use std::io;

use pgwire::frame::HEAD_LEN;
use pgwire::startup::{self, Packet, StartupError};
use pgwire::{Head, Malformed};

use crate::wire::Wire;

/// No login or console message is longer: passwords end at 65,535 bytes.
const MESSAGE_LEN_MAX: usize = 1 << 17;

/// A wire and what has come over it but was not taken yet.
#[derive(Debug)]
pub struct Talk {
    pub wire: Wire,
    unread: Vec<u8>,
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Protocol(String),
}

/// One whole message.
#[derive(Debug)]
pub struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

impl Talk {
    pub fn new(wire: Wire) -> Talk {
        Talk { wire, unread: Vec::new() }
    }

    /// The wire, and what came after the last message.
    pub fn into_parts(self) -> (Wire, Vec<u8>) {
        (self.wire, self.unread)
    }

    /// Bytes came that nobody has read yet.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Gives away what came: somebody else reads on.
    pub fn take_unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes).await
    }

    /// The next message, which has to be of this kind: any other is refused by its first byte, before its length is
    /// believed.
    pub async fn next_of_kind(&mut self, kind: u8) -> Result<Option<Message>, TalkError> {
        if self.peek_byte().await? != kind {
            return Ok(None);
        }
        self.next().await.map(Some)
    }

    pub async fn next(&mut self) -> Result<Message, TalkError> {
        loop {
            let head = Head::parse(&self.unread).map_err(|e| TalkError::Protocol(e.to_string()))?;
            if let Some(head) = head {
                if head.total_len() > MESSAGE_LEN_MAX {
                    return Err(TalkError::Protocol(format!(
                        "message of {} bytes during login",
                        head.total_len()
                    )));
                }
                if self.unread.len() >= head.total_len() {
                    let body = self.unread[HEAD_LEN..head.total_len()].to_vec();
                    self.unread.drain(..head.total_len());
                    return Ok(Message { kind: head.kind, body });
                }
            }
            self.fill().await?;
        }
    }

    /// The next packet before login.
    pub async fn next_packet(&mut self) -> Result<Packet, TalkError> {
        loop {
            let parsed =
                startup::parse(&self.unread).map_err(|e: StartupError| TalkError::Protocol(e.to_string()))?;
            if let Some((packet, len)) = parsed {
                self.unread.drain(..len);
                return Ok(packet);
            }
            self.fill().await?;
        }
    }

    /// One byte: the answer to an SSLRequest.
    pub async fn next_byte(&mut self) -> Result<u8, TalkError> {
        while self.unread.is_empty() {
            self.fill().await?;
        }
        Ok(self.unread.remove(0))
    }

    /// Waits for the first byte, which tells a TLS hello from a startup packet.
    pub async fn peek_byte(&mut self) -> Result<u8, TalkError> {
        while self.unread.is_empty() {
            self.fill().await?;
        }
        Ok(self.unread[0])
    }

    /// Comes back when the peer is gone. What it sends meanwhile is kept.
    pub async fn wait_for_end(&mut self) -> io::Error {
        loop {
            if self.unread.len() > MESSAGE_LEN_MAX {
                std::future::pending::<()>().await;
            }
            if let Err(error) = self.fill().await {
                return error;
            }
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 2048];
        let len = self.wire.read(&mut buffer).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(&buffer[..len]);
        Ok(())
    }
}

impl From<Malformed> for TalkError {
    fn from(error: Malformed) -> Self {
        TalkError::Protocol(error.to_string())
    }
}
