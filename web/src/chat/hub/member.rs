//! One member: its queue as others fill it, the socket that empties it, and its seat in a room, which it leaves by
//! dropping it.

use std::io::{ErrorKind, IoSlice};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use uuid::Uuid;

use super::membership::Reservation;
use super::writers::Writer;
use super::{Hub, READ_PAUSE, RoomCell, deliver};
use crate::auth::Identity;
use crate::logic::frames::ServerFrame;
use crate::logic::message::{Author, Offset};
use crate::logic::outbox::{End, Outbox, Pushed};
use crate::logic::rooms::{Joined, MemberId};
use crate::logic::wire::Frame;

/// How often a catch-up looks whether the queue has drained.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// Frames of one write call.
const SLICES_MAX: usize = 64;

/// Somebody's connection as the room sees it.
pub struct Member {
    pub id: MemberId,
    pub user: Author,
    pub socket: TcpStream,
    outbox: Mutex<Outbox<Frame>>,
    writer: Arc<Writer>,
    /// Wakes up the socket's own task: the end has come, the socket is full, or it is broken.
    alarm: Notify,
}

/// How far a write came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Nothing waits any more.
    All,
    /// The socket takes no more for now; so many frames have left as a whole.
    Until(usize),
    /// The socket is broken.
    Nothing,
}

impl Member {
    /// Queues a frame that must arrive; the writer sends it.
    pub fn push(self: &Arc<Self>, frame: Frame) {
        let (pushed, claimed) = {
            let mut outbox = self.lock();
            (outbox.push(frame), outbox.claim())
        };
        if claimed {
            self.writer.list(Arc::clone(self));
        }
        // A refusal is either the end itself, which the socket's task must see, or comes after it.
        if pushed == Pushed::Refused {
            self.alarm.notify_one();
        }
    }

    /// Queues a frame that may be lost.
    pub fn push_passing(self: &Arc<Self>, frame: Frame) {
        let claimed = {
            let mut outbox = self.lock();
            outbox.push_passing(frame) == Pushed::Queued && outbox.claim()
        };
        if claimed {
            self.writer.list(Arc::clone(self));
        }
    }

    /// Says something to this member alone. It leaves at once: whoever says it has nothing better to do.
    pub fn say(&self, frame: &ServerFrame<'_>) {
        self.push_now(Frame::text(&frame.encode()));
    }

    /// Queues a frame that must arrive and writes the queue, unless somebody else is about to.
    pub fn push_now(&self, frame: Frame) {
        let (pushed, claimed) = {
            let mut outbox = self.lock();
            (outbox.push(frame), outbox.claim())
        };
        if claimed {
            self.write();
        }
        if pushed == Pushed::Refused {
            self.alarm.notify_one();
        }
    }

    /// Writes what waits, as far as the socket takes it. All that waits shares a write call. Never waits itself, so
    /// the lock is held for no longer than the kernel needs to copy it.
    pub fn write(&self) -> Written {
        let mut outbox = self.lock();
        let mut finished = 0;
        while !outbox.is_empty() {
            self.writer.writes.inc();
            match write_once(&self.socket, outbox.unwritten()) {
                Ok(len) => finished += outbox.on_written(len),
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                    outbox.on_full();
                    self.alarm.notify_one();
                    return Written::Until(finished);
                }
                Err(_) => {
                    outbox.on_broken();
                    self.alarm.notify_one();
                    return Written::Nothing;
                }
            }
        }
        Written::All
    }

    pub fn close(&self, end: End) {
        self.lock().close(end);
        self.alarm.notify_one();
    }

    /// Queues the close frame behind everything that still goes out.
    pub fn push_last(&self, frame: Frame) {
        self.lock().push_last(frame);
    }

    /// Ends the connection for both sides, whoever else still knows this member.
    pub fn hang_up(&self) {
        // It fails only where the other side was faster.
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Both);
    }

    pub fn end(&self) -> Option<End> {
        self.lock().end()
    }

    /// Whether the queue waits for the socket: see [`Member::writable`].
    pub fn is_stalled(&self) -> bool {
        self.lock().is_stalled()
    }

    /// Frames that wait for the socket.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Comes back when the socket takes more. One task may wait at a time.
    pub async fn writable(&self) {
        // An error shows at the next write.
        let _ = std::future::poll_fn(|context| self.socket.poll_write_ready(context)).await;
    }

    /// Comes back when the socket's task must look: the end, a full socket, a broken one.
    pub async fn alarm(&self) {
        self.alarm.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Outbox<Frame>> {
        self.outbox.lock().expect("nobody panics while holding it")
    }
}

