//! What everybody in the supervisor may read: the lines said so far, the stage, the state of each part.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use tokio::sync::watch;
use tracing::info;

use crate::logic::report::{Row, State};

/// Lines kept for whoever asks how the start went; older ones are in the log.
const LINES_MAX: usize = 500;

/// Where the stack as a whole is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    Rising,
    Up,
    Falling,
    /// The start failed; the text says why.
    Failed(String),
}

/// A part as its keeper last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub state: State,
    pub pid: Option<u32>,
    /// When the running child was started.
    pub since: Option<Instant>,
    pub restarts: u32,
    pub address: String,
    /// Why it is not healthy.
    pub trouble: Option<String>,
}

/// The supervisor's notice board.
#[derive(Debug)]
pub struct Board {
    started: Instant,
    stage: watch::Sender<Stage>,
    lines: RefCell<Lines>,
    lines_said: watch::Sender<u64>,
    parts: RefCell<BTreeMap<String, watch::Receiver<Sight>>>,
    order: RefCell<Vec<String>>,
}

#[derive(Debug, Default)]
struct Lines {
    kept: Vec<String>,
    dropped: u64,
}

impl Board {
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            stage: watch::Sender::new(Stage::Rising),
            lines: RefCell::default(),
            lines_said: watch::Sender::new(0),
            parts: RefCell::default(),
            order: RefCell::default(),
        }
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// Says a line to the log and to everybody who follows.
    pub fn say(&self, line: &str) {
        info!("{line}");
        let mut lines = self.lines.borrow_mut();
        lines.kept.push(line.to_owned());
        if lines.kept.len() > LINES_MAX {
            lines.kept.remove(0);
            lines.dropped += 1;
        }
        self.lines_said.send_modify(|count| *count += 1);
    }

    /// Lines from number `from` on, counted from 0, and the number that comes next.
    pub fn lines_from(&self, from: u64) -> (Vec<String>, u64) {
        let lines = self.lines.borrow();
        let skip = usize::try_from(from.saturating_sub(lines.dropped)).unwrap_or(usize::MAX);
        let next = lines.dropped + lines.kept.len() as u64;
        (lines.kept.iter().skip(skip).cloned().collect(), next)
    }

    /// Changes with each line.
    pub fn watch_lines(&self) -> watch::Receiver<u64> {
        self.lines_said.subscribe()
    }

    pub fn stage(&self) -> Stage {
        self.stage.borrow().clone()
    }

    pub fn set_stage(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    pub fn watch_stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Parts are listed in the order in which they were added first.
    pub fn add(&self, name: &str, sight: watch::Receiver<Sight>) {
        if self.parts.borrow_mut().insert(name.to_owned(), sight).is_none() {
            self.order.borrow_mut().push(name.to_owned());
        }
    }

    pub fn remove(&self, name: &str) {
        self.parts.borrow_mut().remove(name);
        self.order.borrow_mut().retain(|other| other != name);
    }

    pub fn rows(&self) -> Vec<Row> {
        let parts = self.parts.borrow();
        let row = |name: &String| {
            let sight = parts.get(name)?.borrow().clone();
            Some(Row {
                name: name.clone(),
                state: sight.state,
                pid: sight.pid,
                uptime_s: sight.since.map(|since| since.elapsed().as_secs()),
                restarts: sight.restarts,
                address: sight.address,
                trouble: sight.trouble.filter(|_| sight.state != State::Healthy),
            })
        };
        self.order.borrow().iter().filter_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_follower_gets_what_is_kept_and_then_what_is_new() {
        let board = Board::new(Instant::now());
        for number in 0..LINES_MAX + 3 {
            board.say(&format!("line {number}"));
        }
        let (lines, next) = board.lines_from(0);
        assert_eq!((lines.len(), lines[0].as_str()), (LINES_MAX, "line 3"));
        assert_eq!(board.lines_from(next).0, Vec::<String>::new());
        board.say("last");
        assert_eq!(board.lines_from(next).0, ["last"]);
    }

    #[test]
    fn parts_keep_their_place_when_they_are_replaced() {
        let board = Board::new(Instant::now());
        let sight = |state| {
            let address = String::new();
            watch::channel(Sight { state, pid: None, since: None, restarts: 0, address, trouble: None }).1
        };
        for name in ["web-1", "web-2", "balancer"] {
            board.add(name, sight(State::Waiting));
        }
        board.add("web-1", sight(State::Healthy));
        board.remove("web-2");
        let rows = board.rows();
        let seen: Vec<(&str, State)> = rows.iter().map(|row| (row.name.as_str(), row.state)).collect();
        assert_eq!(seen, [("web-1", State::Healthy), ("balancer", State::Waiting)]);
    }
}
