//! Below one WebSocket: the handshake, the bare TCP socket that it leaves, and what comes in over it. What goes out is
//! written by the member: see `chat/hub/member.rs`.

use std::io::{self, Read, Write};
use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message, handshake};

use crate::chat::hub::Member;
use crate::error;
use crate::logic::frames::{FRAME_LEN_MAX, SUBPROTOCOL};
use crate::logic::wire::Frame;

/// tungstenite's default is 128 KiB for each connection, taken at once; a usual frame fits 1 KiB, others make it grow.
const READ_BUFFER_LEN: usize = 1024;

/// An upgrade that was agreed on; the socket is there once the answer has left.
pub struct Agreed {
    upgrade: OnUpgrade,
}

/// Answers the handshake (RFC 6455, 4.2).
///
/// # Errors
/// The request is none; says what is missing.
pub fn agree(mut request: Request) -> Result<(Agreed, Response), String> {
    let upgrade = hyper::upgrade::on(&mut request);
    let protocol = offers(request.headers(), SUBPROTOCOL);
    let request = request.map(|_| ());
    let answer = handshake::server::create_response(&request).map_err(|cause| cause.to_string())?;
    let mut answer = answer.map(|()| axum::body::Body::empty()).into_response();
    if protocol {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok((Agreed { upgrade }, answer))
}

/// The answer to a request that is no handshake.
pub fn refusal(cause: &str) -> Response {
    let problem = error::problem_of(
        StatusCode::UPGRADE_REQUIRED,
        format!("connect with a WebSocket client, version 13: {cause}"),
    );
    let mut answer = error::render(&problem);
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    answer
}

fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|offered| offered.trim() == protocol)
}

impl Agreed {
    /// The socket itself, and what the client has already sent behind its handshake.
    ///
    /// # Errors
    /// The client went away before the answer had left, or the connection is not one that `serve.rs` accepted.
    pub async fn socket(self) -> Result<(TcpStream, Vec<u8>), String> {
        let upgraded = self.upgrade.await.map_err(|cause| cause.to_string())?;
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| "WebSockets need the TCP socket itself below them".to_owned())?;
        Ok((parts.io.into_inner(), parts.read_buf.to_vec()))
    }
}

/// What a client says, frame by frame. It reads the socket, and never writes to it: answers to pings and closes go
/// through the member's queue, between whole frames.
pub struct Reader {
    member: Arc<Member>,
    context: WebSocketContext,
    answers: Vec<u8>,
}

impl Reader {
    pub fn new(member: Arc<Member>, already_read: Vec<u8>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_LEN)
            // Twice the limit: a frame a little too long is answered with 1009 by us, a huge one ends in tungstenite.
            .max_frame_size(Some(2 * FRAME_LEN_MAX))
            .max_message_size(Some(2 * FRAME_LEN_MAX));
        let context = WebSocketContext::from_partially_read(already_read, Role::Server, Some(config));
        Self { member, context, answers: Vec::new() }
    }

    /// The next frame. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection has ended, or the client broke the protocol.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            let read =
                self.context.read(&mut Pipe { socket: &self.member.socket, answers: &mut self.answers });
            self.hand_on_answers();
            match read {
                Err(Error::Io(cause)) if cause.kind() == io::ErrorKind::WouldBlock => {
                    std::future::poll_fn(|context| self.member.socket.poll_read_ready(context)).await?;
                }
                read => return read,
            }
        }
    }

    /// Sends what tungstenite answers to a close frame.
    pub fn answer_close(&mut self) {
        // An error says that the connection has ended, which it has.
        let _ = self.context.flush(&mut Pipe { socket: &self.member.socket, answers: &mut self.answers });
        self.hand_on_answers();
    }

    fn hand_on_answers(&mut self) {
        if !self.answers.is_empty() {
            self.member.push_now(Frame::encoded(&self.answers));
            self.answers = Vec::new();
        }
    }
}

/// The socket as tungstenite sees it: reads are real, writes are kept.
struct Pipe<'a> {
    socket: &'a TcpStream,
    answers: &'a mut Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.try_read(buffer)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
