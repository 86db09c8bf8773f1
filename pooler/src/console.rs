//! A console connection: carries out what admin/ has understood and gives it the facts.

mod carry_out;
mod facts;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use pgwire::frame::HEAD_LEN;
use pgwire::frontend::kind;

use crate::admin::facts::{Command, Outcome};
use crate::admin::{Action, Console};
use crate::clients::{ClientEntry, Doing, Order};
use crate::error::End;
use crate::house::House;
use crate::settings::ADMIN_DATABASE;
use crate::talk::{Talk, TalkError};
use crate::worker::Worker;

pub use carry_out::reload;
pub use facts::gather;

/// Serves an operator until the end. A SUSPEND ends with the one who gave it: nobody else could get in to RESUME.
pub async fn run(worker: &Rc<Worker>, talk: Talk, entry: &Arc<ClientEntry>, console: Console) -> End {
    let mut ends_suspend = false;
    let end = serve(worker, talk, entry, console, &mut ends_suspend).await;
    if ends_suspend && crate::suspend::resume(&worker.house) {
        tracing::info!("admin disappeared when suspended, doing RESUME");
    }
    end
}

async fn serve(
    worker: &Rc<Worker>,
    mut talk: Talk,
    entry: &Arc<ClientEntry>,
    console: Console,
    ends_suspend: &mut bool,
) -> End {
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
            Action::Run(Command::HandOver) if is_ourselves(&talk) => {
                return hand_over(&worker.house, &console, talk).await;
            }
            Action::Run(command) => {
                *ends_suspend |= command == Command::Suspend;
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

/// The other end of the unix socket is a process of our own user.
fn is_ourselves(talk: &Talk) -> bool {
    let peer = talk.wire.unix_stream().and_then(|stream| stream.peer_cred().ok());
    peer.is_some_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw())
}

/// From here on the connection carries sockets.
async fn hand_over(house: &Arc<House>, console: &Console, mut talk: Talk) -> End {
    let reply = console.answer(&Command::HandOver, &Outcome::Done);
    let given = match talk.send(&reply).await.and_then(|()| talk.into_parts().0.into_fd()) {
        Ok(socket) => crate::moving::give(house, socket.into()),
        Err(error) => return End::broken_socket(&error),
    };
    if let Err(error) = given {
        tracing::error!("cannot hand over: {error:#}");
    }
    End::quiet("hands over")
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
