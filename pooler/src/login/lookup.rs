//! auth_query: asks Postgres what is stored for a user who is in no file.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgwire::backend::{self, TransactionStatus};
use pgwire::frame::HEAD_LEN;
use pgwire::frontend::{self, Target};
use pgwire::report::Received;
use pgwire::{Head, sqlstate};

use crate::clients::{ClientEntry, Doing};
use crate::error::End;
use crate::pool::{Borrowed, Borrower, Lease};
use crate::server::Server;
use crate::settings::{ADMIN_DATABASE, Database, Secret, Settings};
use crate::worker::Worker;

/// A row of the query is a name and a password: what is longer is no answer to it.
const ANSWER_LEN_MAX: usize = 1 << 20;

/// What no password matches: the user exists and has none.
const NO_PASSWORD: &str = "md5";

/// What the query needs to know of its client.
pub struct Lookup<'a> {
    pub worker: &'a Rc<Worker>,
    pub entry: &'a Arc<ClientEntry>,
    pub settings: &'a Arc<Settings>,
    /// The database that the client asks for; None is the console.
    pub database: Option<&'a Arc<Database>>,
}

impl Lookup<'_> {
    /// Who runs the query; without one there is no lookup.
    pub fn auth_user(&self) -> Option<&str> {
        match self.database {
            Some(database) => self.settings.auth_user(database),
            None => self.settings.keys.auth_user.as_deref(),
        }
    }

    /// What the query gives for this user. The connection it runs on knows nothing of what the client asked for
    /// at its start: a search_path from there would choose whose tables are read (CVE-2025-12819).
    pub async fn run(&self, auth_user: &str, user: &str) -> Result<Secret, End> {
        let database = self.auth_database()?;
        let house = &self.worker.house;
        let pool = house.pools.pool(house, &database, auth_user);
        let (now, entry) = (Instant::now(), self.entry);
        let by = Borrower { client: entry.id, worker: self.worker.id, now, is_patient: true };
        let mut lease = match house.pools.borrow(house, &pool, by)? {
            Borrowed::Now(lease) => lease,
            Borrowed::Later(mut waiting) => {
                entry.set_doing(Doing::Waiting, now);
                let granted = std::future::poll_fn(|cx| waiting.poll(cx)).await;
                entry.set_doing(Doing::LoggingIn, Instant::now());
                granted?
            }
        };
        let query = match self.database {
            Some(database) => self.settings.auth_query(database),
            None => &self.settings.keys.auth_query,
        };
        match ask(lease.server(), query, user).await {
            Ok(answer) => {
                lease.give_back();
                answer.ok_or_else(|| End::client(sqlstate::INVALID_AUTHORIZATION, "no such user"))
            }
            Err(reason) => Err(self.failed(lease, &reason)),
        }
    }

    fn failed(&self, lease: Lease, reason: &str) -> End {
        tracing::error!("{} {reason}", self.entry.name());
        lease.close(reason);
        config_error()
    }

    /// Where the query runs: auth_dbname of the database, of all, or the client's own database.
    fn auth_database(&self) -> Result<Arc<Database>, End> {
        let own = self.database.and_then(|database| database.auth_dbname.as_deref());
        let name = own.or(self.settings.keys.auth_dbname.as_deref());
        let database = match (name, self.database) {
            (None, Some(database)) => database.clone(),
            (None, None) | (Some(ADMIN_DATABASE), _) => {
                let what = "cannot use the reserved \"pgbouncer\" database as an auth_dbname";
                tracing::error!("{} {what}", self.entry.name());
                return Err(config_error());
            }
            (Some(name), _) => self.settings.database(name).ok_or_else(|| {
                let what = format!("authentication database \"{name}\" is not configured.");
                tracing::error!("{} {what}", self.entry.name());
                config_error()
            })?,
        };
        if self.worker.house.pools.is_disabled(&database.name) {
            let text = format!("authentication database \"{}\" is disabled", database.name);
            return Err(End::client(sqlstate::CANNOT_CONNECT_NOW, text));
        }
        Ok(database)
    }
}

/// The client learns nothing of what is wrong with us.
fn config_error() -> End {
    End::client(sqlstate::CONFIG_FILE_ERROR, "bouncer config error")
}

