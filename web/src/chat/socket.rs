//! One WebSocket: who may open it, and the task that carries frames between it and its member's queue.

mod requests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message as WsMessage, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderMap;
use serde::Deserialize;
use tokio::time::Sleep;

use crate::app::App;
use crate::auth::Identity;
use crate::error::Error;
use crate::layers;
use crate::logic::frames::{ClientFrame, FRAME_LEN_MAX, Refusal, SUBPROTOCOL, ServerFrame};
use crate::logic::keepalive::{Due, Keepalive};
use crate::logic::message::{Author, Offset};
use crate::logic::outbox::End;
use crate::logic::pace::{Pace, Verdict};

use super::hub::{Member, Seat};

/// tungstenite's default is 128 KiB for each connection, taken at once; a usual frame fits 1 KiB, others make it grow.
const READ_BUFFER_LEN: usize = 1024;
/// Frames below this share one write.
const WRITE_BUFFER_LEN: usize = 8 * 1024;
/// Our own largest frame, an answer of 64 KiB as JSON, must fit.
const WRITE_BUFFER_LEN_MAX: usize = 1024 * 1024;
/// A socket that takes nothing for this long is gone or too slow.
const WRITE_WAIT: Duration = Duration::from_secs(20);
/// How long the close frame may take to leave, and then the client's answer to come.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Typing is shown at most this often.
const TYPING_PERIOD: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub struct Params {
    token: Option<String>,
    since: Option<String>,
}

/// `GET /ws/chat/session/{id}/?token=…[&since=OFFSET]`. Whatever forbids the socket is said before the upgrade.
pub async fn upgrade(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(params): Query<Params>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Error> {
    if app.life.is_draining() || app.tasks.draining() {
        return Err(Error::unavailable("this replica is going away; connect again"));
    }
    if !layers::is_allowed_origin(&app.settings.service, &headers) {
        return Err(Error::forbidden("pages of this origin may not connect; see ALLOWED_HOSTS"));
    }
    if app.chat.counts().connections >= app.limits.bulkheads.sockets_max {
        return Err(Error::unavailable("this replica holds as many sockets as it can; connect again"));
    }
    let token = params
        .token
        .ok_or_else(|| Error::unauthorized("connect with ?token=; get one at /api/auth/ws-ticket"))?;
    let since = params.since.as_deref().map(parse_since).transpose()?;
    let identity = app.auth.socket_token(&token).await?;
    let session =
        app.store.sessions().find(&id).await?.ok_or_else(|| Error::not_found("there is no such session"))?;
    if !app.store.sessions().is_member(session.id, identity.user_id).await? {
        return Err(Error::forbidden("you are no member of this session; join it first"));
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Ok(rejection.into_response()),
    };
    let seat = app.chat.shared.hub.open(session.id, session.last_offset).await?;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BUFFER_LEN)
        .write_buffer_size(WRITE_BUFFER_LEN)
        .max_write_buffer_size(WRITE_BUFFER_LEN_MAX)
        // Twice the limit: a frame a little too long is answered with 1009 by us, a huge one ends in tungstenite.
        .max_frame_size(2 * FRAME_LEN_MAX)
        .max_message_size(2 * FRAME_LEN_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        let tasks = app.tasks.clone();
        tasks.spawn(
            "websocket",
            async move { Connection::new(app, socket, seat, identity, since).run().await },
        );
    }))
}

fn parse_since(text: &str) -> Result<Offset, Error> {
    text.parse().ok().filter(|since| *since >= 0).ok_or_else(|| {
        Error::unprocessable("since", "must be the offset of the last message that you have, or 0")
    })
}

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The task of one socket. While a request of its client is being stored, nothing more is read from it.
struct Connection {
    app: App,
    socket: WebSocket,
    seat: Seat,
    member: Arc<Member>,
    identity: Identity,
    keepalive: Keepalive,
    pace: Pace,
    typed: Option<Instant>,
}

/// Why the task ends.
enum Stop {
    /// We close, with this code and reason.
    Close(u16, String),
    /// The client closed, or the connection broke.
    Gone,
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Stop::Close(end.code(), end.reason())
    }
}

