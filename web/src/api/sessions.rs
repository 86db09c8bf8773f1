//! Sessions: make, list, look at, change, delete.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::Identity;
use crate::error::{Error, Problem};
use crate::extract::{Body, Page, Params, Path, id_mark};
use crate::logic::accounts;
use crate::logic::pages::{self, List};
use crate::replicas::Reading;
use crate::store::ReadStore;
use crate::store::sessions::{Change, NewSession, Session, Visibility};

#[derive(Deserialize, ToSchema)]
pub struct CreateSession {
    pub title: String,
    /// Private where it is left out.
    pub visibility: Option<Visibility>,
    /// A name for the address: 3 to 64 of a-z, 0-9 and -.
    pub slug: Option<String>,
}

#[derive(Deserialize, ToSchema)]
pub struct ChangeSession {
    pub title: Option<String>,
    pub visibility: Option<Visibility>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SessionsQuery {
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub after: Option<String>,
}

/// My sessions, newest first.
#[utoipa::path(get, path = "/api/sessions", tag = "sessions", params(SessionsQuery), responses(
    (status = 200, body = List<Session>), (status = 401, body = Problem), (status = 422, body = Problem)))]
pub async fn list(
    mut reading: Reading,
    who: Identity,
    Params(query): Params<SessionsQuery>,
) -> Result<Response, Error> {
    let limit = Page { limit: query.limit }.limit()?;
    let before = id_mark(query.after.as_deref())?;
    let mine = |store: ReadStore| async move {
        store.sessions().of_user(who.user_id, before, limit.with_one_more()).await
    };
    let rows = reading.ask(mine).await?;
    Ok(reading.answer(Json(List::new(rows, limit, |session| pages::mark(session.id)))))
}

/// Make a session; I am its owner and first member.
#[utoipa::path(post, path = "/api/sessions", tag = "sessions", request_body = CreateSession, responses(
    (status = 201, body = Session), (status = 401, body = Problem),
    (status = 403, body = Problem, description = "the token belongs to no user: it was made by `web token`"),
    (status = 409, body = Problem, description = "the slug is taken"), (status = 422, body = Problem)))]
pub async fn create(
    State(app): State<App>,
    who: Identity,
    Body(new): Body<CreateSession>,
) -> Result<Response, Error> {
    check(Some(&new.title), new.slug.as_deref())?;
    let session = app
        .store
        .sessions()
        .create(NewSession {
            owner: who.user_id,
            title: &new.title,
            visibility: new.visibility.unwrap_or(Visibility::Private),
            slug: new.slug.as_deref(),
        })
        .await?;
    Ok(app.databases.stamp((StatusCode::CREATED, Json(session))).await)
}

/// One session, by id or slug: mine, or a public one.
#[utoipa::path(get, path = "/api/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "id or slug")), responses(
    (status = 200, body = Session), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem)))]
pub async fn get(mut reading: Reading, who: Identity, Path(id): Path<String>) -> Result<Response, Error> {
    let (id, who) = (id.as_str(), &who);
    let visible = |store: ReadStore| async move {
        let session = find(&store, id).await?;
        if session.visibility == Visibility::Private {
            member(&store, &session, who).await?;
        }
        Ok(session)
    };
    let session = reading.ask(visible).await?;
    Ok(reading.answer(Json(session)))
}

/// Change a session of mine.
#[utoipa::path(patch, path = "/api/sessions/{id}", tag = "sessions", request_body = ChangeSession,
    params(("id" = String, Path, description = "id or slug")), responses(
    (status = 200, body = Session), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(app): State<App>,
    who: Identity,
    Path(id): Path<String>,
    Body(change): Body<ChangeSession>,
) -> Result<Response, Error> {
    check(change.title.as_deref(), None)?;
    let session = find(&app.store, &id).await?;
    owner(&session, &who)?;
    let wanted = Change { title: change.title.as_deref(), visibility: change.visibility };
    let changed = app.store.sessions().change(session.id, wanted).await?.ok_or_else(no_session)?;
    Ok(app.databases.stamp(Json(changed)).await)
}

/// Delete a session of mine with all its messages.
#[utoipa::path(delete, path = "/api/sessions/{id}", tag = "sessions",
    params(("id" = String, Path, description = "id or slug")), responses(
    (status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub async fn remove(
    State(app): State<App>,
    who: Identity,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let session = find(&app.store, &id).await?;
    owner(&session, &who)?;
    let delete = async move |app: App| {
        app.store.sessions().delete(session.id).await?;
        app.chat.session_closed(session.id);
        Ok(())
    };
    app.finish("deletion of a session", delete).await?;
    Ok(app.databases.stamp(StatusCode::NO_CONTENT).await)
}

/// The session behind an id or a slug.
///
/// # Errors
/// There is none.
pub async fn find(store: &ReadStore, id_or_slug: &str) -> Result<Session, Error> {
    store.sessions().find(id_or_slug).await?.ok_or_else(no_session)
}

/// # Errors
/// Not a member.
pub async fn member(store: &ReadStore, session: &Session, who: &Identity) -> Result<(), Error> {
    match store.sessions().is_member(session.id, who.user_id).await? {
        true => Ok(()),
        false => Err(Error::forbidden("you are no member of this session")),
    }
}

/// # Errors
/// Neither the owner nor an admin.
pub fn owner(session: &Session, who: &Identity) -> Result<(), Error> {
    match session.owner_id == who.user_id || who.is_admin {
        true => Ok(()),
        false => Err(Error::forbidden("only the owner of the session may do this")),
    }
}

fn no_session() -> Error {
    Error::not_found("there is no such session")
}

fn check(title: Option<&str>, slug: Option<&str>) -> Result<(), Error> {
    Error::unless_fit([
        ("title", title.map_or(Ok(()), accounts::check_title)),
        ("slug", slug.map_or(Ok(()), accounts::check_slug)),
    ])
}
