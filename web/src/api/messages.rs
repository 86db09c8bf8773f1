//! Messages: store one, once; read them by offset.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::sessions::{find, member};
use crate::app::App;
use crate::auth::Identity;
use crate::error::{Error, Problem};
use crate::extract::{Body, Page, Params, Path};
use crate::logic::message::{Message, Offset, Role, check_client_msg_id, check_content};
use crate::logic::pages::List;
use crate::replicas::{Reading, stamped};
use crate::store::ReadStore;
use crate::store::messages::{Appended, NewMessage};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

#[derive(Deserialize, ToSchema)]
pub struct CreateMessage {
    pub content: String,
    /// The same message sent again under the same id is stored once. The header `Idempotency-Key` does the same.
    pub client_msg_id: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MessagesQuery {
    pub limit: Option<i64>,
    /// Only messages behind this offset.
    pub after: Option<Offset>,
    /// Only messages before this offset: the newest of them.
    pub before: Option<Offset>,
}

/// Say something.
#[utoipa::path(post, path = "/api/sessions/{id}/messages", tag = "messages", request_body = CreateMessage,
    params(("id" = String, Path, description = "id or slug"), ("Idempotency-Key" = Option<String>, Header)), responses(
    (status = 201, body = Message),
    (status = 200, body = Message, description = "stored before under the same key; Idempotency-Replayed: true"),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 422, body = Problem, description = "a field is wrong, or the key was used with another body")))]
pub async fn create(
    State(app): State<App>,
    who: Identity,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(new): Body<CreateMessage>,
) -> Result<Response, Error> {
    check_content(&new.content).map_err(|detail| Error::unprocessable("content", detail))?;
    let key = key_of(&headers, new.client_msg_id.as_deref())?;
    // An id needs no look-up: storing finds out by itself whether there is such a session.
    let session_id = match Uuid::try_parse(&id) {
        Ok(session_id) => session_id,
        Err(_) => find(&app.store, &id).await?.id,
    };
    let (content, key) = (new.content, key.map(str::to_owned));
    let appended = app.finish("message", async move |app| {
        let new = NewMessage {
            session_id,
            author: Some(who.user_id),
            role: Role::User,
            content: &content,
            client_msg_id: key.as_deref(),
        };
        store_and_tell(&app, new).await
    });
    let Appended { message, replayed } = appended.await?;
    // Members read with the token that comes in the frame; here it stands in the header.
    let token = message.ct.clone();
    let message = Json(Message { ct: None, ..message });
    let response = match replayed {
        false => (StatusCode::CREATED, message).into_response(),
        true => {
            let replayed = [(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"))];
            (StatusCode::OK, replayed, message).into_response()
        }
    };
    Ok(stamped(response, token.as_deref()))
}

/// The messages of a session in order of their offsets: the first ones, those after or those before an offset.
#[utoipa::path(get, path = "/api/sessions/{id}/messages", tag = "messages",
    params(("id" = String, Path, description = "id or slug"), MessagesQuery), responses(
    (status = 200, body = List<Message>), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn list(
    mut reading: Reading,
    who: Identity,
    Path(id): Path<String>,
    Params(query): Params<MessagesQuery>,
) -> Result<Response, Error> {
    let limit = Page { limit: query.limit }.limit()?;
    if query.after.is_some() && query.before.is_some() {
        return Err(Error::unprocessable("before", "send after or before, not both"));
    }
    let (id, who, query) = (id.as_str(), &who, &query);
    let page = |store: ReadStore| async move {
        let session = find(&store, id).await?;
        member(&store, &session, who).await?;
        let mark = |message: &Message| message.offset.to_string();
        let messages = store.messages();
        match query.before {
            Some(before) => {
                let rows = messages.before(session.id, before, limit.with_one_more()).await?;
                Ok(List::backwards(rows, limit, mark))
            }
            None => {
                let rows =
                    messages.after(session.id, query.after.unwrap_or(0), limit.with_one_more()).await?;
                Ok(List::new(rows, limit, mark))
            }
        }
    };
    let list = reading.ask(page).await?;
    Ok(reading.answer(Json(list)))
}

/// What members just saw, they can read: its token comes with it.
async fn store_and_tell(app: &App, new: NewMessage<'_>) -> Result<Appended, Error> {
    let mut appended = app.store.messages().append(new).await?;
    appended.message.ct = app.databases.token().await;
    // Also when it was stored before: the first publication may have been lost, and a room ignores the second.
    app.chat.publish(&appended.message);
    Ok(appended)
}

/// The key of the body or of the header.
pub fn key_of<'a>(headers: &'a HeaderMap, in_body: Option<&'a str>) -> Result<Option<&'a str>, Error> {
    let in_header = match headers.get(IDEMPOTENCY_KEY) {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| {
            Error::unprocessable("Idempotency-Key", "only visible ASCII characters are allowed")
        })?),
    };
    if let (Some(header), Some(body)) = (in_header, in_body)
        && header != body
    {
        return Err(Error::unprocessable("Idempotency-Key", "differs from client_msg_id; send one of them"));
    }
    let (field, key) = match in_body {
        Some(key) => ("client_msg_id", Some(key)),
        None => ("Idempotency-Key", in_header),
    };
    key.map_or(Ok(()), check_client_msg_id).map_err(|detail| Error::unprocessable(field, detail))?;
    Ok(key)
}
