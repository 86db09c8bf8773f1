//! Users: the list, and one's own account.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::Identity;
use crate::error::{Error, Problem};
use crate::extract::{Body, Page, Params, id_mark};
use crate::logic::accounts;
use crate::logic::pages::{self, List};
use crate::replicas::Reading;
use crate::store::ReadStore;
use crate::store::users::{NewPassword, User};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsersQuery {
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub after: Option<String>,
}

#[derive(Deserialize, ToSchema)]
pub struct ChangeUser {
    pub display_name: String,
}

#[derive(Deserialize, ToSchema)]
pub struct ChangePassword {
    pub old: String,
    pub new: String,
}

/// All users, in order of their making.
#[utoipa::path(get, path = "/api/users", tag = "users", params(UsersQuery), responses(
    (status = 200, body = List<User>), (status = 401, body = Problem), (status = 422, body = Problem)))]
pub async fn list(
    mut reading: Reading,
    _who: Identity,
    Params(query): Params<UsersQuery>,
) -> Result<Response, Error> {
    let limit = Page { limit: query.limit }.limit()?;
    let after = id_mark(query.after.as_deref())?;
    let page = |store: ReadStore| async move { store.users().page(after, limit.with_one_more()).await };
    let rows = reading.ask(page).await?;
    Ok(reading.answer(Json(List::new(rows, limit, |user| pages::mark(user.id)))))
}

/// Me.
#[utoipa::path(get, path = "/api/users/me", tag = "users", responses(
    (status = 200, body = User), (status = 401, body = Problem)))]
pub async fn me(mut reading: Reading, who: Identity) -> Result<Response, Error> {
    let me = |store: ReadStore| async move { store.users().by_id(who.user_id).await };
    let found = match reading.ask(me).await? {
        // A standby may not know an account yet that was made a moment ago.
        None if reading.turn_to_primary() => reading.ask(me).await?,
        found => found,
    };
    let user = found.ok_or_else(gone)?;
    Ok(reading.answer(Json(user)))
}

/// Change my display name.
#[utoipa::path(patch, path = "/api/users/me", tag = "users", request_body = ChangeUser, responses(
    (status = 200, body = User), (status = 401, body = Problem), (status = 422, body = Problem)))]
pub async fn change(
    State(app): State<App>,
    who: Identity,
    Body(change): Body<ChangeUser>,
) -> Result<Response, Error> {
    accounts::check_display_name(&change.display_name)
        .map_err(|detail| Error::unprocessable("display_name", detail))?;
    let user = app.store.users().rename(who.user_id, &change.display_name).await?.ok_or_else(gone)?;
    Ok(app.databases.stamp(Json(user)).await)
}

/// Change my password; my other logins end.
#[utoipa::path(post, path = "/api/users/me/password", tag = "users", request_body = ChangePassword, responses(
    (status = 204), (status = 401, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem)))]
pub async fn password(
    State(app): State<App>,
    who: Identity,
    Body(change): Body<ChangePassword>,
) -> Result<Response, Error> {
    accounts::check_password(&change.new).map_err(|detail| Error::unprocessable("new", detail))?;
    // Who holds a stolen access token must not try passwords at leisure: the tries count like logins.
    let place = format!("account {}", who.user_id);
    let tried = app.auth.limit().begin(&who.username, &place).await?;
    let old_hash = match hash_that_fits(&app, &who, change.old).await {
        Ok(Some(hash)) => {
            app.auth.limit().on_success(tried).await;
            hash
        }
        Ok(None) => {
            app.auth.limit().on_failure(tried).await;
            return Err(not_the_password());
        }
        Err(cause) => {
            app.auth.limit().on_undecided(tried).await;
            return Err(cause);
        }
    };
    let hash = app.auth.passwords().hash(change.new).await?;
    let change = async move |app: App| {
        let new = NewPassword { old_hash: &old_hash, hash: &hash };
        let ended = app.store.users().set_password(who.user_id, new, who.login_id).await?;
        app.auth.revoked().add(&ended.ok_or_else(not_the_password)?).await;
        Ok(())
    };
    app.finish("new password", change).await?;
    Ok(app.databases.stamp(StatusCode::NO_CONTENT).await)
}

/// The hash of my password, where this is it.
async fn hash_that_fits(app: &App, who: &Identity, password: String) -> Result<Option<String>, Error> {
    let hash = app.store.users().credentials(&who.username).await?.ok_or_else(gone)?.password_hash;
    let fits = app.auth.passwords().matches(password, Some(hash.clone())).await?;
    Ok(fits.then_some(hash))
}

fn not_the_password() -> Error {
    Error::unprocessable("old", "this is not your password")
}

/// Delete my account. My messages stay, without my name.
#[utoipa::path(delete, path = "/api/users/me", tag = "users", responses(
    (status = 204), (status = 401, body = Problem)))]
pub async fn remove(State(app): State<App>, who: Identity) -> Result<Response, Error> {
    let delete = async move |app: App| {
        let mut ended = app.store.users().delete(who.user_id).await?;
        ended.push(who.login_id);
        app.auth.revoked().add(&ended).await;
        Ok(())
    };
    app.finish("deletion of an account", delete).await?;
    Ok(app.databases.stamp(StatusCode::NO_CONTENT).await)
}

fn gone() -> Error {
    Error::unauthorized("this account was deleted")
}
