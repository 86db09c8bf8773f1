//! One client's transaction life: what becomes of each message from the client and from the server it holds.
//! Bytes in, bytes out; sockets are client.rs' business.

mod flow;
mod from_client;
mod from_server;
mod moved;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use pgwire::backend::TransactionStatus;
use pgwire::sqlstate::SqlState;
use pgwire::{Head, backend, frontend};

use super::parameters::{self, Parameters};
use super::replies::{Fate, Invented, Lost, Owed, ReplyQueue, Target};
use super::statements::{ClientStatements, Presence, ServerStatements, Shared, UnnamedToken};

pub use flow::Flow;

/// A message up to this size is awaited whole before a server is borrowed for it: a slow sender holds no server.
pub const WHOLE_BEFORE_BORROW_MAX: usize = 16 * 1024;

/// When the server goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Session,
    Transaction,
    Statement,
}

#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub mode: Mode,
    /// Named statements follow the client from server to server.
    pub follows_statements: bool,
    pub message_len_max: usize,
    /// Simple queries are passed on: only they may hold several statements, which injected SQL needs.
    pub allows_simple_queries: bool,
}

/// A client that must be sent away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub sqlstate: SqlState,
    pub text: String,
}

/// How a walk over the client's bytes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientHalt {
    /// More bytes are needed; what was not taken stays with the caller.
    Input,
    /// The next message needs a server.
    NeedServer,
    Terminate,
    Refuse(Refusal),
}

/// How a walk over the server's bytes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerHalt {
    Input,
    /// The server broke the protocol or lost step with us.
    OutOfStep(&'static str),
    /// A request of our own failed, in Postgres' words. It may not be the request's fault: the server may be ending.
    OwnFailed {
        sqlstate: String,
        text: String,
    },
    /// Statement mode: the client opened a transaction.
    OpenedTransaction,
}

/// What happened since the last look, for the statistics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub queries: u32,
    pub transactions: u32,
    pub client_parses: u32,
    pub server_parses: u32,
    /// A named statement was wanted and the server had it.
    pub prepared_hits: u32,
    pub binds: u32,
}

/// What is known of a server connection; empty of all debts whenever it is in the pool.
#[derive(Debug)]
pub struct ServerState {
    pub queue: ReplyQueue,
    pub statements: ServerStatements,
    pub parameters: Arc<Parameters>,
    pub status: TransactionStatus,
    /// COPY BOTH of a replication connection: everything passes, both ways, until the end.
    is_tunnel: bool,
    /// Postgres has told the client why the connection ends.
    pub said_goodbye: bool,
    pass: Pass,
}

/// The rest of a message whose beginning has been decided on.
#[derive(Debug, Default, Clone, Copy)]
struct Pass {
    left: usize,
    discard: bool,
}

#[derive(Debug)]
pub struct Session {
    client: u64,
    rules: Rules,
    pass: Pass,
    pub statements: ClientStatements,
    pub parameters: Arc<Parameters>,
    /// Some server took the client's parameters: later ones will too.
    is_proven: bool,
    /// Names of reported parameters from track_extra_parameters.
    extra: Arc<[String]>,
    pub tally: Tally,
}

/// Gives the shared statement of a text and its parameter types.
pub type Intern<'a> = dyn Fn(&[u8], &[u8]) -> Arc<Shared> + 'a;

/// Everything a walk over the client's bytes touches.
pub struct ClientSide<'a, 'b> {
    pub flow: &'a mut Flow<'b>,
    pub server: &'a mut ServerState,
    /// Replies that we make ourselves.
    pub to_client: &'a mut Vec<u8>,
    pub intern: &'a Intern<'a>,
}

/// Everything a walk over the server's bytes touches.
pub struct ServerSide<'a, 'b> {
    pub flow: &'a mut Flow<'b>,
    pub server: &'a mut ServerState,
}

impl ServerState {
    pub fn new(parameters: Arc<Parameters>, statement_limit: usize) -> ServerState {
        ServerState {
            queue: ReplyQueue::default(),
            statements: ServerStatements::new(statement_limit),
            parameters,
            status: TransactionStatus::Idle,
            is_tunnel: false,
            said_goodbye: false,
            pass: Pass::default(),
        }
    }

    /// In no transaction, nothing owed, in the middle of no message: it may serve another client.
    pub fn is_free(&self) -> bool {
        self.status == TransactionStatus::Idle
            && self.queue.is_clear()
            && self.pass.left == 0
            && !self.is_tunnel
    }

