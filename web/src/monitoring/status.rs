//! `/status/`: this replica, what it stands on, and the whole fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::fleet::{self, Summary};
use crate::monitoring::checks::{self, Checked, millis, replica_key};
use crate::store::Db;

#[derive(Serialize, ToSchema)]
pub struct Status {
    pub container: String,
    pub version: String,
    pub uptime_s: u64,
    pub healthy: bool,
    pub draining: bool,
    pub checks: Checks,
    pub websocket: WebSockets,
    pub replicas: Vec<Summary>,
}

#[derive(Serialize, ToSchema)]
pub struct Checks {
    /// `default`, and `read_replica` or `read_replica_1` …
    pub database: BTreeMap<String, DatabaseCheck>,
    pub redis: RedisCheck,
}

#[derive(Serialize, ToSchema)]
pub struct DatabaseCheck {
    pub healthy: bool,
    /// Null when it did not answer.
    pub response_ms: Option<f64>,
    pub host: String,
    pub port: String,
    /// Connections of this replica's pool.
    pub pool_size: u32,
    pub pool_in_use: u32,
    /// Read replicas only: how long it lags behind the primary, at least; null when it does not follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<Option<f64>>,
}

#[derive(Serialize, ToSchema)]
pub struct RedisCheck {
    pub healthy: bool,
    pub response_ms: Option<f64>,
    pub detail: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct WebSockets {
    pub connections: usize,
    pub rooms: usize,
}

/// This replica, its databases, Redis and the fleet.
#[utoipa::path(get, path = "/status/", tag = "health", security(()), responses((status = 200, body = Status)))]
pub async fn status(State(app): State<App>) -> Json<Status> {
    let (database, redis) = tokio::join!(databases(&app), checks::redis(&app));
    let counts = app.chat.counts();
    let own = fleet::own_summary(&app);
    // Redis away is no illness: chat is still stored and read.
    let healthy = own.healthy && database.get("default").is_some_and(|check| check.healthy);
    let detail = match redis {
        Some(_) => "ready",
        None => "away: messages are stored and read, but arrive late on other replicas",
    };
    Json(Status {
        container: own.container.clone(),
        version: own.version.clone(),
        uptime_s: own.uptime_s,
        healthy,
        draining: own.draining,
        checks: Checks {
            database,
            redis: RedisCheck { healthy: redis.is_some(), response_ms: redis.map(millis), detail },
        },
        websocket: WebSockets { connections: counts.connections, rooms: counts.rooms },
        replicas: replicas(&app, own).await,
    })
}

/// The fleet as Redis knows it, this replica as it is now.
async fn replicas(app: &App, own: Summary) -> Vec<Summary> {
    let mut fleet = app.fleet.list().await.unwrap_or_default();
    match fleet.iter_mut().find(|summary| summary.container == own.container) {
        Some(remembered) => *remembered = own,
        None => fleet.push(own),
    }
    fleet
}

async fn databases(app: &App) -> BTreeMap<String, DatabaseCheck> {
    let standbys = app.databases.standbys();
    let of_standbys = standbys.iter().enumerate().map(async |(index, standby)| {
        let checked = checks::standby(app, index).await;
        let lag = Some(app.databases.lag(standby));
        (replica_key(index, standbys.len()), database(standby.store.db(), checked, lag))
    });
    let (of_primary, of_standbys) = tokio::join!(checks::primary(app), join_all(of_standbys));
    let default = ("default".to_owned(), database(app.store.db(), of_primary, None));
    std::iter::once(default).chain(of_standbys).collect()
}

/// `lag`: of read replicas only.
fn database(db: &Db, checked: Option<Checked>, lag: Option<Option<Duration>>) -> DatabaseCheck {
    let figures = db.figures();
    DatabaseCheck {
        healthy: checked.is_some() && lag != Some(None),
        response_ms: checked.map(|checked| millis(checked.took)),
        host: db.target.host.clone(),
        port: db.target.port.to_string(),
        pool_size: figures.size,
        pool_in_use: figures.in_use,
        lag_ms: lag.map(|lag| lag.map(millis)),
    }
}
