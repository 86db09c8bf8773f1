//! One room on one replica: which offsets its members have, what is missing, and what must be read again.
//!
//! Messages come by pub/sub in any order, twice or never. The room hands each member every message exactly once,
//! in offset order; what is missing is asked for by [`Room::next_read`]. A member that resumes reads its past first
//! and joins the live flow at the seam. Sockets, queues and the database: see `chat/hub.rs`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::logic::message::Offset;

/// Names one connection of this process.
pub type MemberId = u64;

/// Frames kept above a gap. What exceeds it is not lost: the range read brings it again.
const AHEAD_LEN_MAX: usize = 256;
/// After this many reads of the primary that found nothing, the missing offsets are taken as pruned.
const EMPTY_READS_MAX: u32 = 3;

/// The state of one room. `H` is how its owner reaches a member, `F` an encoded frame that is cheap to clone.
#[derive(Debug)]
pub struct Room<H, F> {
    /// Every message up to here was handed out; `None` until the database told where the room stands.
    position: Option<Offset>,
    /// The highest offset that is known to exist.
    known: Offset,
    /// Messages above a gap, waiting for those before them.
    ahead: BTreeMap<Offset, F>,
    repair: Repair,
    limits: Limits,
    members: HashMap<MemberId, Member<H, F>>,
}

/// What a room may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a gap may close by itself before its messages are read.
    pub gap_wait: Duration,
    /// Bytes of live messages kept for a member that still reads its past. Beyond it, it reads them too.
    pub pending_bytes_max: usize,
}

/// What a new member is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The newest message of the room.
    pub offset: Offset,
    /// Whether `since` was honoured: every message after it follows.
    pub resumed: bool,
    /// Whether the past must be read for it: see [`Room::next_catch_up`].
    pub catching_up: bool,
}

/// A range of the past that one member still needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatchUp {
    pub after: Offset,
    /// Where the room stood when the read began: nothing up to here can still be unwritten.
    seen: Offset,
}

/// How the missing messages of the room are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    Idle,
    /// Replicas publish out of order: most gaps close by themselves within milliseconds.
    Waiting {
        until: Instant,
        empty_reads: u32,
    },
    Reading {
        empty_reads: u32,
    },
}

#[derive(Debug)]
struct Member<H, F> {
    handle: H,
    /// The last offset that was handed to it.
    cursor: Offset,
    phase: Phase<F>,
}

#[derive(Debug)]
enum Phase<F> {
    Live,
    /// Live messages wait here, an unbroken run up to the room's position, while it reads what is before them.
    CatchingUp {
        pending: VecDeque<(Offset, F)>,
        pending_bytes: usize,
    },
}

impl<H, F: Clone + Deref<Target = [u8]>> Room<H, F> {
    pub fn new(limits: Limits) -> Self {
        Self {
            position: None,
            known: 0,
            ahead: BTreeMap::new(),
            repair: Repair::Idle,
            limits,
            members: HashMap::new(),
        }
    }

