//! What every request passes: its id, the name of this replica, limits of time, counting, and problems made whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName,
    ORIGIN, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use crate::app::App;
use crate::auth::Identity;
use crate::error::{self, Error, Pending};
use crate::extract::Origin;
use crate::limits::Bulkhead;
use crate::replicas::{READ_FROM_HEADER, TOKEN_HEADER};
use crate::settings::Service;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const REQUEST_ID_LEN_MAX: usize = 128;
/// For answers that are no pages: whoever shows them as one gets nothing out of it.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";
/// How long a browser need not ask again whether it may.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// The id of the request that is being answered.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// The outermost layer: every answer leaves through it, and what is logged on the way bears the request's id.
pub async fn dress(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = RequestId(request_id(request.headers()));
    let span = span_of(&id, request.headers());
    request.extensions_mut().insert(id.clone());
    dressed(app, id, request, next).instrument(span).await
}

/// Of the highest level, so that there is none at which lines are written without it. It holds no more than ids: the
/// target of a WebSocket's request has a token in it.
fn span_of(id: &RequestId, headers: &HeaderMap) -> Span {
    tracing::error_span!("request", request_id = %id.0, trace_id = trace_id(headers))
}

async fn dressed(app: App, id: RequestId, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = match is_allowed_host(&app.settings.service, &request) {
        true => next.run(request).await,
        false => Error::unprocessable("Host", "this host name is not served here; see ALLOWED_HOSTS")
            .into_response(),
    };
    let mut response = whole_problem(&app, response, &id, &path).await;
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, HeaderValue::from_str(&id.0).expect("the id was checked or made here"));
    if let Ok(name) = HeaderValue::from_str(&app.served_by) {
        headers.insert(SERVED_BY, name);
    }
    headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(REFERRER_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(NO_PAGE));
    headers.entry(X_FRAME_OPTIONS).or_insert(HeaderValue::from_static("DENY"));
    if path.starts_with("/api/auth/") {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    // Connections that the balancer keeps end with their next answer, so that none is cut when the listener closes.
    if app.life.is_draining() && !upgraded {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Counts and times the request under its route's template; runs inside the router, where that is known.
pub async fn count(
    State(app): State<App>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let method = request.method().as_str().to_owned();
    app.metrics.in_flight.inc();
    let _in_flight = InFlight(&app);
    let response = next.run(request).await;
    let route = path.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics.on_answer(&method, route, response.status().as_u16(), began.elapsed());
    response
}

/// Counts the request for its client: the user, or the address where nobody has logged in yet.
pub async fn limit_rate(
    State(app): State<App>,
    identity: Result<Identity, Error>,
    origin: Origin,
    mut request: Request,
    next: Next,
) -> Response {
    let client = match &identity {
        Ok(identity) => identity.user_id.to_string(),
        Err(_) => format!("at {}", origin.address),
    };
    let counted = app.limits.api.count(&client).await;
    if let Ok(identity) = identity {
        // The handler need not check the token again.
        request.extensions_mut().insert(identity);
    }
    let mut response = match counted.map_or(Ok(()), |counted| counted.admit()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    if let Some(counted) = counted {
        counted.tell(response.headers_mut());
    }
    response
}

/// Lets as many requests of a kind at once as it has places.
pub async fn take_place(State(bulkhead): State<Bulkhead>, request: Request, next: Next) -> Response {
    match bulkhead.enter().await {
        Ok(_place) => next.run(request).await,
        Err(crowded) => crowded.into_response(),
    }
}

/// Ends requests whose answer does not begin in time; how long a stream or a socket then lasts is up to it.
pub async fn limit_time(State(app): State<App>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.settings.service.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Error::TimedOut.into_response(),
    }
}

/// Counted down however the request ends, also when its client goes away.
struct InFlight<'a>(&'a App);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}

/// A sane id of the client is taken over, so that its logs and ours meet.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if (1..=REQUEST_ID_LEN_MAX).contains(&id.len()) && id.bytes().all(plain) => id.into(),
        _ => Uuid::now_v7().to_string().into(),
    }
}

/// Of the W3C's `traceparent`, which the balancer has checked or made, so that our log meets the client's trace.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("traceparent")?.to_str().ok()?.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(id)
}

/// Health checks come by address and are let through.
fn is_allowed_host(service: &Service, request: &Request) -> bool {
    if request.uri().path().starts_with("/health") {
        return true;
    }
    let named = request.headers().get(HOST).and_then(|value| value.to_str().ok());
    is_allowed(&service.allowed_hosts, named.or(request.uri().host()).unwrap_or_default())
}