    /// Idle as far as the client sees, but the count of replies is in doubt: the server has to be closed.
    pub fn is_spent(&self) -> bool {
        self.status == TransactionStatus::Idle && self.queue.is_uncertain() && self.queue.is_drained()
    }

    /// In a transaction, with nothing asked: the client is the one to act.
    pub fn is_idle_in_transaction(&self) -> bool {
        self.status != TransactionStatus::Idle && !self.queue.is_busy()
    }

    pub fn is_mid_message(&self) -> bool {
        self.pass.left > 0
    }

    /// A query of our own on a connection that nobody holds: a check or a reset.
    pub fn push_own_query(&mut self, sql: &str, out: &mut Vec<u8>) {
        frontend::query(out, sql);
        self.queue.push(Owed::Query(Fate::Swallow));
        self.statements.unnamed = None;
    }

    /// DISCARD ALL, or whatever stands for it, has run: statements are gone, unreported settings in doubt.
    pub fn on_reset(&mut self) {
        self.statements.clear();
        if let Some(doubted) = self.parameters.doubted() {
            self.parameters = Arc::new(doubted);
        }
    }

    /// A kind of message that the queue does not know is out of step; used where no client is there.
    pub fn on_own_reply(&mut self, kind: u8) -> super::replies::Verdict {
        self.queue.on_server(kind)
    }
}

impl Session {
    pub fn new(client: u64, rules: Rules, parameters: Arc<Parameters>, extra: Arc<[String]>) -> Session {
        Session {
            client,
            rules,
            pass: Pass::default(),
            statements: ClientStatements::default(),
            parameters,
            is_proven: false,
            extra,
            tally: Tally::default(),
        }
    }

    pub fn rules(&self) -> Rules {
        self.rules
    }

    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The server is lent to this client: writes what it lacks. True: the client's messages have to wait until the
    /// server has taken its parameters for the first time; a query must not run under settings that were refused.
    pub fn on_link(&mut self, server: &mut ServerState, out: &mut Vec<u8>) -> bool {
        if Arc::ptr_eq(&server.parameters, &self.parameters) {
            return false;
        }
        let Some((sql, after)) = parameters::difference(&server.parameters, &self.parameters) else {
            // Equal sets become one, so that the next comparison is one of pointers. Always the lower one: so all servers
            // and clients come to the same.
            if Arc::as_ptr(&server.parameters) < Arc::as_ptr(&self.parameters) {
                self.parameters = server.parameters.clone();
            } else {
                server.parameters = self.parameters.clone();
            }
            return false;
        };
        server.push_own_query(&sql, out);
        server.parameters = Arc::new(after);
        !std::mem::replace(&mut self.is_proven, true)
    }

    /// A message from the client has gone to the server in part.
    pub fn is_sending_message(&self) -> bool {
        self.pass.left > 0 && !self.pass.discard
    }

    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Statements of requests that were dropped behind an error are not where they were thought to be. The last is
    /// taken back first: a batch may close a statement and prepare it again.
    fn settle_lost(&mut self, server: &mut ServerState) {
        for lost in server.queue.take_lost().into_iter().rev() {
            match lost {
                Lost::Change(change) => self.statements.undo(change),
                Lost::Parse(Target::Shared(id)) => server.statements.on_lost_parse(id),
                Lost::Unnamed(change) => self.statements.undo_with_its_forerunner(change),
                Lost::Parse(Target::Unnamed) | Lost::Close(Target::Unnamed) | Lost::Query => {
                    server.statements.unnamed = Some(UnnamedToken::UNKNOWN);
                }
                Lost::Close(Target::Shared(id)) => server.statements.on_lost_close(id),
                Lost::Parse(Target::Verbatim) | Lost::Close(Target::Verbatim) => {}
            }
        }
    }
}

fn write_invented(queue: &mut ReplyQueue, out: &mut Vec<u8>) {
    while let Some(invented) = queue.next_invented() {
        match invented {
            Invented::ParseComplete => backend::parse_complete(out),
            Invented::CloseComplete => backend::close_complete(out),
        }
    }
}

fn violation(text: impl Into<String>) -> ClientHalt {
    ClientHalt::Refuse(Refusal { sqlstate: pgwire::sqlstate::PROTOCOL_VIOLATION, text: text.into() })
}
