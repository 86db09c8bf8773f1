//! HTTP/2's messages as those of HTTP/1.1 and back: what lets one relay serve both. A request or answer that came over
//! HTTP/2 is read through the same strict codec (`h1`) as any other, so nothing gets past it by changing versions.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};

use super::h1::{Fields, Known, RequestHead, ResponseHead, write};

/// How a body of unknown length is told to end.
const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n";

/// The head of a client's request. `has_body`: the request does not end with its head.
pub fn request_head(request: &Request<()>, has_body: bool, out: &mut Vec<u8>) {
    let uri = request.uri();
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    match uri.path_and_query() {
        Some(target) if request.method() != Method::CONNECT => {
            out.extend_from_slice(target.as_str().as_bytes());
        }
        _ => out.extend_from_slice(uri.authority().map_or("", |authority| authority.as_str()).as_bytes()),
    }
    out.extend_from_slice(b" HTTP/2.0\r\n");
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority {
        write::field(out, b"host", authority);
    }
    let mut cookies: Vec<&[u8]> = Vec::new();
    for (name, value) in request.headers() {
        match name.as_str() {
            // Said twice in different words it is refused below, as two Host headers are.
            "host" if authority == Some(value.as_bytes()) => {}
            // Split for the sake of compression (RFC 9113, section 8.2.3).
            "cookie" => cookies.push(value.as_bytes()),
            name => write::field(out, name.as_bytes(), value.as_bytes()),
        }
    }
    if !cookies.is_empty() {
        write::field(out, b"cookie", &cookies.join(&b"; "[..]));
    }
    if has_body && !request.headers().contains_key("content-length") {
        out.extend_from_slice(CHUNKED);
    }
    out.extend_from_slice(b"\r\n");
}

/// The head of an answer, parsed out of `text`. `None`: its status is none.
pub fn response(head: &ResponseHead, text: &[u8]) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.version_mut() = Version::HTTP_2;
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    *response.headers_mut() = headers(&head.fields, text);
    Some(response)
}

/// What follows the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Follows,
    /// None came where one could have.
    Empty,
    /// HEAD, 1xx, 204, 304: a length in the head tells of something else.
    Never,
}

/// The head of an upstream's answer.
pub fn response_head(response: &Response<()>, body: Body, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write::decimal(out, u64::from(response.status().as_u16()));
    out.push(b' ');
    out.extend_from_slice(response.status().canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    lines(response.headers(), out);
    match (body, response.headers().contains_key("content-length")) {
        (Body::Never, _) | (_, true) => {}
        (Body::Follows, false) => out.extend_from_slice(CHUNKED),
        (Body::Empty, false) => write::content_length(out, 0),
    }
    out.extend_from_slice(b"\r\n");
}

/// The head of a request to an upstream, parsed out of `text`.
pub fn request(head: &RequestHead, text: &[u8], scheme: &str) -> Option<Request<()>> {
    let host = head.host.map_or(&b""[..], |host| host.of(text));
    let target = head.target_span.of(text);
    let target = PathAndQuery::try_from(target).or_else(|_| PathAndQuery::try_from(escaped(target))).ok()?;
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(target).build().ok()?;
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(head.method_span.of(text)).ok()?;
    *request.uri_mut() = uri;
    let mut fields = headers(&head.fields, text);
    fields.remove("host");
    if head.accepts_trailers {
        fields.insert("te", HeaderValue::from_static("trailers"));
    }
    *request.headers_mut() = fields;
    Some(request)
}

/// What the `http` crate takes for no part of a target, said in escapes: an origin reads the same.
fn escaped(target: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(target.len() * 3);
    for &byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'`' | 0x80.. => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out
}

/// Fields that may stand in HTTP/2: those of the hop are told by frames there.
fn headers(fields: &Fields, text: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.list.len());
    for field in &fields.list {
        let is_of_hop = matches!(
            field.known,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::Te
                | Known::Http2Settings
        );
        if !is_of_hop {
            append(&mut map, field.name.of(text), field.value.of(text));
        }
    }
    map
}

/// What HTTP/2 cannot say is left out: a control character in a value is a peer's attempt at something.
fn append(map: &mut HeaderMap, name: &[u8], value: &[u8]) {
    let parsed = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
    if let Some((name, value)) = parsed {
        // Full only at 32,768 fields, far above what a head may have.
        let _ = map.try_append(name, value);
    }
}

