//! A client that stands still under SUSPEND, or leaves for another process.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, UNIX_EPOCH};

use super::{Client, Link, Progress};
use crate::clients::ClientEntry;
use crate::error::End;
use crate::logic::ledger::WorkerId;
use crate::logic::moving::{MovedClient, MovedCredential};
use crate::logic::session::{Mode, Session};
use crate::moving::Parcel;
use crate::pool::{Credential, Lease, PoolInfo};
use crate::wire::Wire;
use crate::worker::Worker;

/// A client between two workers, and the server that a session holds.
pub struct Detached {
    pub entry: Arc<ClientEntry>,
    pool: Arc<PoolInfo>,
    wire: Wire,
    session: Session,
    lease: Option<Lease>,
    transaction_started: Option<Instant>,
    query_started: Option<Instant>,
}

impl Client {
    /// Sends what is in hand and reads nothing, until it is woken.
    pub(super) fn poll_suspended(&mut self, cx: &mut Context<'_>) -> Progress {
        ready!(self.unsent.poll_flush(&mut self.wire, cx)).map_err(|e| End::broken_socket(&e))?;
        if let Link::Held(lease) = &mut self.link {
            // A server that takes nothing any more is found out when it is read again.
            let _ = ready!(lease.server().poll_flush(cx));
        }
        self.entry.set_suspended(true);
        Poll::Pending
    }

    /// Another process could go on here: nothing is owed, unsent or half sent, on either side.
    pub(super) fn is_movable(&mut self) -> bool {
        let is_settled = self.unsent.is_empty() && self.session.is_between_messages();
        let server_is_movable = match &mut self.link {
            Link::None | Link::Waiting(..) => true,
            Link::Held(lease) => !self.is_syncing && lease.is_movable(),
        };
        is_settled && server_is_movable && self.wire.tls().is_none()
    }

    /// Where to go on, when this worker has too many clients and nothing ties this one to it.
    #[inline]
    pub(super) fn next_worker(&mut self) -> Option<WorkerId> {
        let is_settled = self.unread.is_empty() && self.unsent.is_empty();
        if is_settled && self.may_leave_worker() {
            self.worker.house.spread.claim(self.worker.id)
        } else {
            None
        }
    }

    fn may_leave_worker(&mut self) -> bool {
        match &mut self.link {
            Link::None => true,
            Link::Waiting(..) => false,
            // Who gives the server back soon goes then. A session or a replication may never do, and takes it along.
            Link::Held(lease) => {
                let is_for_long = self.session.rules().mode == Mode::Session;
                is_for_long && !self.is_new_lease && !self.is_syncing && lease.server().is_quiet()
            }
        }
    }

    /// What is left of a client that leaves its worker: all that matters of one that is settled.
    pub fn detach(self) -> Detached {
        let lease = match self.link {
            Link::Held(lease) => Some(lease),
            Link::None | Link::Waiting(..) => None,
        };
        Detached {
            entry: self.entry,
            pool: self.pool,
            wire: self.wire,
            session: self.session,
            lease,
            transaction_started: self.transaction_started,
            query_started: self.query_started,
        }
    }

    /// Goes on with a client on this worker.
    pub fn attach(worker: Rc<Worker>, detached: Detached) -> std::io::Result<Client> {
        let wire = detached.wire.into_this_runtime()?;
        let lease = detached.lease.map(|lease| lease.into_worker(worker.id)).transpose()?;
        let mut client = Client::new(worker, detached.entry, detached.pool, wire, detached.session);
        client.link = lease.map_or(Link::None, Link::Held);
        client.transaction_started = detached.transaction_started;
        client.query_started = detached.query_started;
        // Its rules may have changed on the way.
        client.settings_version = 0;
        Ok(client)
    }

    /// Leaves for the process that takes over.
    pub async fn move_out(mut self) {
        let Some(parcels) = self.worker.house.movers.parcels() else {
            return self.finish(&End::shutdown());
        };
        let mut client = MovedClient {
            process_id: self.entry.key.process_id(),
            secret: self.entry.key.secret(),
            peer: (self.entry.peer.host(), self.entry.peer.port()),
            local: (self.entry.local.host(), self.entry.local.port()),
            connected_at: since_1970(self.entry.connected_at),
            unread: std::mem::take(&mut self.unread),
            credential: self.pool.credential().map_or(MovedCredential::None, into_moved),
            ..MovedClient::default()
        };
        if let Some(login) = self.entry.login.get() {
            client.database.clone_from(&login.database);
            client.user.clone_from(&login.user);
            client.application_name.clone_from(&login.application_name);
        }
        self.session.write_to(&mut client);
        let (entry, worker) = (self.entry, self.worker);
        let server = match std::mem::replace(&mut self.link, Link::None) {
            Link::Held(lease) => {
                let (moved, socket) = lease.take_away();
                client.server = Some(moved);
                socket.map(Some)
            }
            Link::None | Link::Waiting(..) => Ok(None),
        };
        let sockets = self.wire.into_fd().and_then(|socket| Ok((socket, server?)));
        let moved = match sockets {
            Ok((socket, server)) => parcels.send(Parcel { client, socket, server }).await.is_ok(),
            Err(_) => false,
        };
        let reason = if moved { "moved to another process" } else { "could not be moved to another process" };
        worker.log_end(&entry, &End::quiet(reason));
    }
}

fn since_1970(time: std::time::SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn into_moved(credential: Credential) -> MovedCredential {
    match credential {
        Credential::Stored(secret) => MovedCredential::Stored(secret.expose().to_string()),
        Credential::ScramKeys(keys) => MovedCredential::ScramKeys {
            client_key: keys.client_key.to_vec(),
            server_key: keys.server_key.to_vec(),
        },
    }
}
