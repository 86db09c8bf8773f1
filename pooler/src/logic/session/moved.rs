//! A session on its way to another process: what it knows, taken out and put in again.

use std::sync::Arc;

use pgwire::backend::TransactionStatus;

use super::{Intern, Rules, ServerState, Session};
use crate::logic::moving::{MovedClient, MovedParameter, MovedServer, MovedStatement};
use crate::logic::parameters::Parameters;

impl Session {
    /// In the middle of no message.
    pub fn is_between_messages(&self) -> bool {
        self.pass.left == 0
    }

    /// Writes down what this session knows.
    pub fn write_to(&self, moved: &mut MovedClient) {
        moved.mode = self.rules.mode;
        moved.parameters = parameters(&self.parameters);
        let statement = |(name, shared): (&[u8], &Arc<super::Shared>)| MovedStatement {
            name: name.to_vec(),
            query: shared.query.to_vec(),
            types: shared.types.to_vec(),
        };
        moved.statements = self.statements.iter().map(statement).collect();
        moved.unnamed = self.statements.unnamed().map(|(_, parse)| parse.to_vec());
    }

    /// A session that goes on where another process left it. No server here has its unnamed statement: the Parse is sent
    /// again when it is wanted.
    pub fn from_moved(
        client: u64,
        rules: Rules,
        moved: &MovedClient,
        extra: Arc<[String]>,
        intern: &Intern<'_>,
    ) -> Session {
        let mut session = Session::new(client, rules, Arc::new(to_parameters(&moved.parameters)), extra);
        for statement in &moved.statements {
            session.statements.insert(&statement.name, intern(&statement.query, &statement.types));
        }
        session.statements.on_batch_end();
        if let Some(parse) = &moved.unnamed {
            session.statements.remember_unnamed(client, parse);
        }
        session
    }
}

impl ServerState {
    /// Nothing is owed or half read, though a transaction may be open: another process could go on.
    pub fn is_at_rest(&self) -> bool {
        self.queue.is_clear() && self.pass.left == 0 && !self.is_tunnel
    }

    pub fn write_to(&self, moved: &mut MovedServer) {
        moved.status = self.status.letter();
        moved.parameters = parameters(&self.parameters);
    }

    /// Statements that it holds are forgotten: their names are never given again.
    pub fn from_moved(moved: &MovedServer, statement_limit: usize) -> Option<ServerState> {
        let mut state = ServerState::new(Arc::new(to_parameters(&moved.parameters)), statement_limit);
        state.status = TransactionStatus::parse(&[moved.status]).ok()?;
        Some(state)
    }
}

fn parameters(set: &Parameters) -> Vec<MovedParameter> {
    let one = |(name, value, is_reported): (&str, &str, bool)| MovedParameter {
        name: name.to_string(),
        value: value.to_string(),
        is_reported,
    };
    set.iter_all().map(one).collect()
}

fn to_parameters(moved: &[MovedParameter]) -> Parameters {
    moved.iter().fold(Parameters::default(), |set, parameter| {
        set.with(&parameter.name, &parameter.value, parameter.is_reported).unwrap_or(set)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::*;
    use crate::logic::statements::Registry;
    use std::cell::RefCell;

    #[test]
    fn a_session_goes_on_with_what_it_knew() {
        let rules = Rules {
            mode: Mode::Transaction,
            follows_statements: true,
            message_len_max: 1000,
            allows_simple_queries: true,
        };
        let set = Parameters::default().with("DateStyle", "ISO", true).unwrap();
        let set = set.with("work_mem", "4MB", false).unwrap();
        let registry = RefCell::new(Registry::default());
        let intern = |query: &[u8], types: &[u8]| registry.borrow_mut().intern(query, types);
        let mut old = Session::new(1, rules, Arc::new(set), Arc::default());
        old.statements.insert(b"s1", intern(b"SELECT $1", b"\0\0\0\x17"));
        old.statements.remember_unnamed(1, b"P...");
        let mut moved = MovedClient::default();
        old.write_to(&mut moved);
        let new = Session::from_moved(7, rules, &moved, Arc::default(), &intern);
        assert_eq!(*new.parameters, *old.parameters);
        assert_eq!(&*new.statements.get(b"s1").unwrap().query, b"SELECT $1");
        let (token, parse) = new.statements.unnamed().unwrap();
        assert_eq!((token.client, parse), (7, &b"P..."[..]), "no server has it under this client's name");
        let mut again = MovedClient::default();
        new.write_to(&mut again);
        assert_eq!(again, moved);
    }

    #[test]
    fn a_server_in_a_transaction_stays_in_it() {
        let mut state = ServerState::new(Arc::default(), 5);
        state.status = TransactionStatus::InTransaction;
        let mut moved = MovedServer::default();
        state.write_to(&mut moved);
        let new = ServerState::from_moved(&moved, 5).unwrap();
        assert!(new.is_at_rest() && !new.is_free() && new.is_idle_in_transaction());
        moved.status = b'?';
        assert!(ServerState::from_moved(&moved, 5).is_none());
    }
}
