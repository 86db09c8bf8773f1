//! What the database says about itself: connections, log positions, slow statements, totals.

use std::time::Duration;

use serde::Serialize;
use sqlx::FromRow;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::Db;
use crate::error::Error;
use crate::logic::lineage::Lineage;
use crate::logic::watermark::{Lsn, Receiver, Replayed, Watermark};

#[derive(Clone, Copy)]
pub struct Figures<'a> {
    db: &'a Db,
}

/// The client connections of one database, as the server sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow)]
pub struct ConnectionFigures {
    pub total: i64,
    pub active: i64,
    pub idle: i64,
}

/// One row of pg_stat_statements.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow, ToSchema)]
pub struct SlowQuery {
    pub query: String,
    pub calls: i64,
    pub mean_ms: f64,
    pub total_ms: f64,
    pub max_ms: f64,
    pub rows: i64,
    /// From 0 to 1; null where no block was touched.
    pub cache_hit_ratio: Option<f64>,
}

/// The totals of `/api/v1/monitoring/admin/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, FromRow, ToSchema)]
pub struct Totals {
    pub users: i64,
    pub sessions: i64,
    pub messages: i64,
    pub messages_24h: i64,
    pub active_users_24h: i64,
}

/// The totals as they were counted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct CountedTotals {
    #[sqlx(flatten)]
    pub totals: Totals,
    pub computed_at: OffsetDateTime,
}

const SLOW_QUERIES: &str = "
    SELECT query, calls, mean_exec_time AS mean_ms, total_exec_time AS total_ms, max_exec_time AS max_ms, rows,
           shared_blks_hit::float8 / nullif(shared_blks_hit + shared_blks_read, 0) AS cache_hit_ratio
      FROM pg_stat_statements
     WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND mean_exec_time >= $1 AND query IS NOT NULL
     ORDER BY mean_exec_time DESC LIMIT $2";

/// The extension is there, but the server was started without its library: SQLSTATE 55000.
fn is_not_preloaded(cause: &sqlx::Error) -> bool {
    let code = cause.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("55000")
}

impl<'a> Figures<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { db }
    }

    /// The least that shows a database to be alive.
    pub async fn ping(&self) -> Result<(), Error> {
        self.db.run(|mut lease| async move { sqlx::query("SELECT 1").execute(&mut *lease).await }).await?;
        Ok(())
    }

    pub async fn connections(&self) -> Result<ConnectionFigures, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT count(*) AS total,
                    count(*) FILTER (WHERE state = 'active') AS active,
                    count(*) FILTER (WHERE state = 'idle') AS idle
               FROM pg_stat_activity
              WHERE datname = current_database() AND backend_type = 'client backend'",
                )
                .fetch_one(&mut *lease)
                .await
            })
            .await?)
    }

    /// Where the primary's log stands. Read it after a commit: then it covers that commit.
    pub async fn watermark(&self) -> Result<Watermark, Error> {
        // The insert position, not the flushed one: it covers commits with synchronous_commit = off too.
        // The first eight digits of a log file's name are its timeline.
        let (lsn, file): (String, String) = self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT lsn::text, pg_walfile_name(lsn) FROM pg_current_wal_insert_lsn() AS lsn",
                )
                .fetch_one(&mut *lease)
                .await
            })
            .await?;
        let timeline = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match (Lsn::parse(&lsn), timeline) {
            (Some(lsn), Some(timeline)) => Ok(Watermark { timeline, lsn }),
            _ => Err(Error::internal(format!("Postgres names its log position {lsn} in {file}"))),
        }
    }

    /// What a standby says about its replay; `None` when it is no standby.
    pub async fn replayed(&self) -> Result<Option<Replayed>, Error> {
        type Row = (Option<String>, Option<i32>, Option<i32>, Option<i64>);
        let (lsn, receiver, received, entered): Row = self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END,
                            receiver.pid, receiver.received_tli, (SELECT max(timeline) FROM timelines)
                       FROM (SELECT) AS one LEFT JOIN pg_stat_wal_receiver AS receiver ON true",
                )
                .fetch_one(&mut *lease)
                .await
            })
            .await?;
        let timeline = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
        let receiver = match (receiver, timeline(received)) {
            (_, Some(timeline)) => Receiver::Follows { timeline },
            (Some(_), None) => Receiver::Hidden,
            (None, None) => Receiver::Away,
        };
        let entered = entered.and_then(|entered| u32::try_from(entered).ok());
        Ok(lsn.as_deref().and_then(Lsn::parse).map(|lsn| Replayed { lsn, receiver, entered }))
    }

    /// The timelines that this database has lived through.
    pub async fn lineage(&self) -> Result<Lineage, Error> {
        let rows: Vec<(i64, Option<String>)> = self
            .db
            .run(|mut lease| async move {
                sqlx::query_as("SELECT timeline, began::text FROM timelines").fetch_all(&mut *lease).await
            })
            .await?;
        Ok(Lineage::new(rows.iter().filter_map(|(timeline, began)| {
            Some((u32::try_from(*timeline).ok()?, began.as_deref().and_then(Lsn::parse)))
        })))
    }

    /// The newest migration that was applied; `None` before the first.
    pub async fn schema_version(&self) -> Result<Option<i64>, Error> {
        let there: bool = self
            .db
            .run(|mut lease| async move {
                sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
                    .fetch_one(&mut *lease)
                    .await
            })
            .await?;
        if !there {
            return Ok(None);
        }
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
                    .fetch_one(&mut *lease)
                    .await
            })
            .await?)
    }

    /// Statements whose mean time is at least `threshold_ms`, slowest first; `None` where pg_stat_statements does not work.
    pub async fn slow_queries(&self, threshold_ms: f64, limit: i64) -> Result<Option<Vec<SlowQuery>>, Error> {
        let there: bool = self
            .db
            .run(|mut lease| async move {
                sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'pg_stat_statements')",
                )
                .fetch_one(&mut *lease)
                .await
            })
            .await?;
        if !there {
            return Ok(None);
        }
        let found = self.db.run(|mut lease| async move {
            sqlx::query_as(SLOW_QUERIES).bind(threshold_ms).bind(limit).fetch_all(&mut *lease).await
        });
        match found.await {
            Ok(rows) => Ok(Some(rows)),
            Err(cause) if is_not_preloaded(&cause) => Ok(None),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Counts the totals anew if they are older than `age_max` and no other replica is at it; gives whether it did.
    pub async fn refresh_totals(&self, age_max: Duration) -> Result<bool, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_scalar("SELECT refresh_admin_totals(make_interval(secs => $1))")
                    .bind(age_max.as_secs_f64())
                    .fetch_one(&mut *lease)
                    .await
            })
            .await?)
    }

    pub async fn totals(&self) -> Result<CountedTotals, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT users, sessions, messages, messages_24h, active_users_24h, computed_at FROM admin_totals",
                )
                .fetch_one(&mut *lease)
                .await
            })
            .await?)
    }
}
