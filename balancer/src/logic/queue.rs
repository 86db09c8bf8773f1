//! Who waits for a server of a group while none can be picked: first come, first served, up to a bound. How a waiter
//! is woken is the caller's: it gives us something to wake it with.

use std::collections::VecDeque;

/// The waiting requests of one group.
#[derive(Debug)]
pub struct Queue<W> {
    waiting: VecDeque<(Ticket, W)>,
    next: u64,
    /// Requests that found it full.
    overflows: u64,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

impl<W> Default for Queue<W> {
    fn default() -> Queue<W> {
        Queue { waiting: VecDeque::new(), next: 0, overflows: 0 }
    }
}

impl<W> Queue<W> {
    /// `None`: full.
    pub fn enter(&mut self, waker: W, len_max: usize) -> Option<Ticket> {
        if self.waiting.len() >= len_max {
            self.overflows += 1;
            return None;
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push_back((ticket, waker));
        Some(ticket)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Only the first may pick: whoever comes to a free server by luck does not overtake.
    pub fn is_first(&self, ticket: Ticket) -> bool {
        self.waiting.front().is_some_and(|(first, _)| *first == ticket)
    }

    /// Whom to wake when a server may be free.
    pub fn first(&self) -> Option<&W> {
        self.waiting.front().map(|(_, waker)| waker)
    }

    pub fn all(&self) -> impl Iterator<Item = &W> {
        self.waiting.iter().map(|(_, waker)| waker)
    }

    pub fn rewake(&mut self, ticket: Ticket, waker: W) {
        if let Some(entry) = self.waiting.iter_mut().find(|(known, _)| *known == ticket) {
            entry.1 = waker;
        }
    }

    pub fn leave(&mut self, ticket: Ticket) {
        self.waiting.retain(|(known, _)| *known != ticket);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_holds_and_overflows_are_counted() {
        let mut queue = Queue::default();
        let first = queue.enter("a", 2).unwrap();
        queue.enter("b", 2).unwrap();
        assert_eq!(queue.enter("c", 2), None);
        assert_eq!((queue.len(), queue.overflows()), (2, 1));
        queue.leave(first);
        assert!(queue.enter("c", 2).is_some());
        assert_eq!(queue.first(), Some(&"b"));
    }

    proptest! {
        /// Against the plain list of those who came and have not left.
        #[test]
        fn the_first_is_always_who_has_waited_longest(steps in prop::collection::vec((any::<bool>(), 0_usize..8), 0..80)) {
            let mut queue = Queue::default();
            let mut model: Vec<(Ticket, u32)> = Vec::new();
            for (number, (enters, who)) in (0_u32..).zip(steps) {
                if enters {
                    let entered = queue.enter(number, 5);
                    prop_assert_eq!(entered.is_some(), model.len() < 5);
                    model.extend(entered.map(|ticket| (ticket, number)));
                } else if !model.is_empty() {
                    let (ticket, _) = model.remove(who % model.len());
                    queue.leave(ticket);
                }
                prop_assert_eq!(queue.first().copied(), model.first().map(|(_, number)| *number));
                for (at, (ticket, _)) in model.iter().enumerate() {
                    prop_assert_eq!(queue.is_first(*ticket), at == 0);
                }
            }
        }
    }
}
