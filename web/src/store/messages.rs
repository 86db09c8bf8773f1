//! Messages: stored once, with the session's next offset, and read by ranges of offsets.

use std::ops::Deref;

use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::sessions::SessionReads;
use super::{Db, late, violates};
use crate::error::Error;
use crate::logic::message::{Author, Message, Offset, Role};

const NO_MEMBER: &str = "you are no member of this session";

/// What is to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewMessage<'a> {
    pub session_id: Uuid,
    /// `None`: the responder speaks, which needs no membership.
    pub author: Option<Uuid>,
    pub role: Role,
    pub content: &'a str,
    pub client_msg_id: Option<&'a str>,
}

/// What storing came to.
#[derive(Debug, Clone)]
pub struct Appended {
    pub message: Message,
    /// The same message had been stored before; nothing was stored now.
    pub replayed: bool,
}

#[derive(Clone, Copy)]
pub struct MessageReads<'a> {
    db: &'a Db,
}

#[derive(Clone, Copy)]
pub struct Messages<'a> {
    reads: MessageReads<'a>,
}

/// One row of [`select`].
struct MessageRow(Message);

/// Messages with their authors, as [`MessageRow`] reads them; the argument says which.
macro_rules! select {
    ($which:literal) => {
        concat!(
            r#"SELECT m.id, m.session_id, m."offset", m.role, m.content, m.created_at, m.client_msg_id,
                      m.author_id, u.username, u.display_name
                 FROM messages m LEFT JOIN users u ON u.id = m.author_id "#,
            $which
        )
    };
}

/// A message is among them as long as the contents before it are below the limit.
const AFTER_WITHIN: &str = r#"
    SELECT m.id, m.session_id, m."offset", m.role, m.content, m.created_at, m.client_msg_id,
           m.author_id, u.username, u.display_name
      FROM (SELECT page.*, sum(octet_length(content)) OVER (ORDER BY "offset") - octet_length(content) AS bytes_before
              FROM (SELECT * FROM messages WHERE session_id = $1 AND "offset" > $2
                     ORDER BY "offset" LIMIT $3) page) m
      LEFT JOIN users u ON u.id = m.author_id
     WHERE m.bytes_before < $4
     ORDER BY m."offset""#;

/// The `UPDATE` takes the session's row lock until commit: whoever comes second waits and gets the next offset.
/// `clock_timestamp()` is read after that wait, so times follow offsets.
const APPEND: &str = r#"
    WITH seen AS (
        SELECT 1 FROM messages
         WHERE session_id = $1 AND client_msg_id = $6
           AND coalesce(author_id, '00000000-0000-0000-0000-000000000000'::uuid)
             = coalesce($3::uuid, '00000000-0000-0000-0000-000000000000'::uuid)
    ), place AS (
        UPDATE sessions SET last_offset = last_offset + 1
         WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM seen)
           AND ($3::uuid IS NULL OR EXISTS (SELECT 1 FROM members WHERE session_id = $1 AND user_id = $3))
        RETURNING last_offset
    ), m AS (
        INSERT INTO messages (session_id, "offset", id, role, author_id, content, client_msg_id, created_at)
        SELECT $1, last_offset, $2, $4, $3, $5, $6, clock_timestamp() FROM place
        RETURNING *
    )
    SELECT m.id, m.session_id, m."offset", m.role, m.content, m.created_at, m.client_msg_id,
           m.author_id, u.username, u.display_name
      FROM m LEFT JOIN users u ON u.id = m.author_id"#;

