//! Keeps one part alive: starts it, watches its health, starts it again when it dies, ends it when told.

mod kept;
mod succession;

use std::path::PathBuf;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use chassis::tasks::Tasks;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot, watch};

use crate::board::{Board, Sight};
use crate::logic::plan::{Part, Probe, StopSignal};
use crate::logic::report::State;
use crate::logic::restart::{Restarts, Verdict};
use crate::probe;
use crate::record::Record;
use crate::spawn::Nest;

use kept::{Force, Kept};

/// How often a part that is not healthy yet is asked: often, because the start waits for it.
const ASK_WHILE_STARTING: Duration = Duration::from_millis(100);
const ASK_WHEN_HEALTHY: Duration = Duration::from_secs(2);
/// One missed answer may be a moment's load.
const MISSES_TOLERATED: u32 = 2;

enum Order {
    Stop(oneshot::Sender<()>),
    /// Go on with this part instead; the answer is the way it went.
    Replace(Box<Part>, Way, oneshot::Sender<Way>),
    Signal(Signal),
}

/// How one process of a part follows another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The old one ends first.
    Anew,
    /// Where the part knows how, the new one takes over from the old one, and nobody is refused.
    TakingOver,
}

/// The handle of one kept part.
#[derive(Debug)]
pub struct Keeper {
    name: String,
    orders: mpsc::Sender<Order>,
    sight: watch::Receiver<Sight>,
    log: PathBuf,
}

impl Keeper {
    /// Starts the part and the task that keeps it.
    pub fn start(part: Part, nest: Rc<Nest>, board: Rc<Board>, tasks: &Tasks) -> Self {
        let (orders, received) = mpsc::channel(4);
        let address = part.address.to_string();
        let sight =
            Sight { state: State::Starting, pid: None, since: None, restarts: 0, address, trouble: None };
        let (sender, sight) = watch::channel(sight);
        board.add(&part.name, sight.clone());
        let keeper = Self { name: part.name.clone(), orders, sight, log: nest.dirs.log_of(&part.name) };
        let life = Life { part, nest, board, orders: received, sight: sender, restarts: Restarts::default() };
        tasks.spawn_local("keeper", life.keep());
        keeper
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the part is healthy.
    ///
    /// # Errors
    /// It died too often, or the time is over; the error shows the end of its log.
    pub async fn healthy(&self, deadline: Instant) -> Result<()> {
        let mut sight = self.sight.clone();
        let settled =
            sight.wait_for(|seen| matches!(seen.state, State::Healthy | State::Failed | State::Stopped));
        let settled = tokio::time::timeout_at(deadline.into(), settled).await;
        let state = settled.ok().and_then(Result::ok).map(|seen| seen.state);
        if state == Some(State::Healthy) {
            return Ok(());
        }
        let what = match state {
            Some(_) => "ended before it was healthy",
            None => "is not healthy in time",
        };
        let trouble =
            self.sight.borrow().trouble.clone().map(|text| format!(" ({text})")).unwrap_or_default();
        anyhow::bail!("{} {what}{trouble}\n{}", self.name, crate::spawn::log_tail(&self.log))
    }

    /// Ends the part, in the end by force.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        // A keeper that is gone has nothing left to stop.
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            let _ = ended.await;
        }
    }

    /// Goes on with `part`; returns when the process before has ended, with the way it went.
    pub async fn replace(&self, part: Part, way: Way) -> Way {
        let (done, went) = oneshot::channel();
        // A keeper that is gone replaces nothing; its health tells so.
        let _ = self.orders.send(Order::Replace(Box::new(part), way, done)).await;
        went.await.unwrap_or(Way::Anew)
    }

    /// Sends a signal to the process of the moment.
    pub async fn signal(&self, signal: Signal) {
        let _ = self.orders.send(Order::Signal(signal)).await;
    }
}

/// The task behind a `Keeper`.
struct Life {
    part: Part,
    nest: Rc<Nest>,
    board: Rc<Board>,
    orders: mpsc::Receiver<Order>,
    sight: watch::Sender<Sight>,
    restarts: Restarts,
}

enum Ending {
    Died(Option<ExitStatus>),
    Told(Option<Order>),
}

impl Life {
    async fn keep(mut self) {
        loop {
            let verdict = match self.nest.start(&self.part) {
                Ok(child) => match self.live(Kept::Child(child)).await {
                    Some(verdict) => verdict,
                    None => return,
                },
                Err(cause) => {
                    self.board.say(&format!("{cause:#}"));
                    self.see(|sight| sight.trouble = Some(format!("{cause:#}")));
                    self.restarts.on_death(Duration::ZERO)
                }
            };
            let wait = match verdict {
                Verdict::StartAgainAfter(wait) => wait,
                Verdict::GiveUp => Duration::MAX,
            };
            let state = if wait == Duration::MAX { State::Failed } else { State::Restarting };
            self.see(|sight| (sight.state, sight.pid, sight.since) = (state, None, None));
            if !self.pause(wait).await {
                return;
            }
        }
    }

