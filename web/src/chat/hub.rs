//! Rooms and members of this replica. Takes in what the bus, the database and the sockets bring, and fills the
//! members' queues. What to deliver and what is missing is decided in `logic/rooms.rs`.

mod logins;
mod lost_tail;
mod member;
mod membership;
mod readers;
mod writers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use chassis::tasks::Tasks;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::auth::Identity;
use crate::error::Error;
use crate::logic::envelope::Envelope;
use crate::logic::frames::ServerFrame;
use crate::logic::message::{Author, Message, Offset};
use crate::logic::rooms::{Limits, Room};
use crate::logic::wire::Frame;
use crate::replicas::Databases;
use crate::store::Store;
use crate::store::sessions::Session;

use super::Counts;
use super::metrics::ChatMetrics;
use super::presence::Changes;

pub use member::{Member, Seat, Written};
pub use readers::ReaderSeat;

use logins::Logins;
use membership::Reservations;
use readers::Readers;
use writers::Writers;

/// Rows of one range read: about 100 KiB of usual messages. It has a limit of bytes beside it, see [`Hub::page`].
const PAGE_LEN: i64 = 200;
/// The pause after a range read that failed: the database is away, and all rooms ask.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// What the hub stands on.
pub struct Parts {
    pub store: Store,
    pub databases: Databases,
    pub tasks: Tasks,
    pub metrics: ChatMetrics,
    pub gap_wait: Duration,
    pub queue_bytes: usize,
}

pub struct Hub {
    parts: Parts,
    rooms: Mutex<HashMap<Uuid, Arc<RoomCell>>>,
    streams: Mutex<HashMap<Uuid, Weak<Notify>>>,
    logins: Logins,
    readers: Readers,
    writers: Writers,
    pub(super) changes: Changes,
    next_member: AtomicU64,
    connections: AtomicUsize,
    holds: AtomicUsize,
    emptied: Notify,
    draining: AtomicBool,
}

/// One room with its seats; it leaves the hub with its last seat.
pub struct RoomCell {
    pub session: Uuid,
    /// Counts seats that are taken or reserved. Changed only under the lock of the hub's map.
    seats: AtomicUsize,
    room: Mutex<Room<Arc<Member>, Frame>>,
    users: Mutex<HashMap<Uuid, u32>>,
    reservations: Reservations,
    /// Whether the database is being asked about a tail that may be lost.
    in_doubt: AtomicBool,
}

/// Keeps the bus alive during a drain.
pub struct Busy {
    hub: Arc<Hub>,
}

/// Wakes up those who serve a stream on this replica.
pub struct StreamWatch {
    hub: Arc<Hub>,
    stream: Uuid,
    news: Arc<Notify>,
}

