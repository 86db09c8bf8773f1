//! The walk over the client's bytes.

use pgwire::backend::TransactionStatus;
use pgwire::frame::HEAD_LEN;
use pgwire::frontend::{self, BindNames, Parse, kind};

use super::{
    ClientHalt, ClientSide, Fate, Flow, Head, Invented, Owed, Pass, Presence, Refusal, Session, Target,
    UnnamedToken, WHOLE_BEFORE_BORROW_MAX, backend, violation, write_invented,
};
use crate::logic::statements::UNNAMED_REMEMBERED_MAX;

/// What came of one message.
enum Next {
    Go,
    /// The message, or the part that matters, has not come whole.
    Wait,
    Halt(ClientHalt),
}

impl Session {
    /// The client holds no server: looks only as far as it can answer alone.
    pub fn on_client_alone(&mut self, flow: &mut Flow<'_>, to_client: &mut Vec<u8>) -> ClientHalt {
        loop {
            if self.pass_on(flow) {
                return ClientHalt::Input;
            }
            let head = match self.head(flow) {
                Ok(Some(head)) => head,
                Ok(None) => return ClientHalt::Input,
                Err(halt) => return halt,
            };
            match head.kind {
                kind::TERMINATE => return ClientHalt::Terminate,
                // Left over from a COPY that failed: Postgres passes over them as well.
                kind::COPY_DATA | kind::COPY_DONE | kind::COPY_FAIL | kind::FLUSH => self.pass(head, true),
                kind::SYNC => {
                    self.pass(head, true);
                    backend::ready_for_query(to_client, TransactionStatus::Idle);
                }
                _ if !is_request(head.kind) => {
                    return violation(format!("unknown message type 0x{:02x}", head.kind));
                }
                _ if head.total_len() <= WHOLE_BEFORE_BORROW_MAX && flow.rest().len() < head.total_len() => {
                    return ClientHalt::Input;
                }
                _ => return ClientHalt::NeedServer,
            }
        }
    }

    /// The client holds a server: sends on what it can.
    pub fn on_client(&mut self, io: &mut ClientSide<'_, '_>) -> ClientHalt {
        loop {
            if self.pass_on(io.flow) {
                return ClientHalt::Input;
            }
            let head = match self.head(io.flow) {
                Ok(Some(head)) => head,
                Ok(None) => return ClientHalt::Input,
                Err(halt) => return halt,
            };
            match self.on_message(head, io) {
                Next::Go => {}
                Next::Wait => return ClientHalt::Input,
                Next::Halt(halt) => return halt,
            }
        }
    }

    fn on_message(&mut self, head: Head, io: &mut ClientSide<'_, '_>) -> Next {
        if io.server.queue.has_lost() {
            self.settle_lost(io.server);
        }
        if io.server.queue.is_skipping() && is_request(head.kind) && head.kind != kind::SYNC {
            // The server would drop it unread. Nor may its names be judged: what made them has failed with the batch.
            self.pass(head, true);
            return Next::Go;
        }
        match head.kind {
            kind::QUERY if !self.rules.allows_simple_queries => {
                return Next::Halt(violation("PQexec disallowed"));
            }
            kind::QUERY => {
                io.server.queue.push(Owed::Query(Fate::Forward));
                // A simple query drops the unnamed statement.
                io.server.statements.set_unnamed(None);
                if self.statements.may_have_unnamed() {
                    io.server.queue.push_change(self.statements.close_unnamed());
                }
            }
            kind::PARSE => return self.on_parse(head, io),
            kind::BIND => return self.on_bind(head, io),
            kind::DESCRIBE | kind::CLOSE => return self.on_describe_or_close(head, io),
            kind::EXECUTE => io.server.queue.push(Owed::Execute),
            kind::SYNC => {
                io.server.queue.push(Owed::Sync(Fate::Forward));
                io.server.statements.on_sync();
            }
            // It asks for nothing: a batch is open by its requests, and behind a Sync there is none.
            kind::FLUSH => {}
            kind::FUNCTION_CALL => io.server.queue.push(Owed::FunctionCall),
            kind::COPY_DATA if io.server.takes_copy_data() => io.server.queue.push_copy_data(),
            kind::COPY_DONE | kind::COPY_FAIL if io.server.takes_copy_data() => {
                io.server.queue.push_copy_end();
            }
            kind::COPY_DATA | kind::COPY_DONE | kind::COPY_FAIL => {
                self.pass(head, true);
                return Next::Go;
            }
            kind::TERMINATE => return Next::Halt(ClientHalt::Terminate),
            other => return Next::Halt(violation(format!("unknown message type 0x{other:02x}"))),
        }
        self.pass(head, false);
        Next::Go
    }

