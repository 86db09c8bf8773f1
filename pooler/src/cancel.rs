//! Cancel requests: our key → the client → the server it holds. The server serves nobody else until Postgres has closed
//! the connection that carried the cancel, else the next client's query would be hit.

use std::sync::Arc;
use std::time::Duration;

use pgwire::startup::{self, CancelKey};

use crate::clients::{Doing, Order};
use crate::connect;
use crate::house::House;

/// A cancel request from a client of ours. Nothing is ever answered: the asker learns nothing, right or wrong.
pub async fn forward(house: &Arc<House>, key: &CancelKey) {
    let Some(entry) = house.clients.by_cancel_key(key) else {
        tracing::info!("cancel request for a key that nobody has");
        return;
    };
    let Some(pool) = entry.login.get().and_then(|l| l.pool.clone()) else { return };
    if entry.doing() == Doing::Waiting {
        // Nothing runs yet: the answer is ours.
        return entry.give(Order::Cancelled);
    }
    let Some((server, info)) = house.pools.begin_cancel(pool.key, entry.id) else { return };
    let limit = house.settings().cancel_wait_timeout;
    let limit = if limit.is_zero() { Duration::from_secs(3600) } else { limit };
    if tokio::time::timeout(limit, send(house, &info.target)).await.is_err() {
        tracing::warn!("{} closing because: cancel_wait_timeout (age=0s)", info.name);
    }
    house.pools.end_cancel(house, server, info.id);
}

async fn send(house: &House, target: &crate::server::Target) {
    let Ok(mut wire) = connect::connect_only(house, target).await else { return };
    let mut out = Vec::new();
    startup::cancel_request(&mut out, &target.key);
    if wire.write_all(&out).await.is_err() {
        return;
    }
    // Postgres closes the connection when the signal is sent.
    let mut nothing = [0; 64];
    while matches!(wire.read(&mut nothing).await, Ok(len) if len > 0) {}
}