/// Whether a page of the `Origin` may open a WebSocket, which no CORS rule of a browser forbids. Programs send none.
pub fn is_allowed_origin(service: &Service, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN).map(|value| value.to_str().unwrap_or_default()) else {
        return true;
    };
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    service.cors_origins.iter().any(|allowed| allowed == origin || allowed == "*")
        || is_allowed(&service.allowed_hosts, host)
}

/// Whether a host name, with or without port, is one of `ALLOWED_HOSTS`.
fn is_allowed(allowed: &[String], host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.to_ascii_lowercase();
    // As in Django: `.example.com` allows the domain and everything below it.
    allowed.iter().any(|pattern| match pattern.strip_prefix('.') {
        Some(domain) => name == domain || name.ends_with(pattern.as_str()),
        None => pattern == "*" || name == *pattern,
    })
}

/// Lets pages of other origins use the API; `None` where no origin is named.
pub fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let any = origins.iter().any(|origin| origin == "*");
    let named = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let allowed = if any { AllowOrigin::any() } else { AllowOrigin::list(named) };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
            REQUEST_ID,
            TOKEN_HEADER,
        ])
        .expose_headers([
            RETRY_AFTER,
            HeaderName::from_static("idempotency-replayed"),
            READ_FROM_HEADER,
            REQUEST_ID,
            SERVED_BY,
            TOKEN_HEADER,
        ])
        .max_age(PREFLIGHT_AGE);
    Some(layer)
}

/// Adds what only this layer knows to a problem, makes one of a bare error, and logs what is our fault, once.
async fn whole_problem(app: &App, mut response: Response, id: &RequestId, path: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let pending = match response.extensions_mut().remove::<Pending>() {
        Some(pending) => pending,
        None if is_body_of_ours(&response) => return response,
        None => Pending { problem: error::problem_of(status, bare_detail(status)), cause: None },
    };
    let mut problem = pending.problem;
    if let Some(cause) = &pending.cause {
        tracing::error!(path, status = status.as_u16(), %cause, "{path} failed: {cause}");
        if app.settings.service.debug {
            problem.detail = cause.to_string();
        }
    }
    problem.instance = Some(path.to_owned());
    problem.request_id = Some(id.0.to_string());
    let mut whole = error::render(&problem);
    for (name, value) in response.headers() {
        if name != CONTENT_TYPE && name != http::header::CONTENT_LENGTH {
            whole.headers_mut().append(name, value.clone());
        }
    }
    whole
}

/// A handler that answers an error status with JSON of its own, such as `/health`, meant it.
fn is_body_of_ours(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/json")
}

fn bare_detail(status: StatusCode) -> String {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => "this route does not take this method; see the Allow header".into(),
        StatusCode::INTERNAL_SERVER_ERROR => "an error of ours; it has been logged".into(),
        _ => format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("error")),
    }
}

/// The answer in place of a handler that panicked.
pub fn on_panic(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::internal(format!("a handler panicked: {text}")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(given: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(id) = given {
            headers.insert(REQUEST_ID, HeaderValue::from_str(id).unwrap());
        }
        request_id(&headers).to_string()
    }

    #[test]
    fn a_trace_is_known_by_the_id_in_the_middle() {
        let id_of = |text: &'static str| {
            let headers = HeaderMap::from_iter([(
                HeaderName::from_static("traceparent"),
                HeaderValue::from_static(text),
            )]);
            trace_id(&headers).map(str::to_owned)
        };
        let known = id_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        assert_eq!(known.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!((id_of("00-0af76519-b7ad-01"), id_of("no trace")), (None, None));
    }

    #[test]
    fn hosts_are_allowed_by_name_by_domain_or_all() {
        let allowed = |patterns: &[&str], host: &str| {
            is_allowed(&patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), host)
        };
        assert!(allowed(&["*"], "anything:8080"));
        assert!(allowed(&["arena.example"], "Arena.Example:443"));
        assert!(allowed(&[".example"], "a.b.example") && allowed(&[".example"], "example"));
        assert!(!allowed(&[".example"], "evilexample") && !allowed(&["arena.example"], "arena.example.evil"));
        assert!(!allowed(&[], "arena.example"));
    }

    #[test]
    fn a_sane_request_id_is_taken_over_and_another_is_replaced() {
        assert_eq!(id_of(Some("abc-1.2")), "abc-1.2");
        assert_eq!(Uuid::parse_str(&id_of(Some("a b<c>"))).unwrap().get_version_num(), 7);
        assert_eq!(Uuid::parse_str(&id_of(Some(&"x".repeat(200)))).unwrap().get_version_num(), 7);
        assert_eq!(Uuid::parse_str(&id_of(None)).unwrap().get_version_num(), 7);
    }
}
