//! What handlers take in: JSON bodies, query strings, paths and pages, with errors that name the field.

use std::net::{IpAddr, SocketAddr};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Query, Request};
use http::header::{CONTENT_TYPE, HeaderName, USER_AGENT};
use http::request::Parts;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::app::App;
use crate::error::Error;
use crate::logic::pages::{self, Limit};

/// The longest body. The longest content fits also where its client escapes every byte.
pub const BODY_LEN_MAX: usize = 128 * 1024;

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        if !is_json(&request) {
            return Err(Error::NotJson("send the body with Content-Type: application/json".into()));
        }
        let bytes =
            Bytes::from_request(request, app).await.map_err(|refused| match refused.status().as_u16() {
                413 => Error::TooLarge { limit: BODY_LEN_MAX },
                _ => Error::unprocessable("body", "it could not be read to its end"),
            })?;
        // All bodies are objects; serde would take an array too, field by field.
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(Error::unprocessable("body", "expected an object, not an array"));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|cause| json_error(&cause))
    }
}

fn is_json(request: &Request) -> bool {
    let Some(kind) = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// serde names the field between backticks; where it names none, the place is all there is. Its "expected struct Login"
/// names a type of ours, which means nothing to a client.
fn json_error(cause: &serde_json::Error) -> Error {
    let text = cause.to_string();
    let field = text.split('`').nth(1).filter(|_| text.contains(" field `")).unwrap_or("body").to_owned();
    Error::unprocessable(field, without_type_name(&text))
}

fn without_type_name(text: &str) -> String {
    for kind in ["struct ", "enum ", "unit variant ", "newtype struct ", "tuple struct "] {
        let Some((before, named)) = text.split_once(&format!("expected {kind}")) else { continue };
        let rest = named.find([' ', ',']).map_or("", |end| &named[end..]);
        let wanted = if kind == "struct " { "an object" } else { "another value" };
        return format!("{before}expected {wanted}{rest}");
    }
    text.to_owned()
}

/// The query string.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        match Query::<T>::from_request_parts(parts, app).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(refused) => Err(Error::unprocessable("query", refused.body_text())),
        }
    }
}

/// What stands in the path. What cannot be read names nothing that there is.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(found)) => Ok(Self(found)),
            Err(_) => Err(Error::not_found("nothing has such a name")),
        }
    }
}

/// `limit` of a list.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
pub struct Page {
    pub limit: Option<i64>,
}

impl Page {
    /// # Errors
    /// The limit is not from 1 to 100.
    pub fn limit(self) -> Result<Limit, Error> {
        Limit::new(self.limit).map_err(|detail| Error::unprocessable("limit", detail))
    }
}

/// Reads the opaque mark of a page that starts behind an id.
///
/// # Errors
/// It is not one of ours.
pub fn id_mark(mark: Option<&str>) -> Result<Option<Uuid>, Error> {
    let read = |mark| {
        pages::read_mark(mark).ok_or_else(|| {
            Error::unprocessable("after", "not a mark of ours; take it from `next` of the page before")
        })
    };
    mark.map(read).transpose()
}

/// A UUID in the path.
///
/// # Errors
/// Not a UUID: nothing of ours has such an id.
pub fn path_id(text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|_| Error::not_found("there is nothing with this id; ids are UUIDs"))
}

/// Where a request came from, for the list of logins and for limits.
pub struct Origin {
    pub address: String,
    pub user_agent: String,
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Longer ones are cut: nobody reads them.
const USER_AGENT_LEN_MAX: usize = 200;

impl FromRequestParts<App> for Origin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // The last one was added by the balancer; those before it may be the client's invention.
        let forwarded =
            text(FORWARDED_FOR).rsplit(',').next().and_then(|last| last.trim().parse::<IpAddr>().ok());
        let trusted = forwarded.filter(|_| app.settings.service.trust_forwarded);
        let address = trusted.or(peer).map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
        let user_agent = text(USER_AGENT).chars().take(USER_AGENT_LEN_MAX).collect();
        Ok(Self { address, user_agent })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[allow(dead_code, reason = "only its reading is tested")]
        count: u8,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        Plain,
    }

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[allow(dead_code, reason = "only its reading is tested")]
        inner: Inner,
        #[allow(dead_code, reason = "only its reading is tested")]
        kind: Kind,
    }

    #[test]
    fn no_answer_names_a_type_of_ours() {
        for body in [
            "[]",
            "1",
            r#""x""#,
            r#"{"inner": []}"#,
            r#"{"inner": 5}"#,
            r#"{"inner": {"count": -1}}"#,
            r#"{"inner": {"count": 1}, "kind": 7}"#,
            r#"{"inner": {"count": 1}, "kind": {"Plain": 1}}"#,
            "{",
        ] {
            let cause = serde_json::from_str::<Outer>(body).unwrap_err();
            let detail = json_error(&cause).to_string();
            assert!(["Outer", "Inner", "Kind"].iter().all(|name| !detail.contains(name)), "{body}: {detail}");
            assert!(!detail.is_empty());
        }
        assert_eq!(Kind::Plain as u8, 0);
    }
}
