//! A member that sends on a fixed beat whatever happens, connects again when it is cut off, and keeps all it was sent.

use super::stage::{Seat, Stage};
use crate::accounts::Account;
use crate::http::Dialer;
use crate::logic::close::Close;
use crate::logic::content;
use crate::logic::fault::Fault;
use crate::logic::frames::{self, Frame};
use crate::logic::incidents::Incident;
use crate::logic::random::Random;
use crate::logic::shape::Message;
use crate::logic::stats::{Key, Kind};
use crate::ws::{Incoming, Socket};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

const CONNECT: Key = Key { kind: Kind::Socket, name: "/ws/chat/session/[id]/ (to welcome)" };
const LISTEN: Key = Key { kind: Kind::Socket, name: "/ws/chat/session/[id]/ (frames)" };
/// What is not acknowledged by then on a living connection is sent again: the key makes that harmless.
const ACK_LIMIT: Duration = Duration::from_secs(10);
/// Where sending fails, what the server said before is read for this long.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);
/// Members that were cut off together come back spread over this time, and who is refused over twice as much, up to
/// this many times: a crowd that knocks without pause would be what keeps the stack down.
const COME_BACK_MS: u64 = 200;
const DOUBLINGS_MAX: u32 = 4;

pub struct Member {
    stage: Rc<Stage>,
    seat: Rc<Seat>,
    number: usize,
    account: Rc<Account>,
    dialer: Rc<Dialer>,
    random: Random,
    /// Not acknowledged, oldest first.
    pending: VecDeque<Pending>,
    count: u64,
    next_due: Duration,
    period: Duration,
}

struct Pending {
    key: String,
    frame: String,
    sent: Option<Instant>,
}

impl Member {
    pub fn new(stage: Rc<Stage>, number: usize) -> Self {
        let load = stage.load;
        // All members take their turn, so that every replica has senders.
        let period = Duration::from_secs_f64(load.sockets as f64 / load.messages_per_s);
        let lead = period.mul_f64(number as f64 / load.sockets as f64);
        Self {
            seat: stage.seats[number].clone(),
            account: stage.account(number),
            dialer: stage.dialers[number % stage.dialers.len()].clone(),
            random: Random::of_user(7, u32::try_from(number).unwrap_or(u32::MAX)),
            pending: VecDeque::new(),
            count: 0,
            next_due: stage.recorder.now() + lead,
            period,
            number,
            stage,
        }
    }

    /// Lives until the play is over.
    pub async fn run(mut self) {
        let over = self.stage.over.clone();
        over.run_until_cancelled(self.stay()).await;
    }

    async fn stay(&mut self) {
        let mut refusals = 0;
        loop {
            refusals += 1;
            if let Some(mut socket) = self.connect().await {
                refusals = 0;
                self.seat.connected.set(true);
                let ended = self.live(&mut socket).await;
                self.seat.connected.set(false);
                self.on_end(ended);
            }
            let spread_ms = COME_BACK_MS << DOUBLINGS_MAX.min(refusals);
            sleep(Duration::from_millis(self.random.below(spread_ms))).await;
        }
    }

    async fn connect(&mut self) -> Option<Socket> {
        let since = self.seat.log.borrow().since();
        let began = Instant::now();
        let opened = Socket::open(&self.dialer, &self.seat.room.id, &self.account.token(), since).await;
        let opened = opened.and_then(|(socket, welcome)| {
            self.seat.log.borrow_mut().on_welcome(welcome.offset)?;
            self.seat.on_welcome(welcome.served_by);
            Ok(socket)
        });
        self.stage.recorder.on_request(CONNECT, began, 0, opened.as_ref().err());
        opened.ok()
    }

    /// A connection that ends is what the play is about, and may be right; a wrong order of messages never is.
    fn on_end(&self, ended: Result<Close, Fault>) {
        match ended {
            Ok(close) => self.on_incident(&Incident::Closed(close)),
            Err(fault @ (Fault::Order { .. } | Fault::Shape { .. })) => {
                self.stage.recorder.on_request(LISTEN, Instant::now(), 0, Some(&fault));
            }
            Err(fault) => self.on_incident(&Incident::Cut(fault.to_string())),
        }
    }

