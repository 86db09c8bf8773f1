//! The open connections of one worker, clients' and upstreams': how many there are, which of them idle, and of the clients
//! who is to be woken when the worker drains.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

use tokio::sync::Notify;

use crate::logic::shed::Slots;
use crate::metrics::Metrics;
use crate::wire;

#[derive(Debug)]
pub struct Connections {
    slots: RefCell<Slots>,
    /// By the number of their slot.
    holders: RefCell<Vec<Holder>>,
    clients: Cell<usize>,
    /// How many have closed so far.
    closed: Cell<u64>,
    /// Rises with each reload.
    era: Cell<u64>,
    /// One has closed, or goes on that was to go.
    changed: Notify,
    metrics: Arc<Metrics>,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its socket is open as long as its slot.
    Client(Option<RawFd>),
    Upstream,
}

/// Who has a slot.
#[derive(Debug)]
enum Holder {
    Nobody,
    Upstream,
    Client(Client),
}

#[derive(Debug)]
struct Client {
    socket: Option<RawFd>,
    /// None until it has run for the first time.
    task: Option<Task>,
}

#[derive(Debug)]
struct Task {
    waker: Waker,
    era: u64,
    is_cut: Rc<Cell<bool>>,
}

impl Holder {
    /// Bytes wait that its task has not been told of.
    fn has_unread(&self) -> bool {
        matches!(self, Holder::Client(Client { socket: Some(socket), .. }) if wire::has_unread(*socket))
    }
}

/// A connection's place among those of its worker; dropped, it is closed.
#[derive(Debug)]
pub struct Slot {
    number: usize,
    connections: Rc<Connections>,
}

/// A client's connection that waits; dropped, it is busy.
#[derive(Debug)]
pub struct Idle<'a>(&'a Slot);

/// What became of the connection that had idled longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentAway {
    /// It goes when its task runs.
    Client,
    /// It is for the caller to close.
    Upstream(usize),
    /// It stays: a request has begun to come.
    Nobody,
}

impl Connections {
    pub fn new(metrics: Arc<Metrics>) -> Rc<Connections> {
        Rc::new(Connections {
            slots: RefCell::default(),
            holders: RefCell::default(),
            clients: Cell::default(),
            closed: Cell::default(),
            era: Cell::default(),
            changed: Notify::default(),
            metrics,
        })
    }

    /// A client idles from the first moment on, and a worker that drains waits for it.
    pub fn open(self: &Rc<Self>, end: End) -> Slot {
        let number = self.slots.borrow_mut().open();
        let slot = Slot { number, connections: self.clone() };
        let holder = match end {
            End::Upstream => Holder::Upstream,
            End::Client(socket) => {
                self.clients.set(self.clients.get() + 1);
                slot.begin_idle();
                Holder::Client(Client { socket, task: None })
            }
        };
        let mut holders = self.holders.borrow_mut();
        if number == holders.len() {
            holders.push(holder);
        } else {
            holders[number] = holder;
        }
        slot
    }

    fn close(&self, number: usize) {
        self.slots.borrow_mut().close(number);
        let holder = std::mem::replace(&mut self.holders.borrow_mut()[number], Holder::Nobody);
        if matches!(holder, Holder::Client(_)) {
            self.clients.set(self.clients.get() - 1);
        }
        self.closed.set(self.closed.get() + 1);
        self.changed.notify_waiters();
    }

    /// Whether one more may be opened, where `max` may be open.
    pub fn has_room(&self, max: usize) -> bool {
        self.slots.borrow().has_room(max)
    }

    /// How many are to be sent away before one more is opened.
    pub fn surplus(&self, max: usize) -> usize {
        self.slots.borrow().surplus(max)
    }

    /// How many are to be sent away for one more descriptor.
    pub fn for_descriptor(&self) -> usize {
        self.slots.borrow().for_descriptor()
    }

    /// Tells the connection that has idled longest to go. `None`: all are busy.
    pub fn send_away(&self) -> Option<SentAway> {
        let number = self.slots.borrow_mut().send_away()?;
        let holder = &self.holders.borrow()[number];
        if holder.has_unread() {
            self.slots.borrow_mut().end_idle(number);
            return Some(SentAway::Nobody);
        }
        let Holder::Client(client) = holder else { return Some(SentAway::Upstream(number)) };
        if let Some(task) = &client.task {
            task.waker.wake_by_ref();
        }
        Some(SentAway::Client)
    }

    pub fn closed(&self) -> u64 {
        self.closed.get()
    }

    /// True once one has closed since `closed` was asked for; false when none of those that were told to go does.
    pub async fn one_leaves(&self, closed: u64) -> bool {
        loop {
            if self.closed.get() != closed {
                return true;
            }
            if !self.slots.borrow().awaits_leave() {
                return false;
            }
            self.changed.notified().await;
        }
    }

    /// Comes back when one has closed since `closed` was asked for.
    pub async fn one_closes(&self, closed: u64) {
        while self.closed.get() == closed {
            self.changed.notified().await;
        }
    }

    pub async fn all_clients_left(&self) {
        while self.clients.get() > 0 {
            self.changed.notified().await;
        }
    }