impl<'a> MessageReads<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { db }
    }

    /// The messages that follow `after`, oldest first.
    pub async fn after(&self, session: Uuid, after: Offset, limit: i64) -> Result<Vec<Message>, Error> {
        let sql = select!(r#"WHERE m.session_id = $1 AND m."offset" > $2 ORDER BY m."offset" LIMIT $3"#);
        self.many(sql, session, after, limit).await
    }

    /// The same up to `bytes_max` of contents, but at least one: how long messages are is up to their authors.
    pub async fn after_within(
        &self,
        session: Uuid,
        after: Offset,
        limit: i64,
        bytes_max: usize,
    ) -> Result<Vec<Message>, Error> {
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let rows: Vec<MessageRow> = self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(AFTER_WITHIN)
                    .bind(session)
                    .bind(after)
                    .bind(limit)
                    .bind(bytes_max)
                    .fetch_all(&mut *lease)
                    .await
            })
            .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// The messages that come before `before`, oldest first.
    pub async fn before(&self, session: Uuid, before: Offset, limit: i64) -> Result<Vec<Message>, Error> {
        let sql = select!(r#"WHERE m.session_id = $1 AND m."offset" < $2 ORDER BY m."offset" DESC LIMIT $3"#);
        let mut newest_first = self.many(sql, session, before, limit).await?;
        newest_first.reverse();
        Ok(newest_first)
    }

    /// The newest `count` messages, oldest first.
    pub async fn last(&self, session: Uuid, count: i64) -> Result<Vec<Message>, Error> {
        self.before(session, Offset::MAX, count).await
    }

    pub async fn get(&self, session: Uuid, offset: Offset) -> Result<Option<Message>, Error> {
        Ok(self.after(session, offset - 1, 1).await?.into_iter().find(|message| message.offset == offset))
    }

    pub async fn by_id(&self, id: Uuid) -> Result<Option<Message>, Error> {
        let sql = select!("WHERE m.id = $1");
        let row: Option<MessageRow> = self
            .db
            .run(|mut lease| async move { sqlx::query_as(sql).bind(id).fetch_optional(&mut *lease).await })
            .await?;
        Ok(row.map(|row| row.0))
    }

    /// The message that this author sent under this key; `author` is `None` for the responder.
    pub async fn by_key(
        &self,
        session: Uuid,
        author: Option<Uuid>,
        key: &str,
    ) -> Result<Option<Message>, Error> {
        let sql = select!(
            "WHERE m.session_id = $1 AND m.client_msg_id = $3
                AND coalesce(m.author_id, '00000000-0000-0000-0000-000000000000'::uuid)
                  = coalesce($2::uuid, '00000000-0000-0000-0000-000000000000'::uuid)"
        );
        let row: Option<MessageRow> = self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(sql).bind(session).bind(author).bind(key).fetch_optional(&mut *lease).await
            })
            .await?;
        Ok(row.map(|row| row.0))
    }

    /// Where the primary has no message after `after`; a standby's word does not count.
    ///
    /// # Errors
    /// There is one, or a standby answered.
    pub async fn confirm_end(&self, session: Uuid, after: Offset) -> Result<(), Error> {
        const SQL: &str = r#"SELECT NOT pg_is_in_recovery()
            AND NOT EXISTS (SELECT 1 FROM messages WHERE session_id = $1 AND "offset" > $2)"#;
        let ends: bool = self
            .db
            .run(|mut lease| async move {
                sqlx::query_scalar(SQL).bind(session).bind(after).fetch_one(&mut *lease).await
            })
            .await?;
        if ends { Ok(()) } else { Err(late()) }
    }

    /// The newest offset of each session; sessions that are gone are left out.
    ///
    /// # Errors
    /// Also where a standby answers.
    pub async fn last_offsets(&self, sessions: &[Uuid]) -> Result<Vec<(Uuid, Offset)>, Error> {
        const SQL: &str = "SELECT asked.id, s.last_offset, pg_is_in_recovery()
              FROM unnest($1::uuid[]) AS asked (id) LEFT JOIN sessions s ON s.id = asked.id";
        let found: Vec<(Uuid, Option<Offset>, bool)> = self
            .db
            .run(|mut lease| async move { sqlx::query_as(SQL).bind(sessions).fetch_all(&mut *lease).await })
            .await?;
        if found.iter().any(|(_, _, is_standby)| *is_standby) {
            return Err(late());
        }
        Ok(found.into_iter().filter_map(|(id, offset, _)| Some((id, offset?))).collect())
    }

    async fn many(
        &self,
        sql: &'static str,
        session: Uuid,
        bound: Offset,
        limit: i64,
    ) -> Result<Vec<Message>, Error> {
        let rows: Vec<MessageRow> = self
            .db
            .run(|mut lease| async move {
                sqlx::query_as(sql).bind(session).bind(bound).bind(limit).fetch_all(&mut *lease).await
            })
            .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}