impl Hub {
    pub fn new(parts: Parts) -> Self {
        Self {
            writers: Writers::new(&parts.metrics.writes),
            parts,
            rooms: Mutex::default(),
            streams: Mutex::default(),
            logins: Logins::default(),
            readers: Readers::default(),
            changes: Changes::default(),
            next_member: AtomicU64::new(1),
            connections: AtomicUsize::new(0),
            holds: AtomicUsize::new(0),
            emptied: Notify::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// Starts the tasks that write to the sockets; each ends with what `ended` gives.
    pub fn start_writers<E: Future<Output = ()> + Send + 'static>(&self, ended: impl Fn() -> E) {
        self.writers.start(&self.parts.tasks, ended);
    }

    pub fn store(&self) -> &Store {
        &self.parts.store
    }

    pub fn metrics(&self) -> &ChatMetrics {
        &self.parts.metrics
    }

    /// Reserves a seat for a member: from now on the room takes in what is published, and opens where the database
    /// stands. A removal that comes before the seat is taken is held against it, so nobody slips in between.
    ///
    /// # Errors
    /// The user is no member, or the database does not answer.
    pub async fn open(self: &Arc<Self>, session: &Session, who: &Identity) -> Result<Seat, Error> {
        let cell = self.reserve(session.id);
        let seat = Seat::new(Arc::clone(self), cell, who);
        // After the reservation: what was removed before is seen here, what is removed later is told to the seat.
        if !self.parts.store.sessions().admits(session.id, who.user_id).await? {
            return Err(Error::forbidden("you are no member of this session; join it first"));
        }
        let mut last = session.last_offset;
        if !seat.cell().is_open() {
            // What was published between the caller's look and the reservation would be missed: look again.
            let found = self.parts.store.messages().last_offsets(&[session.id]).await?;
            let (_, offset) = *found.first().ok_or_else(|| Error::not_found("there is no such session"))?;
            last = offset;
        }
        self.doubt(seat.cell(), last + 1);
        self.on_position(seat.cell(), last);
        Ok(seat)
    }

    /// Takes in what a replica, perhaps this one, has published.
    pub fn on_envelope(self: &Arc<Self>, envelope: &Envelope<'_>) {
        self.parts.metrics.received.inc();
        if let Envelope::Token { stream, .. } = envelope {
            self.wake_stream(*stream);
        }
        if let Envelope::Removed { session, user } = *envelope {
            // Also where nobody of the room sits: an answer may stream to somebody who has no socket.
            return self.on_removed(session, user);
        }
        let Some(cell) = self.room(envelope.session()) else { return };
        match *envelope {
            Envelope::Message { offset, frame, .. } => {
                self.doubt(&cell, offset);
                let frame = Frame::text(frame);
                let mut deliveries = 0;
                let wake = cell.lock().on_message(offset, frame, Instant::now(), &mut |member, frame| {
                    deliveries += 1;
                    deliver(member, frame);
                });
                self.parts.metrics.deliveries.inc_by(deliveries);
                self.repair_at(&cell, wake);
            }
            Envelope::Passing { frame, .. } | Envelope::Token { frame, .. } => {
                let frame = Frame::text(frame);
                cell.lock().handles().for_each(|member| member.push_passing(frame.clone()));
            }
            Envelope::Removed { .. } => {}
        }
    }

    /// Closes the sockets here of logins that have ended.
    pub fn on_ended(&self, logins: &[Uuid]) {
        self.logins.close(logins);
    }

    /// Every room with the distinct users that it has here.
    pub fn users_by_room(&self) -> Vec<(Uuid, Vec<Uuid>)> {
        let cells: Vec<Arc<RoomCell>> = self.lock_rooms().values().cloned().collect();
        cells.iter().map(|cell| (cell.session, cell.users().keys().copied().collect())).collect()
    }

    /// Says something to these users alone, each their own.
    pub fn tell_users(&self, session: Uuid, frames: &HashMap<Uuid, Frame>) {
        let Some(cell) = self.room(session) else { return };
        for member in cell.lock().handles() {
            if let Some(frame) = frames.get(&member.user.id) {
                member.push_passing(frame.clone());
            }
        }
    }

    pub fn watch_stream(self: &Arc<Self>, stream: Uuid) -> StreamWatch {
        let mut streams = self.streams.lock().expect("nobody panics while holding it");
        let news = match streams.get(&stream).and_then(Weak::upgrade) {
            Some(news) => news,
            None => {
                let news = Arc::new(Notify::new());
                streams.insert(stream, Arc::downgrade(&news));
                news
            }
        };
        StreamWatch { hub: Arc::clone(self), stream, news }
    }

    pub fn is_watched(&self, stream: Uuid) -> bool {
        let streams = self.streams.lock().expect("nobody panics while holding it");
        streams.get(&stream).is_some_and(|news| news.strong_count() > 0)
    }

    pub fn has_members(&self, session: Uuid) -> bool {
        self.room(session).is_some_and(|cell| !cell.lock().is_empty())
    }

    pub fn hold(self: &Arc<Self>) -> Busy {
        self.holds.fetch_add(1, Ordering::AcqRel);
        Busy { hub: Arc::clone(self) }
    }

    pub fn counts(&self) -> Counts {
        Counts { connections: self.connections.load(Ordering::Relaxed), rooms: self.lock_rooms().len() }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// From now on no seat is given; those who have one are told.
    pub fn start_drain(&self) -> Vec<Arc<Member>> {
        self.draining.store(true, Ordering::Release);
        self.members()
    }

    pub fn members(&self) -> Vec<Arc<Member>> {
        let cells: Vec<Arc<RoomCell>> = self.lock_rooms().values().cloned().collect();
        cells.iter().flat_map(|cell| cell.lock().handles().cloned().collect::<Vec<_>>()).collect()
    }

    /// Comes back when no member is left and nobody holds the bus.
    pub async fn emptied(&self) {
        loop {
            let news = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            news.await;
        }
    }

    fn is_empty(&self) -> bool {
        self.connections.load(Ordering::Acquire) == 0 && self.holds.load(Ordering::Acquire) == 0
    }

    /// Old messages come in portions of this size: they must not fill the queue of a member that keeps up.
    fn portion_bytes(&self) -> usize {
        self.parts.queue_bytes / 4
    }

    fn limits(&self) -> Limits {
        Limits { gap_wait: self.parts.gap_wait, pending_bytes_max: self.portion_bytes().min(64 * 1024) }
    }

    fn room(&self, session: Uuid) -> Option<Arc<RoomCell>> {
        self.lock_rooms().get(&session).cloned()
    }

    fn reserve(&self, session: Uuid) -> Arc<RoomCell> {
        let mut rooms = self.lock_rooms();
        let cell = rooms.entry(session).or_insert_with(|| Arc::new(RoomCell::new(session, self.limits())));
        cell.seats.fetch_add(1, Ordering::Relaxed);
        let cell = Arc::clone(cell);
        self.parts.metrics.rooms.set(i64::try_from(rooms.len()).unwrap_or(i64::MAX));
        cell
    }

    fn release(&self, cell: &RoomCell) {
        let mut rooms = self.lock_rooms();
        if cell.seats.fetch_sub(1, Ordering::Relaxed) == 1 {
            rooms.remove(&cell.session);
        }
        self.parts.metrics.rooms.set(i64::try_from(rooms.len()).unwrap_or(i64::MAX));
    }

    fn on_position(self: &Arc<Self>, cell: &Arc<RoomCell>, last: Offset) {
        let wake = cell.lock().on_position(last, Instant::now(), &mut deliver);
        self.repair_at(cell, wake);
    }

    /// Reads what is missing in a room from `wake` on, until nothing is.
    fn repair_at(self: &Arc<Self>, cell: &Arc<RoomCell>, wake: Option<Instant>) {
        let Some(mut wake) = wake else { return };
        let (hub, cell) = (Arc::clone(self), Arc::clone(cell));
        self.parts.tasks.spawn("room repair", async move {
            loop {
                tokio::time::sleep_until(wake.into()).await;
                let Some(after) = cell.lock().next_read(Instant::now()) else { return };
                match hub.repair(&cell, after).await {
                    Some(next) => wake = next,
                    None => return,
                }
            }
        });
    }

    async fn repair(&self, cell: &RoomCell, after: Offset) -> Option<Instant> {
        self.parts.metrics.repairs.inc();
        match self.page(cell.session, after).await {
            Ok(rows) => {
                tracing::debug!(session = %cell.session, after, found = rows.len(), "repaired a room");
                cell.lock().on_rows(rows, Instant::now(), &mut deliver)
            }
            Err(cause) => {
                tracing::warn!(%cause, session = %cell.session, "missing messages could not be read: {cause}");
                cell.lock().on_read_failed(Instant::now(), READ_PAUSE)
            }
        }
    }

    /// The next portion of the stored messages that follow `after`, as frames that bear a consistency token as live ones
    /// do. What is left out is read again, so that nothing is held until the members have taken this one.
    async fn page(&self, session: Uuid, after: Offset) -> Result<Vec<Row>, Error> {
        let bytes_max = self.portion_bytes();
        let store = self.parts.store.messages();
        let messages = store.after_within(session, after, PAGE_LEN, bytes_max).await?;
        if messages.is_empty() {
            // Whoever finds nothing takes it as pruned.
            store.confirm_end(session, after).await?;
            return Ok(Vec::new());
        }
        let token = self.parts.databases.token().await;
        let rows = messages.into_iter().map(|message| encoded(&Message { ct: token.clone(), ..message }));
        Ok(portion(rows, bytes_max))
    }

    fn wake_stream(&self, stream: Uuid) {
        let streams = self.streams.lock().expect("nobody panics while holding it");
        if let Some(news) = streams.get(&stream).and_then(Weak::upgrade) {
            news.notify_waiters();
        }
    }

    fn lock_rooms(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<RoomCell>>> {
        self.rooms.lock().expect("nobody panics while holding it")
    }
}

impl RoomCell {
    fn new(session: Uuid, limits: Limits) -> Self {
        Self {
            session,
            seats: AtomicUsize::new(0),
            room: Mutex::new(Room::new(limits)),
            users: Mutex::default(),
            reservations: Reservations::default(),
            in_doubt: AtomicBool::new(false),
        }
    }

    fn is_open(&self) -> bool {
        self.lock().position().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Room<Arc<Member>, Frame>> {
        self.room.lock().expect("nobody panics while holding it")
    }

    fn users(&self) -> MutexGuard<'_, HashMap<Uuid, u32>> {
        self.users.lock().expect("nobody panics while holding it")
    }

    fn on_user_joined(&self, user: &Author) {
        *self.users().entry(user.id).or_insert(0) += 1;
    }

    /// Whether this was the user's last connection to the room on this replica.
    fn on_user_left(&self, user: &Author) -> bool {
        let mut users = self.users();
        let Some(connections) = users.get_mut(&user.id) else { return false };
        *connections -= 1;
        let last = *connections == 0;
        if last {
            users.remove(&user.id);
        }
        last
    }
}

impl StreamWatch {
    /// A wake-up for news that come after this call: take it, look, then wait.
    pub fn news(&self) -> tokio::sync::futures::Notified<'_> {
        self.news.notified()
    }
}

impl Drop for StreamWatch {
    fn drop(&mut self) {
        let mut streams = self.hub.streams.lock().expect("nobody panics while holding it");
        // The last watch: the map's own reference is weak.
        if Arc::strong_count(&self.news) == 1 {
            streams.remove(&self.stream);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.hub.holds.fetch_sub(1, Ordering::AcqRel);
        self.hub.emptied.notify_waiters();
    }
}

fn deliver(member: &Arc<Member>, frame: &Frame) {
    member.push(frame.clone());
}

type Row = (Offset, Frame);

/// The first rows, at least one, up to `bytes_max`. A frame may be six times as long as its content.
fn portion(rows: impl Iterator<Item = Row>, bytes_max: usize) -> Vec<Row> {
    let mut bytes = 0;
    let mut taken = Vec::new();
    for row in rows {
        bytes += row.1.len();
        if bytes > bytes_max && !taken.is_empty() {
            break;
        }
        taken.push(row);
    }
    taken
}

fn encoded(message: &Message) -> Row {
    (message.offset, Frame::text(&ServerFrame::Message(message).encode()))
}
