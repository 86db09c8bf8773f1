//! One member: its queue as others fill it, and its seat in a room, which it leaves by dropping it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Hub, READ_PAUSE, RoomCell, deliver, portion};
use crate::logic::frames::ServerFrame;
use crate::logic::message::{Author, Offset};
use crate::logic::outbox::{End, Outbox, Pushed};
use crate::logic::rooms::{Joined, MemberId};

/// How often a catch-up looks whether the queue has drained.
const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// Somebody's connection as the room sees it.
pub struct Member {
    pub id: MemberId,
    pub user: Author,
    outbox: Mutex<Outbox<Utf8Bytes>>,
    ready: Notify,
}

impl Member {
    /// Queues a frame that must arrive.
    pub fn push(&self, frame: Utf8Bytes) {
        // A refusal is either the end itself, which the socket must see, or comes after it.
        let _ = self.lock().push(frame);
        self.ready.notify_one();
    }

    /// Queues a frame that may be lost.
    pub fn push_passing(&self, frame: Utf8Bytes) {
        if self.lock().push_passing(frame) == Pushed::Queued {
            self.ready.notify_one();
        }
    }

    pub fn say(&self, frame: &ServerFrame<'_>) {
        self.push(frame.encode().into());
    }

    pub fn close(&self, end: End) {
        self.lock().close(end);
        self.ready.notify_one();
    }

    pub fn pop(&self) -> Option<Utf8Bytes> {
        self.lock().pop()
    }

    pub fn end(&self) -> Option<End> {
        self.lock().end()
    }

    /// Comes back when there is something to write, or the end.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Outbox<Utf8Bytes>> {
        self.outbox.lock().expect("nobody panics while holding it")
    }
}

/// A place in a room: reserved before the upgrade, taken after it, left by dropping.
pub struct Seat {
    hub: Arc<Hub>,
    cell: Arc<RoomCell>,
    member: Option<Arc<Member>>,
}

impl Seat {
    pub(super) fn new(hub: Arc<Hub>, cell: Arc<RoomCell>) -> Self {
        Self { hub, cell, member: None }
    }

    pub(super) fn cell(&self) -> &Arc<RoomCell> {
        &self.cell
    }

    pub fn session(&self) -> Uuid {
        self.cell.session
    }

    /// Takes the seat. The welcome is the first frame of its queue; with `since` the past follows.
    pub fn take(&mut self, user: Author, since: Option<Offset>, served_by: &str) -> Arc<Member> {
        let hub = &self.hub;
        let member = Arc::new(Member {
            id: hub.next_member.fetch_add(1, Ordering::Relaxed),
            user: user.clone(),
            outbox: Mutex::new(Outbox::new(hub.parts.queue_bytes)),
            ready: Notify::new(),
        });
        let joined = {
            let mut room = self.cell.lock();
            let joined = room.join(member.id, Arc::clone(&member), since);
            let Joined { offset, resumed, .. } = joined;
            member.say(&ServerFrame::Welcome { session_id: self.cell.session, offset, served_by, resumed });
            joined
        };
        let connections = hub.connections.fetch_add(1, Ordering::AcqRel) + 1;
        hub.parts.metrics.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
        if since.is_some() {
            hub.parts.metrics.resumes.inc();
        }
        if self.cell.on_user_joined(&user) {
            hub.changes.on_joined(self.cell.session, user);
        }
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
            self.cell.lock().leave(member.id);
            if self.cell.on_user_left(&member.user) {
                self.hub.changes.on_left(self.cell.session, member.user.clone());
            }
            let before = self.hub.connections.fetch_sub(1, Ordering::AcqRel);
            self.hub.parts.metrics.connections.set(i64::try_from(before - 1).unwrap_or(i64::MAX));
            self.hub.emptied.notify_waiters();
        }
        self.hub.release(&self.cell);
    }
}

/// Reads the past of one member, no faster than it takes it, until it is live or gone.
async fn catch_up(hub: &Hub, cell: &RoomCell, member: &Member) {
    loop {
        let Some(read) = cell.lock().next_catch_up(member.id) else { return };
        let rows = match hub.page(cell.session, read.after).await {
            Ok(rows) => rows,
            Err(cause) => {
                tracing::warn!(%cause, session = %cell.session, "a member's past could not be read: {cause}");
                tokio::time::sleep(READ_PAUSE).await;
                continue;
            }
        };
        let mut rows = rows.into_iter().peekable();
        loop {
            let rows_now = portion(&mut rows, hub.portion_bytes());
            cell.lock().on_catch_up(member.id, read, rows_now, &mut deliver);
            while !member.lock().has_room() {
                if member.end().is_some() {
                    return;
                }
                tokio::time::sleep(ROOM_PAUSE).await;
            }
            if rows.peek().is_none() {
                break;
            }
        }
        if member.end().is_some() {
            return;
        }
    }
}