    fn on_parse(&mut self, head: Head, io: &mut ClientSide<'_, '_>) -> Next {
        let body = body_so_far(head, io.flow);
        let is_whole = body.len() == head.body_len as usize;
        if body.first() == Some(&0) {
            return self.on_parse_unnamed(head, is_whole, io);
        }
        if !self.rules.follows_statements {
            io.server.queue.push(Owed::Parse(Fate::Forward, Target::Verbatim));
            self.pass(head, false);
            return Next::Go;
        }
        if !is_whole {
            return Next::Wait;
        }
        self.tally.client_parses += 1;
        let parse = match Parse::from_body(body) {
            Ok(parse) => parse,
            Err(error) => return Next::Halt(violation(format!("Parse: {error}"))),
        };
        let shared = (io.intern)(parse.query, parse.types);
        let Some(change) = self.statements.insert(parse.name, shared.clone()) else {
            let name = String::from_utf8_lossy(parse.name);
            let text = format!("prepared statement '{name}' was already prepared");
            let sqlstate = pgwire::sqlstate::DUPLICATE_STATEMENT;
            return Next::Halt(ClientHalt::Refuse(Refusal { sqlstate, text }));
        };
        io.flow.skip(head.total_len());
        match io.server.statements.touch(shared.id) {
            Presence::Sure => {
                self.tally.prepared_hits += 1;
                io.server.queue.push_invented(Invented::ParseComplete);
            }
            presence => self.prepare(&shared, presence, Fate::Forward, io),
        }
        io.server.queue.push_change(change);
        write_invented(&mut io.server.queue, io.to_client);
        Next::Go
    }

    /// The unnamed statement belongs to this client wherever it goes: it is remembered, and sent again before a Bind
    /// on another server.
    fn on_parse_unnamed(&mut self, head: Head, is_whole: bool, io: &mut ClientSide<'_, '_>) -> Next {
        if self.rules.mode == super::Mode::Session {
            io.server.statements.set_unnamed(Some(UnnamedToken::UNKNOWN));
            io.server.queue.push(Owed::Parse(Fate::Forward, Target::Unnamed));
            self.pass(head, false);
            return Next::Go;
        }
        let fits = head.total_len() <= UNNAMED_REMEMBERED_MAX;
        if fits && !is_whole {
            return Next::Wait;
        }
        let message = if fits { &io.flow.rest()[..head.total_len()] } else { &[] };
        let (token, change) = self.statements.remember_unnamed(self.client, message);
        io.server.statements.set_unnamed(Some(token));
        io.server.queue.push(Owed::Parse(Fate::Forward, Target::Unnamed));
        io.server.queue.push_change(change);
        self.pass(head, false);
        Next::Go
    }

    fn on_bind(&mut self, head: Head, io: &mut ClientSide<'_, '_>) -> Next {
        let body = body_so_far(head, io.flow);
        let Ok(names) = BindNames::parse(body) else {
            let is_whole = body.len() == head.body_len as usize;
            return if is_whole { Next::Halt(violation("Bind: a name has no end")) } else { Next::Wait };
        };
        if self.rules.follows_statements && !names.statement.is_empty() {
            self.tally.binds += 1;
        }
        let next = self.on_statement_use(head, names.statement, io);
        io.server.queue.push(Owed::Bind);
        next
    }

    fn on_describe_or_close(&mut self, head: Head, io: &mut ClientSide<'_, '_>) -> Next {
        let body = body_so_far(head, io.flow);
        if body.len() < head.body_len as usize {
            return Next::Wait;
        }
        let is_close = head.kind == kind::CLOSE;
        match frontend::Target::parse(body) {
            Err(error) => Next::Halt(violation(format!("Describe or Close: {error}"))),
            Ok(frontend::Target::Portal(_)) => {
                let owed =
                    if is_close { Owed::Close(Fate::Forward, Target::Verbatim) } else { Owed::Describe };
                io.server.queue.push(owed);
                self.pass(head, false);
                Next::Go
            }
            Ok(frontend::Target::Statement(name)) if is_close => self.on_close(head, name, io),
            Ok(frontend::Target::Statement(name)) => {
                let next = self.on_statement_use(head, name, io);
                io.server.queue.push(Owed::Describe);
                next
            }
        }
    }

    fn on_close(&mut self, head: Head, name: &[u8], io: &mut ClientSide<'_, '_>) -> Next {
        if self.rules.follows_statements && !name.is_empty() {
            // The server keeps it: other clients share it. A name that this client does not have may be one of theirs.
            io.flow.skip(head.total_len());
            io.server.queue.push_invented(Invented::CloseComplete);
            if let Some(change) = self.statements.remove(name) {
                io.server.queue.push_change(change);
            }
            write_invented(&mut io.server.queue, io.to_client);
            return Next::Go;
        }
        if name.is_empty() {
            io.server.statements.set_unnamed(None);
            io.server.queue.push(Owed::Close(Fate::Forward, Target::Unnamed));
            io.server.queue.push_change(self.statements.close_unnamed());
        } else {
            io.server.queue.push(Owed::Close(Fate::Forward, Target::Verbatim));
        }
        self.pass(head, false);
        Next::Go
    }

