//! Users: their names, password hashes and roles.

use std::ops::Deref;

use serde::Serialize;
use sqlx::{Connection as _, FromRow, PgConnection};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Db, violates};
use crate::error::Error;
use crate::logic::message::Author;

/// A user as others may see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct User {
    pub id: Uuid,
    pub username: String,
    pub display_name: String,
    pub role: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A user with the hash of the password; never serialised.
#[derive(Clone, FromRow)]
pub struct Credentials {
    #[sqlx(flatten)]
    pub user: User,
    pub password_hash: String,
}

/// Who is to be made.
#[derive(Clone, Copy)]
pub struct NewUser<'a> {
    pub username: &'a str,
    pub display_name: &'a str,
    pub password_hash: &'a str,
    pub role: &'a str,
}

/// The hash that the old password was compared with, and that of the new one.
#[derive(Clone, Copy)]
pub struct NewPassword<'a> {
    pub old_hash: &'a str,
    pub hash: &'a str,
}

#[derive(Clone, Copy)]
pub struct UserReads<'a> {
    db: &'a Db,
}

#[derive(Clone, Copy)]
pub struct Users<'a> {
    reads: UserReads<'a>,
}

impl<'a> UserReads<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { db }
    }

    pub async fn by_id(&self, id: Uuid) -> Result<Option<User>, Error> {
        Ok(self.db.run(|mut lease| async move { sqlx::query_as(
            "SELECT id, username, display_name, role, created_at FROM users WHERE id = $1 AND deleted_at IS NULL",
        )
        .bind(id)
        .fetch_optional(&mut *lease).await }).await?)
    }

    pub async fn by_name(&self, username: &str) -> Result<Option<User>, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT id, username, display_name, role, created_at FROM users
              WHERE username = $1 AND deleted_at IS NULL",
                )
                .bind(username)
                .fetch_optional(&mut *lease)
                .await
            })
            .await?)
    }

    /// These people as authors, in any order.
    pub async fn authors(&self, ids: &[Uuid]) -> Result<Vec<Author>, Error> {
        let found: Vec<(Uuid, String, String)> = self
            .db
            .run(|mut lease| async move {
                sqlx::query_as("SELECT id, username, display_name FROM users WHERE id = ANY($1)")
                    .bind(ids)
                    .fetch_all(&mut *lease)
                    .await
            })
            .await?;
        let authors = found.into_iter();
        Ok(authors.map(|(id, username, display_name)| Author { id, username, display_name }).collect())
    }

    /// Users in order of their making, those after `after`.
    pub async fn page(&self, after: Option<Uuid>, limit: i64) -> Result<Vec<User>, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT id, username, display_name, role, created_at FROM users
              WHERE deleted_at IS NULL AND id > $1 ORDER BY id LIMIT $2",
                )
                .bind(after.unwrap_or(Uuid::nil()))
                .bind(limit)
                .fetch_all(&mut *lease)
                .await
            })
            .await?)
    }
}

