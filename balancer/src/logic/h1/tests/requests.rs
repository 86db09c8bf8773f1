//! Request heads: what is accepted, and what has been read in two ways somewhere and is refused.

use super::*;

#[test]
fn a_plain_request_keeps_order_and_case() {
    let text = "GET /a?b=c HTTP/1.1\r\nHOST: example.org\r\nx-Two:  2 \r\nX-One: 1\r\n\r\n";
    let head = accepted(text);
    let names: Vec<_> = head.fields.list.iter().map(|f| f.name.of(text.as_bytes())).collect();
    assert_eq!(names, [&b"HOST"[..], b"x-Two", b"X-One"]);
    assert_eq!(head.fields.list[1].value.of(text.as_bytes()), b"2");
    assert_eq!(head.target.path.of(text.as_bytes()), b"/a");
    assert_eq!(head.target.query.map(|q| q.of(text.as_bytes())), Some(&b"b=c"[..]));
    assert_eq!((head.framing, head.keep_alive, head.len), (Framing::None, true, text.len()));
}

#[test]
fn content_length_with_transfer_encoding_is_refused_in_either_order() {
    assert_eq!(
        refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
        400
    );
    assert_eq!(
        refused("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
        400
    );
}

#[test]
fn a_transfer_encoding_that_is_not_exactly_chunked_is_refused() {
    for value in [
        "gzip, chunked",
        "chunked, gzip",
        "chunked;x=1",
        "identity",
        "xchunked",
        "",
        "chunked,",
        "\u{b}chunked",
    ] {
        let status = refused(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {value}\r\n\r\n"));
        assert_eq!(status, 501, "{value:?}");
    }
    assert_eq!(
        refused(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
        ),
        400
    );
    assert_eq!(refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn a_content_length_that_is_not_one_number_is_refused() {
    for value in
        ["", "+5", "-1", "5, 5", "5 5", "0x5", "5;", "9223372036854775808", "18446744073709551621", "٣"]
    {
        assert_eq!(
            refused(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\n")),
            400,
            "{value:?}"
        );
    }
    assert_eq!(refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"), 400);
    let head = accepted("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n");
    assert_eq!(head.framing, Framing::Length(i64::MAX as u64));
}

#[test]
fn lines_that_readers_split_differently_are_refused() {
    let lines = [
        "X: a\r\n folded",
        " X: leading space",
        "X : space before colon",
        "X\t: tab before colon",
        ": empty name",
        "no colon at all",
        "X: a\0b",
        "X: a\rb",
        "X: a\r",
        "X\0: a",
        "X\u{7f}: a",
    ];
    for line in lines {
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n")), 400, "{line:?}");
    }
}

#[test]
fn a_bare_line_feed_ends_a_line_as_in_nginx() {
    let head = accepted("\r\n\nGET / HTTP/1.1\nHost: a\nX: b\n\n");
    assert_eq!(head.fields.list.len(), 2);
}

#[test]
fn the_host_is_named_once_and_soundly() {
    assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
    for host in [
        "a b", "a/b", "a@b", "a,b", "a..b", "a:b", "a:80:80", "[::1", "[]", "a\\b", "a#b", "a?b", "ä", "",
        ".", "a:65536", "x[::1]",
    ] {
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), 400, "{host:?}");
    }
    for host in ["a", "a.b.", "a:80", "[::1]:80", "1.2.3.4", "a_b", "a:", "[v1.a~]"] {
        accepted(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    accepted("GET / HTTP/1.0\r\n\r\n");
}

#[test]
fn request_lines_out_of_form_are_refused() {
    for (line, status) in [
        ("get / HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET HTTP/1.1", 400),
        ("GET", 400),
        ("-", 400),
        ("GET / HTTP/1.1 x", 400),
        ("GET / HTTP/1.1\r", 400),
        ("GET / HTTP/1.1 \r", 400),
        ("GET / HTTP/1.1\t", 400),
        ("GET / HTTP/1.1\x0c", 400),
        ("GET / \t", 400),
        ("GET /\r", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /\x01 HTTP/1.1", 400),
        ("GET a HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 400),
        ("GET http:///x HTTP/1.1", 400),
        ("GET http://u@h/x HTTP/1.1", 400),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/0.9", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/1.x", 400),
        ("GET / http/1.1", 400),
        ("POST /", 400),
        ("CONNECT a:443 HTTP/1.1", 405),
        ("CONNECT / HTTP/1.1", 400),
        ("CONNECT a HTTP/1.1", 400),
        ("TRACE / HTTP/1.1", 405),
        ("\x16\x03\x01\x02", 400),
    ] {
        assert_eq!(refused(&format!("{line}\r\nHost: a\r\n\r\n")), status, "{line:?}");
    }
}

#[test]
fn nothing_but_spaces_may_follow_the_version() {
    for byte in (0..128u8).filter(|byte| !byte.is_ascii_digit() && !b" \n".contains(byte)) {
        for after in ["", " "] {
            let line = format!("GET / HTTP/1.1{after}{}", char::from(byte));
            assert_eq!(refused(&format!("{line}\r\nHost: a\r\n\r\n")), 400, "{line:?}");
        }
    }
}

#[test]
fn versions_decide_on_keep_alive() {
    assert!(!accepted("GET / HTTP/1.0\r\n\r\n").keep_alive);
    assert!(accepted("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    assert!(!accepted("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n").keep_alive);
    assert!(accepted("GET / HTTP/1.9\r\nHost: a\r\n\r\n").keep_alive);
    assert_eq!(accepted("GET /\r\n").version, Version::Http09);
    assert_eq!(accepted("GET /  \r\n").version, Version::Http09);
    assert_eq!(accepted("GET /  HTTP/1.0  \r\n\r\n").version, Version::Http10);
}

#[test]
fn upgrade_counts_only_when_connection_names_it() {
    let with = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(accepted(with).upgrade.map(|span| span.of(with.as_bytes())), Some(&b"websocket"[..]));
    assert_eq!(accepted("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n").upgrade, None);
}

#[test]
fn expectations_but_100_continue_are_refused() {
    assert!(
        accepted("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n")
            .expects_continue
    );
    assert!(
        !accepted("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").expects_continue
    );
    assert_eq!(refused("POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-maybe\r\n\r\n"), 417);
}

#[test]
fn the_absolute_form_names_the_host() {
    let text = "GET http://example.org:81/p?q HTTP/1.1\r\nHost: other\r\n\r\n";
    let target = accepted(text).target;
    assert_eq!(target.authority.map(|span| span.of(text.as_bytes())), Some(&b"example.org:81"[..]));
    assert_eq!(target.origin_form().of(text.as_bytes()), b"/p?q");
    let bare = "GET http://example.org?q HTTP/1.1\r\nHost: other\r\n\r\n";
    assert!(accepted(bare).target.path.is_empty());
}

#[test]
fn a_fragment_is_cut_off() {
    for text in
        ["GET /p?q#f?x/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET http://h/p?q#f HTTP/1.1\r\nHost: a\r\n\r\n"]
    {
        assert_eq!(accepted(text).target.origin_form().of(text.as_bytes()), b"/p?q");
    }
}

#[test]
fn heads_and_lines_have_limits() {
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000));
    assert_eq!(
        RequestHead::default().parse(long_line.as_bytes(), &Limits::default()),
        Err(Refusal::RequestLineTooLong)
    );
    let unending = vec![b'A'; 9000];
    assert_eq!(RequestHead::default().parse(&unending, &Limits::default()), Err(Refusal::RequestLineTooLong));
    let long_field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(9000));
    assert_eq!(
        RequestHead::default().parse(long_field.as_bytes(), &Limits::default()),
        Err(Refusal::HeaderTooLarge)
    );
    let much =
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("X: {}\r\n", "a".repeat(8000)).repeat(5));
    assert_eq!(
        RequestHead::default().parse(much.as_bytes(), &Limits::default()),
        Err(Refusal::HeaderTooLarge)
    );
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(1000));
    assert_eq!(
        RequestHead::default().parse(many.as_bytes(), &Limits::default()),
        Err(Refusal::TooManyFields)
    );
}

#[test]
fn odd_names_are_left_out_as_nginx_does() {
    let head = accepted("GET / HTTP/1.1\r\nHost: a\r\nX_Real_IP: 1\r\nX.Y: 2\r\nX-Z: 3\r\n\r\n");
    assert_eq!(head.fields.list.len(), 2);
    let text = b"GET / HTTP/1.1\r\nHost: a\r\nX_Real_IP: 1\r\n\r\n";
    let mut head = RequestHead::default();
    assert_eq!(head.parse(text, &Limits { underscores: true, ..Limits::default() }), Ok(true));
    assert_eq!(head.fields.list.len(), 2);
}
