//! Logins: one row per place where a user is logged in, with the hash of its only valid refresh token.

use std::time::Duration;

use serde::Serialize;
use sqlx::FromRow;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Db;
use super::users::User;
use crate::error::Error;

/// A place where a user is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct Login {
    pub id: Uuid,
    pub user_agent: String,
    pub address: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub refreshed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// What is to be written down.
#[derive(Debug, Clone, Copy)]
pub struct NewLogin<'a> {
    pub user_id: Uuid,
    /// What the password was compared with.
    pub password_hash: &'a str,
    pub token_hash: &'a [u8],
    pub user_agent: &'a str,
    pub address: &'a str,
    pub expires_at: OffsetDateTime,
}

/// What became of a refresh token.
#[derive(Debug, Clone)]
pub enum Rotation {
    Rotated {
        login_id: Uuid,
        user: User,
    },
    /// It had been used before: whoever holds its family was logged out.
    Reused {
        login_id: Uuid,
    },
    Unknown,
}

/// What ending a login came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    Now,
    /// It had been ended before.
    Before,
    /// The user has no such login.
    Unknown,
}

#[derive(FromRow)]
struct Rotated {
    login_id: Uuid,
    #[sqlx(flatten)]
    user: User,
}

#[derive(Clone, Copy)]
pub struct Logins<'a> {
    db: &'a Db,
}

impl<'a> Logins<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { db }
    }

    /// `None`: the account is gone or has another password by now. `FOR SHARE` waits for a change of it under way, and
    /// the change waits for this, so that none of the logins with the old password is left out when it ends them.
    pub async fn create(&self, new: NewLogin<'_>) -> Result<Option<Uuid>, Error> {
        let id = Uuid::now_v7();
        Ok(self
            .db
            .run(|mut lease| async move {
                // The conflict is with an earlier run of this very unit.
                sqlx::query_scalar(
                    "INSERT INTO logins (id, user_id, token_hash, user_agent, address, expires_at)
             SELECT $1, id, $3, $4, $5, $6 FROM users
              WHERE id = $2 AND deleted_at IS NULL AND password_hash = $7 FOR SHARE
             ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING id",
                )
                .bind(id)
                .bind(new.user_id)
                .bind(new.token_hash)
                .bind(new.user_agent)
                .bind(new.address)
                .bind(new.expires_at)
                .bind(new.password_hash)
                .fetch_optional(&mut *lease)
                .await
            })
            .await?)
    }

    /// Puts a new refresh token in the place of `old`, once: of two that bring the same one, one wins. A second run of
    /// this unit finds `new` in its place, which nobody else knows.
    pub async fn rotate(
        &self,
        old: &[u8],
        new: &[u8],
        expires_at: OffsetDateTime,
    ) -> Result<Rotation, Error> {
        let rotated: Option<Rotated> = self.db.run(|mut lease| async move { sqlx::query_as(
            "WITH login AS (
                 UPDATE logins SET token_hash = $2, expires_at = $3, refreshed_at = now()
                  WHERE token_hash IN ($1, $2) AND revoked_at IS NULL AND expires_at > now() RETURNING id, user_id
             ), spent AS (
                 INSERT INTO spent_tokens (token_hash, login_id) SELECT $1, id FROM login ON CONFLICT DO NOTHING
             )
             SELECT login.id AS login_id, u.id, u.username, u.display_name, u.role, u.created_at
               FROM login JOIN users u ON u.id = login.user_id AND u.deleted_at IS NULL",
        )
        .bind(old)
        .bind(new)
        .bind(expires_at)
        .fetch_optional(&mut *lease).await }).await?;
        if let Some(Rotated { login_id, user }) = rotated {
            return Ok(Rotation::Rotated { login_id, user });
        }
        let family: Option<Uuid> = self
            .db
            .run(|mut lease| async move {
                sqlx::query_scalar(
                    "WITH family AS (SELECT login_id FROM spent_tokens WHERE token_hash = $1)
             UPDATE logins SET revoked_at = coalesce(revoked_at, now()) FROM family
              WHERE logins.id = family.login_id RETURNING logins.id",
                )
                .bind(old)
                .fetch_optional(&mut *lease)
                .await
            })
            .await?;
        Ok(family.map_or(Rotation::Unknown, |login_id| Rotation::Reused { login_id }))
    }

    /// Where the user is logged in, newest first, those made before `before`.
    pub async fn of_user(&self, user: Uuid, before: Option<Uuid>, limit: i64) -> Result<Vec<Login>, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT id, user_agent, address, created_at, refreshed_at, expires_at FROM logins
              WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now() AND id < $2
              ORDER BY id DESC LIMIT $3",
                )
                .bind(user)
                .bind(before.unwrap_or(Uuid::max()))
                .bind(limit)
                .fetch_all(&mut *lease)
                .await
            })
            .await?)
    }

    /// Ends one login of the user.
    pub async fn revoke(&self, user: Uuid, login: Uuid) -> Result<Revoked, Error> {
        // The time also names this unit: a second run finds what the first one ended.
        let at = OffsetDateTime::now_utc();
        let by_this: Option<bool> = self
            .db
            .run(|mut lease| async move {
                sqlx::query_scalar(
                    "UPDATE logins SET revoked_at = coalesce(revoked_at, $3)
              WHERE id = $2 AND user_id = $1 RETURNING revoked_at = $3",
                )
                .bind(user)
                .bind(login)
                .bind(at)
                .fetch_optional(&mut *lease)
                .await
            })
            .await?;
        Ok(match by_this {
            Some(true) => Revoked::Now,
            Some(false) => Revoked::Before,
            None => Revoked::Unknown,
        })
    }

    /// Logins that were ended within this time, each with when, in seconds since 1970.
    pub async fn ended_within(&self, time: Duration) -> Result<Vec<(Uuid, i64)>, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT id, extract(epoch FROM revoked_at)::bigint FROM logins
              WHERE revoked_at > now() - make_interval(secs => $1)",
                )
                .bind(time.as_secs_f64())
                .fetch_all(&mut *lease)
                .await
            })
            .await?)
    }

    /// Uses up a ticket of the time without Redis; gives whether this was the first use.
    pub async fn use_ticket(&self, ticket: Uuid, ends_at_s: i64) -> Result<bool, Error> {
        // A second run of this unit finds what the first one wrote.
        let unit = Uuid::new_v4();
        let done = self
            .db
            .run(|mut lease| async move {
                sqlx::query(
                    "INSERT INTO used_tickets (id, used_by, ends_at) VALUES ($1, $2, to_timestamp($3::bigint))
             ON CONFLICT (id) DO UPDATE SET used_by = excluded.used_by WHERE used_tickets.used_by = excluded.used_by",
                )
                .bind(ticket)
                .bind(unit)
                .bind(ends_at_s)
                .execute(&mut *lease)
                .await
            })
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Forgets logins that ended long ago, with the tokens that were spent in them, and used tickets that have ended.
    pub async fn prune(&self) -> Result<u64, Error> {
        let done = self
            .db
            .run(|mut lease| async move {
                sqlx::query(
                    "WITH tickets AS (DELETE FROM used_tickets WHERE ends_at < now() - interval '1 hour')
             DELETE FROM logins WHERE expires_at < now() - interval '7 days'
                OR revoked_at < now() - interval '7 days'",
                )
                .execute(&mut *lease)
                .await
            })
            .await?;
        Ok(done.rows_affected())
    }
}
