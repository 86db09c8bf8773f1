//! One WebSocket: who may open it, and the task that reads its frames and watches over its queue.

mod requests;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tungstenite::Message as WsMessage;
use tungstenite::error::{CapacityError, Error as WsError, ProtocolError};

use crate::app::App;
use crate::auth::Identity;
use crate::error::Error;
use crate::extract::{Params, Path};
use crate::layers;
use crate::logic::frames::{ClientFrame, FRAME_LEN_MAX, Refusal, ServerFrame};
use crate::logic::keepalive::{Due, Keepalive};
use crate::logic::message::{Author, Offset};
use crate::logic::outbox::End;
use crate::logic::pace::{Pace, Verdict};
use crate::logic::stall::Stall;
use crate::logic::wire::Frame;

use super::hub::{Member, Seat, Written};
use wire::Reader;

/// How long the close frame may take to leave, and then the client's answer to come.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Typing is shown at most this often.
const TYPING_PERIOD: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub struct Asked {
    token: Option<String>,
    since: Option<String>,
}

/// `GET /ws/chat/session/{id}/?token=…[&since=OFFSET]`. Whatever forbids the socket is said before the upgrade.
pub async fn upgrade(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(asked): Params<Asked>,
    request: Request,
) -> Result<Response, Error> {
    if app.life.is_draining() || app.tasks.draining() {
        return Err(Error::unavailable("this replica is going away; connect again"));
    }
    if !layers::is_allowed_origin(&app.settings.service, request.headers()) {
        return Err(Error::forbidden("pages of this origin may not connect; see ALLOWED_HOSTS"));
    }
    if app.chat.counts().connections >= app.limits.bulkheads.sockets_max {
        return Err(Error::unavailable("this replica holds as many sockets as it can; connect again"));
    }
    let token = asked
        .token
        .ok_or_else(|| Error::unauthorized("connect with ?token=; get one at /api/auth/ws-ticket"))?;
    let identity = app.auth.socket_token(&app.store, &token).await?;
    let since = asked.since.as_deref().map(parse_since).transpose()?;
    let session =
        app.store.sessions().find(&id).await?.ok_or_else(|| Error::not_found("there is no such session"))?;
    let seat = app.chat.shared.hub.open(&session, &identity).await?;
    let (agreed, answer) = match wire::agree(request) {
        Ok(agreed) => agreed,
        Err(cause) => return Ok(wire::refusal(&cause)),
    };
    app.tasks.clone().spawn("websocket", async move {
        match agreed.socket().await {
            Ok((socket, already_read)) => {
                let opened = Opened { socket, already_read, identity, since };
                Connection::new(app, seat, opened).run().await;
            }
            Err(cause) => tracing::debug!(%cause, "a WebSocket ended before it began: {cause}"),
        }
    });
    Ok(answer)
}

fn parse_since(text: &str) -> Result<Offset, Error> {
    text.parse().ok().filter(|since| *since >= 0).ok_or_else(|| {
        Error::unprocessable("since", "must be the offset of the last message that you have, or 0")
    })
}

type Requested = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A socket after its handshake.
struct Opened {
    socket: TcpStream,
    already_read: Vec<u8>,
    identity: Identity,
    since: Option<Offset>,
}

/// The task of one socket. While a request of its client is being stored, nothing more is read from it.
struct Connection {
    app: App,
    reader: Reader,
    seat: Seat,
    member: Arc<Member>,
    identity: Identity,
    keepalive: Keepalive,
    /// Set while the socket is full.
    stall: Option<Stall>,
    pace: Pace,
    typed: Option<Instant>,
}

/// Why the task ends.
enum Stop {
    /// We close.
    Close(End),
    /// The client closed, or the connection broke.
    Gone,
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Stop::Close(end)
    }
}

impl Connection {
    fn new(app: App, mut seat: Seat, opened: Opened) -> Self {
        let Opened { socket, already_read, identity, since } = opened;
        let now = Instant::now();
        let settings = app.chat.shared.settings.clone();
        let user = Author {
            id: identity.user_id,
            username: identity.username.clone(),
            display_name: identity.display_name.clone(),
        };
        let member = seat.take(socket, user, since, &app.chat.shared.served_by);
        end_with_login(&app, &identity, &member);
        let reader = Reader::new(Arc::clone(&member), already_read);
        let expires = expiry(&identity, now);
        let keepalive = Keepalive::new(settings.ping_period, settings.pong_wait, expires, now);
        let pace = Pace::new(settings.rate_per_s, settings.rate_burst);
        Self { app, reader, seat, member, identity, keepalive, stall: None, pace, typed: None }
    }

    async fn run(mut self) {
        let stop = self.serve().await;
        let metrics = self.app.chat.shared.metrics.clone();
        let Connection { mut reader, seat, member, .. } = self;
        // The seat is free before the farewell: a slow farewell must not keep the member in the room.
        drop(seat);
        if let Stop::Close(end) = stop {
            metrics.on_close(end.code());
            farewell(&mut reader, &member, end).await;
        }
        member.hang_up();
    }

