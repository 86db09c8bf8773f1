//! The timelines of the database, entered by whoever meets a new one.

use super::Db;
use crate::error::Error;

#[derive(Clone, Copy)]
pub struct Timelines<'a> {
    db: &'a Db,
}

impl<'a> Timelines<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { db }
    }

    /// Enters the primary's timeline. Where it was promoted since it started, it knows how far it had replayed by then.
    pub async fn enter(&self) -> Result<(), Error> {
        self.db
            .run(|mut lease| async move {
                sqlx::query(
                    "INSERT INTO timelines (timeline, began)
                     SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint,
                            pg_last_wal_replay_lsn()
                     ON CONFLICT DO NOTHING",
                )
                .execute(&mut *lease)
                .await
            })
            .await?;
        Ok(())
    }
}