/// Runs the query on a server that nobody else holds. Err: the server must not be used any more.
async fn ask(server: &mut Server, query: &str, user: &str) -> Result<Option<Secret>, String> {
    let mut out = Vec::new();
    frontend::parse(&mut out, "", query);
    frontend::bind(&mut out, "", &[Some(user.as_bytes())]);
    frontend::describe(&mut out, Target::Portal(b""));
    frontend::execute(&mut out, 0);
    frontend::sync(&mut out);
    server.state.statements.unnamed = None;
    server.wire.write_all(&out).await.map_err(|error| error.to_string())?;
    let mut answer = Answer::default();
    let mut unread = Vec::new();
    let mut buffer = vec![0; 4096];
    loop {
        while let Some(head) = Head::parse(&unread).map_err(|error| error.to_string())? {
            if head.total_len() > ANSWER_LEN_MAX {
                return Err("auth_query gives too much".to_string());
            }
            if unread.len() < head.total_len() {
                break;
            }
            let is_end = answer.on_message(head.kind, &unread[HEAD_LEN..head.total_len()])?;
            unread.drain(..head.total_len());
            if is_end {
                return if unread.is_empty() {
                    Ok(answer.secret)
                } else {
                    Err("unexpected reply".to_string())
                };
            }
        }
        let len = server.wire.read(&mut buffer).await.map_err(|error| error.to_string())?;
        if len == 0 {
            return Err("server conn crashed?".to_string());
        }
        unread.extend_from_slice(&buffer[..len]);
    }
}

/// What has come of the answer.
#[derive(Default)]
struct Answer {
    secret: Option<Secret>,
}

impl Answer {
    /// True at the end of the answer.
    fn on_message(&mut self, message_kind: u8, body: &[u8]) -> Result<bool, String> {
        use backend::kind;
        let malformed = |error: pgwire::Malformed| error.to_string();
        match message_kind {
            kind::ROW_DESCRIPTION => two(backend::parse_row_description(body).map_err(malformed)?.len())?,
            kind::DATA_ROW => {
                let row = backend::parse_data_row(body).map_err(malformed)?;
                two(row.len())?;
                if row[0].is_none() {
                    return Err("auth_query response contained null user name".to_string());
                }
                let text = row[1].unwrap_or(NO_PASSWORD.as_bytes());
                let text =
                    std::str::from_utf8(text).map_err(|_| "auth_query gave a password that is not UTF-8")?;
                self.secret = Some(Secret::new(text));
            }
            kind::ERROR => {
                let said = Received::parse(body).map_err(malformed)?.summary();
                return Err(format!("S: error in auth_query: {said}"));
            }
            kind::READY_FOR_QUERY => {
                return match TransactionStatus::parse(body).map_err(malformed)? {
                    TransactionStatus::Idle => Ok(true),
                    _ => Err("auth_query left a transaction open".to_string()),
                };
            }
            kind::NOTICE | kind::COMMAND_COMPLETE | kind::PARSE_COMPLETE | kind::BIND_COMPLETE => {}
            // Nobody tracks parameters here: a query that sets some spoils the connection for others.
            kind::PARAMETER_STATUS => return Err("auth_query changes parameters".to_string()),
            kind::NOTIFICATION => {}
            _ => return Err("unexpected response from auth_query".to_string()),
        }
        Ok(false)
    }
}

fn two(columns: usize) -> Result<(), String> {
    if columns == 2 { Ok(()) } else { Err(format!("expected 2 columns from auth_query, not {columns}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgwire::backend::ColumnType;

    fn messages(columns: &[(&str, ColumnType)], row: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = Vec::new();
        backend::parse_complete(&mut out);
        backend::bind_complete(&mut out);
        backend::row_description(&mut out, columns);
        if !row.is_empty() {
            backend::data_row(&mut out, row.iter().copied());
        }
        backend::command_complete(&mut out, "SELECT 1");
        backend::ready_for_query(&mut out, TransactionStatus::Idle);
        out
    }

    fn read(wire: &[u8]) -> Result<Option<String>, String> {
        let mut answer = Answer::default();
        for frame in pgwire::frame::Frames::new(wire) {
            let frame = frame.unwrap();
            if answer.on_message(frame.head.kind, frame.body)? {
                return Ok(answer.secret.map(|secret| secret.expose().to_string()));
            }
        }
        Err("no end".to_string())
    }

    const TWO: [(&str, ColumnType); 2] = [("usename", ColumnType::Text), ("passwd", ColumnType::Text)];

    #[test]
    fn a_row_of_two_columns_is_the_answer() {
        assert_eq!(read(&messages(&TWO, &[Some(b"bob"), Some(b"secret")])), Ok(Some("secret".into())));
        assert_eq!(read(&messages(&TWO, &[])), Ok(None));
    }

    #[test]
    fn a_user_without_a_password_matches_none() {
        let stored = read(&messages(&TWO, &[Some(b"bob"), None])).unwrap().unwrap();
        assert!(!pgwire::auth::md5::is_hash(&stored));
        assert_eq!(stored, NO_PASSWORD);
    }

    #[test]
    fn other_answers_are_refused() {
        assert!(read(&messages(&TWO[..1], &[Some(b"bob")])).unwrap_err().contains("not 1"));
        assert!(read(&messages(&TWO, &[None, Some(b"x")])).unwrap_err().contains("null user name"));
        let mut wire = Vec::new();
        backend::error(&mut wire, &pgwire::report::Report::error("42P01", "no table"));
        assert_eq!(read(&wire).unwrap_err(), "S: error in auth_query: ERROR no table");
    }
}
