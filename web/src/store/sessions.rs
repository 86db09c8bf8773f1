//! Sessions and their members.

use std::ops::Deref;

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Db, late, violates};
use crate::error::Error;
use crate::logic::accounts;
use crate::logic::message::{Author, Offset};

/// A session as its members see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, ToSchema)]
pub struct Session {
    pub id: Uuid,
    pub slug: Option<String>,
    pub title: String,
    #[sqlx(try_from = "String")]
    pub visibility: Visibility,
    pub owner_id: Uuid,
    /// The offset of the newest message; 0 before the first.
    pub last_offset: Offset,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Who may join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Those whom the owner adds.
    Private,
    /// Everybody.
    Public,
}

impl Visibility {
    fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

impl TryFrom<String> for Visibility {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "private" => Ok(Self::Private),
            "public" => Ok(Self::Public),
            _ => Err(format!("visibility {word}")),
        }
    }
}

/// What is to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewSession<'a> {
    pub owner: Uuid,
    pub title: &'a str,
    pub visibility: Visibility,
    pub slug: Option<&'a str>,
}

/// What is to be changed; `None` leaves it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    pub title: Option<&'a str>,
    pub visibility: Option<Visibility>,
}

#[derive(Clone, Copy)]
pub struct SessionReads<'a> {
    db: &'a Db,
}

#[derive(Clone, Copy)]
pub struct Sessions<'a> {
    reads: SessionReads<'a>,
}

impl<'a> SessionReads<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { db }
    }

    /// By UUID or by slug; a UUID is never a slug that somebody else could take.
    pub async fn find(&self, id_or_slug: &str) -> Result<Option<Session>, Error> {
        let id = Uuid::try_parse(id_or_slug).ok();
        // What can be no slug is not even asked for: the database takes no text with NUL.
        let slug = id.is_none().then_some(id_or_slug).filter(|slug| accounts::check_slug(slug).is_ok());
        if id.is_none() && slug.is_none() {
            return Ok(None);
        }
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT id, slug, title, visibility, owner_id, last_offset, created_at FROM sessions
              WHERE id = $1 OR slug = $2",
                )
                .bind(id)
                .bind(slug)
                .fetch_optional(&mut *lease)
                .await
            })
            .await?)
    }

    pub async fn is_member(&self, session: Uuid, user: Uuid) -> Result<bool, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM members WHERE session_id = $1 AND user_id = $2)",
                )
                .bind(session)
                .bind(user)
                .fetch_one(&mut *lease)
                .await
            })
            .await?)
    }

    /// The same where a membership that is missing has consequences.
    ///
    /// # Errors
    /// Also where a standby answers that does not know of it.
    pub async fn admits(&self, session: Uuid, user: Uuid) -> Result<bool, Error> {
        const SQL: &str = "SELECT EXISTS (SELECT 1 FROM members WHERE session_id = $1 AND user_id = $2),
                                  pg_is_in_recovery()";
        let (is_member, is_standby): (bool, bool) = self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(SQL).bind(session).bind(user).fetch_one(&mut *lease).await
            })
            .await?;
        if is_standby && !is_member { Err(late()) } else { Ok(is_member) }
    }

    /// Of these pairs of a session and a user, those where the user is no member.
    ///
    /// # Errors
    /// Also where a standby finds some.
    pub async fn strangers(&self, sessions: &[Uuid], users: &[Uuid]) -> Result<Vec<(Uuid, Uuid)>, Error> {
        const SQL: &str = "SELECT s.session_id, s.user_id, pg_is_in_recovery()
              FROM unnest($1::uuid[], $2::uuid[]) AS s (session_id, user_id)
              LEFT JOIN members m ON m.session_id = s.session_id AND m.user_id = s.user_id
             WHERE m.user_id IS NULL";
        let found: Vec<(Uuid, Uuid, bool)> = self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(SQL).bind(sessions).bind(users).fetch_all(&mut *lease).await
            })
            .await?;
        if found.iter().any(|(_, _, is_standby)| *is_standby) {
            return Err(late());
        }
        Ok(found.into_iter().map(|(session, user, _)| (session, user)).collect())
    }

    /// The sessions that a user is a member of, newest first, those made before `before`.
    pub async fn of_user(&self, user: Uuid, before: Option<Uuid>, limit: i64) -> Result<Vec<Session>, Error> {
        Ok(self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(
                    "SELECT s.id, s.slug, s.title, s.visibility, s.owner_id, s.last_offset, s.created_at
               FROM members m JOIN sessions s ON s.id = m.session_id
              WHERE m.user_id = $1 AND m.session_id < $2 ORDER BY m.session_id DESC LIMIT $3",
                )
                .bind(user)
                .bind(before.unwrap_or(Uuid::max()))
                .bind(limit)
                .fetch_all(&mut *lease)
                .await
            })
            .await?)
    }

    /// The members of a session in order of user id, those after `after`.
    pub async fn members(
        &self,
        session: Uuid,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Author>, Error> {
        let rows: Vec<(Uuid, String, String)> =
            self.db
                .run(|mut lease| async move {
                    sqlx::query_as(
            "SELECT u.id, u.username, u.display_name FROM members m JOIN users u ON u.id = m.user_id
              WHERE m.session_id = $1 AND m.user_id > $2 ORDER BY m.user_id LIMIT $3",
        )
        .bind(session)
        .bind(after.unwrap_or(Uuid::nil()))
        .bind(limit)
        .fetch_all(&mut *lease).await
                })
                .await?;
        Ok(rows
            .into_iter()
            .map(|(id, username, display_name)| Author { id, username, display_name })
            .collect())
    }
}