fn write_once<'a>(socket: &TcpStream, frames: impl Iterator<Item = &'a [u8]>) -> std::io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let mut count = 0;
    for (slice, frame) in slices.iter_mut().zip(frames) {
        *slice = IoSlice::new(frame);
        count += 1;
    }
    chassis::sockets::try_send(socket, &slices[..count])
}

/// A place in a room: reserved before the upgrade, taken after it, left by dropping.
pub struct Seat {
    hub: Arc<Hub>,
    cell: Arc<RoomCell>,
    /// The login whose token the client showed last.
    login: Uuid,
    reservation: Arc<Reservation>,
    member: Option<Arc<Member>>,
}

impl Seat {
    pub(super) fn new(hub: Arc<Hub>, cell: Arc<RoomCell>, who: &Identity) -> Self {
        let reservation = cell.reservations.enter(who.user_id);
        Self { hub, cell, login: who.login_id, reservation, member: None }
    }

    pub(super) fn cell(&self) -> &Arc<RoomCell> {
        &self.cell
    }

    pub fn session(&self) -> Uuid {
        self.cell.session
    }

    /// From now on the member's socket ends with this login and no longer with the one before.
    pub fn change_login(&mut self, login: Uuid) {
        if let Some(member) = &self.member {
            self.hub.logins.leave(self.login, member);
            self.hub.logins.enter(login, member);
        }
        self.login = login;
    }

    /// Takes the seat. The welcome is the first frame of its queue; with `since` the past follows. Who was removed
    /// after the reservation gets nothing but the close.
    pub fn take(
        &mut self,
        socket: TcpStream,
        user: Author,
        since: Option<Offset>,
        served_by: &str,
    ) -> Arc<Member> {
        let hub = &self.hub;
        let id = hub.next_member.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member {
            id,
            user: user.clone(),
            socket,
            outbox: Mutex::new(Outbox::new(hub.parts.queue_bytes)),
            writer: hub.writers.of(id),
            alarm: Notify::new(),
        });
        hub.logins.enter(self.login, &member);
        let joined = {
            let mut room = self.cell.lock();
            self.cell.reservations.leave(&self.reservation);
            if self.reservation.is_revoked() {
                member.close(End::Removed);
            }
            let joined = room.join(member.id, Arc::clone(&member), since);
            let Joined { offset, resumed, .. } = joined;
            let session_id = self.cell.session;
            member.say(&ServerFrame::Welcome { session_id, offset, served_by, resumed });
            joined
        };
        let connections = hub.connections.fetch_add(1, Ordering::AcqRel) + 1;
        hub.parts.metrics.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        if since.is_some() {
            hub.parts.metrics.resumes.inc();
        }
        self.cell.on_user_joined(&user);
        hub.changes.on_joined(self.cell.session, user);
        if joined.catching_up {
            let (hub, cell, member) = (Arc::clone(hub), Arc::clone(&self.cell), Arc::clone(&member));
            self.hub.parts.tasks.spawn("catch-up", async move { catch_up(&hub, &cell, &member).await });
        }
        // A drain that began meanwhile has not seen this member.
        if self.hub.is_draining() {
            member.close(End::GoingAway { retry_after_ms: 50 });
        }
        self.member = Some(Arc::clone(&member));
        member
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            self.hub.logins.leave(self.login, &member);
            self.cell.lock().leave(member.id);
            if self.cell.on_user_left(&member.user) {
                self.hub.changes.on_left(self.cell.session, member.user.clone());
            }
            let before = self.hub.connections.fetch_sub(1, Ordering::AcqRel);
            self.hub.parts.metrics.connections.set(i64::try_from(before - 1).unwrap_or(i64::MAX));
            self.hub.emptied.notify_waiters();
        } else {
            self.cell.reservations.leave(&self.reservation);
        }
        self.hub.release(&self.cell);
    }
}

/// Reads the past of one member, no faster than it takes it, until it is live or gone. Nothing is held while it takes
/// none: its own user decides how long that lasts, and how many such members there are.
async fn catch_up(hub: &Hub, cell: &RoomCell, member: &Arc<Member>) {
    loop {
        let Some(read) = cell.lock().next_catch_up(member.id) else { return };
        if member.end().is_some() {
            return;
        }
        if !member.lock().has_room() {
            tokio::time::sleep(ROOM_PAUSE).await;
            continue;
        }
        match hub.page(cell.session, read.after).await {
            Ok(rows) => cell.lock().on_catch_up(member.id, read, rows, &mut deliver),
            Err(cause) => {
                tracing::warn!(%cause, session = %cell.session, "a member's past could not be read: {cause}");
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }
}
