//! What a member asks for over its WebSocket: store a message, or ask the responder. The answer is an `ack` or an
//! `error` frame in its own queue; the message itself comes back over the bus like everybody's.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::app::App;
use crate::chat::hub::Member;
use crate::error::Error;
use crate::logic::frames::{Draft, ServerFrame};
use crate::logic::message::{Message, Role};
use crate::store::messages::{Appended, NewMessage};

/// An `ack` waits this long for the entry of the answer: a Redis that takes longer is away, and the answer is made here
/// without it.
const ENTRY_WAIT: Duration = Duration::from_secs(1);

/// Who asks, and where.
pub struct Place {
    pub session: Uuid,
    pub member: Arc<Member>,
}

pub async fn send(app: App, place: Place, draft: Draft) {
    let stored = store(&app, &place, &draft).await;
    acknowledge(&place, &draft, stored.as_ref().map(|appended| &appended.message));
}

/// The answer is entered before the question is acknowledged: who has its `ack` does not send it again, and another
/// replica finds only answers that are entered.
pub async fn ask(app: App, place: Place, draft: Draft) {
    let stored = store(&app, &place, &draft).await;
    let Ok(question) = &stored else {
        return acknowledge(&place, &draft, stored.as_ref().map(|appended| &appended.message));
    };
    // A question that was sent again has its answer, or somebody is making it.
    let entering = app.streams.begin(question.clone());
    tokio::pin!(entering);
    let entered = tokio::time::timeout(ENTRY_WAIT, &mut entering).await;
    acknowledge(&place, &draft, Ok(&question.message));
    if entered.is_err() {
        entering.await;
    }
}

async fn store(app: &App, place: &Place, draft: &Draft) -> Result<Appended, Error> {
    let new = NewMessage {
        session_id: place.session,
        author: Some(place.member.user.id),
        role: Role::User,
        content: &draft.content,
        client_msg_id: Some(&draft.client_msg_id),
    };
    let mut appended = app.store.messages().append(new).await?;
    appended.message.ct = app.databases.token().await;
    // Also when it was stored before: the first publication may have been lost, and a room ignores the second.
    app.chat.publish(&appended.message);
    Ok(appended)
}

fn acknowledge(place: &Place, draft: &Draft, stored: Result<&Message, &Error>) {
    let client_msg_id = &draft.client_msg_id;
    match stored {
        Ok(message) => {
            let ct = message.ct.as_deref();
            place.member.say(&ServerFrame::Ack { client_msg_id, offset: message.offset, ct });
        }
        Err(error) => {
            if error.status().is_server_error() {
                tracing::warn!(cause = %error, session = %place.session, "a message was not stored: {error}");
            }
            let (code, detail) = (error.code(), error.detail());
            place.member.say(&ServerFrame::Error {
                code,
                detail: &detail,
                client_msg_id: Some(client_msg_id),
            });
        }
    }
}
