//! SUSPEND and its end: every client stops at a point where its buffers are empty, and later goes on as if nothing had
//! been.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin::facts::Refusal;
use crate::clients::{ClientEntry, Order};
use crate::house::House;

/// How often a waiting SUSPEND looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Comes back when all clients stand still. Those whose buffers are not empty after suspend_timeout are closed.
pub async fn suspend(house: &House) -> Result<(), Refusal> {
    if house.pools.is_all_paused() {
        return Err(Refusal::AlreadyPaused);
    }
    if house.pools.has_paused_database() {
        return Err(Refusal::PausedDatabases);
    }
    house.clients.all().iter().for_each(|client| client.set_suspended(false));
    if !house.set_suspended(true) {
        return Err(Refusal::AlreadyPaused);
    }
    house.clients.all().iter().for_each(|client| client.wake());
    let (started, limit) = (Instant::now(), house.settings().suspend_timeout);
    loop {
        let moving = clients_under_way(house);
        if moving.is_empty() || !house.is_suspended() {
            return Ok(());
        }
        if !limit.is_zero() && started.elapsed() >= limit {
            moving.iter().for_each(|client| client.give(Order::SuspendTimeout));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// False: nothing was suspended.
pub fn resume(house: &House) -> bool {
    let was_suspended = house.set_suspended(false);
    if was_suspended {
        house.clients.all().iter().for_each(|client| client.wake());
        house.phase_wake.notify_waiters();
        house.keeper_wake.notify_one();
    }
    was_suspended
}

/// Those who have not stopped yet; operators are not asked to.
fn clients_under_way(house: &House) -> Vec<Arc<ClientEntry>> {
    let is_console = |client: &ClientEntry| client.login.get().is_some_and(|login| login.pool.is_none());
    let mut clients = house.clients.all();
    clients.retain(|client| !client.is_suspended() && !is_console(client));
    clients
}
