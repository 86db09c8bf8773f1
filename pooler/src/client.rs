//! One client's relay, from login to goodbye. One loop for both directions, polled by hand: a batch costs one read and
//! one write on each side, and an idle client holds no buffer.

mod ending;
mod lease;
mod standing;

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pgwire::sqlstate;

use crate::clients::{ClientEntry, Doing};
use crate::error::End;
use crate::house::Standing;
use crate::logic::ledger::WorkerId;
use crate::logic::session::{ClientHalt, ClientSide, Flow, ServerHalt, ServerSide, Session};
use crate::outbox::Outbox;
use crate::pool::{Lease, PoolInfo, Waiting};
use crate::server::Server;
use crate::wire::Wire;
use crate::worker::Worker;

/// What a client may send ahead while it waits for a server.
const AHEAD_WHILE_WAITING_MAX: usize = 64 * 1024;

pub use standing::Detached;

pub struct Client {
    pub worker: Rc<Worker>,
    pub entry: Arc<ClientEntry>,
    pub pool: Arc<PoolInfo>,
    pub wire: Wire,
    pub session: Session,
    link: Link,
    /// Came and was not sent on: the beginning of a message, or everything while it waits.
    unread: Vec<u8>,
    unsent: Outbox,
    /// What was left unread can go on now.
    retry_unread: bool,
    /// The server was just lent: it may lack what this client needs.
    is_new_lease: bool,
    /// The server is taking the client's parameters for the first time; messages wait for that.
    is_syncing: bool,
    transaction_started: Option<Instant>,
    query_started: Option<Instant>,
    settings_version: u64,
}

/// The server's side of a client.
enum Link {
    None,
    Waiting(Waiting, Instant),
    Held(Lease),
}

/// How a client leaves.
pub enum Departure {
    Ends(End),
    /// To the process that takes over.
    Moves,
    /// To another worker of this one.
    ChangesWorker(WorkerId),
}

type Progress = Poll<Result<(), End>>;

impl Client {
    pub fn new(
        worker: Rc<Worker>,
        entry: Arc<ClientEntry>,
        pool: Arc<PoolInfo>,
        wire: Wire,
        session: Session,
    ) -> Client {
        let settings_version = worker.house.settings_version();
        Client {
            worker,
            entry,
            pool,
            wire,
            session,
            link: Link::None,
            unread: Vec::new(),
            unsent: Outbox::default(),
            retry_unread: false,
            is_new_lease: false,
            is_syncing: false,
            transaction_started: None,
            query_started: None,
            settings_version,
        }
    }

    /// What the client sent ahead of its relay; some have a server from the start.
    pub fn start(&mut self, sent_ahead: Vec<u8>, lease: Option<Lease>) {
        self.retry_unread = !sent_ahead.is_empty();
        self.unread = sent_ahead;
        let now = Instant::now();
        self.entry.set_doing(Doing::Idle, now);
        if let Some(lease) = lease {
            self.start_with(lease, now);
        }
    }

    /// One that has been used before, or was made for this client; a transaction may be open on it.
    fn start_with(&mut self, mut lease: Lease, now: Instant) {
        let in_transaction = lease.server().state.is_idle_in_transaction();
        self.link_to(lease, now);
        self.query_started = None;
        if in_transaction {
            self.entry.set_doing(Doing::IdleInTransaction, now);
        } else {
            self.transaction_started = None;
            self.entry.end_transaction();
            self.entry.set_doing(Doing::Idle, now);
        }
    }

    /// Ready when the client leaves.
    pub fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Departure> {
        self.entry.listen_for_orders(cx.waker());
        loop {
            if self.entry.has_order()
                && let Err(end) = self.obey(cx)
            {
                return Poll::Ready(Departure::Ends(end));
            }
            let progress = match self.worker.house.standing() {
                Standing::Suspended => self.poll_suspended(cx),
                Standing::Moving if self.is_movable() => return Poll::Ready(Departure::Moves),
                Standing::Serving if let Some(to) = self.next_worker() => {
                    return Poll::Ready(Departure::ChangesWorker(to));
                }
                Standing::Serving | Standing::Moving => self.poll_linked(cx),
            };
            if let Err(end) = ready!(progress) {
                return Poll::Ready(Departure::Ends(end));
            }
        }
    }