    pub fn wake_all(&self) {
        self.each_client(|task| task.waker.wake_by_ref());
    }

    /// A reload: those who come later are of another era. Gives the one that has ended.
    pub fn begin_era(&self) -> u64 {
        self.era.replace(self.era.get() + 1)
    }

    /// `worker_shutdown_timeout` after a reload: what is left from that era or before ends now.
    pub fn cut(&self, era: u64) {
        self.each_client(|task| {
            if task.era <= era {
                task.is_cut.set(true);
                task.waker.wake_by_ref();
            }
        });
    }

    fn each_client(&self, act: impl Fn(&Task)) {
        for holder in self.holders.borrow().iter() {
            if let Holder::Client(Client { task: Some(task), .. }) = holder {
                act(task);
            }
        }
    }
}

impl Slot {
    /// Enters the client's task, which polls; its waker stays the same for its life.
    pub fn enter(&self, waker: &Waker, is_cut: Rc<Cell<bool>>) {
        if let Holder::Client(client) = &mut self.connections.holders.borrow_mut()[self.number] {
            client.task = Some(Task { waker: waker.clone(), era: self.connections.era.get(), is_cut });
        }
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn begin_idle(&self) {
        self.connections.slots.borrow_mut().begin_idle(self.number);
    }

    pub fn end_idle(&self) {
        if self.connections.slots.borrow_mut().end_idle(self.number) {
            self.connections.changed.notify_waiters();
        }
    }

    /// For a client's task, each time that it finds nothing to do: whether the connection is to end for want of room.
    /// Who has said something meanwhile is spared, and idles anew.
    pub fn is_sent_away(&self) -> bool {
        let Connections { slots, holders, metrics, .. } = &*self.connections;
        {
            let mut slots = slots.borrow_mut();
            slots.begin_idle(self.number);
            if !slots.is_leaving(self.number) {
                return false;
            }
        }
        if holders.borrow()[self.number].has_unread() {
            self.end_idle();
            self.begin_idle();
            return false;
        }
        metrics.clients_shed.fetch_add(1, Relaxed);
        true
    }

    /// The connection waits where nothing of a request has come.
    pub fn idle(&self) -> Idle<'_> {
        Idle(self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.close(self.number);
    }
}

impl Idle<'_> {
    /// As `Slot::is_sent_away`.
    pub fn is_sent_away(&self) -> bool {
        self.0.is_sent_away()
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.end_idle();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn client(connections: &Rc<Connections>) -> (Slot, UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (connections.open(End::Client(Some(ours.as_raw_fd()))), ours, theirs)
    }

    #[test]
    fn who_has_begun_to_speak_stays_and_the_next_one_goes() {
        let metrics = Arc::<Metrics>::default();
        let connections = Connections::new(metrics.clone());
        let (first, _kept, mut speaker) = client(&connections);
        let (second, _ours, theirs) = client(&connections);
        speaker.write_all(b"G").unwrap();
        assert_eq!(connections.send_away(), Some(SentAway::Nobody), "its first byte waits in the kernel");
        assert_eq!(connections.send_away(), Some(SentAway::Client));
        assert_eq!(connections.send_away(), None, "who speaks is busy");
        assert!(!first.is_sent_away() && second.is_sent_away());
        assert_eq!(metrics.clients_shed.load(Relaxed), 1);
        drop(theirs);
    }

    #[test]
    fn who_speaks_up_after_it_was_told_to_go_stays() {
        let connections = Connections::new(Arc::default());
        let (slot, _ours, mut theirs) = client(&connections);
        assert!(!slot.is_sent_away());
        assert_eq!(connections.send_away(), Some(SentAway::Client));
        assert!(connections.has_room(1), "it counts as gone");
        theirs.write_all(b"G").unwrap();
        assert!(!slot.is_sent_away());
        assert!(!connections.has_room(1));
        assert_eq!(connections.send_away(), Some(SentAway::Nobody));
    }

    #[test]
    fn who_has_closed_its_end_has_nothing_to_say() {
        let connections = Connections::new(Arc::default());
        let (slot, _ours, theirs) = client(&connections);
        drop(theirs);
        assert_eq!(connections.send_away(), Some(SentAway::Client));
        assert!(slot.is_sent_away());
    }

    #[tokio::test]
    async fn whoever_waits_for_room_learns_when_nobody_makes_any() {
        let connections = Connections::new(Arc::default());
        let (slot, _ours, mut theirs) = client(&connections);
        let closed = connections.closed();
        assert!(!connections.one_leaves(closed).await, "nobody was told to go");
        connections.send_away();
        theirs.write_all(b"G").unwrap();
        let (left, is_sent_away) =
            tokio::join!(connections.one_leaves(closed), async { slot.is_sent_away() });
        assert!(!is_sent_away && !left);
        drop(slot);
        let (slot, _ours, _theirs) = client(&connections);
        let closed = connections.closed();
        connections.send_away();
        let (left, ()) = tokio::join!(connections.one_leaves(closed), async { drop(slot) });
        assert!(left);
    }
}
