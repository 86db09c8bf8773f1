//! Which connections a worker closes for want of room: those that have idled longest, as many at a time as nginx
//! (`ngx_drain_connections`). A connection is a number here, and each step costs the same however many there are.

/// With no more places left than this fraction of all, idle connections are sent away.
const SCARCE_SHARE: usize = 16;
/// So large a part of the idle ones goes at a time,
const BATCH_SHARE: usize = 8;
/// and no more than so many.
const BATCH_MAX: usize = 32;

/// No connection.
const NONE: usize = usize::MAX;

/// The connections of one worker, each with a number that is its own until it closes.
#[derive(Debug)]
pub struct Slots {
    states: Vec<State>,
    /// Numbers to be given anew.
    vacant: Vec<usize>,
    idle: Chain,
    /// How many were told to go and are still there.
    leaving: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Vacant,
    Busy,
    Idle(Neighbours),
    /// Told to go.
    Leaving,
}

/// Who began to idle last before a connection, and who first after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Neighbours {
    older: usize,
    newer: usize,
}

/// Those that idle, through their neighbours.
#[derive(Debug)]
struct Chain {
    oldest: usize,
    newest: usize,
    len: usize,
}

impl Default for Slots {
    fn default() -> Slots {
        let idle = Chain { oldest: NONE, newest: NONE, len: 0 };
        Slots { states: Vec::new(), vacant: Vec::new(), idle, leaving: 0 }
    }
}

impl Slots {
    /// A connection was opened, and is busy.
    pub fn open(&mut self) -> usize {
        let Some(number) = self.vacant.pop() else {
            self.states.push(State::Busy);
            return self.states.len() - 1;
        };
        self.states[number] = State::Busy;
        number
    }

    pub fn close(&mut self, number: usize) {
        debug_assert_ne!(self.states[number], State::Vacant, "a connection closes once");
        self.end_idle(number);
        self.states[number] = State::Vacant;
        self.vacant.push(number);
    }

    /// A busy connection waits from now on. Of others nothing changes.
    pub fn begin_idle(&mut self, number: usize) {
        if self.states[number] != State::Busy {
            return;
        }
        let older = self.idle.newest;
        self.states[number] = State::Idle(Neighbours { older, newer: NONE });
        self.idle.newest = number;
        match self.states.get_mut(older) {
            Some(State::Idle(neighbours)) => neighbours.newer = number,
            _ => self.idle.oldest = number,
        }
        self.idle.len += 1;
    }

    /// It is busy, also where it was told to go. True where it was.
    pub fn end_idle(&mut self, number: usize) -> bool {
        match self.states[number] {
            State::Idle(neighbours) => {
                self.unchain(neighbours);
                self.states[number] = State::Busy;
                false
            }
            State::Leaving => {
                self.leaving -= 1;
                self.states[number] = State::Busy;
                true
            }
            State::Busy | State::Vacant => false,
        }
    }

    fn unchain(&mut self, Neighbours { older, newer }: Neighbours) {
        match self.states.get_mut(older) {
            Some(State::Idle(neighbours)) => neighbours.newer = newer,
            _ => self.idle.oldest = newer,
        }
        match self.states.get_mut(newer) {
            Some(State::Idle(neighbours)) => neighbours.older = older,
            _ => self.idle.newest = older,
        }
        self.idle.len -= 1;
    }

    /// Tells the connection that has idled longest to go.
    pub fn send_away(&mut self) -> Option<usize> {
        let number = self.idle.oldest;
        let State::Idle(neighbours) = *self.states.get(number)? else { return None };
        self.unchain(neighbours);
        self.states[number] = State::Leaving;
        self.leaving += 1;
        Some(number)
    }

    pub fn is_leaving(&self, number: usize) -> bool {
        self.states[number] == State::Leaving
    }

    /// Whether some that were told to go are still there.
    pub fn awaits_leave(&self) -> bool {
        self.leaving > 0
    }

    /// Open ones, without those that were told to go.
    fn staying(&self) -> usize {
        self.states.len() - self.vacant.len() - self.leaving
    }

    /// Whether one more may be opened, where `max` may be open.
    pub fn has_room(&self, max: usize) -> bool {
        self.staying() < max
    }

    /// How many are to be sent away before one more is opened.
    pub fn surplus(&self, max: usize) -> usize {
        let left = max.saturating_sub(self.staying());
        if left > max / SCARCE_SHARE { 0 } else { self.batch() }
    }

    /// How many are to be sent away for one more descriptor. Who comes while others are still leaving adds one of its own.
    pub fn for_descriptor(&self) -> usize {
        if self.awaits_leave() { self.idle.len.min(1) } else { self.batch() }
    }

