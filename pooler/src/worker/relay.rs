//! The task of a client that has logged in: a future no larger than what has to be kept of an idle client, for there may
//! be thousands. The login has a task of its own, whose memory is gone by then.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::client::{Client, Departure};
use crate::clients::ClientEntry;
use crate::house::House;
use crate::logic::ledger::PoolKey;
use crate::pool::PoolInfo;

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

/// Keeps a client in the list while it is there.
pub(super) struct Presence {
    pub house: Arc<House>,
    pub entry: Arc<ClientEntry>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.house.clients.leave(&self.entry);
        self.house.phase_wake.notify_waiters();
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
