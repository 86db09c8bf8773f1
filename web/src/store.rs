//! The SQL, by resource. The only modules that know the driver; every statement is safe under transaction pooling.
//!
//! A [`ReadStore`] may be a standby's; a [`Store`] is always the primary's, and reads there are never stale.

pub mod db;
pub mod figures;
pub mod logins;
pub mod messages;
pub mod sessions;
pub mod timelines;
pub mod users;

use std::ops::Deref;

use crate::error::Error;

pub use db::Db;

/// Questions that change nothing.
#[derive(Clone)]
pub struct ReadStore {
    db: Db,
}

/// Everything, at the primary.
#[derive(Clone)]
pub struct Store {
    read: ReadStore,
}

impl ReadStore {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    pub fn users(&self) -> users::UserReads<'_> {
        users::UserReads::new(&self.db)
    }

    pub fn sessions(&self) -> sessions::SessionReads<'_> {
        sessions::SessionReads::new(&self.db)
    }

    pub fn messages(&self) -> messages::MessageReads<'_> {
        messages::MessageReads::new(&self.db)
    }

    pub fn figures(&self) -> figures::Figures<'_> {
        figures::Figures::new(&self.db)
    }
}

impl Store {
    pub fn new(db: Db) -> Self {
        Self { read: ReadStore::new(db) }
    }

    pub fn users(&self) -> users::Users<'_> {
        users::Users::new(&self.db)
    }

    pub fn logins(&self) -> logins::Logins<'_> {
        logins::Logins::new(&self.db)
    }

    pub fn sessions(&self) -> sessions::Sessions<'_> {
        sessions::Sessions::new(&self.db)
    }

    pub fn messages(&self) -> messages::Messages<'_> {
        messages::Messages::new(&self.db)
    }

    pub fn timelines(&self) -> timelines::Timelines<'_> {
        timelines::Timelines::new(&self.db)
    }

    /// The same tables for reading only.
    pub fn as_read(&self) -> &ReadStore {
        &self.read
    }
}

impl Deref for Store {
    type Target = ReadStore;

    fn deref(&self) -> &ReadStore {
        &self.read
    }
}

/// A standby answered in the primary's place, as it may during a switch-over: what it lacks may only be late.
fn late() -> Error {
    Error::unavailable("the database is being switched over; try again")
}

/// Whether the database refused because of this unique constraint or index.
fn violates(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().is_some_and(|answer| answer.constraint() == Some(constraint))
}
