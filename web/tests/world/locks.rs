//! A database in which something waits.

use sqlx::{AssertSqlSafe, PgConnection};

pub async fn run(database: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(database).await.unwrap();
}

/// Whether somebody waits for a lock in this database.
pub async fn is_waited_for(database: &mut PgConnection) -> bool {
    // What a transaction has seen of it once it sees again, unless it forgets.
    run(&mut *database, "SELECT pg_stat_clear_snapshot()").await;
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock')";
    sqlx::query_scalar(sql).fetch_one(database).await.unwrap()
}
