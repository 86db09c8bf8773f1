//! The pooler's console: what it is set to, and its row for this database. The pooler may refuse; then settings are believed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Column as _, Connection as _, PgConnection, Row as _};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::logic::database_url::Target;
use crate::settings::{Database, Pooler};
use crate::store::db::connect_options;

/// The database name under which poolers of this kind have their console.
const CONSOLE: &str = "pgbouncer";
/// The pooler's settings hardly change; a refusal is remembered as long.
const KEEP: Duration = Duration::from_secs(30);
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Remembers what the console said.
#[derive(Default)]
pub struct Console {
    settings: Mutex<Option<(Instant, Option<Pooler>)>>,
}

impl Console {
    /// What the pooler is set to, asked at most every half minute.
    pub async fn settings(&self, database: &Database, believed: &Pooler) -> Pooler {
        let mut kept = self.settings.lock().await;
        if let Some((at, answer)) = &*kept
            && at.elapsed() < KEEP
        {
            return answer.clone().unwrap_or_else(|| believed.clone());
        }
        let answer = ask(database, "SHOW CONFIG").await.and_then(|rows| pooler(&rows));
        *kept = Some((Instant::now(), answer.clone()));
        answer.unwrap_or_else(|| believed.clone())
    }

    /// The pooler's `SHOW POOLS` row of this database and user; `None` when it does not tell.
    pub async fn pool_row(&self, database: &Database) -> Option<BTreeMap<String, Value>> {
        let rows = ask(database, "SHOW POOLS").await?;
        let is = |row: &PgRow, column: &str, wanted: &str| {
            row.try_get::<String, _>(column).is_ok_and(|found| found == wanted)
        };
        let (name, user) = (&database.primary.name, &database.primary.user);
        let row = rows.iter().find(|row| is(row, "database", name) && is(row, "user", user))?;
        Some(
            row.columns()
                .iter()
                .map(|column| (column.name().to_owned(), value(row, column.ordinal())))
                .collect(),
        )
    }
}

/// A connection of its own per question: the console is asked rarely and is no part of any pool.
async fn ask(database: &Database, command: &'static str) -> Option<Vec<PgRow>> {
    let target = Target { name: CONSOLE.to_owned(), ..database.primary.clone() };
    let asked = async {
        let mut connection =
            PgConnection::connect_with(&connect_options(&target, database, "arena monitoring")).await?;
        let rows = sqlx::raw_sql(command).fetch_all(&mut connection).await?;
        // Only a courtesy: the answer is here.
        let _ = connection.close().await;
        Ok::<_, sqlx::Error>(rows)
    };
    match timeout(ANSWER_MAX, asked).await {
        Ok(Ok(rows)) => Some(rows),
        Ok(Err(cause)) => {
            tracing::debug!(%cause, "the pooler's console did not answer {command}: {cause}");
            None
        }
        Err(_) => None,
    }
}

fn pooler(rows: &[PgRow]) -> Option<Pooler> {
    let text = |key: &str| {
        let row = rows.iter().find(|row| row.try_get::<String, _>("key").is_ok_and(|found| found == key))?;
        row.try_get::<String, _>("value").ok()
    };
    Some(Pooler {
        pool_mode: text("pool_mode")?,
        default_pool_size: text("default_pool_size")?.parse().ok()?,
        max_client_conn: text("max_client_conn")?.parse().ok()?,
    })
}

/// Console columns are text, int4 or int8.
fn value(row: &PgRow, index: usize) -> Value {
    if let Ok(number) = row.try_get::<Option<i64>, _>(index) {
        return number.into();
    }
    if let Ok(number) = row.try_get::<Option<i32>, _>(index) {
        return number.into();
    }
    row.try_get::<Option<String>, _>(index).map_or(Value::Null, Value::from)
}