    fn on_incident(&self, incident: &Incident) {
        self.stage.on_incident(&self.seat.served_by.borrow(), incident);
    }

    /// Until the server closes the connection, or it breaks.
    async fn live(&mut self, socket: &mut Socket) -> Result<Close, Fault> {
        for pending in &mut self.pending {
            pending.sent = None;
        }
        loop {
            if let Err(fault) = self.send_unsent(socket).await {
                return self.last_words(socket, fault).await;
            }
            let wake = self.stage.instant(self.next_due).min(self.oldest_limit());
            match socket.next(wake).await? {
                Incoming::Frame(frame) => self.on_frame(frame)?,
                Incoming::Closed(close) => return Ok(close),
                Incoming::Nothing => self.on_beat(),
            }
        }
    }

    /// Nothing can be sent any more: a close frame that is still to be read says why.
    async fn last_words(&mut self, socket: &mut Socket, fault: Fault) -> Result<Close, Fault> {
        let deadline = Instant::now() + LAST_WORDS_LIMIT;
        loop {
            match socket.next(deadline).await {
                Ok(Incoming::Frame(frame)) => self.on_frame(frame)?,
                Ok(Incoming::Closed(close)) => return Ok(close),
                Ok(Incoming::Nothing) | Err(_) => return Err(fault),
            }
        }
    }

    /// What falls due is pending from then on, connected or not: its age counts from the moment it was due.
    fn on_beat(&mut self) {
        let now = Instant::now();
        let sent = self.pending.iter_mut().map(|pending| &mut pending.sent);
        let late = sent.filter_map(|sent| sent.take_if(|sent| now >= *sent + ACK_LIMIT)).count();
        (0..late).for_each(|_| self.on_incident(&Incident::Unacknowledged(ACK_LIMIT)));
        while self.next_due <= self.stage.recorder.now() {
            let due = self.next_due;
            self.next_due += self.period;
            if self.stage.ending.is_cancelled() {
                continue;
            }
            self.count += 1;
            let number = u32::try_from(self.number).unwrap_or(u32::MAX);
            let text = content::stamped(&self.stage.run, due, &content::message(7, number, self.count));
            let key = format!("m{}-{}", self.number, self.count);
            let frame = frames::send(&key, &text);
            self.pending.push_back(Pending { key, frame, sent: None });
        }
        self.seat.pending.set(self.pending.len());
    }

    async fn send_unsent(&mut self, socket: &mut Socket) -> Result<(), Fault> {
        for pending in self.pending.iter_mut().filter(|pending| pending.sent.is_none()) {
            pending.sent = Some(Instant::now());
            socket.send(pending.frame.clone()).await?;
        }
        Ok(())
    }

    fn oldest_limit(&self) -> Instant {
        let oldest = self.pending.iter().filter_map(|pending| pending.sent).min();
        oldest.unwrap_or_else(Instant::now) + ACK_LIMIT
    }

    fn on_frame(&mut self, frame: Frame) -> Result<(), Fault> {
        match frame {
            Frame::Message(message) => self.on_message(&message),
            Frame::Ack { client_msg_id, offset } => {
                self.on_ack(&client_msg_id, offset);
                Ok(())
            }
            // The limit of the acknowledgement sends what was refused again.
            Frame::Error { code, detail } => {
                let code = code.as_str().map_or_else(|| code.to_string(), str::to_owned);
                self.on_incident(&Incident::Refused { code, detail });
                Ok(())
            }
            Frame::Welcome(_) => Err(Fault::order("a second welcome", "")),
            Frame::Presence { .. }
            | Frame::Typing {}
            | Frame::Token { .. }
            | Frame::StreamDone { .. }
            | Frame::Pong {} => Ok(()),
        }
    }

