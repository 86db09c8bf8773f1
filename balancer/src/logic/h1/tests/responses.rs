//! Response heads: where the body of an answer ends, and which answers nobody may guess at.

use super::*;

fn response(text: &[u8]) -> Result<ResponseHead, BadResponse> {
    let mut whole = ResponseHead::default();
    let at_once = whole.parse(text, 4096);
    let mut split = ResponseHead::default();
    let in_pieces = (0..=text.len()).map(|end| split.parse(&text[..end], 4096)).find(|r| *r != Ok(false));
    assert_eq!(at_once, in_pieces.unwrap_or(Ok(false)), "{}", String::from_utf8_lossy(text));
    at_once.map(|complete| {
        assert!(complete, "{}", String::from_utf8_lossy(text));
        whole
    })
}

#[test]
fn answers_tell_where_their_body_ends() {
    let head = response(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").expect("valid");
    assert_eq!((head.status, head.framing(Method::Get), head.keep_alive), (200, Framing::Length(5), true));
    assert_eq!(head.framing(Method::Head), Framing::None);
    let head = response(b"HTTP/1.0 200\r\n\r\n").expect("valid");
    assert_eq!((head.framing(Method::Get), head.keep_alive), (Framing::UntilClose, false));
    for status in [204, 304, 101] {
        let head =
            response(format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n").as_bytes()).expect("valid");
        assert_eq!(head.framing(Method::Get), Framing::None);
        assert_eq!(head.content_length, Some(5));
    }
    let head = response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n")
        .expect("valid");
    assert_eq!((head.framing(Method::Get), head.keep_alive), (Framing::Chunked, false));
}

#[test]
fn answers_that_could_be_read_in_two_ways_are_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n",
        "HTTP/1.1 99 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "<html>\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\n\r\n",
    ] {
        assert!(response(text.as_bytes()).is_err(), "{text:?}");
    }
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(5000));
    assert_eq!(ResponseHead::default().parse(large.as_bytes(), 4096), Err(BadResponse::TooLarge));
}
