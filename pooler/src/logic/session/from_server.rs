//! The walk over the server's bytes.

use std::sync::Arc;

use pgwire::Head;
use pgwire::backend::{self, TransactionStatus, kind};
use pgwire::frame::HEAD_LEN;
use pgwire::report::Received;

use super::{Mode, ServerHalt, ServerSide, Session, parameters, write_invented};
use crate::logic::replies::Verdict;

/// Messages that must be read whole are small; a larger one of these kinds is a broken server.
const SMALL_MESSAGE_MAX: usize = 64 * 1024;

impl Session {
    /// Sends on to the client what is the client's.
    pub fn on_server(&mut self, io: &mut ServerSide<'_, '_>) -> ServerHalt {
        loop {
            if io.server.pass.left > 0 && io.pass_on() {
                return ServerHalt::Input;
            }
            let head = match Head::parse(io.flow.rest()) {
                Ok(Some(head)) => head,
                Ok(None) => return ServerHalt::Input,
                Err(_) => return ServerHalt::OutOfStep("impossible message length"),
            };
            let is_plain = matches!(head.kind, kind::DATA_ROW | kind::COPY_DATA);
            if !is_plain && needs_whole(head.kind) && io.flow.rest().len() < head.total_len() {
                let fits = head.total_len() <= SMALL_MESSAGE_MAX;
                return if fits { ServerHalt::Input } else { ServerHalt::OutOfStep("message too long") };
            }
            let verdict = io.server.queue.on_server(head.kind);
            match verdict {
                Verdict::Forward if is_plain => io.pass(head, false),
                Verdict::Forward | Verdict::Swallow => {
                    if let Some(halt) = self.on_reply(head, verdict, io) {
                        return halt;
                    }
                }
                Verdict::OwnFailed => return own_failed(head, io),
                Verdict::OutOfStep => return ServerHalt::OutOfStep("reply that nobody asked for"),
            }
        }
    }

    fn on_reply(&mut self, head: Head, verdict: Verdict, io: &mut ServerSide<'_, '_>) -> Option<ServerHalt> {
        let is_ours = verdict == Verdict::Swallow;
        let rest = io.flow.rest();
        let body = &rest[HEAD_LEN..head.total_len().min(rest.len())];
        if head.kind == kind::READY_FOR_QUERY {
            let Ok(status) = TransactionStatus::parse(body) else {
                return Some(ServerHalt::OutOfStep("ReadyForQuery without a known status"));
            };
            io.server.status = status;
            // Before it is passed on: the client must not take it for leave to go on.
            if self.rules.mode == Mode::Statement && !is_ours && status != TransactionStatus::Idle {
                return Some(ServerHalt::OpenedTransaction);
            }
            io.pass(head, is_ours);
            self.on_ready(is_ours, io);
            return None;
        }
        io.pass(head, is_ours);
        match head.kind {
            kind::PARAMETER_STATUS => self.on_parameter(body, is_ours, io),
            kind::COMMAND_COMPLETE if !is_ours => self.on_complete(body, io),
            kind::ERROR => {
                io.server.said_goodbye |=
                    Received::parse(body).is_ok_and(|received| received.ends_connection());
                self.settle_lost(io.server);
            }
            kind::COPY_BOTH => io.server.is_tunnel = true,
            _ => {}
        }
        io.invent();
        None
    }

    fn on_ready(&mut self, is_ours: bool, io: &mut ServerSide<'_, '_>) {
        io.server.is_tunnel = false;
        io.invent();
        if is_ours {
            // The server has taken the client's parameters, in its own spelling.
            self.parameters = io.server.parameters.clone();
            return;
        }
        self.tally.queries += 1;
        if io.server.status == TransactionStatus::Idle {
            self.tally.transactions += 1;
        }
        if io.server.queue.is_drained() {
            self.statements.on_batch_end();
            io.server.statements.on_settled();
        }
    }

    fn on_parameter(&mut self, body: &[u8], is_ours: bool, io: &mut ServerSide<'_, '_>) {
        let Ok((name, value)) = backend::parse_parameter_status(body) else { return };
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else { return };
        let is_known = io.server.parameters.get(name).is_some();
        let tracked = parameters::tracked(name, &self.extra).map(|(spelled, _)| spelled);
        let Some(name) = tracked.or(is_known.then_some(name)) else { return };
        let was_one = Arc::ptr_eq(&self.parameters, &io.server.parameters);
        if let Some(changed) = io.server.parameters.with(name, value, true) {
            io.server.parameters = Arc::new(changed);
        }
        if is_ours {
            return;
        }
        if was_one {
            self.parameters = io.server.parameters.clone();
        } else if let Some(changed) = self.parameters.with(name, value, true) {
            self.parameters = Arc::new(changed);
        }
    }

    fn on_complete(&mut self, body: &[u8], io: &mut ServerSide<'_, '_>) {
        match body {
            b"DEALLOCATE ALL\0" | b"DISCARD ALL\0" => {
                self.statements.clear();
                io.server.statements.clear();
            }
            b"SET\0" | b"RESET\0" => {}
            _ => return,
        }
        // What Postgres does not report may have changed unseen.
        if let Some(doubted) = io.server.parameters.doubted() {
            io.server.parameters = Arc::new(doubted);
        }
    }
}

impl ServerSide<'_, '_> {
    fn pass(&mut self, head: Head, discard: bool) {
        self.server.pass = super::Pass { left: head.total_len(), discard };
        self.pass_on();
    }

    /// True: the input ended before the message.
    fn pass_on(&mut self) -> bool {
        let pass = &mut self.server.pass;
        let len = pass.left.min(self.flow.rest().len());
        if pass.discard {
            self.flow.skip(len);
        } else {
            self.flow.forward(len);
        }
        pass.left -= len;
        pass.left > 0
    }

    fn invent(&mut self) {
        if self.server.queue.has_invented() {
            write_invented(&mut self.server.queue, self.flow.made());
        }
    }
}

/// Kinds whose content matters to us.
fn needs_whole(message: u8) -> bool {
    matches!(message, kind::READY_FOR_QUERY | kind::PARAMETER_STATUS | kind::COMMAND_COMPLETE)
}

fn own_failed(head: Head, io: &ServerSide<'_, '_>) -> ServerHalt {
    let rest = io.flow.rest();
    let body = &rest[HEAD_LEN..head.total_len().min(rest.len())];
    let received = Received::parse(body).unwrap_or_default();
    let text = |field: Option<&[u8]>, other: &str| {
        field.map_or_else(|| other.to_string(), |bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    ServerHalt::OwnFailed {
        sqlstate: text(received.sqlstate, pgwire::sqlstate::INTERNAL_ERROR),
        text: text(received.message, "unreadable error"),
    }
}
