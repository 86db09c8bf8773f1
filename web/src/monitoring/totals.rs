//! `/api/v1/monitoring/admin/metrics`: totals over everything, counted once a minute for all replicas into a
//! materialised view, and kept in Redis until the next count.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::Operator;
use crate::error::{Error, Problem};
use crate::monitoring::timestamp_of;
use crate::store::ReadStore;
use crate::store::figures::Totals;

const KEY: &str = "arena:totals";
const REFRESH_S: u64 = 60;
const REFRESH: Duration = Duration::from_secs(REFRESH_S);

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
    let counted = app.databases.reading(None).await.ask(count).await?;
    let computed_at = timestamp_of(counted.computed_at);
    let metrics = AdminMetrics { totals: counted.totals, computed_at, refresh_s: REFRESH_S };
    let age = OffsetDateTime::now_utc() - counted.computed_at;
    keep(&app, &metrics, REFRESH.saturating_sub(age.unsigned_abs())).await;
    Ok(Json(metrics))
}

/// Has the totals counted on time, by whichever replica finds them too old first.
pub async fn keep_counting(app: App) {
    loop {
        match app.store.figures().refresh_totals(REFRESH).await {
            Ok(_) => {}
            Err(cause) => tracing::debug!(%cause, "totals stay as they are for now: {cause}"),
        }
        tokio::select! {
            () = app.tasks.drain_started() => return,
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
}

async fn kept(app: &App) -> Option<AdminMetrics> {
    let mut pipeline = redis::pipe();
    pipeline.get(KEY);
    let (text,): (Option<String>,) = app.redis.ask(&pipeline).await.ok()?;
    serde_json::from_str(&text?).ok()
}

async fn keep(app: &App, metrics: &AdminMetrics, until_next: Duration) {
    // Those that are due already are not worth keeping.
    if until_next.as_secs() == 0 {
        return;
    }
    let text = serde_json::to_string(metrics).expect("totals are plain data");
    let mut pipeline = redis::pipe();
    pipeline.set_ex(KEY, text, until_next.as_secs()).ignore();
    if let Err(cause) = app.redis.ask::<()>(&pipeline).await {
        tracing::debug!(%cause, "totals are counted again next time: {cause}");
    }
}