    fn on_ack(&mut self, key: &str, offset: i64) {
        let known = self.pending.iter().position(|pending| pending.key == key);
        let Some(pending) = known.and_then(|at| self.pending.remove(at)) else { return };
        self.seat.pending.set(self.pending.len());
        self.seat.room.on_ack(pending.key, offset);
    }

    fn on_message(&mut self, message: &Message) -> Result<(), Fault> {
        let id: Uuid =
            message.id.parse().map_err(|_| Fault::shape("an id is no UUID", message.id.clone()))?;
        let order = self.seat.log.borrow_mut().on_message(message.offset, id);
        if let Some(sent) = content::stamp_of(&self.stage.run, &message.content) {
            self.stage.on_delivery(sent, order.as_ref().err());
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::stage::{Load, Room};
    use crate::logic::incidents::Harm;
    use crate::logic::target::Target;
    use axum::Router;
    use axum::extract::ws::{CloseFrame, Message as WsMessage, WebSocket};
    use axum::extract::{State, WebSocketUpgrade};
    use axum::routing::get;
    use serde_json::json;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;

    /// Whoever comes back has told how its connection before ended.
    type Visits = (Arc<AtomicUsize>, mpsc::UnboundedSender<usize>);

    /// Refuses what the first visitor sends and closes with 4408; leaves the second without a word; keeps the third.
    async fn serve(visit: usize, mut socket: WebSocket) {
        let welcome = json!({"type": "welcome", "session_id": "s", "offset": 0, "served_by": "web-1", "resumed": false});
        let _ = socket.send(WsMessage::text(welcome.to_string())).await;
        match visit {
            0 => {
                let _ = socket.recv().await;
                let error = json!({"type": "error", "code": "unavailable", "detail": "try again"});
                let _ = socket.send(WsMessage::text(error.to_string())).await;
                let close = CloseFrame { code: 4408, reason: "too slow".into() };
                let _ = socket.send(WsMessage::Close(Some(close))).await;
            }
            1 => {}
            _ => while socket.recv().await.is_some() {},
        }
    }

    async fn start_server() -> (Target, mpsc::UnboundedReceiver<usize>) {
        let (came, visits) = mpsc::unbounded_channel();
        let state: Visits = (Arc::default(), came);
        let upgrade = async |State((count, came)): State<Visits>, upgrade: WebSocketUpgrade| {
            let visit = count.fetch_add(1, Ordering::Relaxed);
            // The test may have seen enough.
            let _ = came.send(visit);
            upgrade.on_upgrade(move |socket| serve(visit, socket))
        };
        let router = Router::new().route("/ws/chat/session/{id}/", get(upgrade)).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        (format!("http://{address}").parse().expect("an address is a target"), visits)
    }

    #[tokio::test]
    async fn what_befalls_a_members_connection_is_on_record_and_not_passed_over() {
        let work = async {
            let (target, mut visits) = start_server().await;
            let dialer = Dialer::resolve(&target, Duration::from_secs(10)).await.expect("an address");
            let load = Load { sockets: 1, rooms: 1, messages_per_s: 100.0, streams: 0, requests_per_s: 1.0 };
            let room = Rc::new(Room { id: "s".to_owned(), ..Room::default() });
            let stage = Rc::new(Stage {
                accounts: vec![Rc::new(Account::of_token("t"))],
                dialers: vec![Rc::new(dialer)],
                seats: vec![Rc::new(Seat { room, ..Seat::default() })],
                ..Stage::new("test".to_owned(), load, Harm::SentAway)
            });
            let member = tokio::task::spawn_local(Member::new(stage.clone(), 0).run());
            while visits.recv().await.expect("the member comes back") < 2 {}
            stage.over.cancel();
            member.await.expect("the member ends with the play");
            assert_eq!(
                stage.incidents.borrow().summary(),
                "1 closed with 4408, 1 cut without a close frame, 1 error frame unavailable"
            );
            assert_eq!(stage.incidents.borrow().faults().len(), 3);
        };
        LocalSet::new().run_until(work).await;
    }
}
