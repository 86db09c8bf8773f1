//! A WebSocket client for tests: waits for frames of a kind and keeps the others.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of it; a test that cannot go on fails"
)]

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::world::Replica;

const PATIENCE: Duration = Duration::from_secs(15);

pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    pub welcome: Value,
    /// Frames that came while another kind was waited for.
    kept: Vec<Value>,
    taken: Vec<Value>,
}

/// A connection that reads, but answers nothing.
pub struct RawSocket {
    stream: TcpStream,
}

impl Socket {
    pub async fn open(replica: &Replica, session: &str, token: &str) -> Self {
        Self::open_to(replica.addr, session, token).await
    }

    /// At a replica that may be a process of its own.
    pub async fn open_to(addr: SocketAddr, session: &str, token: &str) -> Self {
        Self::open_at(addr, &format!("/ws/chat/session/{session}/?token={token}"), None).await
    }

    /// The same, with headers in the upgrade.
    pub async fn open_with(
        addr: SocketAddr,
        session: &str,
        token: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Self {
        let path = format!("/ws/chat/session/{session}/?token={token}");
        let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        Self::upgrade(TcpStream::connect(addr).await.unwrap(), request).await
    }

    pub async fn open_since(replica: &Replica, session: &str, token: &str, since: i64) -> Self {
        Self::open_at(replica.addr, &format!("/ws/chat/session/{session}/?token={token}&since={since}"), None)
            .await
    }

    /// A client whose kernel takes little, so that the server feels at once that nobody reads.
    pub async fn open_with_small_buffers(replica: &Replica, session: &str, token: &str) -> Self {
        Self::open_at(replica.addr, &format!("/ws/chat/session/{session}/?token={token}"), Some(4096)).await
    }

    pub async fn open_with_small_buffers_since(
        replica: &Replica,
        session: &str,
        token: &str,
        since: i64,
    ) -> Self {
        let path = format!("/ws/chat/session/{session}/?token={token}&since={since}");
        Self::open_at(replica.addr, &path, Some(4096)).await
    }

    async fn open_at(addr: SocketAddr, path: &str, receive_buffer: Option<u32>) -> Self {
        let tcp = TcpSocket::new_v4().unwrap();
        if let Some(len) = receive_buffer {
            tcp.set_recv_buffer_size(len).unwrap();
        }
        let tcp = tcp.connect(addr).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::upgrade(tcp, format!("ws://{addr}{path}").into_client_request().unwrap()).await
    }

    async fn upgrade(tcp: TcpStream, request: Request) -> Self {
        let (stream, _) =
            tokio_tungstenite::client_async(request, tcp).await.expect("the upgrade is granted");
        let mut socket = Self { stream, welcome: Value::Null, kept: Vec::new(), taken: Vec::new() };
        socket.welcome = socket.next().await.expect("the welcome comes first");
        assert_eq!(socket.welcome["type"], "welcome");
        socket
    }

    pub async fn open_raw(replica: &Replica, session: &str, token: &str) -> RawSocket {
        let mut stream = TcpStream::connect(replica.addr).await.unwrap();
        let request = format!(
            "GET /ws/chat/session/{session}/?token={token} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            replica.addr
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        RawSocket { stream }
    }

    pub async fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.expect("the socket is open");
    }

    /// The same where the server may have closed by now.
    pub async fn try_send(&mut self, frame: &Value) {
        let _ = self.stream.send(Message::text(frame.to_string())).await;
    }

    pub async fn send_message(&mut self, client_msg_id: &str, content: &str) {
        self.send(&json!({"type": "message.send", "client_msg_id": client_msg_id, "content": content})).await;
    }

    /// The next frame of this kind; others are kept.
    pub async fn frame(&mut self, kind: &str) -> Value {
        self.find(|frame| frame["type"] == kind).await
    }

    pub async fn ack(&mut self, client_msg_id: &str) -> Value {
        self.find(|frame| frame["type"] == "ack" && frame["client_msg_id"] == client_msg_id).await
    }

    /// The next `count` messages, in the order in which they came.
    pub async fn messages(&mut self, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        for _ in 0..count {
            found.push(self.frame("message").await);
        }
        found
    }

    /// Frames of this kind that came so far.
    pub fn seen(&mut self, kind: &str) -> Vec<Value> {
        let (found, kept) =
            std::mem::take(&mut self.kept).into_iter().partition(|frame| frame["type"] == kind);
        self.kept = kept;
        found
    }

    /// All messages until the socket ends, and the close code if one came.
    pub async fn rest(&mut self) -> (Vec<Value>, Option<u16>) {
        let mut found = self.seen("message");
        loop {
            match self.read().await {
                Some(Ok(frame)) if frame["type"] == "message" => found.push(frame),
                Some(Ok(_)) => {}
                Some(Err((code, _))) => return (found, Some(code)),
                None => return (found, None),
            }
        }
    }

    /// The close code and reason; frames before it are kept.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.read().await {
                Some(Ok(frame)) => self.kept.push(frame),
                Some(Err(close)) => return close,
                None => panic!("the connection ended without a close frame"),
            }
        }
    }

    pub async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }

    async fn find(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&is_it) {
            return self.kept.remove(at);
        }
        loop {
            let frame = match self.read().await {
                Some(Ok(frame)) => frame,
                ended => panic!("the socket does not stay open: {ended:?}"),
            };
            if is_it(&frame) {
                return frame;
            }
            self.kept.push(frame);
        }
    }

    async fn next(&mut self) -> Option<Value> {
        self.read().await?.ok()
    }

    /// A frame, or how the server closed; `None` when the connection ended without a word.
    async fn read(&mut self) -> Option<Result<Value, (u16, String)>> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            match next.unwrap_or_else(|_| panic!("no frame came in time; kept: {:?}", self.kept))? {
                Ok(Message::Text(text)) => {
                    return Some(Ok(serde_json::from_str(&text).expect("frames are JSON")));
                }
                Ok(Message::Close(Some(close))) => {
                    return Some(Err((close.code.into(), close.reason.to_string())));
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

impl RawSocket {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Whether these bytes come within this time.
    pub async fn hears(&mut self, wanted: &[u8], within: Duration) -> bool {
        let mut bytes = Vec::new();
        let read = async {
            let mut chunk = [0; 4096];
            while !bytes.windows(wanted.len()).any(|window| window == wanted) {
                let len = self.stream.read(&mut chunk).await.unwrap_or(0);
                if len == 0 {
                    return false;
                }
                bytes.extend_from_slice(&chunk[..len]);
            }
            true
        };
        tokio::time::timeout(within, read).await.unwrap_or(false)
    }

    /// The code of the close frame that comes within this time.
    pub async fn close_code(&mut self, within: Duration) -> Option<u16> {
        let mut bytes = Vec::new();
        let read = async {
            let mut chunk = [0; 4096];
            loop {
                let len = self.stream.read(&mut chunk).await.unwrap_or(0);
                bytes.extend_from_slice(&chunk[..len]);
                // 0x88: the head of a close frame, which no text of ours contains.
                if let Some(at) = bytes.iter().position(|byte| *byte == 0x88)
                    && bytes.len() >= at + 4
                {
                    return Some(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
                }
                if len == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(within, read).await.ok().flatten()
    }
}

pub fn offsets(messages: &[Value]) -> Vec<i64> {
    messages.iter().map(|message| message["offset"].as_i64().unwrap()).collect()
}
