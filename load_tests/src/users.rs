//! Virtual users: what they share, how they ask, think and stop. One file per kind of user.

mod api;
mod socket;
mod stream;

use crate::accounts::Account;
use crate::http::{Answer, Call, Client, Dialer};
use crate::logic::fault::Fault;
use crate::logic::mix::Role;
use crate::logic::plan::Plan;
use crate::logic::random::Random;
use crate::logic::shape::Session;
use crate::recorder::Recorder;
use chassis::tasks::Tasks;
use hyper::StatusCode;
use serde_json::json;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

pub use stream::{Until, follow};

/// What all users of a run share.
#[derive(Debug)]
pub struct World {
    pub run: String,
    pub plan: Plan,
    pub recorder: Recorder,
    pub accounts: Vec<Rc<Account>>,
    pub rooms: Vec<Rc<Room>>,
    pub dialers: Vec<Rc<Dialer>>,
    /// Users stop when these are asked to drain.
    pub tasks: Tasks,
}

/// A public session in which members meet.
#[derive(Debug)]
pub struct Room {
    pub id: String,
    /// The highest offset any member has had acknowledged: all others must reach it.
    pub acked: Cell<i64>,
}

/// One virtual user.
#[derive(Debug)]
pub struct User {
    pub number: u32,
    /// Its number among the users of its kind.
    seat: u32,
    world: Rc<World>,
    account: Rc<Account>,
    client: Client,
    random: Random,
}

/// How a task of a user ended; its fault, if any, is already on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Failed,
}

/// Whether a user goes on after its pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Stop,
}

/// A user whose request failed waits at least this long: a broken stack must not be hammered by a closed loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);

impl User {
    pub fn new(number: u32, seat: u32, world: Rc<World>) -> Self {
        let account = world.accounts[number as usize % world.accounts.len()].clone();
        let dialer = world.dialers[number as usize % world.dialers.len()].clone();
        let random = Random::of_user(world.plan.seed, number);
        Self { number, seat, account, client: Client::new(dialer), random, world }
    }

    /// Lives until the run ends.
    pub async fn run(self, role: Role) {
        match role {
            Role::Api => api::run(self).await,
            Role::Stream => stream::run(self).await,
            Role::Socket => socket::run(self).await,
        }
    }

    /// Asks, checks and records; `None` when the answer was wrong.
    async fn ask<T>(&mut self, call: Call, check: impl FnOnce(&Answer) -> Result<T, Fault>) -> Option<T> {
        let call = call.bearer(&self.account.token());
        let began = Instant::now();
        let answer = self.client.call(&call).await;
        let bytes = answer.as_ref().map_or(0, |answer| answer.body.len());
        let verdict = answer.and_then(|answer| check(&answer));
        self.world.recorder.on_request(call.key, began, bytes, verdict.as_ref().err());
        verdict.ok()
    }

    /// Creates a session of this user's own.
    async fn create_session(&mut self) -> Option<Session> {
        let title = format!("load test {} user {}", self.world.run, self.number);
        let body = json!({"title": title, "visibility": "private"});
        self.ask(Call::post("/api/sessions", "/api/sessions", &body), |answer| {
            let session: Session = answer.expect(StatusCode::CREATED)?.json()?;
            if session.title != title || session.visibility != "private" {
                return Err(Fault::shape("another session than the one created", session.visibility));
            }
            Ok(session)
        })
        .await
    }

    /// Creates a session, trying again until the run ends.
    async fn settle(&mut self) -> Option<Session> {
        loop {
            if let Some(session) = self.create_session().await {
                return Some(session);
            }
            if self.pause(Outcome::Failed).await == Go::Stop {
                return None;
            }
        }
    }

    /// Thinks, and says whether to go on.
    async fn pause(&mut self, after: Outcome) -> Go {
        let mut pause = self.world.plan.wait.next(&mut self.random);
        if after == Outcome::Failed {
            pause = pause.max(PAUSE_AFTER_FAILURE);
        }
        if pause.is_zero() {
            return if self.world.tasks.draining() { Go::Stop } else { Go::On };
        }
        tokio::select! {
            () = self.world.tasks.drain_started() => Go::Stop,
            () = tokio::time::sleep(pause) => Go::On,
        }
    }
}
