//! Whether this process lives and whether this replica should get traffic.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{App, Phase};
use crate::error::{Error, Problem};
use crate::monitoring::checks;

#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: &'static str,
    pub container: String,
}

/// Whether this replica should get traffic. A database that is away for a moment is no reason to take all replicas out.
#[utoipa::path(get, path = "/health", tag = "health", security(()), responses(
    (status = 200, body = Health), (status = 503, body = Problem, description = "starting or draining")))]
pub async fn health(State(app): State<App>) -> Result<Json<Health>, Error> {
    match app.life.phase() {
        Phase::Serving => Ok(ok(&app)),
        Phase::Starting => Err(Error::unavailable("starting: waiting for the database and its schema")),
        Phase::Draining => Err(Error::unavailable("draining: going away")),
    }
}

/// Whether the process lives.
#[utoipa::path(get, path = "/health/live", tag = "health", security(()), responses((status = 200, body = Health)))]
pub async fn live(State(app): State<App>) -> Json<Health> {
    ok(&app)
}

/// As `/health`, and the database answers now.
#[utoipa::path(get, path = "/health/ready", tag = "health", security(()), responses(
    (status = 200, body = Health), (status = 503, body = Problem)))]
pub async fn ready(State(app): State<App>) -> Result<Json<Health>, Error> {
    let healthy = health(State(app.clone())).await?;
    match tokio::time::timeout(READY_MAX, checks::primary(&app)).await {
        Ok(Some(_)) => Ok(healthy),
        _ => Err(Error::unavailable("the database does not answer")),
    }
}

/// Shorter than the patience of those who ask for health.
const READY_MAX: Duration = Duration::from_secs(1);

fn ok(app: &App) -> Json<Health> {
    Json(Health { status: "ok", container: app.served_by.to_string() })
}
