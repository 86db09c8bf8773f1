//! Streams on the wire: `text/event-stream`, sent as made. A client that breaks off resumes with `Last-Event-ID`.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::Span;
use utoipa::ToSchema;
use uuid::Uuid;

use super::reader::{Item, Reader};
use crate::api::messages::key_of;
use crate::app::App;
use crate::auth::Identity;
use crate::chat::ReaderSeat;
use crate::error::{self, Error, Problem};
use crate::extract::{Body, Path};
use crate::limits::Place;
use crate::logic::message::{self, Role};
use crate::logic::tokens_out;
use crate::replicas::stamped;
use crate::store::messages::NewMessage;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// nginx and its kin would otherwise gather the tokens.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
/// A client that is sent elsewhere comes back after this time.
const RETRY_AFTER: Duration = Duration::from_millis(300);

/// A question to the responder.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Question {
    /// The session's UUID or slug.
    session_id: String,
    content: String,
    /// Sent again with the same id, the question is stored once and its one answer is streamed. The header
    /// `Idempotency-Key` does the same.
    client_msg_id: Option<String>,
}

/// One event of an answer, as whoever reads `text/event-stream` gets it.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the wire for the document; events are written as text")]
pub struct AnswerEvent {
    /// `message`, `start`, `token`, `done` or `error`.
    event: String,
    /// JSON.
    data: String,
    /// Where to resume: what to send as `Last-Event-ID`.
    id: Option<String>,
}

/// Stores a question and streams its answer as `text/event-stream`: `message`, `start`, `token` …, `done` or `error`.
#[utoipa::path(post, path = "/messages/stream/", tag = "messages", request_body = Question,
    params(("Idempotency-Key" = Option<String>, Header)), responses(
    (status = 200, description = "events, sent as made", content_type = "text/event-stream", body = AnswerEvent),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
    (status = 503, body = Problem)))]
pub async fn ask(
    State(app): State<App>,
    identity: Identity,
    headers: HeaderMap,
    Body(question): Body<Question>,
) -> Result<Response, Error> {
    // While others may still ask here, they are served: a balancer does not send a POST again to somebody else.
    // The stream then ends with a handover, and its answer is made here or taken over.
    if app.tasks.draining() {
        return Err(Error::unavailable("this replica is going away; ask again"));
    }
    let place = app.limits.bulkheads.streams.enter().await?;
    message::check_content(&question.content).map_err(|advice| Error::unprocessable("content", advice))?;
    let key = key_of(&headers, question.client_msg_id.as_deref())?;
    let session = app.store.sessions().find(&question.session_id).await?;
    let session = session.ok_or_else(|| Error::not_found("there is no such session"))?;
    let seat = app.chat.seat_reader(session.id, identity.user_id);
    let new = NewMessage {
        session_id: session.id,
        author: Some(identity.user_id),
        role: Role::User,
        content: &question.content,
        client_msg_id: key,
    };
    let mut appended = app.store.messages().append(new).await?;
    appended.message.ct = app.databases.token().await;
    app.chat.publish(&appended.message);
    let token = appended.message.ct.clone();
    let question = appended.message.clone();
    app.streams.begin(appended).await;
    let opening = [event("message", &question), event("start", &json!({ "stream_id": question.id }))];
    let reader = Reader::new(&app.streams, question, 0);
    let events = stream::iter(opening).chain(following(reader));
    Ok(stamped(respond(&app, &identity, events, (place, seat)), token.as_deref()))
}

