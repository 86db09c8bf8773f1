//! What can go wrong, and how clients are told: `application/problem+json` (RFC 9457). Never SQL, never a stack.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

type Text = Cow<'static, str>;

/// Everything that a handler may answer instead of a success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Unauthorized(Text),
    #[error("{0}")]
    Forbidden(Text),
    #[error("{0}")]
    NotFound(Text),
    #[error("{0}")]
    Conflict(Text),
    #[error("the body is longer than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{0}")]
    NotJson(Text),
    #[error("{}", .0.first().map_or("the request is not valid", |field| field.detail.as_ref()))]
    Unprocessable(Vec<FieldError>),
    #[error("the idempotency key was used before with another body; use a new key for a new message")]
    IdempotencyMismatch,
    #[error("too many tries; wait before the next one")]
    TooMany { retry_after: Duration },
    #[error("{0}")]
    Unavailable(Text),
    #[error("the request took longer than it may")]
    TimedOut,
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("{0}")]
    Internal(Text),
}

/// What is wrong with one field of a request.
#[derive(Debug, Clone, Serialize, PartialEq, Eq, ToSchema)]
pub struct FieldError {
    #[schema(value_type = String)]
    pub field: Text,
    #[schema(value_type = String)]
    pub detail: Text,
}

/// The body of every error.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: Text,
    #[schema(value_type = String)]
    pub title: Text,
    pub status: u16,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// Rides on a response until the outermost layer has added the request's id and path.
#[derive(Debug, Clone)]
pub struct Pending {
    pub problem: Problem,
    /// What the log says; clients do not see it.
    pub cause: Option<Arc<str>>,
}

impl Error {
    pub fn unauthorized(detail: impl Into<Text>) -> Self {
        Self::Unauthorized(detail.into())
    }

    pub fn forbidden(detail: impl Into<Text>) -> Self {
        Self::Forbidden(detail.into())
    }

    pub fn not_found(detail: impl Into<Text>) -> Self {
        Self::NotFound(detail.into())
    }

    pub fn unprocessable(field: impl Into<Text>, detail: impl Into<Text>) -> Self {
        Self::Unprocessable(vec![FieldError { field: field.into(), detail: detail.into() }])
    }

    /// All fields that are wrong at once, so that a form can show them.
    ///
    /// # Errors
    /// At least one check failed.
    pub fn unless_fit<const N: usize>(
        checks: [(&'static str, Result<(), &'static str>); N],
    ) -> Result<(), Self> {
        let wrong = checks.into_iter().filter_map(|(field, check)| {
            check.err().map(|detail| FieldError { field: field.into(), detail: detail.into() })
        });
        let wrong: Vec<FieldError> = wrong.collect();
        if wrong.is_empty() { Ok(()) } else { Err(Self::Unprocessable(wrong)) }
    }

    pub fn too_many(retry_after: Duration) -> Self {
        Self::TooMany { retry_after }
    }

    pub fn unavailable(detail: impl Into<Text>) -> Self {
        Self::Unavailable(detail.into())
    }