/// Trailer lines as the codec gives them, each with its CRLF.
pub fn trailers(text: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(colon) = line.iter().position(|byte| *byte == b':') {
            append(&mut map, &line[..colon], line[colon + 1..].trim_ascii());
        }
    }
    map
}

/// Lines, each with CRLF.
pub fn lines(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        write::field(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::h1::{Framing, Limits};
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &[u8]) -> Result<RequestHead, crate::logic::h1::Refusal> {
        let mut head = RequestHead::default();
        let limits = Limits { version_max: crate::logic::h1::Version::Http2, ..Limits::default() };
        assert!(head.parse(text, &limits)?, "whole");
        Ok(head)
    }

    fn text(request: &Request<()>, has_body: bool) -> Vec<u8> {
        let mut out = Vec::new();
        request_head(request, has_body, &mut out);
        out
    }

    #[test]
    fn a_request_becomes_lines_with_its_host_first_and_its_cookies_joined() {
        let request = Request::post("https://a.test:8443/x?y=1")
            .header("cookie", "a=1")
            .header("x", "1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        let text = text(&request, true);
        assert_eq!(
            String::from_utf8_lossy(&text),
            "POST /x?y=1 HTTP/2.0\r\nhost: a.test:8443\r\nx: 1\r\ncookie: a=1; b=2\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        assert_eq!(parsed(&text).unwrap().framing, Framing::Chunked);
    }

    #[test]
    fn two_hosts_that_differ_are_refused_and_the_same_said_twice_is_one() {
        let with = |host: &str| Request::get("https://a.test/").header("host", host).body(()).unwrap();
        assert!(parsed(&text(&with("b.test"), false)).is_err());
        assert!(parsed(&text(&with("a.test"), false)).is_ok());
        let mut none = Request::new(());
        *none.uri_mut() = Uri::from_static("/");
        assert!(parsed(&text(&none, false)).is_err(), "no host at all");
    }

    #[test]
    fn every_target_that_a_client_may_send_can_be_said_to_an_upstream() {
        for byte in (0x21..=0xffu8).filter(|byte| !matches!(byte, b'#' | 0x7f)) {
            for target in [vec![b'/', byte], vec![b'/', b'?', byte], [b"/\xc3\xa4", &[byte][..]].concat()] {
                let text = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
                let said = request(&parsed(&text).unwrap(), &text, "http").expect("words for it");
                let said = said.uri().path_and_query().unwrap().as_str().as_bytes();
                let mut read = Vec::new();
                match said {
                    said if said == target => continue,
                    _ if target[1] == b'?' => assert_eq!(said, format!("/?%{byte:02X}").as_bytes()),
                    said => super::super::h1::target::normalise(said, false, &mut read).unwrap(),
                }
                assert!(target[1] == b'?' || read == target, "{target:?}");
            }
        }
    }

    proptest! {
        /// Nothing that HTTP/2 can say ends a line early: what comes out is one head, with as many fields.
        #[test]
        fn no_value_makes_a_line_of_its_own(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8)) {
            let mut request = Request::get("https://a.test/").body(()).unwrap();
            for value in values {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    request.headers_mut().append("x-field", value);
                }
            }
            let fields = request.headers().len();
            let text = text(&request, false);
            if let Ok(head) = parsed(&text) {
                prop_assert_eq!(head.len, text.len());
                prop_assert_eq!(head.fields.list.len(), fields + 1);
            }
        }

        /// An answer's head survives the way to HTTP/2 and back, less what is the hop's.
        #[test]
        fn an_answer_comes_back_as_it_was(status in 200u16..600, values in prop::collection::vec("[ -~]{0,20}", 0..8)) {
            let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n");
            for value in &values {
                text.push_str(&format!("X-Field: {}\r\n", value.trim()));
            }
            text.push_str("\r\n");
            let mut head = ResponseHead::default();
            prop_assert!(head.parse(text.as_bytes(), 8192).unwrap());
            let there = response(&head, text.as_bytes()).unwrap();
            prop_assert_eq!(there.status().as_u16(), status);
            prop_assert_eq!(there.headers().get_all("x-field").iter().count(), values.len());
            prop_assert_eq!(there.headers().len(), values.len());
        }
    }
}
