//! One WebSocket of a member: opened with a deadline, read frame by frame.

use crate::http::{Dialer, cause};
use crate::logic::close::Close;
use crate::logic::fault::Fault;
use crate::logic::frames::{Frame, Welcome};
use crate::logic::shape;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, ClientRequestBuilder};

/// The contract's largest frame is 64 KiB; a broadcast wraps one in JSON.
const FRAME_MAX: usize = 256 * 1024;

/// An open socket that has been welcomed.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    limit: std::time::Duration,
    last_len: usize,
}

/// What came next.
#[derive(Debug)]
pub enum Incoming {
    Frame(Frame),
    Closed(Close),
    /// The deadline passed and nothing came.
    Nothing,
}

/// What came next, unread.
#[derive(Debug)]
pub enum Text {
    Frame(String),
    Closed(Close),
    Nothing,
}

impl Socket {
    /// Connects to a session and waits for the welcome.
    pub async fn open(
        dialer: &Dialer,
        session: &str,
        token: &str,
        since: Option<i64>,
    ) -> Result<(Self, Welcome), Fault> {
        let limit = dialer.limit;
        let late = |_| Fault::Late { what: "welcome", limit };
        timeout(limit, Self::welcomed(dialer, session, token, since)).await.map_err(late)?
    }

    pub async fn send(&mut self, text: String) -> Result<(), Fault> {
        let sent = timeout(self.limit, self.stream.send(Message::text(text))).await;
        sent.map_err(|_| Fault::Late { what: "room to send", limit: self.limit })?
            .map_err(|error| Fault::Cut(cause(&error)))
    }

    /// The next frame, or nothing by the deadline.
    pub async fn next(&mut self, deadline: Instant) -> Result<Incoming, Fault> {
        match self.next_text(deadline).await? {
            Text::Frame(text) => Frame::parse(&text).map(Incoming::Frame),
            Text::Closed(close) => Ok(Incoming::Closed(close)),
            Text::Nothing => Ok(Incoming::Nothing),
        }
    }

    /// The same as it came.
    pub async fn next_text(&mut self, deadline: Instant) -> Result<Text, Fault> {
        loop {
            let Ok(next) = timeout_at(deadline, self.stream.next()).await else {
                return Ok(Text::Nothing);
            };
            match next {
                Some(Ok(Message::Text(text))) => {
                    self.last_len = text.len();
                    return Ok(Text::Frame(text.to_string()));
                }
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) = frame
                        .map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                    return Ok(Text::Closed(Close { code, reason }));
                }
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(_))) => return Err(Fault::shape("a binary frame", "")),
                Some(Err(error)) => return Err(Fault::Cut(cause(&error))),
                None => return Err(Fault::Cut("closed without a close frame".to_owned())),
            }
        }
    }

    /// Bytes of the newest text frame.
    pub fn last_len(&self) -> usize {
        self.last_len
    }

    /// Says goodbye and waits for the answer, briefly: the server may have gone.
    pub async fn close(mut self) {
        let goodbye = async {
            self.stream.close(None).await?;
            while let Some(Ok(_)) = self.stream.next().await {}
            Ok::<(), tungstenite::Error>(())
        };
        // Nothing depends on the goodbye; what mattered has been read before.
        let _ = timeout(std::time::Duration::from_secs(1), goodbye).await;
    }

    /// Connects; the welcome is still to be read.
    pub async fn connect(
        dialer: &Dialer,
        session: &str,
        token: &str,
        since: Option<i64>,
    ) -> Result<Self, Fault> {
        let since = since.map_or_else(String::new, |offset| format!("&since={offset}"));
        let uri = format!("ws://{}/ws/chat/session/{session}/?token={token}{since}", dialer.authority);
        let uri = uri.parse().map_err(|_| Fault::shape("a session id or token that fits in no URL", ""))?;
        let tcp = dialer.connect().await?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_MAX))
            .max_frame_size(Some(FRAME_MAX))
            // The default of 128 KiB would be most of the memory of a run with thousands of members.
            .read_buffer_size(4 * 1024);
        let request = ClientRequestBuilder::new(uri);
        let (stream, _) =
            tokio_tungstenite::client_async_with_config(request, tcp, Some(config)).await.map_err(refused)?;
        Ok(Self { stream, limit: dialer.limit, last_len: 0 })
    }

    async fn welcomed(
        dialer: &Dialer,
        session: &str,
        token: &str,
        since: Option<i64>,
    ) -> Result<(Self, Welcome), Fault> {
        let mut socket = Self::connect(dialer, session, token, since).await?;
        match socket.next(Instant::now() + dialer.limit).await? {
            Incoming::Frame(Frame::Welcome(welcome)) => Ok((socket, welcome)),
            Incoming::Frame(_) => Err(Fault::order("another frame came before the welcome", "")),
            Incoming::Closed(close) => {
                Err(Fault::Cut(format!("closed with {} before the welcome", close.code)))
            }
            Incoming::Nothing => Err(Fault::Late { what: "welcome", limit: dialer.limit }),
        }
    }
}

fn refused(error: tungstenite::Error) -> Fault {
    match error {
        tungstenite::Error::Http(response) => {
            let title = shape::problem_title(response.body().as_deref().unwrap_or_default());
            Fault::Status { got: response.status().as_u16(), wanted: 101, title }
        }
        other => Fault::NoAnswer(cause(&other)),
    }
}
