//! A member that sends on a fixed beat whatever happens, connects again when it is cut off, and keeps all it was sent.

use super::stage::{Seat, Stage};
use crate::accounts::Account;
use crate::http::Dialer;
use crate::logic::content;
use crate::logic::fault::Fault;
use crate::logic::frames::{self, Frame};
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
                // A connection that breaks is what the play is about; a wrong order of messages is a fault.
                if let Err(fault @ (Fault::Order { .. } | Fault::Shape { .. })) = &ended {
                    self.stage.recorder.on_request(LISTEN, Instant::now(), 0, Some(fault));
                }
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
            Ok(socket)
        });
        self.stage.recorder.on_request(CONNECT, began, 0, opened.as_ref().err());
        opened.ok()
    }

    async fn live(&mut self, socket: &mut Socket) -> Result<(), Fault> {
        for pending in &mut self.pending {
            pending.sent = None;
        }
        loop {
            self.send_unsent(socket).await?;
            let wake = self.stage.instant(self.next_due).min(self.oldest_limit());
            match socket.next(wake).await? {
                Incoming::Frame(frame) => self.on_frame(frame)?,
                Incoming::Closed(_) => return Ok(()),
                Incoming::Nothing => self.on_beat(),
            }
        }
    }

    /// What falls due is pending from then on, connected or not: its age counts from the moment it was due.
    fn on_beat(&mut self) {
        let now = Instant::now();
        for pending in &mut self.pending {
            pending.sent.take_if(|sent| now >= *sent + ACK_LIMIT);
        }
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
            // Refused, as while the database is away: the limit of the acknowledgement sends it again.
            _ => Ok(()),
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
