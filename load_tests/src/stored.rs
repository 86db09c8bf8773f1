//! What Postgres itself holds of a session, read past pooler and replicas.

use crate::logic::member_log::Stored;
use crate::site::Site;
use anyhow::Context;
use tokio_postgres::Client;
use uuid::Uuid;

/// A connection straight to the stack's database.
pub async fn connect(site: &Site) -> anyhow::Result<Client> {
    let postgres =
        site.postgres.as_ref().context("needs Postgres' own address: give --status or --postgres")?;
    site.connect(postgres, &site.database).await
}

/// All messages of the session, in the order of offsets.
pub async fn session(postgres: &Client, id: &str) -> anyhow::Result<Stored> {
    let id: Uuid = id.parse().context("a session's id is a UUID")?;
    let rows = postgres
        .query(
            r#"SELECT "offset", id, client_msg_id FROM messages WHERE session_id = $1 ORDER BY "offset""#,
            &[&id],
        )
        .await
        .context("cannot read the messages")?;
    let mut stored = Stored::default();
    for row in rows {
        stored.on_row(row.get(0), row.get(1), row.get(2))?;
    }
    Ok(stored)
}