    /// One process, and those that take over from it, to the end; `None` when the part is to stay ended.
    async fn live(&mut self, mut kept: Kept) -> Option<Verdict> {
        loop {
            let started = Instant::now();
            let pid = kept.pid().unwrap_or_default();
            let _record = Record::write(&self.nest.dirs, &self.part.name, pid)
                .inspect_err(|cause| self.board.say(&format!("{}: {cause:#}", self.part.name)));
            self.see_start(pid, started);
            match self.watch(&mut kept, started).await {
                Ending::Died(status) => {
                    let lived = started.elapsed();
                    let verdict = self.restarts.on_death(lived);
                    self.say_death(pid, status, verdict);
                    return Some(verdict);
                }
                Ending::Told(Some(Order::Replace(part, way, done))) => {
                    let successor = self.replace(kept, *part, way).await;
                    let _ = done.send(if successor.is_some() { Way::TakingOver } else { Way::Anew });
                    match successor {
                        Some(successor) => kept = successor,
                        None => return Some(Verdict::StartAgainAfter(Duration::ZERO)),
                    }
                }
                Ending::Told(Some(Order::Stop(done))) => {
                    self.end(&mut kept, self.part.stop.patience).await;
                    self.see(|sight| (sight.state, sight.pid, sight.since) = (State::Stopped, None, None));
                    let _ = done.send(());
                    return None;
                }
                Ending::Told(_) => {
                    self.end(&mut kept, self.part.stop.patience).await;
                    return None;
                }
            }
        }
    }

    /// Goes over to `part`: the process that has taken over, or none where the old one has merely ended.
    async fn replace(&mut self, old: Kept, part: Part, way: Way) -> Option<Kept> {
        let taken_over = match way {
            Way::TakingOver => self.succeed(old, &part).await,
            Way::Anew => Err((old, None)),
        };
        let successor = match taken_over {
            Ok(successor) => Some(successor),
            Err((mut old, cause)) => {
                if let Some(cause) = cause {
                    self.board.say(&format!("{} is ended first: {cause:#}", part.name));
                }
                self.end(&mut old, self.part.stop.patience_when_replaced).await;
                None
            }
        };
        (self.part, self.restarts) = (part, Restarts::default());
        self.see(|sight| (sight.state, sight.pid, sight.since) = (State::Starting, None, None));
        successor
    }

    fn see_start(&self, pid: u32, started: Instant) {
        let restarts = self.restarts.total();
        self.see(|sight| {
            *sight = Sight {
                state: State::Starting,
                pid: Some(pid),
                since: Some(started),
                restarts,
                ..sight.clone()
            };
        });
    }

    /// Until the process dies or an order asks for its end.
    async fn watch(&mut self, kept: &mut Kept, started: Instant) -> Ending {
        let Self { part, board, orders, sight, restarts, .. } = self;
        loop {
            tokio::select! {
                status = kept.ended() => return Ending::Died(status),
                order = orders.recv() => match order {
                    Some(Order::Signal(signal)) => kept.send(signal),
                    other => return Ending::Told(other),
                },
                () = watch_health(&part.probe, sight, |sight| {
                    restarts.on_healthy();
                    say_healthy(board, &part.name, sight, started);
                }) => {}
            }
        }
    }

    /// Waits before the next start; `false` when the part is to stay ended.
    async fn pause(&mut self, wait: Duration) -> bool {
        let until = tokio::time::Instant::now().checked_add(wait);
        loop {
            let over = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return true,
                order = self.orders.recv() => match order {
                    Some(Order::Signal(_)) => {}
                    Some(Order::Replace(part, _, done)) => {
                        (self.part, self.restarts) = (*part, Restarts::default());
                        self.see(|sight| sight.state = State::Starting);
                        let _ = done.send(Way::Anew);
                        return true;
                    }
                    Some(Order::Stop(done)) => {
                        self.see(|sight| sight.state = State::Stopped);
                        let _ = done.send(());
                        return false;
                    }
                    None => return false,
                },
            }
        }
    }

    async fn end(&mut self, kept: &mut Kept, patience: Duration) {
        self.see(|sight| sight.state = State::Stopping);
        let force = kept.end(self.part.stop, patience).await;
        if let Force::Needed(what) = force {
            self.board.say(&format!("{} did not end by itself: {what}", self.part.name));
        }
    }

    fn say_death(&self, pid: u32, status: Option<ExitStatus>, verdict: Verdict) {
        let how = status.map(|status| format!(" with {status}")).unwrap_or_default();
        let next = match verdict {
            Verdict::StartAgainAfter(wait) => format!("it is started again in {:.1} s", wait.as_secs_f64()),
            Verdict::GiveUp => "given up: it never became healthy".to_owned(),
        };
        self.board.say(&format!("{} (pid {pid}) died{how}; {next}", self.part.name));
    }

    fn see(&self, change: impl FnOnce(&mut Sight)) {
        self.sight.send_modify(change);
    }
}

fn say_healthy(board: &Board, name: &str, sight: &Sight, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    board.say(&format!("{name:<10} healthy after {seconds:>5.1} s   {}", sight.address));
}

/// Asks for ever; `on_healthy` is called each time the part turns healthy after a start.
async fn watch_health(probe: &Probe, sight: &watch::Sender<Sight>, mut on_healthy: impl FnMut(&Sight)) {
    let mut misses = 0;
    loop {
        let answer = probe::ask(probe).await;
        let state = sight.borrow().state;
        match answer {
            Ok(()) => {
                misses = 0;
                if state != State::Healthy {
                    sight.send_modify(|sight| (sight.state, sight.trouble) = (State::Healthy, None));
                }
                if state == State::Starting {
                    on_healthy(&sight.borrow());
                }
            }
            Err(trouble) => {
                misses += 1;
                if misses > MISSES_TOLERATED && state == State::Healthy {
                    sight.send_modify(|sight| sight.state = State::Unhealthy);
                }
                sight.send_modify(|sight| sight.trouble = Some(trouble));
            }
        }
        let healthy = sight.borrow().state == State::Healthy;
        tokio::time::sleep(if healthy { ASK_WHEN_HEALTHY } else { ASK_WHILE_STARTING }).await;
    }
}

/// The system's name of a signal of the plan.
pub fn os_signal(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Terminate => Signal::SIGTERM,
        StopSignal::Interrupt => Signal::SIGINT,
        StopSignal::Quit => Signal::SIGQUIT,
    }
}

#[cfg(test)]
mod tests;
