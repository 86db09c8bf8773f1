//! The console: the database `pgbouncer`, spoken to with psql. Text in, text out; the core carries the commands out.
//!
//! `Console::on_message` reads a message and says what to do; what the core did or found goes to `Console::answer`.

pub mod facts;
mod parse;
mod show;
mod table;

use pgwire::backend::{self, TransactionStatus};
use pgwire::frontend::{self, kind};
use pgwire::report::{Report, Severity};
use pgwire::sqlstate;
use pgwire::startup::CancelKey;

use crate::settings::ADMIN_DATABASE;
use facts::{Command, Outcome, Refusal, Show, Shutdown};
use parse::{Parsed, SyntaxError};

/// The release whose commands and columns these are.
pub const PGBOUNCER_VERSION: &str = "1.25.2";

/// What the user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    Admin,
    /// SHOW, but not SHOW FDS.
    Stats,
}

/// What to do after a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Reply(Vec<u8>),
    /// Carry this out, then send what `Console::answer` makes of it.
    Run(Command),
    /// Send this and close; the reason is for the log.
    Close { reply: Vec<u8>, reason: &'static str },
}

/// One operator's connection.
#[derive(Clone, Debug)]
pub struct Console {
    rights: Rights,
}

impl Console {
    pub fn new(rights: Rights) -> Self {
        Console { rights }
    }

    /// All that follows AuthenticationOk.
    pub fn welcome(&self, key: &CancelKey) -> Vec<u8> {
        let mut out = Vec::new();
        let version = format!("{PGBOUNCER_VERSION}/bouncer");
        for (name, value) in [
            ("server_version", version.as_str()),
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "GMT"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "on"),
        ] {
            backend::parameter_status(&mut out, name, value);
        }
        backend::backend_key_data(&mut out, key);
        ready(&mut out);
        out
    }

    /// Reads one whole message.
    pub fn on_message(&self, message_kind: u8, body: &[u8]) -> Action {
        match message_kind {
            kind::QUERY => match frontend::parse_query(body) {
                Ok(text) => self.on_query(&String::from_utf8_lossy(text)),
                Err(_) => close("incomplete query", "incomplete query"),
            },
            kind::TERMINATE => Action::Close { reply: Vec::new(), reason: "client close request" },
            kind::PARSE | kind::BIND | kind::EXECUTE => {
                close("extended query protocol not supported by admin console", "bad packet")
            }
            _ => close("unsupported packet type for admin console", "bad packet"),
        }
    }

    fn on_query(&self, text: &str) -> Action {
        match parse::parse(text) {
            Err(SyntaxError::Arguments) => refuse("bad arguments"),
            Err(SyntaxError::Command) => refuse(&format!("invalid command '{text}', use SHOW HELP;")),
            Ok(Parsed::FakeShow(name, value)) => Action::Reply(show::single(name, value)),
            Ok(Parsed::FakeSet) => Action::Reply(set_ignored()),
            Ok(Parsed::Command(Command::Show(Show::Help))) => Action::Reply(show::help()),
            Ok(Parsed::Command(command)) => self.check(command),
            Ok(Parsed::MissingDatabase) if self.rights == Rights::Admin => refuse("a database is required"),
            Ok(Parsed::BadClientId) if self.rights == Rights::Admin => {
                refuse("invalid client pointer supplied")
            }
            Ok(Parsed::MissingDatabase | Parsed::BadClientId) => refuse("admin access needed"),
        }
    }

    /// Rights first: a user who may only look learns nothing about databases.
    fn check(&self, command: Command) -> Action {
        let looks = matches!(&command, Command::Show(show) if *show != Show::Fds);
        if !looks && self.rights != Rights::Admin {
            return refuse("admin access needed");
        }
        if let Some((verb, ADMIN_DATABASE)) = database_of(&command) {
            return refuse(&format!("cannot {verb} admin db: {ADMIN_DATABASE}"));
        }
        if !looks {
            tracing::info!("{}", issued(&command));
        }
        Action::Run(command)
    }

    /// What the operator is told.
    pub fn answer(&self, command: &Command, outcome: &Outcome) -> Vec<u8> {
        let mut out = Vec::new();
        if let Outcome::DoneWith(what) = outcome {
            let notice = Report::new(Severity::Notice, sqlstate::SUCCESSFUL_COMPLETION, what);
            backend::notice(&mut out, &notice);
        }
        match (command, outcome) {
            (_, Outcome::Refused(refusal)) => {
                tracing::error!("{refusal}");
                let code = match refusal {
                    Refusal::Reload => sqlstate::CONFIG_FILE_ERROR,
                    _ => sqlstate::PROTOCOL_VIOLATION,
                };
                backend::error(&mut out, &Report::error(code, &refusal.to_string()));
            }
            (Command::Show(show), Outcome::Facts(facts)) => return show::table(*show, facts).to_messages(),
            (Command::Set { key, value }, _) => {
                backend::command_complete(&mut out, &format!("SET {key}={value}"));
            }
            (other, _) => backend::command_complete(&mut out, tag(other)),
        }
        ready(&mut out);
        out
    }
}