    /// Up to where every message was handed out, once the room is open.
    pub fn position(&self) -> Option<Offset> {
        self.position
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn handles(&self) -> impl Iterator<Item = &H> {
        self.members.values().map(|member| &member.handle)
    }

    /// Adds a member. The room must be open: `on_position` comes first.
    pub fn join(&mut self, id: MemberId, handle: H, since: Option<Offset>) -> Joined {
        let position = self.position.unwrap_or(self.known);
        // A member may know more than this replica has heard of so far: it must not get that again.
        let cursor = since.unwrap_or(self.known).clamp(0, self.known);
        let catching_up = cursor < position;
        let phase = if catching_up {
            Phase::CatchingUp { pending: VecDeque::new(), pending_bytes: 0 }
        } else {
            Phase::Live
        };
        self.members.insert(id, Member { handle, cursor, phase });
        let resumed = since.is_some_and(|since| (0..=self.known).contains(&since));
        Joined { offset: self.known, resumed, catching_up }
    }

    pub fn leave(&mut self, id: MemberId) -> Option<H> {
        self.members.remove(&id).map(|member| member.handle)
    }

    /// Takes in a published message. Gives the time of a wake-up where one is newly needed.
    pub fn on_message(
        &mut self,
        offset: Offset,
        frame: F,
        now: Instant,
        sink: &mut impl FnMut(&H, &F),
    ) -> Option<Instant> {
        self.known = self.known.max(offset);
        if self.position.is_some_and(|position| offset <= position) {
            return None;
        }
        if self.position == Some(offset - 1) {
            self.hand_out(offset, &frame, sink);
            self.hand_out_ahead(sink);
        } else if self.ahead.len() < AHEAD_LEN_MAX || self.ahead.contains_key(&offset) {
            self.ahead.insert(offset, frame);
        }
        self.arm(now)
    }

    /// Takes in the last offset that the database has: at opening, and from the periodic comparison.
    pub fn on_position(
        &mut self,
        last: Offset,
        now: Instant,
        sink: &mut impl FnMut(&H, &F),
    ) -> Option<Instant> {
        self.known = self.known.max(last);
        if self.position.is_none() {
            self.position = Some(last);
            self.ahead = self.ahead.split_off(&(last + 1));
            self.hand_out_ahead(sink);
        }
        self.arm(now)
    }

    /// Takes in that the primary has less than was handed out: a failover lost the tail. What comes above `last` is new.
    /// Who was handed the lost messages must leave and come back; a `since` among them is not honoured any more.
    pub fn on_lost_tail(&mut self, last: Offset) {
        self.position = Some(last);
        self.known = last;
        self.ahead.clear();
        self.repair = Repair::Idle;
    }

    /// The offset after which a range must be read now; at most one read is under way.
    pub fn next_read(&mut self, now: Instant) -> Option<Offset> {
        let Repair::Waiting { until, empty_reads } = self.repair else { return None };
        let position = self.position?;
        if position >= self.known {
            self.repair = Repair::Idle;
            return None;
        }
        if now < until {
            return None;
        }
        self.repair = Repair::Reading { empty_reads };
        Some(position)
    }

    /// Takes in what the range read found, in offset order. Gives the next wake-up while something is missing.
    ///
    /// The rows come from the primary, and offsets are given in commit order: an offset that is missing below one
    /// that was found is not late, it was pruned.
    pub fn on_rows(
        &mut self,
        rows: impl IntoIterator<Item = (Offset, F)>,
        now: Instant,
        sink: &mut impl FnMut(&H, &F),
    ) -> Option<Instant> {
        let Repair::Reading { empty_reads } = self.repair else { return self.wake() };
        let before = self.position;
        for (offset, frame) in rows {
            if self.position.is_some_and(|position| offset > position) {
                self.known = self.known.max(offset);
                self.hand_out(offset, &frame, sink);
            }
        }
        self.hand_out_ahead(sink);
        let empty_reads = if self.position > before { 0 } else { empty_reads + 1 };
        if empty_reads >= EMPTY_READS_MAX {
            self.skip_pruned(sink);
        }
        self.repair = Repair::Idle;
        if self.position.is_some_and(|position| position >= self.known) {
            return None;
        }
        let until = if empty_reads == 0 { now } else { now + self.limits.gap_wait * empty_reads };
        self.repair = Repair::Waiting { until, empty_reads };
        Some(until)
    }

    /// The read failed; try again after `pause`.
    pub fn on_read_failed(&mut self, now: Instant, pause: Duration) -> Option<Instant> {
        if let Repair::Reading { empty_reads } = self.repair {
            self.repair = Repair::Waiting { until: now + pause, empty_reads };
        }
        self.wake()
    }

    /// The next range of its past that a member needs; `None` when it is live or gone.
    pub fn next_catch_up(&self, id: MemberId) -> Option<CatchUp> {
        let member = self.members.get(&id)?;
        match member.phase {
            Phase::Live => None,
            Phase::CatchingUp { .. } => Some(CatchUp { after: member.cursor, seen: self.position? }),
        }
    }

    /// Takes in what the read of a [`CatchUp`] found, in offset order.
    pub fn on_catch_up(
        &mut self,
        id: MemberId,
        read: CatchUp,
        rows: impl IntoIterator<Item = (Offset, F)>,
        sink: &mut impl FnMut(&H, &F),
    ) {
        let position = self.position.unwrap_or(0);
        let Some(member) = self.members.get_mut(&id) else { return };
        let mut found = false;
        for (offset, frame) in rows {
            found = true;
            if offset > position {
                // The room itself will hand this one out; what the read did not find below it was pruned.
                member.cursor = member.cursor.max(position);
                break;
            }
            if offset > member.cursor {
                member.cursor = offset;
                sink(&member.handle, &frame);
            }
        }
        if !found {
            member.cursor = member.cursor.max(read.seen);
        }
        member.go_live_at_seam(position, sink);
    }

    fn wake(&self) -> Option<Instant> {
        match self.repair {
            Repair::Waiting { until, .. } => Some(until),
            Repair::Idle | Repair::Reading { .. } => None,
        }
    }

    /// Starts the wait for missing messages, if some are missing and nobody waits yet.
    fn arm(&mut self, now: Instant) -> Option<Instant> {
        let position = self.position?;
        if position >= self.known || self.repair != Repair::Idle {
            return None;
        }
        let until = now + self.limits.gap_wait;
        self.repair = Repair::Waiting { until, empty_reads: 0 };
        Some(until)
    }

    fn hand_out(&mut self, offset: Offset, frame: &F, sink: &mut impl FnMut(&H, &F)) {
        debug_assert!(
            self.position.is_some_and(|position| offset > position),
            "a message is handed out once"
        );
        self.position = Some(offset);
        let pending_bytes_max = self.limits.pending_bytes_max;
        for member in self.members.values_mut() {
            member.on_live(offset, frame, pending_bytes_max, sink);
        }
    }

    fn hand_out_ahead(&mut self, sink: &mut impl FnMut(&H, &F)) {
        while let Some(position) = self.position {
            let Some(entry) = self.ahead.first_entry() else { return };
            if *entry.key() > position + 1 {
                return;
            }
            let (offset, frame) = entry.remove_entry();
            if offset > position {
                self.hand_out(offset, &frame, sink);
            }
        }
    }

    fn skip_pruned(&mut self, sink: &mut impl FnMut(&H, &F)) {
        let next = self.ahead.keys().next().map_or(self.known, |first| first - 1);
        self.position = self.position.max(Some(next));
        for member in self.members.values_mut() {
            if matches!(member.phase, Phase::Live) {
                member.cursor = member.cursor.max(next);
            }
        }
        self.hand_out_ahead(sink);
    }
}

impl<H, F: Clone + Deref<Target = [u8]>> Member<H, F> {
    fn on_live(
        &mut self,
        offset: Offset,
        frame: &F,
        pending_bytes_max: usize,
        sink: &mut impl FnMut(&H, &F),
    ) {
        match &mut self.phase {
            Phase::Live if offset <= self.cursor => {}
            Phase::Live => {
                self.cursor = offset;
                sink(&self.handle, frame);
            }
            Phase::CatchingUp { pending, pending_bytes } => {
                if *pending_bytes + frame.len() > pending_bytes_max {
                    pending.clear();
                    *pending_bytes = 0;
                }
                *pending_bytes += frame.len();
                pending.push_back((offset, frame.clone()));
            }
        }
    }

    /// Joins past and present once nothing is missing between them.
    fn go_live_at_seam(&mut self, position: Offset, sink: &mut impl FnMut(&H, &F)) {
        let Phase::CatchingUp { pending, .. } = &mut self.phase else { return };
        let seam = pending.front().map_or(position, |(offset, _)| offset - 1);
        if self.cursor < seam {
            return;
        }
        for (offset, frame) in std::mem::take(pending) {
            if offset > self.cursor {
                self.cursor = offset;
                sink(&self.handle, &frame);
            }
        }
        self.phase = Phase::Live;
    }
}

#[cfg(test)]
mod tests;
