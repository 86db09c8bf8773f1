//! A console connection: carries out what admin/ has understood and gives it the facts.

mod carry_out;
mod facts;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgwire::frame::HEAD_LEN;
use pgwire::frontend::kind;

use crate::admin::facts::Outcome;
use crate::admin::{Action, Console};
use crate::clients::{ClientEntry, Doing, Order};
use crate::error::End;
use crate::settings::ADMIN_DATABASE;
use crate::talk::{Talk, TalkError};
use crate::worker::Worker;

pub use carry_out::reload;
pub use facts::gather;

/// Serves an operator until the end.
pub async fn run(worker: &Rc<Worker>, mut talk: Talk, entry: &Arc<ClientEntry>, console: Console) -> End {
    entry.set_doing(Doing::Idle, Instant::now());
    let stats = worker.house.stats.database(ADMIN_DATABASE);
    let stats = stats.part(worker.id);
    stats.client_logins.add(1);
    loop {
        let message = tokio::select! {
            message = talk.next() => message,
            end = ordered(entry) => {
                talk.wire.try_farewell(&end.message());
                return end;
            }
        };
        let message = match message {
            Ok(message) => message,
            Err(TalkError::Io(error)) => return End::broken_socket(&error),
            Err(TalkError::Protocol(text)) => return End::client(pgwire::sqlstate::PROTOCOL_VIOLATION, text),
        };
        stats.received_bytes.add((HEAD_LEN + message.body.len()) as u64);
        if message.kind == kind::QUERY {
            stats.queries.add(1);
            stats.transactions.add(1);
        }
        let reply = match console.on_message(message.kind, &message.body) {
            Action::Reply(reply) => reply,
            Action::Close { reply, reason } => {
                talk.wire.try_farewell(&reply);
                return End::quiet(reason);
            }
            Action::Run(command) => {
                let outcome = tokio::select! {
                    outcome = carry_out::carry_out(&worker.house, &command) => outcome,
                    // An operator who presses Ctrl-C or goes away waits no longer.
                    error = talk.wait_for_end() => return End::broken_socket(&error),
                };
                let Some(outcome) = outcome else { return End::shutdown() };
                if matches!(outcome, Outcome::Refused(_)) {
                    tracing::debug!("{} command refused", entry.name());
                }
                console.answer(&command, &outcome)
            }
        };
        stats.sent_bytes.add(reply.len() as u64);
        if let Err(error) = talk.send(&reply).await {
            return End::broken_socket(&error);
        }
    }
}

/// Ends when the client is told to go.
async fn ordered(entry: &ClientEntry) -> End {
    std::future::poll_fn(|cx| {
        entry.listen_for_orders(cx.waker());
        if entry.has_order() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    match entry.take_order() {
        Order::Shutdown => End::shutdown(),
        _ => End::pool(pgwire::sqlstate::ADMIN_SHUTDOWN, "admin forced disconnect"),
    }
}