    fn poll_linked(&mut self, cx: &mut Context<'_>) -> Progress {
        match self.link {
            Link::None => self.poll_alone(cx),
            Link::Waiting(..) => self.poll_waiting(cx),
            Link::Held(_) => self.poll_held(cx),
        }
    }

    /// Idle: waits for the client's next message.
    fn poll_alone(&mut self, cx: &mut Context<'_>) -> Progress {
        ready!(self.unsent.poll_flush(&mut self.wire, cx)).map_err(|e| End::broken_socket(&e))?;
        if std::mem::take(&mut self.retry_unread) && !self.unread.is_empty() {
            return Poll::Ready(self.feed_unread(cx));
        }
        self.poll_client(cx)
    }

    /// In the queue: the client may send ahead, or go away.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Progress {
        let Link::Waiting(waiting, since) = &mut self.link else { return Poll::Ready(Ok(())) };
        let since = *since;
        if let Poll::Ready(grant) = waiting.poll(cx) {
            self.link = Link::None;
            let now = Instant::now();
            let waited = now.saturating_duration_since(since);
            self.stats(|part| part.wait.add(waited));
            self.link_to(grant?, now);
            return Poll::Ready(self.feed_unread(cx));
        }
        ready!(self.unsent.poll_flush(&mut self.wire, cx)).map_err(|e| End::broken_socket(&e))?;
        if self.unread.len() >= AHEAD_WHILE_WAITING_MAX {
            return Poll::Pending;
        }
        let worker = self.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let len = ready!(self.wire.poll_read(cx, &mut scratch.read)).map_err(|e| End::broken_socket(&e))?;
        if len == 0 {
            return Poll::Ready(Err(End::quiet("client unexpected eof")));
        }
        self.unread.extend_from_slice(&scratch.read[..len]);
        Poll::Ready(Ok(()))
    }

    /// With a server: always reads both sides, unless one of them does not take what the other sent.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut moved = false;
        if !self.unsent.is_empty() || self.wire.has_unsent() {
            let flushed = self.unsent.poll_flush(&mut self.wire, cx).map_err(|e| End::broken_socket(&e))?;
            moved |= flushed.is_ready();
        }
        let Link::Held(lease) = &mut self.link else { return Poll::Ready(Ok(())) };
        let server = lease.server();
        let mut server_takes = true;
        if !server.unsent.is_empty() || server.wire.has_unsent() {
            // A broken pipe is no end yet: Postgres may have said why, and that is read below.
            server_takes = matches!(server.poll_flush(cx), Poll::Ready(Ok(())));
            moved |= server_takes;
        }
        if server_takes && !self.is_syncing {
            if std::mem::take(&mut self.retry_unread) && !self.unread.is_empty() {
                self.feed_unread(cx)?;
                moved = true;
            } else if let Poll::Ready(result) = self.poll_client(cx) {
                result?;
                moved = true;
            }
        }
        if self.unsent.is_empty()
            && matches!(self.link, Link::Held(_))
            && let Poll::Ready(result) = self.poll_server(cx)
        {
            result?;
            moved = true;
        }
        if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Reads from the client once and sends on what can go.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Progress {
        let worker = self.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let scratch = &mut *scratch;
        let len = ready!(self.wire.poll_read(cx, &mut scratch.read)).map_err(|e| End::broken_socket(&e))?;
        if len == 0 {
            return Poll::Ready(Err(End::quiet("client unexpected eof")));
        }
        self.stats(|part| part.received_bytes.add(len as u64));
        if !self.unread.is_empty() {
            self.unread.extend_from_slice(&scratch.read[..len]);
            let unread = std::mem::take(&mut self.unread);
            let result = self.feed(cx, &unread, &mut scratch.made, &mut scratch.replies);
            return Poll::Ready(self.keep_rest(unread, result));
        }
        let input = &scratch.read[..len];
        let taken = match self.feed(cx, input, &mut scratch.made, &mut scratch.replies) {
            Ok(taken) => taken,
            Err(end) => return Poll::Ready(Err(end)),
        };
        if taken < len {
            self.unread.extend_from_slice(&input[taken..]);
        }
        Poll::Ready(Ok(()))
    }

    fn feed_unread(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let worker = self.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let scratch = &mut *scratch;
        let unread = std::mem::take(&mut self.unread);
        let result = self.feed(cx, &unread, &mut scratch.made, &mut scratch.replies);
        self.keep_rest(unread, result)
    }

    fn keep_rest(&mut self, mut unread: Vec<u8>, result: Result<usize, End>) -> Result<(), End> {
        let taken = result?;
        if taken < unread.len() {
            unread.drain(..taken);
            self.unread = unread;
        }
        Ok(())
    }

    /// Lets the session look at the client's bytes and carries out what it says. Returns how many were taken.
    fn feed(
        &mut self,
        cx: &mut Context<'_>,
        input: &[u8],
        made: &mut Vec<u8>,
        replies: &mut Vec<u8>,
    ) -> Result<usize, End> {
        let mut taken = 0;
        if matches!(self.link, Link::None) {
            replies.clear();
            made.clear();
            let mut flow = Flow::new(input, made);
            let halt = self.session.on_client_alone(&mut flow, replies);
            taken = flow.taken();
            self.reply(cx, replies)?;
            match halt {
                ClientHalt::NeedServer => self.borrow()?,
                other => return ended(other).map_or(Ok(taken), Err),
            }
        }
        let Link::Held(lease) = &mut self.link else { return Ok(taken) };
        let server = lease.server();
        made.clear();
        replies.clear();
        if std::mem::take(&mut self.is_new_lease) {
            self.is_syncing = self.session.on_link(&mut server.state, made);
            lease::log_applied(server, made);
            if self.is_syncing {
                send(server, cx, made);
                self.entry.note_sync(true);
                return Ok(taken);
            }
        }
        let house = &self.worker.house;
        let intern = |query: &[u8], types: &[u8]| house.intern(query, types);
        let mut flow = Flow::new(&input[taken..], made);
        let mut side =
            ClientSide { flow: &mut flow, server: &mut server.state, to_client: replies, intern: &intern };
        let halt = self.session.on_client(&mut side);
        send(server, cx, flow.output());
        taken += flow.taken();
        let owes_own = server.state.queue.owes_own_query();
        self.note_request();
        self.entry.note_sync(owes_own);
        self.reply(cx, replies)?;
        if let Some(end) = ended(halt) {
            return Err(end);
        }
        self.release_if_free();
        Ok(taken)
    }

    /// The client has asked for something on its server.
    fn note_request(&mut self) {
        if self.query_started.is_none() {
            let now = Instant::now();
            self.query_started = Some(now);
            self.entry.set_doing(Doing::Busy, now);
            if self.transaction_started.is_none() {
                self.transaction_started = Some(now);
                self.entry.start_transaction(now);
            }
        }
    }

    /// Reads from the server once and passes on what is the client's.
    fn poll_server(&mut self, cx: &mut Context<'_>) -> Progress {
        let worker = self.worker.clone();
        let mut scratch = worker.scratch.borrow_mut();
        let scratch = &mut *scratch;
        let asked = self.parameters_to_log();
        let Link::Held(lease) = &mut self.link else { return Poll::Pending };
        let server = lease.server();
        let len = match ready!(server.poll_read(cx, &mut scratch.read)) {
            Ok(len) if len > 0 => len,
            _ => return Poll::Ready(Err(self.on_server_gone())),
        };
        scratch.made.clear();
        let joined;
        let input = if server.unread.is_empty() {
            &scratch.read[..len]
        } else {
            let mut all = std::mem::take(&mut server.unread);
            all.extend_from_slice(&scratch.read[..len]);
            joined = all;
            &joined[..]
        };
        let mut flow = Flow::new(input, &mut scratch.made);
        let halt = self.session.on_server(&mut ServerSide { flow: &mut flow, server: &mut server.state });
        server.unread.extend_from_slice(flow.rest());
        let output = flow.output();
        let sent = output.len() as u64;
        let result = self.unsent.send(&mut self.wire, cx, output).map_err(|e| End::broken_socket(&e));
        self.stats(|part| part.sent_bytes.add(sent));
        self.log_canonical(asked);
        if let Err(end) = self.on_server_halt(halt) {
            return Poll::Ready(Err(end));
        }
        self.after_server();
        Poll::Ready(result)
    }

    fn on_server_halt(&mut self, halt: ServerHalt) -> Result<(), End> {
        let (reason, end) = match halt {
            ServerHalt::Input => return Ok(()),
            ServerHalt::OutOfStep(what) => {
                (what.to_string(), End::server_gone("server sent what nobody asked for"))
            }
            ServerHalt::OwnFailed { sqlstate, text } => {
                tracing::warn!("{} varcache_apply failed: {text}", self.entry.name());
                let reason = "invalid server parameter";
                (reason.to_string(), End::own_request_failed(reason, sqlstate, text))
            }
            ServerHalt::OpenedTransaction => {
                let text = "transaction blocks not allowed in statement pooling mode";
                (text.to_string(), End::client(sqlstate::PROTOCOL_VIOLATION, text))
            }
        };
        self.close_server(&reason);
        Err(end)
    }

    /// Counts, notes what the client does now, and gives the server back when it may go.
    fn after_server(&mut self) {
        let Link::Held(lease) = &mut self.link else { return };
        let state = &lease.server().state;
        let (is_drained, waits_for_client) = (state.queue.is_drained(), !state.queue.is_busy());
        let in_transaction = state.is_idle_in_transaction();
        if self.is_syncing && is_drained {
            self.is_syncing = false;
            self.retry_unread = !self.unread.is_empty();
            return;
        }
        self.entry.note_sync(state.queue.owes_own_query());
        let tally = self.session.take_tally();
        if tally.queries == 0 && !waits_for_client {
            self.count(&tally, None);
            return;
        }
        let now = Instant::now();
        self.count(&tally, Some(now));
        if waits_for_client {
            self.query_started = None;
            let doing = if in_transaction { Doing::IdleInTransaction } else { Doing::Idle };
            self.entry.set_doing(doing, now);
        }
        if !in_transaction && waits_for_client {
            self.transaction_started = None;
            self.entry.end_transaction();
        }
        self.release_if_free();
    }

    fn reply(&mut self, cx: &mut Context<'_>, replies: &[u8]) -> Result<(), End> {
        if replies.is_empty() {
            return Ok(());
        }
        self.stats(|part| part.sent_bytes.add(replies.len() as u64));
        self.unsent.send(&mut self.wire, cx, replies).map_err(|e| End::broken_socket(&e))
    }

    fn stats(&self, add: impl FnOnce(&crate::stats::Part)) {
        add(self.pool.stats.part(self.worker.id));
    }
}

/// A write that fails is no end yet: Postgres may have said why, and that is read next.
fn send(server: &mut Server, cx: &mut Context<'_>, bytes: &[u8]) {
    if let Err(error) = server.send(cx, bytes) {
        tracing::debug!("{} write failed: {error}", server.info.name);
    }
}

fn ended(halt: ClientHalt) -> Option<End> {
    match halt {
        ClientHalt::Input | ClientHalt::NeedServer => None,
        ClientHalt::Terminate => Some(End::quiet("client close request")),
        ClientHalt::Refuse(refusal) => Some(refusal.into()),
    }
}
