//! Who may sit in a room: those who are removed lose their seats at once where it is told, else at the next comparison
//! with the database, which also finds the messages that the bus lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use super::{Hub, RoomCell};
use crate::error::Error;
use crate::logic::message::Offset;
use crate::logic::outbox::End;

/// Rooms of one question to the database.
const CHUNK_LEN: usize = 500;

/// Seats of a room that are reserved and not taken yet, each with its user.
#[derive(Default)]
pub struct Reservations {
    waiting: Mutex<Vec<Arc<Reservation>>>,
}

/// Who will take a seat, and whether a removal came between.
pub struct Reservation {
    user: Uuid,
    revoked: AtomicBool,
}

impl Reservations {
    pub fn enter(&self, user: Uuid) -> Arc<Reservation> {
        let reservation = Arc::new(Reservation { user, revoked: AtomicBool::new(false) });
        self.lock().push(Arc::clone(&reservation));
        reservation
    }

    pub fn leave(&self, reservation: &Arc<Reservation>) {
        self.lock().retain(|waiting| !Arc::ptr_eq(waiting, reservation));
    }

    fn revoke(&self, is_concerned: impl Fn(Uuid) -> bool) {
        for waiting in self.lock().iter().filter(|waiting| is_concerned(waiting.user)) {
            waiting.revoked.store(true, Ordering::Release);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Reservation>>> {
        self.waiting.lock().expect("nobody panics while holding it")
    }
}

impl Reservation {
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }
}

impl RoomCell {
    /// Closes the sockets of these users, and the seats that they are about to take.
    fn remove(&self, is_concerned: impl Fn(Uuid) -> bool) {
        // Under the lock of the room, under which a seat is taken: nobody slips through between the two lists.
        let room = self.lock();
        self.reservations.revoke(&is_concerned);
        for member in room.handles().filter(|member| is_concerned(member.user.id)) {
            member.close(End::Removed);
        }
    }
}

impl Hub {
    /// Closes the sockets here of one who is no member any more, and ends the answers that stream to it; without a user,
    /// of all: the session is gone.
    pub fn on_removed(&self, session: Uuid, user: Option<Uuid>) {
        self.readers.remove(session, |id| user.is_none_or(|user| user == id));
        if let Some(cell) = self.room(session) {
            cell.remove(|id| user.is_none_or(|user| user == id));
        }
    }

    /// Compares all rooms with the database; what the bus lost, messages and removals, is found here.
    pub async fn compare(self: &Arc<Self>) {
        if let Err(cause) = self.compare_readers().await {
            tracing::warn!(%cause, "readers of answers could not be compared: {cause}");
        }
        let cells: Vec<Arc<RoomCell>> = self.lock_rooms().values().cloned().collect();
        for chunk in cells.chunks(CHUNK_LEN) {
            // Who may not read is closed before the messages that it may have missed are delivered.
            let compared = async {
                self.compare_members(chunk).await?;
                self.compare_offsets(chunk).await
            };
            if let Err(cause) = compared.await {
                tracing::warn!(%cause, rooms = chunk.len(), "rooms could not be compared: {cause}");
                return;
            }
        }
    }

    async fn compare_readers(&self) -> Result<(), Error> {
        let (sessions, users) = self.readers.all();
        self.remove_strangers(&sessions, &users).await
    }

    async fn compare_members(&self, chunk: &[Arc<RoomCell>]) -> Result<(), Error> {
        let seated = |cell: &Arc<RoomCell>| {
            let users: Vec<Uuid> = cell.users().keys().copied().collect();
            users.into_iter().map(|user| (cell.session, user)).collect::<Vec<_>>()
        };
        let (sessions, users): (Vec<Uuid>, Vec<Uuid>) = chunk.iter().flat_map(seated).unzip();
        self.remove_strangers(&sessions, &users).await
    }

    /// Of these users, each at the place of its session, those who are no members.
    async fn remove_strangers(&self, sessions: &[Uuid], users: &[Uuid]) -> Result<(), Error> {
        if users.is_empty() {
            return Ok(());
        }
        for (session, user) in self.store().sessions().strangers(sessions, users).await? {
            self.on_removed(session, Some(user));
        }
        Ok(())
    }

    pub(super) async fn compare_offsets(self: &Arc<Self>, chunk: &[Arc<RoomCell>]) -> Result<(), Error> {
        let positions: Vec<Option<Offset>> = chunk.iter().map(|cell| cell.lock().position()).collect();
        let sessions: Vec<Uuid> = chunk.iter().map(|cell| cell.session).collect();
        let found = self.store().messages().last_offsets(&sessions).await?;
        let found: HashMap<Uuid, Offset> = found.into_iter().collect();
        let mut shorter = Vec::new();
        for (cell, position) in chunk.iter().zip(positions) {
            match found.get(&cell.session) {
                Some(last) if position > Some(*last) => shorter.push(Arc::clone(cell)),
                Some(last) => self.on_position(cell, *last),
                // The session is gone, and the bus did not tell us.
                None => cell.remove(|_| true),
            }
        }
        self.look_for_lost_tails(&shorter).await
    }
}
