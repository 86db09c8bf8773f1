//! `/api/v1/monitoring/admin/metrics`: totals over everything, counted at most once a minute for all replicas.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::Operator;
use crate::error::{Error, Problem};
use crate::monitoring::timestamp;
use crate::store::ReadStore;
use crate::store::figures::Totals;

const KEY: &str = "arena:totals";
const REFRESH_S: u64 = 60;

#[derive(Serialize, Deserialize, ToSchema)]
pub struct AdminMetrics {
    #[serde(flatten)]
    pub totals: Totals,
    pub computed_at: String,
    pub refresh_s: u64,
}

/// Totals of users, sessions and messages.
#[utoipa::path(get, path = "/api/v1/monitoring/admin/metrics", tag = "monitoring", responses(
    (status = 200, body = AdminMetrics), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub async fn totals(State(app): State<App>, _operator: Operator) -> Result<Json<AdminMetrics>, Error> {
    if let Some(kept) = kept(&app).await {
        return Ok(Json(kept));
    }
    let count = |store: ReadStore| async move { store.figures().totals().await };
    let totals = app.databases.reading(None).await.ask(count).await?;
    let metrics = AdminMetrics { totals, computed_at: timestamp(), refresh_s: REFRESH_S };
    keep(&app, &metrics).await;
    Ok(Json(metrics))
}

async fn kept(app: &App) -> Option<AdminMetrics> {
    let mut pipeline = redis::pipe();
    pipeline.get(KEY);
    let (text,): (Option<String>,) = app.redis.ask(&pipeline).await.ok()?;
    serde_json::from_str(&text?).ok()
}

async fn keep(app: &App, metrics: &AdminMetrics) {
    let text = serde_json::to_string(metrics).expect("totals are plain data");
    let mut pipeline = redis::pipe();
    pipeline.set_ex(KEY, text, REFRESH_S).ignore();
    if let Err(cause) = app.redis.ask::<()>(&pipeline).await {
        tracing::debug!(%cause, "totals are counted again next time: {cause}");
    }
}
