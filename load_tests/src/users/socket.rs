//! A member of a room: sends, checks that every message comes once and in order, reconnects now and then from its offset.

use super::{Go, Outcome, Room, User};
use crate::http::Call;
use crate::logic::close::Close;
use crate::logic::content;
use crate::logic::fault::Fault;
use crate::logic::frames::{self, Frame};
use crate::logic::room::{RoomView, Sent};
use crate::logic::shape::Message;
use crate::logic::stats::{Key, Kind};
use crate::ws::{Incoming, Socket};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

const CONNECT: Key = Key { kind: Kind::Socket, name: "/ws/chat/session/[id]/ (to welcome)" };
const SEND: Key = Key { kind: Kind::Socket, name: "message.send (to ack)" };
const DELIVERED: &str = "message to another member";
/// A member reconnects after this many messages of its own, and up to as many more.
const SENDS_BEFORE_RECONNECT: u64 = 10;
/// After the last message of a run, the time in which it must have reached every member.
const TAIL_LIMIT: Duration = Duration::from_secs(5);

/// A member, connected or about to be.
struct Member {
    user: User,
    room: Rc<Room>,
    view: Option<RoomView>,
    /// Messages up to this offset were stored before the connection began: their age says nothing of delivery.
    live_after: i64,
    /// Sent and not settled. It survives a reconnection: then it is sent again with its key.
    sent: Option<Sent>,
    count: u64,
}

/// Why listening ended.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Quiet,
    /// The server closed in a way that asks to connect again.
    GoneAway,
}

pub async fn run(mut user: User) {
    let world = user.world.clone();
    let table = (user.seat / world.plan.room_size) as usize;
    let room = world.rooms[table % world.rooms.len()].clone();
    while user.join(&room).await.is_none() {
        if user.pause(Outcome::Failed).await == Go::Stop {
            return;
        }
    }
    let mut member = Member { user, room, view: None, live_after: 0, sent: None, count: 0 };
    let mut outcome = Outcome::Good;
    while member.user.pause(outcome).await == Go::On {
        outcome = match member.live().await {
            Ok(()) => Outcome::Good,
            Err(fault) => {
                member.user.world.recorder.on_request(SEND, Instant::now(), 0, Some(&fault));
                Outcome::Failed
            }
        };
    }
}

impl User {
    async fn join(&mut self, room: &Room) -> Option<()> {
        let call = Call::post(
            "/api/sessions/[id]/join",
            format!("/api/sessions/{}/join", room.id),
            &serde_json::json!({}),
        );
        self.ask(call, |answer| {
            if answer.status / 100 == 2 { Ok(()) } else { answer.expect(hyper::StatusCode::OK).map(drop) }
        })
        .await
    }
}

impl Member {
    /// One connection: from the welcome to a goodbye.
    async fn live(&mut self) -> Result<(), Fault> {
        let Some(mut socket) = self.connect().await else { return Ok(()) };
        let goodbye_after =
            self.count + SENDS_BEFORE_RECONNECT + self.user.random.below(SENDS_BEFORE_RECONNECT);
        if let Some(sent) = &self.sent {
            socket.send(frames::send(&sent.client_msg_id, &sent.content)).await?;
        }
        loop {
            if self.until_settled(&mut socket).await? == Heard::GoneAway {
                return Ok(());
            }
            let stopping = self.user.world.tasks.draining();
            if stopping {
                self.until_level(&mut socket).await?;
            }
            if stopping || self.count >= goodbye_after {
                socket.close().await;
                return Ok(());
            }
            let pause = self.user.world.plan.wait.next(&mut self.user.random);
            if self.listen(&mut socket, Instant::now() + pause).await? == Heard::GoneAway {
                return Ok(());
            }
            if !self.user.world.tasks.draining() {
                self.send(&mut socket).await?;
            }
        }
    }

    async fn connect(&mut self) -> Option<Socket> {
        let since = self.view.as_ref().map(RoomView::last);
        let began = Instant::now();
        let token = self.user.account.token();
        let opened = Socket::open(&self.user.client.dialer, &self.room.id, &token, since).await;
        let opened = opened.and_then(|(socket, welcome)| {
            if welcome.session_id != self.room.id {
                return Err(Fault::shape("the welcome names another session", welcome.session_id));
            }
            self.view = Some(RoomView::on_welcome(since, welcome.offset)?);
            self.live_after = welcome.offset;
            Ok(socket)
        });
        self.user.world.recorder.on_request(CONNECT, began, 0, opened.as_ref().err());
        if opened.is_err() {
            tokio::time::sleep(super::PAUSE_AFTER_FAILURE).await;
        }
        opened.ok()
    }

    async fn send(&mut self, socket: &mut Socket) -> Result<(), Fault> {
        self.count += 1;
        let world = &self.user.world;
        let text = content::message(world.plan.seed, self.user.number, self.count);
        let at = world.recorder.now();
        let content = content::stamped(&world.run, at, &text);
        let sent = Sent::new(format!("w{}-{}", self.user.number, self.count), content, at);
        let frame = frames::send(&sent.client_msg_id, &sent.content);
        self.sent = Some(sent);
        socket.send(frame).await
    }

