//! Those who read an answer over `text/event-stream`. They have no seat in its room, and lose it like those who have.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::Hub;

/// All that read here, in no order: no more than there are places for streams.
#[derive(Default)]
pub struct Readers {
    reading: Mutex<Vec<Arc<Entry>>>,
}

struct Entry {
    session: Uuid,
    user: Uuid,
    removed: AtomicBool,
}

/// One reader, as long as this is held.
pub struct ReaderSeat {
    hub: Arc<Hub>,
    entry: Arc<Entry>,
}

impl ReaderSeat {
    /// Whether the reader was removed from the session since.
    pub fn is_removed(&self) -> bool {
        self.entry.removed.load(Ordering::Acquire)
    }
}

impl Drop for ReaderSeat {
    fn drop(&mut self) {
        self.hub.readers.lock().retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

impl Readers {
    pub fn remove(&self, session: Uuid, is_concerned: impl Fn(Uuid) -> bool) {
        let reading = self.lock();
        for entry in reading.iter().filter(|entry| entry.session == session && is_concerned(entry.user)) {
            entry.removed.store(true, Ordering::Release);
        }
    }

    /// Sessions and, at the same places, who reads in them.
    pub fn all(&self) -> (Vec<Uuid>, Vec<Uuid>) {
        self.lock().iter().map(|entry| (entry.session, entry.user)).unzip()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Entry>>> {
        self.reading.lock().expect("nobody panics while holding it")
    }
}

impl Hub {
    /// Taken before the caller looks whether the user is a member: a removal from then on is told to the seat.
    pub fn seat_reader(self: &Arc<Self>, session: Uuid, user: Uuid) -> ReaderSeat {
        let entry = Arc::new(Entry { session, user, removed: AtomicBool::new(false) });
        self.readers.lock().push(Arc::clone(&entry));
        ReaderSeat { hub: Arc::clone(self), entry }
    }
}