    /// A Bind or Describe of a statement: makes sure that the server has it, and sends the message on under the name it
    /// has there. A name that nobody knows ends the client, as in PgBouncer, though with Postgres' own code.
    fn on_statement_use(&mut self, head: Head, name: &[u8], io: &mut ClientSide<'_, '_>) -> Next {
        if name.is_empty() {
            self.ensure_unnamed(io);
            self.pass(head, false);
            return Next::Go;
        }
        if !self.rules.follows_statements {
            self.pass(head, false);
            return Next::Go;
        }
        let Some(shared) = self.statements.get(name).cloned() else {
            let text = "prepared statement did not exist".to_string();
            let sqlstate = pgwire::sqlstate::INVALID_STATEMENT_NAME;
            return Next::Halt(ClientHalt::Refuse(Refusal { sqlstate, text }));
        };
        match io.server.statements.touch(shared.id) {
            Presence::Sure => self.tally.prepared_hits += 1,
            presence => self.prepare(&shared, presence, Fate::Swallow, io),
        }
        let rest = io.flow.rest();
        let made = io.flow.made();
        match frontend::rename(head, &rest[HEAD_LEN..], shared.name.as_bytes(), made) {
            Ok(Some(renamed)) => {
                io.flow.skip(HEAD_LEN + renamed.replaced);
                self.pass = Pass { left: head.body_len as usize - renamed.replaced, discard: false };
                Next::Go
            }
            Ok(None) => Next::Wait,
            Err(error) => Next::Halt(violation(error.to_string())),
        }
    }

    fn prepare(
        &mut self,
        shared: &std::sync::Arc<super::Shared>,
        presence: Presence,
        fate: Fate,
        io: &mut ClientSide<'_, '_>,
    ) {
        self.tally.server_parses += 1;
        if presence == Presence::InDoubt {
            frontend::close(io.flow.made(), frontend::Target::Statement(shared.name.as_bytes()));
            io.server.queue.push(Owed::Close(Fate::Swallow, Target::Verbatim));
        }
        io.server.statements.insert(shared);
        while let Some(evicted) = io.server.statements.evict() {
            frontend::close(io.flow.made(), frontend::Target::Statement(evicted.name.as_bytes()));
            io.server.queue.push(Owed::Close(Fate::Swallow, Target::Shared(evicted.id)));
        }
        let parse = Parse { name: b"", query: &shared.query, types: &shared.types };
        parse.write_as(shared.name.as_bytes(), io.flow.made());
        io.server.queue.push(Owed::Parse(fate, Target::Shared(shared.id)));
    }

    /// The server's unnamed statement must be this client's, or none at all.
    fn ensure_unnamed(&mut self, io: &mut ClientSide<'_, '_>) {
        if self.rules.mode == super::Mode::Session {
            return;
        }
        let own = self.statements.unnamed();
        if io.server.statements.unnamed_now() == own.map(|(token, _)| token) {
            return;
        }
        match own {
            Some((token, message)) if !message.is_empty() => {
                io.flow.made().extend_from_slice(message);
                io.server.queue.push(Owed::Parse(Fate::Swallow, Target::Unnamed));
                io.server.statements.set_unnamed(Some(token));
            }
            _ => {
                frontend::close(io.flow.made(), frontend::Target::Statement(b""));
                io.server.queue.push(Owed::Close(Fate::Swallow, Target::Unnamed));
                io.server.statements.set_unnamed(None);
            }
        }
    }

    /// Sends on the rest of a message that was decided on. True: the input ended before it.
    #[inline]
    fn pass_on(&mut self, flow: &mut Flow<'_>) -> bool {
        if self.pass.left == 0 {
            return false;
        }
        let len = self.pass.left.min(flow.rest().len());
        if self.pass.discard {
            flow.skip(len);
        } else {
            flow.forward(len);
        }
        self.pass.left -= len;
        self.pass.left > 0
    }

    fn pass(&mut self, head: Head, discard: bool) {
        self.pass = Pass { left: head.total_len(), discard };
    }

    fn head(&self, flow: &Flow<'_>) -> Result<Option<Head>, ClientHalt> {
        let head = Head::parse(flow.rest()).map_err(|error| violation(error.to_string()))?;
        match head {
            Some(head) if head.total_len() > self.rules.message_len_max => Err(violation(format!(
                "message of {} bytes is over max_packet_size {}",
                head.total_len(),
                self.rules.message_len_max
            ))),
            head => Ok(head),
        }
    }
}

impl super::ServerState {
    fn takes_copy_data(&self) -> bool {
        self.is_tunnel || self.queue.takes_copy_data()
    }
}

fn body_so_far<'b>(head: Head, flow: &Flow<'b>) -> &'b [u8] {
    let rest = flow.rest();
    &rest[HEAD_LEN..head.total_len().min(rest.len())]
}

fn is_request(message: u8) -> bool {
    matches!(
        message,
        kind::QUERY
            | kind::PARSE
            | kind::BIND
            | kind::DESCRIBE
            | kind::CLOSE
            | kind::EXECUTE
            | kind::FUNCTION_CALL
    )
}