/// Goes on after the event that `Last-Event-ID` names, on any replica, until 10 minutes after the end.
#[utoipa::path(get, path = "/messages/stream/{stream_id}", tag = "messages",
    params(("stream_id" = String, Path, description = "from the event `start`"),
        ("Last-Event-ID" = Option<String>, Header, description = "id of the last event that was received")),
    responses((status = 200, description = "events, sent as made", content_type = "text/event-stream", body = AnswerEvent),
        (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn resume(
    State(app): State<App>,
    identity: Identity,
    Path(stream_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let place = app.limits.bulkheads.streams.enter().await?;
    let gone = || Error::not_found("there is no such stream, or it ended more than 10 minutes ago");
    let stream_id = Uuid::try_parse(&stream_id).map_err(|_| gone())?;
    let next = match headers.get(LAST_EVENT_ID) {
        None => 0,
        Some(value) => {
            let id = value.to_str().unwrap_or_default();
            tokens_out::resume_index(stream_id, id)
                .map_err(|advice| Error::unprocessable("Last-Event-ID", advice))?
        }
    };
    let question = app.store.messages().by_id(stream_id).await?.filter(|found| found.role == Role::User);
    let question = question.ok_or_else(gone)?;
    let seat = app.chat.seat_reader(question.session_id, identity.user_id);
    if !app.store.sessions().admits(question.session_id, identity.user_id).await? {
        return Err(Error::forbidden("you are no member of this session"));
    }
    let reader = Reader::resume(&app.streams, question, next).await?;
    Ok(respond(&app, &identity, following(reader), (place, seat)))
}

fn respond(
    app: &App,
    who: &Identity,
    events: impl Stream<Item = Event> + Send + 'static,
    (place, seat): (Place, ReaderSeat),
) -> Response {
    let (auth, login) = (app.auth.clone(), who.login_id);
    // Who comes back with `Last-Event-ID` is told why: 401 or 403.
    let may_read = move || !auth.revoked().contains(login) && !seat.is_removed();
    let events = events.take_while(move |_| std::future::ready(may_read()));
    let alive = KeepAlive::new().interval(app.streams.shared.settings.heartbeat).text("alive");
    let events = events.map(move |event| {
        // Held as long as the stream lasts, or its client stays.
        let _ = &place;
        Ok::<_, Infallible>(event)
    });
    let events = within(Span::current(), events);
    ([NO_BUFFERING], Sse::new(events).keep_alive(alive)).into_response()
}

/// The stream as part of the request's work, though its handler has returned.
fn within<S: Stream>(span: Span, events: S) -> impl Stream<Item = S::Item> {
    let mut events = Box::pin(events);
    stream::poll_fn(move |context| span.in_scope(|| events.as_mut().poll_next(context)))
}

fn following(reader: Reader) -> impl Stream<Item = Event> {
    let stream_id = reader.stream_id();
    stream::unfold(reader, |mut reader| async move { reader.next().await.map(|item| (item, reader)) })
        .map(move |item| to_event(stream_id, item))
}

fn to_event(stream: Uuid, item: Item) -> Event {
    match item {
        Item::Token { i, text } => {
            event("token", &json!({ "i": i, "text": text })).id(tokens_out::event_id(stream, i))
        }
        // Its id is one beyond the last token's: who resumes after it gets it again, and nothing else.
        Item::Done { token_count, answer } => {
            event("done", &answer).id(tokens_out::event_id(stream, token_count))
        }
        Item::Failed { code, detail } => event("error", &problem(&code, detail)),
        Item::Handover => {
            Event::default().retry(RETRY_AFTER).comment("going away; resume with Last-Event-ID")
        }
    }
}

fn problem(code: &str, detail: String) -> Problem {
    let mut problem = error::problem_of(StatusCode::BAD_GATEWAY, detail);
    problem.kind = format!("urn:arena:problem:{code}").into();
    problem
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).json_data(data).expect("events are plain data with string keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_stream_does_after_its_handler_returned_is_still_the_requests() {
        let _default = tracing::subscriber::set_default(tracing_subscriber::registry());
        let name = async || Span::current().metadata().map(tracing::Metadata::name);
        let events = stream::once(name());
        let events = tracing::error_span!("request").in_scope(|| within(Span::current(), events));
        assert_eq!(events.collect::<Vec<_>>().await, [Some("request")]);
        assert_eq!(name().await, None);
    }
}
