//! Registration, login, refresh, logout, tickets, and the list of places where one is logged in.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{ACCESS_LIFETIME, Identity, RefreshToken, TICKET_LIFETIME};
use crate::error::{Error, Problem};
use crate::extract::{Body, Origin, Page, Params, Path, id_mark, path_id};
use crate::logic::accounts;
use crate::logic::pages::{self, List};
use crate::store::logins::{Login, NewLogin, Revoked, Rotation};
use crate::store::users::{Credentials, NewUser, User};

#[derive(Deserialize, ToSchema)]
pub struct Register {
    pub username: String,
    pub password: String,
    /// The username where it is left out.
    pub display_name: Option<String>,
}

#[derive(Deserialize, ToSchema)]
pub struct LoginRequest {
    pub username: String,
    pub password: String,
}

#[derive(Deserialize, ToSchema)]
pub struct Refresh {
    pub refresh_token: String,
}

/// What a login gives.
#[derive(Serialize, ToSchema)]
pub struct LoggedIn {
    pub user: User,
    pub access_token: String,
    /// Seconds.
    pub expires_in: u64,
    /// Good for one refresh.
    pub refresh_token: String,
}

#[derive(Serialize, ToSchema)]
pub struct Ticket {
    /// Good for one `?token=`.
    pub ticket: String,
    /// Seconds.
    pub expires_in: u64,
}

/// A login, and whether it is the one that asks.
#[derive(Serialize, ToSchema)]
pub struct ListedLogin {
    #[serde(flatten)]
    pub login: Login,
    pub current: bool,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LoginsQuery {
    pub limit: Option<i64>,
    /// `next` of the page before.
    pub after: Option<String>,
}

/// Make an account and log in.
#[utoipa::path(post, path = "/api/auth/register", tag = "auth", request_body = Register, security(()), responses(
    (status = 201, body = LoggedIn), (status = 409, body = Problem, description = "the name is taken"),
    (status = 422, body = Problem)))]
pub async fn register(
    State(app): State<App>,
    origin: Origin,
    Body(new): Body<Register>,
) -> Result<Response, Error> {
    let display_name = new.display_name.unwrap_or_else(|| new.username.clone());
    Error::unless_fit([
        ("username", accounts::check_username(&new.username)),
        ("password", accounts::check_password(&new.password)),
        ("display_name", accounts::check_display_name(&display_name)),
    ])?;
    let password_hash = app.auth.passwords().hash(new.password).await?;
    let role = if app.settings.auth.admins.contains(&new.username) { "admin" } else { "user" };
    let user = app
        .store
        .users()
        .create(NewUser {
            username: &new.username,
            display_name: &display_name,
            password_hash: &password_hash,
            role,
        })
        .await?;
    let logged_in = log_in(&app, Credentials { user, password_hash }, &origin).await?;
    Ok(app.databases.stamp((StatusCode::CREATED, Json(logged_in))).await)
}

/// Log in.
#[utoipa::path(post, path = "/api/auth/login", tag = "auth", request_body = LoginRequest, security(()), responses(
    (status = 200, body = LoggedIn), (status = 401, body = Problem), (status = 422, body = Problem),
    (status = 429, body = Problem, description = "too many failed tries; see Retry-After")))]
pub async fn login(
    State(app): State<App>,
    origin: Origin,
    Body(asked): Body<LoginRequest>,
) -> Result<Response, Error> {
    let username = asked.username.to_lowercase();
    let tried = app
        .auth
        .limit()
        .begin(&username, &origin.address)
        .await
        .inspect_err(|_| app.metrics.on_login("limited"))?;
    let checked = who_fits(&app, &username, asked.password).await;
    let who = match checked {
        Ok(Some(who)) => {
            app.auth.limit().on_success(tried).await;
            who
        }
        Ok(None) => {
            app.auth.limit().on_failure(tried).await;
            app.metrics.on_login("wrong");
            return Err(wrong());
        }
        Err(cause) => {
            app.auth.limit().on_undecided(tried).await;
            return Err(cause);
        }
    };
    let logged_in = log_in(&app, who, &origin).await?;
    app.metrics.on_login("ok");
    Ok(app.databases.stamp(Json(logged_in)).await)
}

/// The user of this name and password. It takes as long where there is no such name.
async fn who_fits(app: &App, username: &str, password: String) -> Result<Option<Credentials>, Error> {
    let found = app.store.users().credentials(username).await?;
    let hash = found.as_ref().map(|found| found.password_hash.clone());
    let fits = app.auth.passwords().matches(password, hash).await?;
    Ok(found.filter(|_| fits))
}

fn wrong() -> Error {
    Error::unauthorized("the username or the password is wrong")
}

/// Exchange a refresh token for new tokens; each is good once. One that comes back a second time ends its login.
#[utoipa::path(post, path = "/api/auth/refresh", tag = "auth", request_body = Refresh, security(()), responses(
    (status = 200, body = LoggedIn), (status = 401, body = Problem), (status = 422, body = Problem)))]