    pub fn internal(detail: impl Into<Text>) -> Self {
        Self::Internal(detail.into())
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable(_) | Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) | Self::TimedOut | Self::Redis(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(cause) if is_passing(cause) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(cause) if holds_nul(cause) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Database(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same may succeed a moment later or at another server.
    pub fn is_passing(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }

    /// How long a client should wait before it tries again; `None`: trying again will not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after } => Some(*retry_after),
            _ if self.is_passing() => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// The short name behind `type`, also the code of an error frame on a WebSocket.
    pub fn code(&self) -> &'static str {
        match self {
            Self::IdempotencyMismatch => "idempotency-mismatch",
            _ => code_of(self.status()),
        }
    }

    /// What a client may read about it.
    pub fn detail(&self) -> String {
        match self {
            Self::Database(cause) if is_passing(cause) => why_passing(cause).into(),
            Self::Database(cause) if holds_nul(cause) => "text must not hold NUL characters".into(),
            Self::Redis(_) => "a part of the service is away; try again".into(),
            Self::Database(_) | Self::Internal(_) => "an error of ours; it has been logged".into(),
            _ => self.to_string(),
        }
    }

    fn into_pending(self) -> Pending {
        let status = self.status();
        // To be busy, starting or draining is no fault: whoever decides so tells the log where that is worth a line.
        let faulty = status.is_server_error() && !matches!(self, Self::Unavailable(_));
        let cause = faulty.then(|| Arc::from(self.to_string()));
        let mut problem = problem_of(status, self.detail());
        problem.kind = kind_of(self.code());
        if let Self::Unprocessable(errors) = self {
            problem.errors = errors;
        }
        Pending { problem, cause }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        let retry_after = self.retry_after();
        let pending = self.into_pending();
        let mut response = render(&pending.problem);
        if let Some(wait) = retry_after {
            response.headers_mut().insert(RETRY_AFTER, whole_seconds(wait));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(pending);
        response
    }
}

/// A response that holds `problem` and nothing else.
pub fn render(problem: &Problem) -> Response {
    let body = serde_json::to_vec(problem).expect("a problem is plain data");
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind: (HeaderName, HeaderValue) =
        (CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    (status, [kind], body).into_response()
}

/// The problem of a status that nobody explained further.
pub fn problem_of(status: StatusCode, detail: String) -> Problem {
    Problem {
        kind: kind_of(code_of(status)),
        title: status.canonical_reason().unwrap_or("Error").into(),
        status: status.as_u16(),
        detail,
        instance: None,
        request_id: None,
        errors: Vec::new(),
    }
}

fn kind_of(code: &str) -> Text {
    format!("urn:arena:problem:{code}").into()
}

fn code_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not-found",
        405 => "method-not-allowed",
        409 => "conflict",
        413 => "too-large",
        415 => "not-json",
        422 => "unprocessable",
        426 => "upgrade-required",
        429 => "too-many",
        503 => "unavailable",
        400..=499 => "bad-request",
        _ => "internal",
    }
}

/// Rounded up: a client that comes back a moment early would be refused again.
fn whole_seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

/// Whether trying again may help: no connection to be had, a lost one, a statement that was cut off, a shutdown.
pub fn is_passing(cause: &sqlx::Error) -> bool {
    match cause {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
        sqlx::Error::Database(answer) => {
            answer.code().is_some_and(|code| {
                // Class 53: resources; 57: operator (cancel, shutdown); 40: serialization; 25006: read-only after a failover.
                ["53", "57", "40"].iter().any(|class| code.starts_with(class)) || code == "25006"
            }) || breaks_off(cause)
        }
        _ => breaks_off(cause),
    }
}

/// Whether the connection itself is lost, or leads to a server that is no primary any more: then so do its siblings.
pub fn breaks_off(cause: &sqlx::Error) -> bool {
    match cause {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Tls(_) => true,
        sqlx::Error::Database(answer) => {
            // Class 08: connection exceptions, of which a pooler tells too; 57P: the server ends or begins, or has ended
            // this session.
            answer.code().is_some_and(|code| {
                code.starts_with("08") || code.starts_with("57P") || code == "25006"
            })
            // Whoever passed it on may have given it a code of its own.
            || answer.message().starts_with("terminating connection due to")
        }
        _ => false,
    }
}

/// The one text that JSON and Rust know and Postgres cannot store: SQLSTATE 22021.
fn holds_nul(cause: &sqlx::Error) -> bool {
    cause.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() == Some("22021")
}

fn why_passing(cause: &sqlx::Error) -> &'static str {
    let code = cause.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match cause {
        sqlx::Error::PoolTimedOut => "no connection to the database came free in time; try again",
        _ if breaks_off(cause) => "the connection to the database broke off; try again",
        _ if code.as_deref() == Some("57014") => "the database did not answer in time; try again",
        _ if code.is_some_and(|code| code.starts_with("40")) => "others changed the same at once; try again",
        _ => "the database is too busy; try again",
    }
}

/// The answer of a route that does not exist.
pub async fn no_route() -> Error {
    Error::not_found("there is no such route; see /docs for those that exist")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_error_never_shows_its_text_to_clients() {
        let error = Error::Database(sqlx::Error::Protocol("SELECT secret".into()));
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let pending = error.into_pending();
        assert!(!serde_json::to_string(&pending.problem).unwrap().contains("secret"));
        assert!(pending.cause.unwrap().contains("secret"), "the log needs it");
    }

    #[test]
    fn what_may_pass_is_503_with_retry_after() {
        let response = Error::Database(sqlx::Error::PoolTimedOut).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }

    #[test]
    fn the_detail_tells_a_broken_connection_from_one_that_did_not_come() {
        let broken = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert!(Error::Database(sqlx::Error::Io(broken)).detail().contains("broke off"));
        assert!(Error::Database(sqlx::Error::PoolTimedOut).detail().contains("came free in time"));
    }

    #[derive(Debug)]
    struct Said(&'static str, &'static str);

    impl std::fmt::Display for Said {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str(self.1)
        }
    }

    impl std::error::Error for Said {}

    impl sqlx::error::DatabaseError for Said {
        fn message(&self) -> &str {
            self.1
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    #[test]
    fn a_lost_connection_is_known_by_its_code_or_by_its_text() {
        for (code, text, is_lost) in [
            ("57P01", "terminating connection due to administrator command", true),
            ("22023", "terminating connection due to administrator command", true),
            ("57P04", "the database was dropped", true),
            ("57P05", "terminating connection due to idle-session timeout", true),
            ("08P01", "server conn crashed?", true),
            ("08006", "connection failure", true),
            ("57014", "canceling statement due to statement timeout", false),
            ("22023", "invalid parameter value", false),
        ] {
            let cause = sqlx::Error::Database(Box::new(Said(code, text)));
            assert_eq!(breaks_off(&cause), is_lost, "{code} {text}");
            assert!(!is_lost || is_passing(&cause), "{code} {text}");
        }
    }

    #[test]
    fn a_field_error_names_the_field() {
        let pending = Error::unprocessable("username", "too short").into_pending();
        let json = serde_json::to_value(&pending.problem).unwrap();
        assert_eq!(json["type"], "urn:arena:problem:unprocessable");
        assert_eq!(json["title"], "Unprocessable Entity");
        assert_eq!(json["errors"][0]["field"], "username");
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), "2");
        assert_eq!(whole_seconds(Duration::from_secs(3)), "3");
    }
}
