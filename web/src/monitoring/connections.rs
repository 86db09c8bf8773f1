//! `/db/connections/`: the connections as the database sees them, and what the pooler is set to.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::{Error, Problem};
use crate::logic::database_url::{PoolerSigns, is_pooler};
use crate::logic::pool_advice;
use crate::monitoring::checks::{self, replica_key};
use crate::store::ReadStore;
use crate::store::figures::ConnectionFigures;

#[derive(Serialize, ToSchema)]
pub struct Connections {
    pub container: String,
    /// Seconds since 1970.
    pub timestamp: f64,
    /// `default`, and `read_replica` or `read_replica_1` …
    pub connections: BTreeMap<String, Database>,
    pub pgbouncer: PgBouncer,
    pub recommendations: Vec<&'static str>,
}

#[derive(Serialize, ToSchema)]
pub struct Database {
    pub total_connections: i64,
    pub active_connections: i64,
    pub idle_connections: i64,
    /// Seconds.
    pub conn_max_age: u64,
    pub using_pgbouncer: bool,
    pub host: String,
    pub port: String,
    /// Only where it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum PgBouncer {
    Used {
        enabled: bool,
        port: String,
        pool_mode: String,
        default_pool_size: u64,
        max_client_conn: u64,
        note: &'static str,
    },
    Unused {
        enabled: bool,
        note: &'static str,
    },
}

/// Connections of this database, whoever holds them.
#[utoipa::path(get, path = "/db/connections/", tag = "health", security(()), responses(
    (status = 200, body = Connections), (status = 503, body = Problem)))]
pub async fn connections(State(app): State<App>) -> Result<Json<Connections>, Error> {
    let (found, pgbouncer) = tokio::join!(databases(&app), pgbouncer(&app));
    let (default, connections) = found?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    Ok(Json(Connections {
        container: app.served_by.to_string(),
        timestamp: (now * 1000.0).round() / 1000.0,
        connections,
        pgbouncer,
        recommendations: pool_advice::recommendations(default.total, default.idle),
    }))
}

async fn databases(app: &App) -> Result<(ConnectionFigures, BTreeMap<String, Database>), Error> {
    let standbys = app.databases.standbys();
    let stores = std::iter::once(app.store.as_read()).chain(standbys.iter().map(|standby| &standby.store));
    let of_standbys = join_all((0..standbys.len()).map(|index| checks::standby(app, index)));
    let (of_primary, of_standbys) = tokio::join!(checks::primary(app), of_standbys);
    let Some(default) = of_primary else {
        return Err(Error::unavailable("the database does not answer"));
    };
    let mut connections = BTreeMap::new();
    let answers = std::iter::once(of_primary).chain(of_standbys);
    for (index, (store, answer)) in stores.zip(answers).enumerate() {
        let (key, pooled) = match index {
            0 => ("default".to_owned(), app.settings.database.pooler.is_some()),
            _ => (replica_key(index - 1, standbys.len()), pooled(app, store)),
        };
        connections.insert(key, database(app, store, answer.map(|checked| checked.figures), pooled));
    }
    Ok((default.figures, connections))
}

fn database(app: &App, store: &ReadStore, answer: Option<ConnectionFigures>, pooled: bool) -> Database {
    let target = &store.db().target;
    let figures = answer.unwrap_or_default();
    Database {
        total_connections: figures.total,
        active_connections: figures.active,
        idle_connections: figures.idle,
        conn_max_age: app.settings.database.conn_max_age.as_secs(),
        using_pgbouncer: pooled,
        host: target.host.clone(),
        port: target.port.to_string(),
        error: answer.is_none().then_some("does not answer"),
    }
}

/// A standby is usually dialled directly; the pooler's pool of it is at the pooler's place, or told by its signs.
fn pooled(app: &App, store: &ReadStore) -> bool {
    let (target, database) = (&store.db().target, &app.settings.database);
    match target.address() == database.primary.address() {
        true => database.pooler.is_some(),
        false => is_pooler(PoolerSigns { target, actual: None }),
    }
}

async fn pgbouncer(app: &App) -> PgBouncer {
    let Some(believed) = &app.settings.database.pooler else {
        return PgBouncer::Unused { enabled: false, note: "Direct database connection" };
    };
    let pooler = app.console.settings(&app.settings.database, believed).await;
    PgBouncer::Used {
        enabled: true,
        port: app.settings.database.primary.port.to_string(),
        pool_mode: pooler.pool_mode,
        default_pool_size: pooler.default_pool_size,
        max_client_conn: pooler.max_client_conn,
        note: "Using PgBouncer for connection pooling",
    }
}
