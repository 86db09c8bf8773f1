//! The task of a client that has logged in: a future no larger than what has to be kept of an idle client, for there may
//! be thousands. The login has a task of its own, whose memory is gone by then.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::client::{Client, Departure, Detached};
use crate::clients::ClientEntry;
use crate::error::End;
use crate::house::{House, Phase};
use crate::logic::ledger::{PoolKey, WorkerId};
use crate::pool::PoolInfo;
use crate::worker::Worker;

/// None once the client has left.
pub(super) struct Relay(Option<(Client, Presence, Member)>);

impl Relay {
    pub fn new(client: Client, presence: Presence, member: Member) -> Relay {
        Relay(Some((client, presence, member)))
    }
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some((client, ..)) = self.0.as_mut() else { return Poll::Ready(()) };
        let departure = ready!(client.poll_relay(cx));
        let Some((client, presence, member)) = self.0.take() else { return Poll::Ready(()) };
        match departure {
            Departure::Ends(end) => client.finish(&end),
            Departure::ChangesWorker(to) => {
                let worker = client.worker.clone();
                Traveller { client: client.detach(), presence, member }.go(&worker, to);
            }
            Departure::Moves => {
                // It counts as being here until it is there.
                tokio::task::spawn_local(async move {
                    client.move_out().await;
                    drop((presence, member));
                });
            }
        }
        Poll::Ready(())
    }
}

/// A client on its way to another worker. Dropping it closes its connection and takes it out of all lists.
pub struct Traveller {
    client: Detached,
    presence: Presence,
    member: Member,
}

impl Traveller {
    fn go(self, from: &Rc<Worker>, to: WorkerId) {
        let house = &from.house;
        house.clients.change_worker(&self.client.entry, to);
        if let Err(traveller) = house.spread.send(to, Box::new(self)) {
            house.clients.change_worker(&traveller.client.entry, from.id);
            traveller.arrive(from);
        }
    }

    pub(super) fn arrive(self, worker: &Rc<Worker>) {
        let Traveller { client, presence, member } = self;
        let entry = client.entry.clone();
        match Client::attach(worker.clone(), client) {
            Ok(client) => drop(tokio::task::spawn_local(Relay::new(client, presence, member))),
            Err(error) => worker.log_end(&entry, &End::broken_socket(&error)),
        }
    }
}

/// Keeps a client in the list while it is there.
pub(super) struct Presence {
    pub house: Arc<House>,
    pub entry: Arc<ClientEntry>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.house.clients.leave(&self.entry);
        self.house.client_gone.notify_waiters();
        // While the house runs nobody but an operator waits for this, and to wake the accepting tasks costs system calls.
        if self.house.phase() != Phase::Running {
            self.house.phase_wake.notify_waiters();
        }
    }
}

/// Counts a client in its pool while it is there.
pub(super) struct Member {
    house: Arc<House>,
    pool: PoolKey,
}

impl Member {
    pub fn new(house: &Arc<House>, pool: &PoolInfo) -> Member {
        house.pools.join(pool.key);
        Member { house: house.clone(), pool: pool.key }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.house.pools.leave(self.pool);
    }
}
