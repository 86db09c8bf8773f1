//! The consistency token on the wire: a header and a cookie, out with a write and in with a read.

use axum::response::{IntoResponse, Response};
use http::header::{COOKIE, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::error::Error;
use crate::logic::watermark::{TokenKeys, Watermark};

pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-consistency-token");
const TOKEN_COOKIE: &str = "consistency";
/// A standby that lags for longer than this has other troubles; by then the token can go.
const TOKEN_COOKIE_AGE_S: u32 = 3600;

/// Adds a token to the answer of a write.
pub fn stamped(answer: impl IntoResponse, token: Option<&str>) -> Response {
    let mut response = answer.into_response();
    if let Some(token) = token {
        let cookie =
            format!("{TOKEN_COOKIE}={token}; Path=/; Max-Age={TOKEN_COOKIE_AGE_S}; HttpOnly; SameSite=Lax");
        let headers = response.headers_mut();
        headers.insert(TOKEN_HEADER, HeaderValue::from_str(token).expect("base64url is a header value"));
        headers.append(SET_COOKIE, HeaderValue::from_str(&cookie).expect("a cookie is a header value"));
    }
    response
}

/// What the read must see: the newer of header and cookie.
///
/// # Errors
/// The header's token is not one of ours.
pub fn needed(headers: &HeaderMap, keys: &TokenKeys) -> Result<Option<Watermark>, Error> {
    let by_header = headers.get(TOKEN_HEADER).map(|value| {
        let token = value.to_str().unwrap_or_default();
        keys.read(token).ok_or_else(|| {
            Error::unprocessable("X-Consistency-Token", "not one of ours; send the one of your last write")
        })
    });
    // A cookie outlives the key that signed it; nobody can mend it by hand.
    let by_cookie = cookie(headers).and_then(|token| keys.read(token));
    Ok(by_header.transpose()?.max(by_cookie))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(TOKEN_COOKIE)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::watermark::Lsn;

    #[test]
    fn of_header_and_cookie_the_newer_counts() {
        let keys = TokenKeys::new(vec![b"key".to_vec()]);
        let mark = |timeline, lsn| Watermark { timeline, lsn: Lsn(lsn) };
        let asked = |header: Option<Watermark>, cookie: Option<Watermark>| {
            let mut headers = HeaderMap::new();
            if let Some(mark) = header {
                headers.insert(TOKEN_HEADER, keys.token(mark).parse().unwrap());
            }
            if let Some(mark) = cookie {
                let line = format!("a=b; consistency={}; c", keys.token(mark));
                headers.insert(COOKIE, line.parse().unwrap());
            }
            needed(&headers, &keys).unwrap()
        };
        assert_eq!(asked(None, None), None);
        assert_eq!(asked(Some(mark(1, 5)), Some(mark(1, 9))), Some(mark(1, 9)));
        assert_eq!(asked(Some(mark(2, 5)), Some(mark(1, 9))), Some(mark(2, 5)));
        let mut foreign = HeaderMap::new();
        foreign.insert(COOKIE, "consistency=of-an-old-key".parse().unwrap());
        assert_eq!(needed(&foreign, &keys).unwrap(), None);
        foreign.insert(TOKEN_HEADER, "invented".parse().unwrap());
        assert!(needed(&foreign, &keys).is_err());
    }
}
