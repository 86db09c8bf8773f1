//! Why a connection ends: whose fault it was, what the log says, what the other side is told.

use pgwire::backend;
use pgwire::report::Report;
use pgwire::sqlstate::{self, SqlState};

use crate::logic::session::Refusal;
use crate::pool::Failure;

/// Whose fault an end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Client,
    Server,
    Pool,
    Us,
}

impl Fault {
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::Server => "server",
            Fault::Pool => "pool",
            Fault::Us => "us",
        }
    }
}

/// The end of a client's connection. The wording is PgBouncer's: people's alerts look for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct End {
    /// What follows `closing because: ` in the log.
    pub reason: String,
    fault: Fault,
    told: Told,
}

/// What the client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Nothing,
    /// The same words as the log.
    Reason(SqlState),
    /// Postgres' own code and words.
    Postgres {
        sqlstate: String,
        text: String,
    },
    /// Other words than the log's.
    Text {
        sqlstate: SqlState,
        text: String,
    },
}

impl End {
    /// The client went away or said goodbye: there is nobody to tell.
    pub fn quiet(reason: impl Into<String>) -> End {
        End { reason: reason.into(), fault: Fault::Client, told: Told::Nothing }
    }

    pub fn client(sqlstate: SqlState, reason: impl Into<String>) -> End {
        End { reason: reason.into(), fault: Fault::Client, told: Told::Reason(sqlstate) }
    }

    pub fn pool(sqlstate: SqlState, reason: impl Into<String>) -> End {
        End { reason: reason.into(), fault: Fault::Pool, told: Told::Reason(sqlstate) }
    }

    /// Told in other words than those for the log.
    pub fn told_as(mut self, sqlstate: SqlState, text: impl Into<String>) -> End {
        self.told = Told::Text { sqlstate, text: text.into() };
        self
    }

    /// The connection to Postgres broke while the client needed it.
    pub fn server_gone(reason: &str) -> End {
        End {
            reason: reason.to_string(),
            fault: Fault::Server,
            told: Told::Reason(sqlstate::CONNECTION_FAILURE),
        }
    }

    /// Postgres has told the client itself why it ends.
    pub fn server_said_goodbye(reason: &str) -> End {
        End { reason: reason.to_string(), fault: Fault::Server, told: Told::Nothing }
    }

    pub fn login_failed(failure: &Failure) -> End {
        let text = failure.text.clone();
        let told = Told::Postgres { sqlstate: failure.sqlstate.clone(), text: text.clone() };
        End { reason: text, fault: Fault::Server, told }
    }

    /// A request of our own for the client failed: it gets Postgres' code, by which it knows whether to try again.
    pub fn own_request_failed(reason: &str, sqlstate: String, text: String) -> End {
        let fault = if sqlstate.starts_with("22") { Fault::Client } else { Fault::Server };
        End { reason: reason.to_string(), fault, told: Told::Postgres { sqlstate, text } }
    }

    /// Postgres did not take the login of a replication client. The log has PgBouncer's word for it, the client Postgres'.
    pub fn replication_refused(failure: &Failure) -> End {
        let text = format!("login failed: {}", failure.text);
        let told = Told::Postgres { sqlstate: failure.sqlstate.clone(), text };
        End { reason: "login failed".to_string(), fault: Fault::Server, told }
    }

    /// The last login to Postgres failed and there is no server to wait for.
    pub fn login_failing(failure: Option<&Failure>) -> End {
        let cached = failure.map_or("unknown", |f| f.text.as_str());
        let text = format!("server login has been failing, cached error: {cached} (server_login_retry)");
        End::pool(sqlstate::CONNECTION_FAILURE, text)
    }

    pub fn shutdown() -> End {
        End::pool(sqlstate::ADMIN_SHUTDOWN, "server shutting down")
    }

    pub fn broken_socket(error: &std::io::Error) -> End {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                End::quiet("client unexpected eof")
            }
            _ => End::quiet(format!("client socket: {error}")),
        }
    }

    pub fn fault(&self) -> Fault {
        self.fault
    }

    pub fn sqlstate(&self) -> Option<&str> {
        match &self.told {
            Told::Nothing => None,
            Told::Reason(sqlstate) | Told::Text { sqlstate, .. } => Some(sqlstate),
            Told::Postgres { sqlstate, .. } => Some(sqlstate),
        }
    }

    /// The FATAL message for the client; empty when it is told nothing.
    pub fn message(&self) -> Vec<u8> {
        let (sqlstate, text) = match &self.told {
            Told::Nothing => return Vec::new(),
            Told::Reason(sqlstate) => (*sqlstate, self.reason.as_str()),
            Told::Text { sqlstate, text } => (*sqlstate, text.as_str()),
            Told::Postgres { sqlstate, text } => (sqlstate.as_str(), text.as_str()),
        };
        let mut out = Vec::new();
        backend::error(&mut out, &Report::fatal(sqlstate, text));
        out
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> End {
        End::client(refusal.sqlstate, refusal.text)
    }
}