impl<'a> Users<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { reads: UserReads::new(db) }
    }

    /// # Errors
    /// The name is taken.
    pub async fn create(&self, new: NewUser<'_>) -> Result<User, Error> {
        let id = Uuid::now_v7();
        let made = self.db.run(|mut lease| async move {
            // The conflict is with an earlier run of this very unit.
            sqlx::query_as(
            "INSERT INTO users (id, username, display_name, password_hash, role) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (id) DO UPDATE SET id = excluded.id
             RETURNING id, username, display_name, role, created_at",
        )
        .bind(id)
        .bind(new.username)
        .bind(new.display_name)
        .bind(new.password_hash)
        .bind(new.role)
        .fetch_one(&mut *lease)
        .await
        });
        made.await.map_err(|error| match violates(&error, "users_username_key") {
            true => Error::Conflict("this username is taken; choose another".into()),
            false => error.into(),
        })
    }

    pub async fn credentials(&self, username: &str) -> Result<Option<Credentials>, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT id, username, display_name, role, created_at, password_hash FROM users
              WHERE username = $1 AND deleted_at IS NULL",
                )
                .bind(username)
                .fetch_optional(&mut *lease)
                .await
            })
            .await?)
    }

    pub async fn rename(&self, id: Uuid, display_name: &str) -> Result<Option<User>, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "UPDATE users SET display_name = $2 WHERE id = $1 AND deleted_at IS NULL
             RETURNING id, username, display_name, role, created_at",
                )
                .bind(id)
                .bind(display_name)
                .fetch_optional(&mut *lease)
                .await
            })
            .await?)
    }

    /// Sets a new password and ends all logins but `keep`. Gives the logins that ended; `None`: the account is gone, or
    /// has another password by now.
    pub async fn set_password(
        &self,
        id: Uuid,
        new: NewPassword<'_>,
        keep: Uuid,
    ) -> Result<Option<Vec<Uuid>>, Error> {
        // The time also names this unit: a second run finds what the first one ended.
        let at = OffsetDateTime::now_utc();
        Ok(self
            .db
            .run(|mut lease| async move {
                let mut transaction = lease.begin().await?;
                // A second run finds the new hash, which has a salt of its own.
                let changed = sqlx::query(
                    "UPDATE users SET password_hash = $3
                      WHERE id = $1 AND deleted_at IS NULL AND password_hash IN ($2, $3)",
                )
                .bind(id)
                .bind(new.old_hash)
                .bind(new.hash)
                .execute(&mut *transaction)
                .await?;
                if changed.rows_affected() == 0 {
                    transaction.rollback().await?;
                    return Ok(None);
                }
                let ended = end_logins(&mut transaction, id, Some(keep), at).await?;
                transaction.commit().await?;
                Ok(Some(ended))
            })
            .await?)
    }

    /// Takes name, password, memberships and logins from a user; the messages stay. Gives the logins that ended.
    pub async fn delete(&self, id: Uuid) -> Result<Vec<Uuid>, Error> {
        let at = OffsetDateTime::now_utc();
        Ok(self
            .db
            .run(|mut lease| async move {
                let mut transaction = lease.begin().await?;
                sqlx::query(
                    "WITH gone AS (
                 UPDATE users SET username = 'deleted-' || id, display_name = 'deleted', password_hash = '',
                        deleted_at = $2
                  WHERE id = $1 AND (deleted_at IS NULL OR deleted_at = $2) RETURNING id
             )
             DELETE FROM members USING gone WHERE members.user_id = gone.id",
                )
                .bind(id)
                .bind(at)
                .execute(&mut *transaction)
                .await?;
                let ended = end_logins(&mut transaction, id, None, at).await?;
                transaction.commit().await?;
                Ok(ended)
            })
            .await?)
    }

    /// Makes these users admins, where they exist.
    pub async fn make_admins(&self, usernames: &[String]) -> Result<u64, Error> {
        let done = self
            .db
            .run(|mut lease| async move {
                sqlx::query("UPDATE users SET role = 'admin' WHERE username = ANY($1) AND role <> 'admin'")
                    .bind(usernames)
                    .execute(&mut *lease)
                    .await
            })
            .await?;
        Ok(done.rows_affected())
    }
}

impl<'a> Deref for Users<'a> {
    type Target = UserReads<'a>;

    fn deref(&self) -> &UserReads<'a> {
        &self.reads
    }
}

/// Ends all logins of a user but `keep`. In a statement of its own, behind the one that changed the user: that may have
/// waited for a login to be stored, and sees only what was there before it began to wait.
async fn end_logins(
    connection: &mut PgConnection,
    user: Uuid,
    keep: Option<Uuid>,
    at: OffsetDateTime,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE logins SET revoked_at = $3
          WHERE user_id = $1 AND id IS DISTINCT FROM $2 AND (revoked_at IS NULL OR revoked_at = $3) RETURNING id",
    )
    .bind(user)
    .bind(keep)
    .bind(at)
    .fetch_all(connection)
    .await
}