impl<'a> Sessions<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { reads: SessionReads::new(db) }
    }

    /// Makes a session with its owner as the first member.
    ///
    /// # Errors
    /// The slug is taken, or the owner is no user.
    pub async fn create(&self, new: NewSession<'_>) -> Result<Session, Error> {
        let id = Uuid::now_v7();
        let made = self.db.run(|mut lease| async move {
        // The conflict is with an earlier run of this very unit.
        sqlx::query_as(
            "WITH made AS (
                 INSERT INTO sessions (id, slug, title, visibility, owner_id) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (id) DO UPDATE SET id = excluded.id
                 RETURNING id, slug, title, visibility, owner_id, last_offset, created_at
             ), owner AS (
                 INSERT INTO members (session_id, user_id) SELECT id, owner_id FROM made ON CONFLICT DO NOTHING
             )
             SELECT * FROM made",
        )
        .bind(id)
        .bind(new.slug)
        .bind(new.title)
        .bind(new.visibility.as_str())
        .bind(new.owner)
        .fetch_one(&mut *lease)
        .await
        });
        made.await.map_err(|error| match error {
            error if violates(&error, "sessions_slug_key") => {
                Error::Conflict("this slug is taken; choose another".into())
            }
            error if violates(&error, "sessions_owner_id_fkey") => nobody(),
            error => error.into(),
        })
    }

    pub async fn change(&self, id: Uuid, change: Change<'_>) -> Result<Option<Session>, Error> {
        Ok(self.db.run(|mut lease| async move { sqlx::query_as(
            "UPDATE sessions SET title = coalesce($2, title), visibility = coalesce($3, visibility) WHERE id = $1
             RETURNING id, slug, title, visibility, owner_id, last_offset, created_at",
        )
        .bind(id)
        .bind(change.title)
        .bind(change.visibility.map(Visibility::as_str))
        .fetch_optional(&mut *lease).await }).await?)
    }

    pub async fn delete(&self, id: Uuid) -> Result<(), Error> {
        self.db
            .run(|mut lease| async move {
                sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id).execute(&mut *lease).await
            })
            .await?;
        Ok(())
    }

    /// Adds a member; adding one who is there already changes nothing.
    ///
    /// # Errors
    /// The session was deleted meanwhile, or the member is no user.
    pub async fn add_member(&self, session: Uuid, user: Uuid) -> Result<(), Error> {
        let added = self.db.run(|mut lease| async move {
            sqlx::query("INSERT INTO members (session_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(session)
                .bind(user)
                .execute(&mut *lease)
                .await
        });
        match added.await {
            Ok(_) => Ok(()),
            Err(error) if violates(&error, "members_session_id_fkey") => {
                Err(Error::not_found("there is no such session"))
            }
            Err(error) if violates(&error, "members_user_id_fkey") => Err(nobody()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a member; removing one who is none changes nothing.
    pub async fn remove_member(&self, session: Uuid, user: Uuid) -> Result<(), Error> {
        self.db
            .run(|mut lease| async move {
                sqlx::query("DELETE FROM members WHERE session_id = $1 AND user_id = $2")
                    .bind(session)
                    .bind(user)
                    .execute(&mut *lease)
                    .await
            })
            .await?;
        Ok(())
    }
}

impl<'a> Deref for Sessions<'a> {
    type Target = SessionReads<'a>;

    fn deref(&self) -> &SessionReads<'a> {
        &self.reads
    }
}

/// Rows of users are kept for ever, so that only a token without one comes to this: see `web token`.
fn nobody() -> Error {
    Error::forbidden("this token belongs to no user, who alone can own or join a session; log in as one")
}