impl Connection {
    fn new(app: App, socket: WebSocket, mut seat: Seat, identity: Identity, since: Option<Offset>) -> Self {
        let now = Instant::now();
        let settings = app.chat.shared.settings.clone();
        let user = Author {
            id: identity.user_id,
            username: identity.username.clone(),
            display_name: identity.display_name.clone(),
        };
        let member = seat.take(user, since, &app.chat.shared.served_by);
        let expires = expiry(&identity, now);
        let keepalive = Keepalive::new(settings.ping_period, settings.pong_wait, expires, now);
        let pace = Pace::new(settings.rate_per_s, settings.rate_burst);
        Self { app, socket, seat, member, identity, keepalive, pace, typed: None }
    }

    async fn run(mut self) {
        let stop = self.serve().await;
        let metrics = self.app.chat.shared.metrics.clone();
        let Connection { mut socket, seat, member, .. } = self;
        // The seat is free before the farewell: a slow farewell must not keep the member in the room.
        drop(seat);
        if let Stop::Close(code, reason) = stop {
            metrics.on_close(code);
            farewell(&mut socket, &member, code, reason).await;
        }
    }

    async fn serve(&mut self) -> Stop {
        let mut timer = Box::pin(tokio::time::sleep_until(self.keepalive.wake_at().into()));
        let mut request: Option<Request> = None;
        let member = Arc::clone(&self.member);
        loop {
            let step = tokio::select! {
                biased;
                () = member.ready() => self.write_out().await,
                () = finished(&mut request) => { request = None; Ok(()) }
                () = &mut timer => self.on_timer(timer.as_mut()).await,
                frame = self.socket.next(), if request.is_none() => match frame {
                    Some(Ok(frame)) => self.on_frame(frame, &mut request),
                    Some(Err(error)) => Err(on_broken(&error)),
                    None => Err(Stop::Gone),
                },
            };
            let Err(stop) = step else { continue };
            // What the client asked for before it went is still done: it may have been stored already.
            if request.is_some() {
                let _ = tokio::time::timeout(CLOSE_WAIT, finished(&mut request)).await;
            }
            return stop;
        }
    }

    /// Writes what is queued; all of it shares as few writes as possible.
    async fn write_out(&mut self) -> Result<(), Stop> {
        let (socket, member) = (&mut self.socket, &*self.member);
        let mut wrote = false;
        while let Some(frame) = member.pop() {
            or_slow(socket.feed(WsMessage::Text(frame)), member).await?;
            wrote = true;
        }
        if wrote {
            or_slow(socket.flush(), member).await?;
        }
        match member.end() {
            Some(end) => Err(end.into()),
            None => Ok(()),
        }
    }

    async fn on_timer(&mut self, timer: Pin<&mut Sleep>) -> Result<(), Stop> {
        let due = self.keepalive.on_wake(Instant::now());
        timer.reset(self.keepalive.wake_at().into());
        match due {
            Due::Nothing => Ok(()),
            Due::Close(end) => Err(end.into()),
            Due::Ping if self.app.auth.revoked().contains(self.identity.login_id) => {
                Err(End::TokenExpired.into())
            }
            Due::Ping => or_slow(self.socket.send(WsMessage::Ping(bytes::Bytes::new())), &self.member).await,
        }
    }

    fn on_frame(&mut self, frame: WsMessage, request: &mut Option<Request>) -> Result<(), Stop> {
        self.keepalive.on_heard();
        match frame {
            WsMessage::Text(text) => self.on_text(&text, request),
            WsMessage::Binary(_) => {
                self.refuse("not_text", "frames are JSON as text; this one was binary");
                self.on_pace().map(|_| ())
            }
            // tungstenite answers pings by itself.
            WsMessage::Ping(_) | WsMessage::Pong(_) => Ok(()),
            WsMessage::Close(_) => Err(Stop::Gone),
        }
    }

