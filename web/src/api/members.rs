//! Members of a session: join, add, list, remove.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::sessions::{find, member, owner};
use crate::app::App;
use crate::auth::Identity;
use crate::error::{Error, Problem};
use crate::extract::{Body, Page, Params, Path, id_mark, path_id};
use crate::logic::message::Author;
use crate::logic::pages::{self, List};
use crate::replicas::Reading;
use crate::store::ReadStore;
use crate::store::sessions::{Session, Visibility};

#[derive(Deserialize, ToSchema)]
pub struct AddMember {
    pub username: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MembersQuery {
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub after: Option<String>,
}

/// Become a member of a public session.
#[utoipa::path(post, path = "/api/sessions/{id}/join", tag = "sessions",
    params(("id" = String, Path, description = "id or slug")), responses(
    (status = 200, body = Session), (status = 401, body = Problem),
    (status = 403, body = Problem, description = "the session is private, or the token belongs to no user"),
    (status = 404, body = Problem)))]
pub async fn join(State(app): State<App>, who: Identity, Path(id): Path<String>) -> Result<Response, Error> {
    let session = find(&app.store, &id).await?;
    if session.visibility == Visibility::Private {
        // A member who joins again is told so by the same success as in a public session.
        member(&app.store, &session, &who)
            .await
            .map_err(|_| Error::forbidden("this session is private; its owner can add you as a member"))?;
    }
    app.store.sessions().add_member(session.id, who.user_id).await?;
    Ok(app.databases.stamp(Json(session)).await)
}

/// The members of a session that I am a member of.
#[utoipa::path(get, operation_id = "list_members", path = "/api/sessions/{id}/members", tag = "sessions",
    params(("id" = String, Path, description = "id or slug"), MembersQuery), responses(
    (status = 200, body = List<Author>), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn list(
    mut reading: Reading,
    who: Identity,
    Path(id): Path<String>,
    Params(query): Params<MembersQuery>,
) -> Result<Response, Error> {
    let limit = Page { limit: query.limit }.limit()?;
    let after = id_mark(query.after.as_deref())?;
    let (id, who) = (id.as_str(), &who);
    let members = |store: ReadStore| async move {
        let session = find(&store, id).await?;
        member(&store, &session, who).await?;
        store.sessions().members(session.id, after, limit.with_one_more()).await
    };
    let rows = reading.ask(members).await?;
    Ok(reading.answer(Json(List::new(rows, limit, |author| pages::mark(author.id)))))
}

/// Add a member to a session of mine.
#[utoipa::path(post, path = "/api/sessions/{id}/members", tag = "sessions", request_body = AddMember,
    params(("id" = String, Path, description = "id or slug")), responses(
    (status = 201, body = Author), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn add(
    State(app): State<App>,
    who: Identity,
    Path(id): Path<String>,
    Body(new): Body<AddMember>,
) -> Result<Response, Error> {
    let session = find(&app.store, &id).await?;
    owner(&session, &who)?;
    let user = app
        .store
        .users()
        .by_name(&new.username.to_lowercase())
        .await?
        .ok_or_else(|| Error::unprocessable("username", "there is no such user"))?;
    app.store.sessions().add_member(session.id, user.id).await?;
    let author = Author { id: user.id, username: user.username, display_name: user.display_name };
    Ok(app.databases.stamp((StatusCode::CREATED, Json(author))).await)
}

/// Remove a member from a session of mine, or leave one. Doing it again changes nothing.
#[utoipa::path(delete, operation_id = "remove_member", path = "/api/sessions/{id}/members/{user_id}", tag = "sessions",
    params(("id" = String, Path, description = "id or slug"), ("user_id" = uuid::Uuid, Path)), responses(
    (status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn remove(
    State(app): State<App>,
    who: Identity,
    Path((id, user_id)): Path<(String, String)>,
) -> Result<Response, Error> {
    let session = find(&app.store, &id).await?;
    let user_id = path_id(&user_id)?;
    if user_id != who.user_id {
        owner(&session, &who)?;
    }
    // Who is no member any more was removed before, perhaps by this very request, whose answer was lost.
    let remove = async move |app: App| {
        app.store.sessions().remove_member(session.id, user_id).await?;
        app.chat.member_removed(session.id, user_id);
        Ok(())
    };
    app.finish("removal of a member", remove).await?;
    Ok(app.databases.stamp(StatusCode::NO_CONTENT).await)
}
