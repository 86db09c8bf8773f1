//! What everybody in a play shares: clock, rooms, seats and figures. One thread, so cells and no locks.

use crate::accounts::Account;
use crate::http::{Client, Dialer};
use crate::logic::fault::Fault;
use crate::logic::member_log::MemberLog;
use crate::recorder::Recorder;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Messages sent this long before a blow may meet it: they count as sent within it.
const BLOW_LEAD: Duration = Duration::from_secs(1);

/// How much happens.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub sockets: usize,
    pub rooms: usize,
    pub messages_per_s: f64,
    pub streams: usize,
    pub requests_per_s: f64,
}

#[derive(Debug)]
pub struct Stage {
    pub run: String,
    pub load: Load,
    pub recorder: Recorder,
    pub accounts: Vec<Rc<Account>>,
    pub dialers: Vec<Rc<Dialer>>,
    pub rooms: Vec<Rc<Room>>,
    pub seats: Vec<Rc<Seat>>,
    /// Sessions of API and stream users, and what was acknowledged there.
    pub sessions: RefCell<Vec<Rc<Room>>>,
    pub blow: Cell<Blow>,
    /// No new messages, requests or questions.
    pub ending: CancellationToken,
    /// Everybody goes home.
    pub over: CancellationToken,
    /// Requests and streams that were never served, however often they were sent again.
    pub unserved: Cell<u64>,
    pub streams_resumed: Cell<u64>,
    pub streams_whole: Cell<u64>,
}

/// When the blow fell and when all was well again, on the clock of the recorder.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blow {
    pub began: Option<Duration>,
    pub healed: Option<Duration>,
}

/// A session and what its writers were told.
#[derive(Debug, Default)]
pub struct Room {
    pub id: String,
    /// The highest offset that was acknowledged.
    pub acked: Cell<i64>,
    /// Keys and their acknowledged offsets.
    pub acks: RefCell<Vec<(String, i64)>>,
}

/// One member of a room, as others may see it.
#[derive(Debug, Default)]
pub struct Seat {
    pub room: Rc<Room>,
    pub log: RefCell<MemberLog>,
    pub connected: Cell<bool>,
    /// Sent or due, and not acknowledged.
    pub pending: Cell<usize>,
}

impl Room {
    pub fn on_ack(&self, key: String, offset: i64) {
        self.acked.set(self.acked.get().max(offset));
        self.acks.borrow_mut().push((key, offset));
    }
}

impl Stage {
    pub fn client(&self, number: usize) -> Client {
        Client::new(self.dialers[number % self.dialers.len()].clone())
    }

    pub fn account(&self, number: usize) -> Rc<Account> {
        self.accounts[number % self.accounts.len()].clone()
    }

    /// The moment on the runtime's clock that the recorder's clock will show `at`.
    pub fn instant(&self, at: Duration) -> Instant {
        let now = self.recorder.now();
        Instant::now() + at.saturating_sub(now)
    }

    /// A message that was to be sent at `sent` has come.
    pub fn on_delivery(&self, sent: Duration, fault: Option<&Fault>) {
        let name = match self.blow.get() {
            Blow { healed: Some(healed), .. } if sent >= healed => "delivery, after the blow",
            Blow { began: Some(began), .. } if sent + BLOW_LEAD >= began => "delivery, within the blow",
            _ => "delivery, before the blow",
        };
        self.recorder.on_span(name, self.recorder.now().saturating_sub(sent), fault);
    }

    /// The offsets that have been acknowledged by now, seat by seat.
    pub fn acked_now(&self) -> Vec<i64> {
        self.seats.iter().map(|seat| seat.room.acked.get()).collect()
    }

    /// Everybody is connected and has what `targets` says.
    pub fn is_level(&self, targets: &[i64]) -> bool {
        let mut seats = self.seats.iter().zip(targets);
        seats.all(|(seat, target)| seat.connected.get() && seat.log.borrow().last() >= *target)
    }

    /// Who is not level, in words.
    pub fn laggards(&self, targets: &[i64]) -> String {
        let behind = |(seat, target): &(&Rc<Seat>, &i64)| seat.log.borrow().last() < **target;
        let seats = || self.seats.iter().zip(targets);
        let first = seats().enumerate().find(|(_, pair)| behind(pair) || !pair.0.connected.get());
        let first = first.map_or_else(String::new, |(n, (seat, target))| {
            let (last, connected) = (seat.log.borrow().last(), seat.connected.get());
            format!("; member {n} has {last} of {target}, connected: {connected}")
        });
        format!(
            "{} of {} connected, {} behind{first}",
            self.connected(),
            self.seats.len(),
            seats().filter(behind).count()
        )
    }

    pub fn pending(&self) -> usize {
        self.seats.iter().map(|seat| seat.pending.get()).sum()
    }

    pub fn connected(&self) -> usize {
        self.seats.iter().filter(|seat| seat.connected.get()).count()
    }

    pub fn on_unserved(&self) {
        self.unserved.set(self.unserved.get() + 1);
    }
}