    fn batch(&self) -> usize {
        (self.idle.len / BATCH_SHARE).clamp(1, BATCH_MAX).min(self.idle.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn idle(count: usize) -> Slots {
        let mut slots = Slots::default();
        for _ in 0..count {
            let number = slots.open();
            slots.begin_idle(number);
        }
        slots
    }

    #[test]
    fn places_are_scarce_when_a_sixteenth_is_left() {
        assert_eq!(idle(59).surplus(64), 0, "five are left");
        assert_eq!(idle(60).surplus(64), 7, "four are left: an eighth of the idle ones goes");
        assert_eq!(idle(1000).surplus(1000), 32, "not too many at once");
        assert_eq!(idle(3).surplus(3), 1, "one at least");
        assert_eq!(idle(0).surplus(0), 0, "nobody is there");
    }

    #[test]
    fn who_was_told_to_go_counts_as_gone_until_it_stays() {
        let mut slots = idle(64);
        assert!(!slots.has_room(64));
        let told: Vec<usize> = (0..8).filter_map(|_| slots.send_away()).collect();
        assert!(slots.has_room(64) && slots.awaits_leave());
        assert_eq!(slots.surplus(64), 0, "room is being made");
        assert!(told.iter().all(|number| slots.end_idle(*number)), "all of them have something to say");
        assert!(!slots.has_room(64) && !slots.awaits_leave());
        assert_eq!(slots.surplus(64), 7, "others are to go");
    }

    #[test]
    fn many_who_lack_a_descriptor_at_once_do_not_send_everybody_away() {
        let mut slots = idle(100);
        assert_eq!(slots.for_descriptor(), 12);
        slots.send_away();
        assert_eq!(slots.for_descriptor(), 1);
        assert_eq!(idle(0).for_descriptor(), 0);
    }

    #[derive(Debug, Clone, Copy)]
    enum Act {
        Open,
        Close(usize),
        BeginIdle(usize),
        EndIdle(usize),
        SendAway,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            Just(Act::Open),
            any::<usize>().prop_map(Act::Close),
            any::<usize>().prop_map(Act::BeginIdle),
            any::<usize>().prop_map(Act::BeginIdle),
            any::<usize>().prop_map(Act::EndIdle),
            Just(Act::SendAway),
        ]
    }

    /// The same, told by lists.
    #[derive(Debug, Default)]
    struct Model {
        busy: Vec<usize>,
        /// The longest idle first.
        idle: Vec<usize>,
        leaving: Vec<usize>,
    }

    impl Model {
        fn open(&self) -> Vec<usize> {
            [&self.busy[..], &self.idle, &self.leaving].concat()
        }

        fn forget(&mut self, number: usize) {
            [&mut self.busy, &mut self.idle, &mut self.leaving]
                .iter_mut()
                .for_each(|list| list.retain(|known| *known != number));
        }
    }

    fn follow(slots: &mut Slots, model: &mut Model, act: Act) -> Result<(), TestCaseError> {
        let open = model.open();
        let pick = |which: usize| open.get(which % open.len().max(1)).copied();
        match act {
            Act::Open => {
                let number = slots.open();
                prop_assert!(!open.contains(&number), "a number is one connection's");
                model.busy.push(number);
            }
            Act::Close(which) => {
                let Some(number) = pick(which) else { return Ok(()) };
                slots.close(number);
                model.forget(number);
            }
            Act::BeginIdle(which) => {
                let Some(number) = pick(which) else { return Ok(()) };
                slots.begin_idle(number);
                if model.busy.contains(&number) {
                    model.forget(number);
                    model.idle.push(number);
                }
            }
            Act::EndIdle(which) => {
                let Some(number) = pick(which) else { return Ok(()) };
                prop_assert_eq!(slots.end_idle(number), model.leaving.contains(&number));
                model.forget(number);
                model.busy.push(number);
            }
            Act::SendAway => {
                let oldest = (!model.idle.is_empty()).then(|| model.idle.remove(0));
                prop_assert_eq!(slots.send_away(), oldest, "the one that has idled longest, and no other");
                model.leaving.extend(oldest);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn only_who_idles_is_sent_away_and_the_longest_idle_first(acts in proptest::collection::vec(act(), 0..200)) {
            let (mut slots, mut model) = (Slots::default(), Model::default());
            for act in acts {
                follow(&mut slots, &mut model, act)?;
                let open = model.open();
                let staying = open.len() - model.leaving.len();
                prop_assert_eq!((slots.staying(), slots.idle.len), (staying, model.idle.len()));
                prop_assert!(open.iter().all(|number| slots.is_leaving(*number) == model.leaving.contains(number)));
                for max in [1, 4, 16, 64] {
                    prop_assert_eq!(slots.has_room(max), staying < max);
                    let surplus = slots.surplus(max);
                    prop_assert!(surplus <= model.idle.len().min(BATCH_MAX));
                    let is_scarce = max.saturating_sub(staying) <= max / SCARCE_SHARE;
                    prop_assert_eq!(surplus > 0, is_scarce && !model.idle.is_empty());
                }
            }
        }
    }
}
