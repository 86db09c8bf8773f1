//! What everybody in a play shares: clock, rooms, seats and figures. One thread, so cells and no locks.

use crate::accounts::Account;
use crate::http::{Client, Dialer};
use crate::logic::fault::Fault;
use crate::logic::incidents::{Harm, Incident, Incidents};
use crate::logic::member_log::MemberLog;
use crate::recorder::Recorder;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Messages sent this long before a blow may meet it: they count as sent within it.
const BLOW_LEAD: Duration = Duration::from_secs(1);
/// The name of deliveries of messages that were sent then.
pub const WITHIN_BLOW: &str = "delivery, within the blow";

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
    /// What the blow does to connections, and what befell them.
    pub harm: Harm,
    pub incidents: RefCell<Incidents>,
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
    /// How long after the disturbance itself all members had caught up.
    pub level: Option<Duration>,
    pub healed: Option<Duration>,
}

impl Blow {
    /// Between its beginning and the moment when all was well again.
    fn lasts(self) -> bool {
        self.began.is_some() && self.healed.is_none()
    }
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
    /// The replica that welcomed it last, and how many times one did.
    pub served_by: RefCell<String>,
    pub welcomes: Cell<u32>,
    /// Sent or due, and not acknowledged.
    pub pending: Cell<usize>,
}

impl Room {
    pub fn on_ack(&self, key: String, offset: i64) {
        self.acked.set(self.acked.get().max(offset));
        self.acks.borrow_mut().push((key, offset));
    }
}

impl Seat {
    pub fn on_welcome(&self, served_by: String) {
        *self.served_by.borrow_mut() = served_by;
        self.welcomes.set(self.welcomes.get() + 1);
    }
}

/// Members of replicas that are about to die, each with the number of its welcomes so far.
#[derive(Debug)]
pub struct Doomed(Vec<(Rc<Seat>, u32)>);

impl Doomed {
    /// All of them have been welcomed again. At first nobody notices that its replica is dead: a member that seems to be
    /// connected and to have everything proves nothing.
    pub fn are_back(&self) -> bool {
        self.0.iter().all(|(seat, welcomes)| seat.welcomes.get() > *welcomes)
    }
}

impl Stage {
    /// An empty one: nobody is there yet, and nothing has happened.
    pub fn new(run: String, load: Load, harm: Harm) -> Self {
        Self {
            run,
            load,
            recorder: Recorder::start(),
            accounts: Vec::new(),
            dialers: Vec::new(),
            rooms: Vec::new(),
            seats: Vec::new(),
            sessions: RefCell::default(),
            harm,
            incidents: RefCell::default(),
            blow: Cell::default(),
            ending: CancellationToken::new(),
            over: CancellationToken::new(),
            unserved: Cell::new(0),
            streams_resumed: Cell::new(0),
            streams_whole: Cell::new(0),
        }
    }

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
            Blow { began: Some(began), .. } if sent + BLOW_LEAD >= began => WITHIN_BLOW,
            _ => "delivery, before the blow",
        };
        self.recorder.on_span(name, self.recorder.now().saturating_sub(sent), fault);
    }

    /// Something befell a member's connection to the replica `served_by`.
    pub fn on_incident(&self, served_by: &str, incident: &Incident) {
        let harm = self.blow.get().lasts().then_some(&self.harm);
        self.incidents.borrow_mut().on_incident(self.recorder.now(), served_by, incident, harm);
    }

    /// Who will have to come back after the blow that is about to fall.
    pub fn doomed(&self) -> Doomed {
        let doomed = self.seats.iter().filter(|seat| self.harm.kills(&seat.served_by.borrow()));
        Doomed(doomed.map(|seat| (seat.clone(), seat.welcomes.get())).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_with_a_killed_replica_is_not_back_before_another_one_has_welcomed_it() {
        let load = Load { sockets: 2, rooms: 1, messages_per_s: 1.0, streams: 0, requests_per_s: 1.0 };
        let seats = vec![Rc::<Seat>::default(), Rc::default()];
        let stage =
            Stage { seats, ..Stage::new("test".to_owned(), load, Harm::Died(vec!["web-2".to_owned()])) };
        for (seat, served_by) in stage.seats.iter().zip(["web-1", "web-2"]) {
            seat.connected.set(true);
            seat.on_welcome(served_by.to_owned());
        }
        let doomed = stage.doomed();
        assert!(stage.is_level(&[0, 0]), "nobody has noticed yet");
        assert!(!doomed.are_back());
        stage.seats[0].on_welcome("web-1".to_owned());
        assert!(!doomed.are_back(), "that was somebody else");
        stage.seats[1].on_welcome("web-3".to_owned());
        assert!(doomed.are_back());
    }

    #[test]
    fn where_no_replica_dies_nobody_is_doomed() {
        let load = Load { sockets: 1, rooms: 1, messages_per_s: 1.0, streams: 0, requests_per_s: 1.0 };
        for harm in [Harm::SentAway, Harm::Nothing] {
            let stage = Stage { seats: vec![Rc::default()], ..Stage::new("test".to_owned(), load, harm) };
            stage.seats[0].on_welcome("web-2".to_owned());
            assert!(stage.doomed().are_back());
        }
    }
}