pub async fn refresh(State(app): State<App>, Body(asked): Body<Refresh>) -> Result<Response, Error> {
    let old = RefreshToken::hash_of(&asked.refresh_token);
    let new = RefreshToken::new();
    match app.store.logins().rotate(&old, &new.hash, refresh_end(&app)).await? {
        Rotation::Rotated { login_id, user } => {
            let access_token = app.auth.issue(&user, login_id);
            let expires_in = ACCESS_LIFETIME.as_secs();
            let answer = LoggedIn { user, access_token, expires_in, refresh_token: new.text };
            Ok(app.databases.stamp(Json(answer)).await)
        }
        Rotation::Reused { login_id } => {
            app.auth.revoked().add(&[login_id]).await;
            tracing::warn!(login = %login_id, "a refresh token came a second time: login {login_id} was ended");
            Err(Error::unauthorized(
                "this refresh token was used before; for safety the login was ended: log in again",
            ))
        }
        Rotation::Unknown => {
            Err(Error::unauthorized("the refresh token is unknown or has ended; log in again"))
        }
    }
}

/// Log out here.
#[utoipa::path(post, path = "/api/auth/logout", tag = "auth", responses(
    (status = 204), (status = 401, body = Problem)))]
pub async fn logout(State(app): State<App>, who: Identity) -> Result<Response, Error> {
    let end = async move |app: App| {
        app.store.logins().revoke(who.user_id, who.login_id).await?;
        app.auth.revoked().add(&[who.login_id]).await;
        Ok(())
    };
    app.finish("logout", end).await?;
    Ok(app.databases.stamp(StatusCode::NO_CONTENT).await)
}

/// Get a ticket for a WebSocket: single use, for `?token=`.
#[utoipa::path(post, path = "/api/auth/ws-ticket", tag = "auth", responses(
    (status = 201, body = Ticket), (status = 401, body = Problem)))]
pub async fn ws_ticket(State(app): State<App>, who: Identity) -> impl IntoResponse {
    let ticket = app.auth.ticket(&who).await;
    (StatusCode::CREATED, Json(Ticket { ticket, expires_in: TICKET_LIFETIME.as_secs() }))
}

/// Where I am logged in.
#[utoipa::path(get, path = "/api/auth/logins", tag = "auth", params(LoginsQuery), responses(
    (status = 200, body = List<ListedLogin>), (status = 401, body = Problem), (status = 422, body = Problem)))]
pub async fn logins(
    State(app): State<App>,
    who: Identity,
    Params(query): Params<LoginsQuery>,
) -> Result<impl IntoResponse, Error> {
    let limit = Page { limit: query.limit }.limit()?;
    let before = id_mark(query.after.as_deref())?;
    let rows = app.store.logins().of_user(who.user_id, before, limit.with_one_more()).await?;
    let rows = rows.into_iter().map(|login| ListedLogin { current: login.id == who.login_id, login });
    Ok(Json(List::new(rows.collect(), limit, |row| pages::mark(row.login.id))))
}

/// Log out somewhere else.
#[utoipa::path(delete, path = "/api/auth/logins/{id}", tag = "auth", params(("id" = uuid::Uuid, Path)), responses(
    (status = 204), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub async fn end_login(
    State(app): State<App>,
    who: Identity,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let id = path_id(&id)?;
    let end = async move |app: App| {
        let revoked = app.store.logins().revoke(who.user_id, id).await?;
        if revoked != Revoked::Unknown {
            // Also when it had ended before: the word of it may have been lost.
            app.auth.revoked().add(&[id]).await;
        }
        Ok(revoked)
    };
    if app.finish("end of a login", end).await? != Revoked::Now {
        return Err(Error::not_found("you have no such login"));
    }
    Ok(app.databases.stamp(StatusCode::NO_CONTENT).await)
}

/// # Errors
/// The password was changed, or the account deleted, since it was compared.
async fn log_in(app: &App, who: Credentials, origin: &Origin) -> Result<LoggedIn, Error> {
    let (user, refresh) = (who.user, RefreshToken::new());
    let login_id = app
        .store
        .logins()
        .create(NewLogin {
            user_id: user.id,
            password_hash: &who.password_hash,
            token_hash: &refresh.hash,
            user_agent: &origin.user_agent,
            address: &origin.address,
            expires_at: refresh_end(app),
        })
        .await?;
    let Some(login_id) = login_id else {
        app.metrics.on_login("wrong");
        return Err(wrong());
    };
    let access_token = app.auth.issue(&user, login_id);
    Ok(LoggedIn { user, access_token, expires_in: ACCESS_LIFETIME.as_secs(), refresh_token: refresh.text })
}

fn refresh_end(app: &App) -> OffsetDateTime {
    OffsetDateTime::now_utc() + app.settings.auth.refresh_lifetime
}
