//! Every route on one page; below it the order of the layers.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use http::{Request, Uri};
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;

use crate::api::{auth, docs, members, messages, sessions, users};
use crate::app::App;
use crate::limits::Bulkhead;
use crate::monitoring::{admin, connections, health, queries, status, totals};
use crate::{chat, error, extract, layers, stream, ui};

/// What people and programs do: counted per client.
fn api() -> Router<App> {
    Router::new()
        // Authentication
        .route("/api/auth/register", post(auth::register))
        .route("/api/auth/login", post(auth::login))
        .route("/api/auth/refresh", post(auth::refresh))
        .route("/api/auth/logout", post(auth::logout))
        .route("/api/auth/ws-ticket", post(auth::ws_ticket))
        .route("/api/auth/logins", get(auth::logins))
        .route("/api/auth/logins/{id}", delete(auth::end_login))
        // Users
        .route("/api/users", get(users::list))
        .route("/api/users/me", get(users::me).patch(users::change).delete(users::remove))
        .route("/api/users/me/password", post(users::password))
        // Sessions
        .route("/api/sessions", get(sessions::list).post(sessions::create))
        .route("/api/sessions/{id}", get(sessions::get).patch(sessions::change).delete(sessions::remove))
        .route("/api/sessions/{id}/join", post(members::join))
        .route("/api/sessions/{id}/members", get(members::list).post(members::add))
        .route("/api/sessions/{id}/members/{user_id}", delete(members::remove))
        .route("/api/sessions/{id}/messages", get(messages::list).post(messages::create))
}

/// Answers that last; each keeps its place among the streams to its end.
fn streams() -> Router<App> {
    Router::new()
        .route("/messages/stream", post(stream::ask))
        .route("/messages/stream/{stream_id}", get(stream::resume))
        .route("/api/messages/stream", post(stream::ask))
        .route("/api/messages/stream/{stream_id}", get(stream::resume))
}

/// What operators ask, and what may be expensive; counted per client too.
fn admin() -> Router<App> {
    Router::new()
        .route("/api/admin/monitoring/connections/health", get(admin::health))
        .route("/api/admin/monitoring/connections/pool", get(admin::pool))
        .route("/api/admin/monitoring/connections/alerts", get(admin::alerts))
        .route("/api/admin/monitoring/database/slow-queries", get(queries::slow))
        .route("/api/v1/monitoring/slow-queries", get(queries::slow))
        .route("/api/v1/monitoring/pool-stats", get(admin::pool_stats))
        .route("/api/v1/monitoring/analyze-query", post(queries::analyze))
        .route("/api/v1/monitoring/admin/metrics", get(totals::totals))
}

/// What checks and load tests ask as fast as they can: not counted per client, for those who ask at once share a look.
fn looks() -> Router<App> {
    Router::new()
        .route("/status", get(status::status))
        .route("/db/connections", get(connections::connections))
}

/// What must answer however full the rest is.
fn always() -> Router<App> {
    Router::new()
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/ws/chat/session/{id}", get(chat::socket::upgrade))
}

/// The whole service.
pub fn router(app: App) -> Router {
    // The last layer is the outermost: an answer passes place, rate, time, body, panic, cors, count, dress.
    let cors = layers::cors(&app.settings.service.cors_origins);
    let with = |bulkhead: &Bulkhead| from_fn_with_state(bulkhead.clone(), layers::take_place);
    let bulkheads = &app.limits.bulkheads;
    let per_client = from_fn_with_state(app.clone(), layers::limit_rate);
    api()
        .layer(with(&bulkheads.api))
        .merge(streams())
        .merge(admin().layer(with(&bulkheads.admin)))
        .layer(per_client)
        .merge(looks().layer(with(&bulkheads.admin)))
        .merge(always())
        .merge(docs::routes())
        .merge(ui::routes())
        .fallback(error::no_route)
        .layer(from_fn_with_state(app.clone(), layers::limit_time))
        .layer(DefaultBodyLimit::max(extract::BODY_LEN_MAX))
        .layer(CatchPanicLayer::custom(layers::on_panic))
        .layer(option_layer(cors))
        .layer(from_fn_with_state(app.clone(), layers::count))
        .layer(from_fn_with_state(app.clone(), layers::dress))
        .with_state(app)
}

/// With and without a trailing slash is the same route: the slash is taken off before the router looks.
pub fn without_trailing_slash<B>(mut request: Request<B>) -> Request<B> {
    let path = request.uri().path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || trimmed.is_empty() {
        return request;
    }
    let target = match request.uri().query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    if let Ok(uri) = target.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trailing_slashes_are_taken_off() {
        for (given, wanted) in [
            ("/status/", "/status"),
            ("/ws/chat/session/x/?token=a/b/", "/ws/chat/session/x?token=a/b/"),
            ("/", "/"),
            ("//", "//"),
            ("/a//", "/a"),
            ("/a/b", "/a/b"),
        ] {
            let request = Request::builder().uri(given).body(()).unwrap();
            assert_eq!(without_trailing_slash(request).uri(), wanted, "{given}");
        }
    }
}