    fn on_text(&mut self, text: &Utf8Bytes, request: &mut Option<Request>) -> Result<(), Stop> {
        if text.len() > FRAME_LEN_MAX {
            return Err(too_long());
        }
        let frame = ClientFrame::parse(text);
        if !self.on_pace()? {
            let client_msg_id = match frame {
                Ok(ClientFrame::Send(draft) | ClientFrame::Ask(draft)) => Some(draft.client_msg_id),
                _ => None,
            };
            let detail = "too many frames; wait a moment and send it again".to_owned();
            self.member.say(&(&Refusal { client_msg_id, ..Refusal::new("rate_limit", detail) }).into());
            return Ok(());
        }
        match frame {
            Ok(ClientFrame::Send(draft)) => {
                *request = Some(Box::pin(requests::send(self.app.clone(), self.place(), draft)));
            }
            Ok(ClientFrame::Ask(draft)) => {
                *request = Some(Box::pin(requests::ask(self.app.clone(), self.place(), draft)));
            }
            Ok(ClientFrame::Typing) => self.on_typing(),
            Ok(ClientFrame::Ping) => self.member.say(&ServerFrame::Pong),
            Ok(ClientFrame::AuthRefresh { token }) => self.on_token(&token),
            Err(refusal) => self.member.say(&(&refusal).into()),
        }
        Ok(())
    }

    /// Whether a frame may be served now; one flood too many ends the connection.
    fn on_pace(&mut self) -> Result<bool, Stop> {
        match self.pace.on_frame(Instant::now()) {
            Verdict::Admit => Ok(true),
            Verdict::Refuse => Ok(false),
            Verdict::Close => Err(End::RateLimit.into()),
        }
    }

    fn on_typing(&mut self) {
        let now = Instant::now();
        if self.typed.is_none_or(|typed| now.duration_since(typed) >= TYPING_PERIOD) {
            self.typed = Some(now);
            self.app.chat.typing(self.seat.session(), &self.member.user);
        }
    }

    fn on_token(&mut self, token: &str) {
        match self.app.auth.access(token) {
            Ok(identity) if identity.user_id == self.identity.user_id => {
                self.keepalive.on_token(expiry(&identity, Instant::now()));
                self.identity = identity;
            }
            Ok(_) => self.refuse("unauthorized", "the token belongs to somebody else"),
            Err(error) => self.refuse(error.code(), &error.detail()),
        }
    }

    fn refuse(&self, code: &str, detail: &str) {
        self.member.say(&ServerFrame::Error { code, detail, client_msg_id: None });
    }

    fn place(&self) -> requests::Place {
        requests::Place { session: self.seat.session(), member: Arc::clone(&self.member) }
    }
}

/// When the token ends, on the clock of this process.
fn expiry(identity: &Identity, now: Instant) -> Instant {
    let left_s = identity.expires_at - time::OffsetDateTime::now_utc().unix_timestamp();
    now + Duration::from_secs(u64::try_from(left_s).unwrap_or(0))
}

async fn finished(request: &mut Option<Request>) {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}

/// Waits for a write, but not for a client that is too slow: its queue overflows, or nothing moves at all.
async fn or_slow(write: impl Future<Output = Result<(), axum::Error>>, member: &Member) -> Result<(), Stop> {
    tokio::pin!(write);
    let deadline = tokio::time::sleep(WRITE_WAIT);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            biased;
            written = &mut write => return written.map_err(|_| Stop::Gone),
            () = member.ready() => {
                if let Some(end) = member.end() {
                    return Err(end.into());
                }
            }
            () = &mut deadline => return Err(End::Slow.into()),
        }
    }
}

fn too_long() -> Stop {
    Stop::Close(1009, format!("a frame may have {FRAME_LEN_MAX} bytes"))
}

fn on_broken(error: &axum::Error) -> Stop {
    // axum hides tungstenite's error type; its texts begin with the kind of the error.
    let text = error.to_string();
    if text.contains("too long") {
        too_long()
    } else if text.starts_with("UTF-8 encoding error") {
        Stop::Close(1007, "text frames are UTF-8".to_owned())
    } else if text.starts_with("WebSocket protocol error") && !text.ends_with("closing handshake") {
        Stop::Close(1002, "not the WebSocket protocol (RFC 6455)".to_owned())
    } else {
        Stop::Gone
    }
}

/// Sends the close frame and waits a moment for the client's, so that the frame is not lost in a reset.
async fn farewell(socket: &mut WebSocket, member: &Member, code: u16, reason: String) {
    let close = async {
        while let Some(frame) = member.pop() {
            socket.feed(WsMessage::Text(frame)).await?;
        }
        let frame = CloseFrame { code, reason: reason.into() };
        socket.send(WsMessage::Close(Some(frame))).await?;
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<(), axum::Error>(())
    };
    // Whether it arrives is up to the client now; it resumes with `since` either way.
    let _ = tokio::time::timeout(CLOSE_WAIT, close).await;
}
