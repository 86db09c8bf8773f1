//! Upkeep on the first worker: ages, minimum sizes, dead idle servers, waiting pools, statistics.

use std::sync::Arc;
use std::time::Duration;

use crate::house::{House, Phase, Standing};

/// As often as PgBouncer's janitor.
const PERIOD: Duration = Duration::from_millis(333);

/// Runs until the process ends.
pub async fn run(house: Arc<House>) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => on_tick(&house),
            () = house.keeper_wake.notified() => house.pools.feed_hungry(&house),
        }
        // Servers that were given back, for those who wait to end.
        if house.phase() != Phase::Running {
            house.phase_wake.notify_waiters();
        }
    }
}

fn on_tick(house: &Arc<House>) {
    match house.standing() {
        Standing::Serving => house.pools.upkeep(house),
        // What nobody uses here would only be missing where the clients are.
        Standing::Moving => house.pools.close_unused(house),
        Standing::Suspended => {}
    }
}

/// One snapshot and one line in the log per stats_period.
pub async fn watch_statistics(house: Arc<House>) {
    loop {
        tokio::time::sleep(house.settings().stats_period.max(Duration::from_secs(1))).await;
        house.stats.take_snapshot();
        let line = statistics(&house);
        if house.settings().log_stats {
            tracing::info!("{line}");
        }
        house.notifier.status(&line);
    }
}

fn statistics(house: &House) -> String {
    let (c, period) = house.stats.last_period();
    let per_second = |n: u64| (n as f64 / period.as_secs_f64().max(0.001)) as u64;
    let each = |total: u64, count: u64| total.checked_div(count).unwrap_or(0);
    format!(
        "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, {} client logins/s, in {} B/s, out {} B/s, \
         xact {} us, query {} us, wait {} us",
        per_second(c.transactions),
        per_second(c.queries),
        per_second(c.client_parses),
        per_second(c.server_parses),
        per_second(c.binds),
        per_second(c.client_logins),
        per_second(c.received_bytes),
        per_second(c.sent_bytes),
        each(c.transaction_micros, c.transactions),
        each(c.query_micros, c.queries),
        each(c.wait_micros, c.server_assignments),
    )
}