impl<'a> Messages<'a> {
    pub(super) fn new(db: &'a Db) -> Self {
        Self { reads: MessageReads::new(db) }
    }

    /// Stores a message under the session's next offset, or finds the one stored before under the same key.
    ///
    /// # Errors
    /// No such session, no member of it, or the key was used with other content.
    pub async fn append(&self, new: NewMessage<'_>) -> Result<Appended, Error> {
        let id = Uuid::now_v7();
        let unit = self.db.run(|mut lease| async move {
            sqlx::query_as(APPEND)
                .bind(new.session_id)
                .bind(id)
                .bind(new.author)
                .bind(new.role.as_str())
                .bind(new.content)
                .bind(new.client_msg_id)
                .fetch_optional(&mut *lease)
                .await
        });
        let stored: Result<Option<MessageRow>, sqlx::Error> = unit.await;
        match stored {
            Ok(Some(row)) => Ok(Appended { message: row.0, replayed: false }),
            Ok(None) => self.replay(new, id).await,
            // Two of the same at once: the index let one through; by now its row can be seen.
            Err(error) if violates(&error, "messages_sent_once") || violates(&error, "messages_id_key") => {
                self.replay(new, id).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the messages from before `before`; gives how many. In portions, so that no lock lasts.
    pub async fn prune(&self, before: OffsetDateTime) -> Result<u64, Error> {
        const PORTION: i64 = 5_000;
        let mut removed = 0;
        loop {
            let portion = self
                .db
                .run(|mut lease| async move {
                    sqlx::query(
                        r#"DELETE FROM messages WHERE (session_id, "offset") IN (
                               SELECT session_id, "offset" FROM messages WHERE created_at < $1 LIMIT $2)"#,
                    )
                    .bind(before)
                    .bind(PORTION)
                    .execute(&mut *lease)
                    .await
                })
                .await?
                .rows_affected();
            removed += portion;
            if portion == 0 {
                return Ok(removed);
            }
        }
    }

    /// Finds what kept `new` from being stored: an earlier run of the same unit, or the same message sent before.
    async fn replay(&self, new: NewMessage<'_>, id: Uuid) -> Result<Appended, Error> {
        if let Some(message) = self.by_id(id).await? {
            return Ok(Appended { message, replayed: false });
        }
        if let Some(key) = new.client_msg_id
            && let Some(message) = self.by_key(new.session_id, new.author, key).await?
        {
            if message.content != new.content || message.role != new.role {
                return Err(Error::IdempotencyMismatch);
            }
            // Who was removed since may not have its message again: the answer to it would come with it.
            if let Some(author) = new.author
                && !SessionReads::new(self.db).is_member(new.session_id, author).await?
            {
                return Err(Error::forbidden(NO_MEMBER));
            }
            return Ok(Appended { message, replayed: true });
        }
        let exists: bool = self
            .db
            .run(|mut lease| async move {
                sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sessions WHERE id = $1)")
                    .bind(new.session_id)
                    .fetch_one(&mut *lease)
                    .await
            })
            .await?;
        Err(match exists {
            true => Error::forbidden(NO_MEMBER),
            false => Error::not_found("there is no such session"),
        })
    }
}

impl<'a> Deref for Messages<'a> {
    type Target = MessageReads<'a>;

    fn deref(&self) -> &MessageReads<'a> {
        &self.reads
    }
}

impl FromRow<'_, PgRow> for MessageRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let word: String = row.try_get("role")?;
        let author_id: Option<Uuid> = row.try_get("author_id")?;
        let author = match author_id {
            None => None,
            Some(id) => Some(Author {
                id,
                username: row.try_get("username")?,
                display_name: row.try_get("display_name")?,
            }),
        };
        let created_at: OffsetDateTime = row.try_get("created_at")?;
        Ok(Self(Message {
            id: row.try_get("id")?,
            session_id: row.try_get("session_id")?,
            offset: row.try_get("offset")?,
            role: Role::from_word(&word).ok_or_else(|| sqlx::Error::Decode(format!("role {word}").into()))?,
            author,
            content: row.try_get("content")?,
            created_at,
            client_msg_id: row.try_get("client_msg_id")?,
            ct: None,
        }))
    }
}
