//! What one worker lends and gets back: as much is kept as was in use at once lately, so that a steady load allocates
//! nothing. What a peak left behind goes with `tidy`.

use std::cell::{Cell, RefCell};

#[derive(Debug)]
pub struct Pool<T> {
    free: RefCell<Vec<T>>,
    /// What was dropped while it was lent does not come back: both counts then stay one too high, their difference right.
    lent: Cell<usize>,
    /// Most lent at once since the last `tidy`.
    lent_max: Cell<usize>,
}

impl<T> Default for Pool<T> {
    fn default() -> Pool<T> {
        Pool { free: RefCell::default(), lent: Cell::default(), lent_max: Cell::default() }
    }
}

impl<T> Pool<T> {
    pub fn take_or(&self, make: impl FnOnce() -> T) -> T {
        self.lent.set(self.lent.get() + 1);
        self.lent_max.set(self.lent_max.get().max(self.lent.get()));
        // The borrow ends before something is made.
        let free = self.free.borrow_mut().pop();
        free.unwrap_or_else(make)
    }

    pub fn give_back(&self, lent: T) {
        self.lent.set(self.lent.get().saturating_sub(1));
        self.free.borrow_mut().push(lent);
    }

    /// Frees what was not needed since the last call.
    pub fn tidy(&self) {
        let kept = self.lent_max.get() - self.lent.get().min(self.lent_max.get());
        self.free.borrow_mut().truncate(kept);
        self.lent_max.set(self.lent.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peak_left_is_freed_and_what_a_steady_load_needs_is_kept() {
        let pool = Pool::default();
        let in_use = |count: usize| {
            let lent: Vec<_> = (0..count).map(|_| pool.take_or(|| ())).collect();
            lent.into_iter().for_each(|lent| pool.give_back(lent));
            pool.tidy();
            pool.free.borrow().len()
        };
        assert_eq!((in_use(10), in_use(3), in_use(0)), (10, 3, 0));
    }
}
