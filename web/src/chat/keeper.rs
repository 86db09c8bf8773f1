//! Compares the rooms with the database: regularly, more often while Redis is away, and at once after a loss.

use std::sync::Arc;
use std::time::Duration;

use chassis::tasks::Tasks;

use super::bus::{Bus, end_of};
use super::hub::Hub;

/// The period while messages do not travel over Redis: then it is how members get them at all.
const PERIOD_WITHOUT_REDIS: Duration = Duration::from_millis(500);
/// Losses come in crowds; one comparison serves all of them.
const PAUSE_MIN: Duration = Duration::from_millis(150);

/// Starts the comparison; it ends when a drain has begun and the hub is empty.
pub fn start(hub: &Arc<Hub>, bus: &Bus, tasks: &Tasks, period: Duration) {
    let ended = end_of(hub, tasks);
    let (hub, bus) = (Arc::clone(hub), bus.clone());
    tasks.spawn("offset comparison", async move {
        tokio::select! { () = keep(&hub, &bus, period) => {}, () = ended => {} }
    });
}

async fn keep(hub: &Arc<Hub>, bus: &Bus, period: Duration) {
    loop {
        let pause = if bus.is_up() { period } else { period.min(PERIOD_WITHOUT_REDIS) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = bus.doubt() => {}
        }
        hub.compare().await;
        tokio::time::sleep(PAUSE_MIN).await;
    }
}
