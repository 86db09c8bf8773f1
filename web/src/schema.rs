//! The migrations, embedded in the binary: applied by `web migrate`, waited for by `web serve`.

use std::time::Duration;

use anyhow::Context as _;
use chassis::tasks::Tasks;
use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection};

use crate::settings::{Database, Settings};
use crate::store::{ReadStore, db};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The newest migration of this binary.
pub fn newest() -> i64 {
    MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Applies what is missing, over a connection of its own to Postgres itself: migrations take session locks.
///
/// # Errors
/// Postgres cannot be reached or refuses a migration.
pub async fn migrate(settings: &Settings) -> anyhow::Result<()> {
    // A migration of a big table may take longer than any request may.
    let limits = Database { statement_timeout: Duration::ZERO, ..settings.database.clone() };
    let target = &settings.database.direct;
    let options = db::connect_options(target, &limits, "arena migrate");
    let dialled = tokio::time::timeout(limits.connect_timeout, PgConnection::connect_with(&options)).await;
    let mut connection = dialled
        .map_err(anyhow::Error::from)
        .and_then(|answer| answer.map_err(anyhow::Error::from))
        .with_context(|| {
            format!("cannot reach Postgres as {target:?}; see DATABASE_URL_DIRECT and ACTUAL_DB_HOST")
        })?;
    MIGRATOR.run(&mut connection).await.context("a migration failed; nothing of it was kept")?;
    add_statement_statistics(&mut connection).await;
    connection.close().await.context("closing the connection after the migrations")
}

/// Slow queries are read from pg_stat_statements, which only a superuser may add: without it, monitoring says so.
async fn add_statement_statistics(connection: &mut PgConnection) {
    let added = sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").execute(connection).await;
    if let Err(cause) = added {
        tracing::info!(
            %cause,
            "pg_stat_statements was not added, so slow queries cannot be listed; a superuser can: \
             CREATE EXTENSION pg_stat_statements"
        );
    }
}

/// Waits until the database has every migration of this binary; `false` when drain came first.
pub async fn wait(store: &ReadStore, tasks: &Tasks) -> bool {
    let (mut pause, mut said) = (PAUSE_MIN, String::new());
    loop {
        let missing = match store.figures().schema_version().await {
            Ok(Some(version)) if version >= newest() => return true,
            Ok(version) => format!(
                "the schema is at {}, this binary needs {}: run `web migrate`",
                version.unwrap_or(0),
                newest()
            ),
            Err(cause) => format!("the database {:?} does not answer: {cause}", store.db().target),
        };
        // Said once per cause, not once per try.
        if missing != said {
            tracing::warn!("not ready yet: {missing}");
            said = missing;
        }
        tokio::select! {
            () = tasks.drain_started() => return false,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}