fn ready(out: &mut Vec<u8>) {
    backend::ready_for_query(out, TransactionStatus::Idle);
}

/// An error after which the console goes on.
fn refuse(message: &str) -> Action {
    tracing::error!("{message}");
    let mut out = Vec::new();
    backend::error(&mut out, &Report::error(sqlstate::PROTOCOL_VIOLATION, message));
    ready(&mut out);
    Action::Reply(out)
}

fn close(message: &str, reason: &'static str) -> Action {
    tracing::error!("{message}");
    let mut reply = Vec::new();
    backend::error(&mut reply, &Report::error(sqlstate::PROTOCOL_VIOLATION, message));
    if reason != message {
        ready(&mut reply);
        backend::error(&mut reply, &Report::fatal(sqlstate::PROTOCOL_VIOLATION, reason));
    }
    Action::Close { reply, reason }
}

fn set_ignored() -> Vec<u8> {
    let mut out = Vec::new();
    let notice = Report::new(Severity::Notice, sqlstate::SUCCESSFUL_COMPLETION, "SET ignored");
    backend::notice(&mut out, &notice);
    backend::command_complete(&mut out, "SET");
    ready(&mut out);
    out
}

/// The database that a command names, and the word for what it would do to it.
fn database_of(command: &Command) -> Option<(&'static str, &str)> {
    match command {
        Command::Pause(Some(name)) => Some(("pause", name)),
        Command::Reconnect(Some(name)) => Some(("reconnect", name)),
        Command::Disable(name) => Some(("disable", name)),
        Command::Enable(name) => Some(("enable", name)),
        Command::Kill(Some(name)) => Some(("kill", name)),
        Command::WaitClose(Some(name)) => Some(("wait in", name)),
        _ => None,
    }
}

fn tag(command: &Command) -> &'static str {
    match command {
        Command::Show(_) => "SHOW",
        Command::Set { .. } => "SET",
        Command::Reload => "RELOAD",
        Command::Pause(_) => "PAUSE",
        Command::Resume(_) => "RESUME",
        Command::Disable(_) => "DISABLE",
        Command::Enable(_) => "ENABLE",
        Command::Reconnect(_) => "RECONNECT",
        Command::Kill(_) => "KILL",
        Command::KillClient(_) => "KILL_CLIENT",
        Command::Suspend => "SUSPEND",
        Command::HandOver => "HAND_OVER",
        Command::Shutdown(_) => "SHUTDOWN",
        Command::WaitClose(_) => "WAIT_CLOSE",
    }
}

/// The line in the log.
fn issued(command: &Command) -> String {
    let target = match command {
        Command::Pause(name) | Command::Resume(name) | Command::Reconnect(name) => name.as_deref(),
        Command::Kill(name) | Command::WaitClose(name) => name.as_deref(),
        Command::Disable(name) | Command::Enable(name) => Some(name.as_str()),
        Command::Shutdown(Shutdown::WaitForServers) => {
            return "SHUTDOWN WAIT_FOR_SERVERS command issued".into();
        }
        Command::Shutdown(Shutdown::WaitForClients) => {
            return "SHUTDOWN WAIT_FOR_CLIENTS command issued".into();
        }
        _ => None,
    };
    match target {
        Some(name) => format!("{} '{name}' command issued", tag(command)),
        None => format!("{} command issued", tag(command)),
    }
}

#[cfg(test)]
mod tests;
