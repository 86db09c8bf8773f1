//! The connection monitoring of the documents: health, pool, alerts, and this replica's own pool.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::Operator;
use crate::error::Problem;
use crate::logic::pool_advice::{self, Facts, percent_text, utilization_percent};
use crate::monitoring::checks::{self, Checked};
use crate::monitoring::timestamp;

#[derive(Serialize, ToSchema)]
pub struct SystemHealth {
    pub healthy: bool,
    pub timestamp: String,
    pub database: DatabaseHealth,
    pub redis: RedisHealth,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseHealth {
    pub healthy: bool,
    /// Milliseconds.
    pub response_time: u64,
    pub connection_pool: ConnectionPool,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionPool {
    pub active: i64,
    pub idle: i64,
    pub total: i64,
    pub max: u64,
    /// With two digits behind the point, as text.
    pub utilization_percent: String,
    pub is_pg_bouncer: bool,
    pub is_shutting_down: bool,
}

#[derive(Serialize, ToSchema)]
pub struct RedisHealth {
    pub available: bool,
    pub connected: bool,
    pub status: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct PoolUse {
    pub database: DatabaseUse,
    pub redis: RedisUse,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseUse {
    pub utilization_percent: f64,
    pub active_connections: i64,
    pub max_connections: u64,
    pub is_healthy: bool,
}

#[derive(Serialize, ToSchema)]
pub struct RedisUse {
    pub available: bool,
    pub connected: bool,
}

#[derive(Serialize, ToSchema)]
pub struct Alerts {
    pub alerts: Vec<String>,
    pub count: usize,
    pub timestamp: String,
}

#[derive(Serialize, ToSchema)]
pub struct PoolStats {
    pub database: OwnPool,
    /// The pooler's `SHOW POOLS` row of this database; null when it does not tell.
    #[schema(value_type = Option<Object>)]
    pub pooler: Option<BTreeMap<String, Value>>,
    pub timestamp: String,
}

#[derive(Serialize, ToSchema)]
pub struct OwnPool {
    pub size: u32,
    pub idle: u32,
    pub in_use: u32,
    pub max: u32,
    pub waiting: usize,
    pub utilization_percent: f64,
    pub acquire_p50_ms: f64,
    pub acquire_p99_ms: f64,
}

/// Database and Redis at one look; also what the periodic log block says.
pub struct Look {
    pub database: Option<Checked>,
    pub redis_up: bool,
}

impl Look {
    pub async fn take(app: &App) -> Self {
        let (database, redis) = tokio::join!(checks::primary(app), checks::redis(app));
        Self { database, redis_up: redis.is_some() }
    }

    /// The answer of the health endpoint.
    pub fn health(&self, app: &App) -> SystemHealth {
        let figures = self.database.map(|checked| checked.figures).unwrap_or_default();
        let max = app.settings.database.max_connections;
        SystemHealth {
            // Redis is optional for what matters: storing and reading chat.
            healthy: self.database.is_some(),
            timestamp: timestamp(),
            database: DatabaseHealth {
                healthy: self.database.is_some(),
                response_time: self
                    .database
                    .map_or(0, |checked| u64::try_from(checked.took.as_millis()).unwrap_or(u64::MAX)),
                connection_pool: ConnectionPool {
                    active: figures.active,
                    idle: figures.idle,
                    total: figures.total,
                    max,
                    utilization_percent: percent_text(utilization_percent(figures.total, max)),
                    is_pg_bouncer: app.settings.database.pooler.is_some(),
                    is_shutting_down: app.life.is_draining(),
                },
            },
            redis: RedisHealth {
                available: self.redis_up,
                connected: self.redis_up,
                status: if self.redis_up { "ready" } else { "reconnecting" },
            },
        }
    }
}

/// Database and Redis.
#[utoipa::path(get, path = "/api/admin/monitoring/connections/health", tag = "monitoring", responses(
    (status = 200, body = SystemHealth), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub async fn health(State(app): State<App>, _operator: Operator) -> Json<SystemHealth> {
    Json(Look::take(&app).await.health(&app))
}

/// How full the database is.
#[utoipa::path(get, path = "/api/admin/monitoring/connections/pool", tag = "monitoring", responses(
    (status = 200, body = PoolUse), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub async fn pool(State(app): State<App>, _operator: Operator) -> Json<PoolUse> {
    let look = Look::take(&app).await;
    let figures = look.database.map(|checked| checked.figures).unwrap_or_default();
    let max = app.settings.database.max_connections;
    Json(PoolUse {
        database: DatabaseUse {
            utilization_percent: utilization_percent(figures.total, max),
            active_connections: figures.active,
            max_connections: max,
            is_healthy: look.database.is_some(),
        },
        redis: RedisUse { available: look.redis_up, connected: look.redis_up },
    })
}

/// What needs somebody's attention.
#[utoipa::path(get, path = "/api/admin/monitoring/connections/alerts", tag = "monitoring", responses(
    (status = 200, body = Alerts), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub async fn alerts(State(app): State<App>, _operator: Operator) -> Json<Alerts> {
    let look = Look::take(&app).await;
    let max = app.settings.database.max_connections;
    let alerts = pool_advice::alerts(Facts {
        utilization_percent: look.database.map(|checked| utilization_percent(checked.figures.total, max)),
        waiting: app.store.db().figures().waiting,
        redis_up: look.redis_up,
    });
    Json(Alerts { count: alerts.len(), alerts, timestamp: timestamp() })
}

/// This replica's own pool, and the pooler's row of this database.
#[utoipa::path(get, path = "/api/v1/monitoring/pool-stats", tag = "monitoring", responses(
    (status = 200, body = PoolStats), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub async fn pool_stats(State(app): State<App>, _operator: Operator) -> Json<PoolStats> {
    let figures = app.store.db().figures();
    let database = &app.settings.database;
    let pooler = match database.pooler {
        Some(_) => app.console.pool_row(database).await,
        None => None,
    };
    Json(PoolStats {
        database: OwnPool {
            size: figures.size,
            idle: figures.idle,
            in_use: figures.in_use,
            max: figures.max,
            waiting: figures.waiting,
            utilization_percent: utilization_percent(i64::from(figures.in_use), u64::from(figures.max)),
            acquire_p50_ms: checks::millis(figures.acquire_p50),
            acquire_p99_ms: checks::millis(figures.acquire_p99),
        },
        pooler,
        timestamp: timestamp(),
    })
}