    async fn serve(&mut self) -> Stop {
        let mut timer = Box::pin(tokio::time::sleep_until(self.keepalive.wake_at().into()));
        let mut request: Option<Requested> = None;
        let member = Arc::clone(&self.member);
        loop {
            let step = tokio::select! {
                biased;
                () = member.alarm() => self.on_alarm(timer.as_mut()),
                () = member.writable(), if self.stall.is_some() => self.on_writable(timer.as_mut()),
                () = finished(&mut request) => {
                    request = None;
                    self.keepalive.on_deaf(Instant::now());
                    Ok(())
                }
                () = &mut timer => self.on_timer(timer.as_mut(), request.is_some()),
                frame = self.reader.next(), if request.is_none() => match frame {
                    Ok(frame) => self.on_frame(frame, &mut request),
                    Err(error) => Err(on_broken(&error)),
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

    /// The member's queue has ended, its socket is full, or it is broken.
    fn on_alarm(&mut self, timer: Pin<&mut Sleep>) -> Result<(), Stop> {
        if let Some(end) = self.member.end() {
            return Err(end.into());
        }
        if self.stall.is_none() && self.member.is_stalled() {
            self.stall = Some(Stall::new(self.member.waiting(), Instant::now()));
            self.set(timer);
        }
        Ok(())
    }

    /// The socket takes more: it is this task's turn, until nothing waits.
    fn on_writable(&mut self, timer: Pin<&mut Sleep>) -> Result<(), Stop> {
        match self.member.write() {
            Written::All => self.stall = None,
            Written::Until(finished) => {
                if let Some(stall) = &mut self.stall {
                    stall.on_written(finished, self.member.waiting(), Instant::now());
                }
            }
            Written::Nothing => return Err(Stop::Gone),
        }
        self.set(timer);
        Ok(())
    }

    fn on_timer(&mut self, timer: Pin<&mut Sleep>, is_deaf: bool) -> Result<(), Stop> {
        let now = Instant::now();
        if let Some(stall) = &self.stall {
            if now >= self.keepalive.token_expires() {
                return Err(End::TokenExpired.into());
            }
            if now >= stall.until() {
                return Err(End::Slow.into());
            }
            self.set(timer);
            return Ok(());
        }
        if is_deaf {
            self.keepalive.on_deaf(now);
        }
        let due = self.keepalive.on_wake(now);
        self.set(timer);
        match due {
            Due::Nothing => Ok(()),
            Due::Close(end) => Err(end.into()),
            Due::Ping => {
                self.member.push_now(Frame::ping());
                Ok(())
            }
        }
    }

    /// Nobody is pinged whose socket is full: the ping would wait behind the rest.
    fn set(&self, timer: Pin<&mut Sleep>) {
        let wake_at = match &self.stall {
            Some(stall) => stall.until().min(self.keepalive.token_expires()),
            None => self.keepalive.wake_at(),
        };
        timer.reset(wake_at.into());
    }

    fn on_frame(&mut self, frame: WsMessage, request: &mut Option<Requested>) -> Result<(), Stop> {
        self.keepalive.on_heard();
        match frame {
            WsMessage::Text(text) => self.on_text(&text, request),
            WsMessage::Binary(_) => {
                self.refuse("not_text", "frames are JSON as text; this one was binary");
                self.on_pace().map(|_| ())
            }
            // tungstenite answers pings by itself, and makes no raw frames when it reads.
            WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_) => Ok(()),
            WsMessage::Close(_) => {
                self.reader.answer_close();
                Err(Stop::Gone)
            }
        }
    }

    fn on_text(&mut self, text: &str, request: &mut Option<Requested>) -> Result<(), Stop> {
        if text.len() > FRAME_LEN_MAX {
            return Err(too_long());
        }
        if self.app.auth.revoked().contains(self.identity.login_id) {
            return Err(End::TokenExpired.into());
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
                self.seat.change_login(identity.login_id);
                end_with_login(&self.app, &identity, &self.member);
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

/// A login that ended after its token was checked and before the hub knew whose socket this is.
fn end_with_login(app: &App, identity: &Identity, member: &Member) {
    if app.auth.revoked().contains(identity.login_id) {
        member.close(End::TokenExpired);
    }
}

/// When the token ends, on the clock of this process.
fn expiry(identity: &Identity, now: Instant) -> Instant {
    let left_s = identity.expires_at - time::OffsetDateTime::now_utc().unix_timestamp();
    now + Duration::from_secs(u64::try_from(left_s).unwrap_or(0))
}

async fn finished(request: &mut Option<Requested>) {
    match request {
        Some(request) => request.await,
        None => std::future::pending().await,
    }
}

fn too_long() -> Stop {
    End::TooLong { bytes_max: FRAME_LEN_MAX }.into()
}

fn on_broken(error: &WsError) -> Stop {
    match error {
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => too_long(),
        WsError::Utf8(_) => End::NotUtf8.into(),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Stop::Gone,
        WsError::Protocol(_) => End::NotWebSocket.into(),
        _ => Stop::Gone,
    }
}

/// Sends the close frame and waits a moment for the client's, so that the frame is not lost in a reset.
async fn farewell(reader: &mut Reader, member: &Member, end: End) {
    // Nothing may follow a close frame, not even a pong.
    member.close(end);
    member.push_last(Frame::close(end.code(), &end.reason()));
    let close = async {
        while let Written::Until(_) = member.write() {
            member.writable().await;
        }
        while reader.next().await.is_ok_and(|frame| !frame.is_close()) {}
    };
    // Whether it arrives is up to the client now; it resumes with `since` either way.
    let _ = tokio::time::timeout(CLOSE_WAIT, close).await;
}