    /// Listens until what was sent is acknowledged and has come back to its sender.
    async fn until_settled(&mut self, socket: &mut Socket) -> Result<Heard, Fault> {
        let limit = self.user.world.plan.answer_limit;
        let deadline = Instant::now() + limit;
        while let Some(sent) = &self.sent {
            let awaited = if sent.is_acked() { "delivery to the sender" } else { "ack" };
            match socket.next(deadline).await? {
                Incoming::Frame(frame) => self.on_frame(frame)?,
                Incoming::Closed(close) => return gone(&close),
                Incoming::Nothing => {
                    self.sent = None;
                    return Err(Fault::Late { what: awaited, limit });
                }
            }
            self.sent.take_if(|sent| sent.is_settled());
        }
        Ok(Heard::Quiet)
    }

    /// Listens until the deadline; a stop of the run ends it early.
    async fn listen(&mut self, socket: &mut Socket, deadline: Instant) -> Result<Heard, Fault> {
        let world = self.user.world.clone();
        loop {
            let next = tokio::select! {
                next = socket.next(deadline) => next?,
                () = world.tasks.drain_started() => return Ok(Heard::Quiet),
            };
            match next {
                Incoming::Frame(frame) => self.on_frame(frame)?,
                Incoming::Closed(close) => return gone(&close),
                Incoming::Nothing => return Ok(Heard::Quiet),
            }
        }
    }

    /// The run ends: whatever any member of the room had acknowledged must still come.
    async fn until_level(&mut self, socket: &mut Socket) -> Result<(), Fault> {
        let deadline = Instant::now() + TAIL_LIMIT;
        while self.view.as_ref().is_some_and(|view| view.last() < self.room.acked.get()) {
            match socket.next(deadline).await? {
                Incoming::Frame(frame) => self.on_frame(frame)?,
                Incoming::Closed(close) => return gone(&close).map(drop),
                Incoming::Nothing => {
                    let last = self.view.as_ref().map_or(0, RoomView::last);
                    let detail = format!("{last} of {}", self.room.acked.get());
                    return Err(Fault::order("an acknowledged message never came", detail));
                }
            }
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: Frame) -> Result<(), Fault> {
        match frame {
            Frame::Message(message) => self.on_message(&message),
            Frame::Ack { client_msg_id, offset } => self.on_ack(&client_msg_id, offset),
            Frame::Error { code, detail } => Err(Fault::shape("an error frame", format!("{code}: {detail}"))),
            Frame::Welcome(_) => Err(Fault::order("a second welcome", "")),
            Frame::Presence { .. }
            | Frame::Typing {}
            | Frame::Token { .. }
            | Frame::StreamDone { .. }
            | Frame::Pong {} => Ok(()),
        }
    }

    fn on_ack(&mut self, client_msg_id: &str, offset: i64) -> Result<(), Fault> {
        let Some(sent) = self.sent.as_mut().filter(|sent| sent.client_msg_id == client_msg_id) else {
            return Err(Fault::order("an ack for nothing that was sent", client_msg_id.to_owned()));
        };
        let recorder = &self.user.world.recorder;
        let verdict = sent.on_ack(offset);
        let began =
            Instant::now().checked_sub(recorder.now().saturating_sub(sent.at)).unwrap_or_else(Instant::now);
        recorder.on_request(SEND, began, 0, verdict.as_ref().err());
        self.room.acked.set(self.room.acked.get().max(offset));
        // Already on record: the member goes on.
        Ok(())
    }

    fn on_message(&mut self, message: &Message) -> Result<(), Fault> {
        let world = &self.user.world;
        let order = self.view.as_mut().map_or(Ok(()), |view| view.on_message(message.offset));
        let own =
            self.sent.as_mut().filter(|sent| message.client_msg_id.as_deref() == Some(&sent.client_msg_id));
        let own_verdict = own.map(|sent| sent.on_delivery(message.offset, &message.content));
        let verdict = order.and(own_verdict.clone().unwrap_or(Ok(())));
        let stamp = content::stamp_of(&world.run, &message.content);
        match (stamp, own_verdict) {
            (Some(sent), None) if message.offset > self.live_after => {
                world.recorder.on_span(
                    DELIVERED,
                    world.recorder.now().saturating_sub(sent),
                    verdict.as_ref().err(),
                );
            }
            _ if verdict.is_err() => {
                world.recorder.on_span(DELIVERED, Duration::ZERO, verdict.as_ref().err());
            }
            _ => {}
        }
        Ok(())
    }
}

/// 1001 and 1012 are a server that goes away and asks to come back, 4401 is a token that has expired meanwhile (the
/// account has a newer one); any other code is a fault.
fn gone(close: &Close) -> Result<Heard, Fault> {
    match close.code {
        1001 | 1012 | 4401 => Ok(Heard::GoneAway),
        _ => Err(Fault::Cut(format!("closed with {close}"))),
    }
}
