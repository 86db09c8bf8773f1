//! Asks primary and standbys for the position of their logs, over and over, and moves their lag.

use crate::logic::fleet::Address;
use crate::logic::positions::Track;
use crate::logic::random::Random;
use crate::recorder::Recorder;
use crate::site::Site;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

const SAMPLE_EVERY: Duration = Duration::from_millis(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const LAG_CHANGES_EVERY: Duration = Duration::from_secs(3);
const ASK_PRIMARY: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
/// A standby that was promoted is none any more: it has no position here.
const ASK_STANDBY: &str =
    "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint WHERE pg_is_in_recovery()";

/// What is known of a server's log.
pub type Shared = Rc<RefCell<Track>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Primary,
    Standby,
}

/// Samples for ever; a server that is away has no position meanwhile.
pub async fn sample(site: Rc<Site>, at: Address, role: Role, recorder: Rc<Recorder>, track: Shared) {
    let sql = if role == Role::Primary { ASK_PRIMARY } else { ASK_STANDBY };
    loop {
        if let Ok(client) = site.connect(&at, &site.database).await {
            // Ends with the connection; the next one may find another server at the same address.
            let _ = sample_one(&client, sql, &recorder, &track).await;
        }
        sleep(SAMPLE_EVERY).await;
    }
}

async fn sample_one(client: &Client, sql: &str, recorder: &Recorder, track: &Shared) -> Option<()> {
    let statement = client.prepare(sql).await.ok()?;
    loop {
        let asked = recorder.now();
        let row = timeout(ANSWER_LIMIT, client.query_opt(&statement, &[])).await.ok()?.ok()?;
        let position: i64 = row?.try_get::<_, Option<i64>>(0).ok()??;
        track.borrow_mut().on_sample(asked, recorder.now(), u64::try_from(position).ok()?);
        sleep(SAMPLE_EVERY).await;
    }
}

/// Gives the standby another lag now and then, up to `lag_max`.
pub async fn vary_lag(site: Rc<Site>, at: Address, lag_max: Duration, seed: u64) {
    let mut random = Random::new(seed);
    let mut changed = Instant::now();
    loop {
        if let Ok(client) = site.connect(&at, &site.database).await {
            let lag_ms = random.below(lag_max.as_millis() as u64 + 1);
            // A standby that is away just now keeps the lag that it had.
            let _ =
                client.batch_execute(&format!("ALTER SYSTEM SET recovery_min_apply_delay = {lag_ms}")).await;
            let _ = client.batch_execute("SELECT pg_reload_conf()").await;
        }
        changed += LAG_CHANGES_EVERY;
        tokio::time::sleep_until(changed).await;
    }
}
