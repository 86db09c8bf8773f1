//! Generated requests of every kind that some server has once read in two ways.

use crate::random::Random;
use crate::requests::{
    Case, Expect, Head, METHODS_BODY, Make, absolute_form, extra, hop_headers, plain, smuggled_id,
};

pub const HOSTILE: &[Make] = &[
    length_and_encoding,
    bad_length,
    bad_encoding,
    bad_line,
    bad_chunks,
    bad_host,
    bad_request_line,
    too_large,
    odd_names,
    bare_line_feeds,
    trailers,
    smuggling,
    mutated,
];

/// A whole request that must never be taken for one.
fn hidden(number: u64) -> String {
    format!("GET /smuggled?id={} HTTP/1.1\r\nHost: corpus\r\n\r\n", smuggled_id(number))
}

fn length_and_encoding(random: &mut Random, number: u64) -> Case {
    let body = format!("0\r\n\r\n{}", hidden(number));
    let length = format!("Content-Length: {}", random.pick(&[&0, &5, &body.len()]));
    let (first, second) = match random.once_in(2) {
        true => (length.as_str(), "Transfer-Encoding: chunked"),
        false => ("Transfer-Encoding: chunked", length.as_str()),
    };
    let head = extra(Head::usual("POST", number).line(first.as_bytes()), random).line(second.as_bytes());
    head.case("CL and TE", Expect::Refused, body.as_bytes())
}

fn bad_length(random: &mut Random, number: u64) -> Case {
    let lines = [
        "Content-Length:",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5, 5",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: 5;",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 0\r\ncontent-length: 5",
        "Content-Length: 9223372036854775808",
        "Content-Length: 18446744073709551621",
        "Content-Length: 5.0",
        "Content-Length: \u{b}5",
        "Content-Length: ٥",
        "Content-Length: 5\u{a0}",
    ];
    let head = Head::usual("POST", number).line(random.pick(&lines).as_bytes());
    extra(head, random).case("bad Content-Length", Expect::Refused, b"hello")
}

fn bad_encoding(random: &mut Random, number: u64) -> Case {
    let lines = [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunked;x=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked\u{c}",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    ];
    let head = match random.once_in(10) {
        true => Head::new("POST", &format!("/v?id={number}"), "HTTP/1.0").line(b"Transfer-Encoding: chunked"),
        false => Head::usual("POST", number).line(random.pick(&lines).as_bytes()),
    };
    let body = format!("0\r\n\r\n{}", hidden(number));
    extra(head, random).case("bad Transfer-Encoding", Expect::Refused, body.as_bytes())
}

fn bad_line(random: &mut Random, number: u64) -> Case {
    let lines: &[&[u8]] = &[
        b"X : a",
        b"X\t: a",
        b"Content-Length : 5",
        b"Transfer-Encoding : chunked",
        b" X: a",
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"Transfer-Encoding:\r\n chunked",
        b": a",
        b"no colon",
        b"X: a\0b",
        b"X: a\rb",
        b"X: a\r",
        b"X\0: a",
        b"X\r: a",
        b"X\x7f: a",
        b"X: a\r\rContent-Length: 5",
        b"Content-Length\0: 5",
    ];
    let head = extra(Head::usual("GET", number), random).line(random.pick(lines));
    head.case("bad header line", Expect::Refused, b"")
}

fn bad_chunks(random: &mut Random, number: u64) -> Case {
    let bodies = [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhellohello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5;a=\n\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: 1\n\r\n",
        "5\r\nhello\r\n0\r\n: 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n",
    ];
    let head = Head::usual("POST", number).line(b"Transfer-Encoding: chunked");
    let body = format!("{}{}", random.pick(&bodies), hidden(number));
    extra(head, random).case("bad chunks", Expect::BrokenBody, body.as_bytes())
}

fn bad_host(random: &mut Random, number: u64) -> Case {
    let lines = [
        "X-No-Host: 1",
        "Host: a\r\nHost: a",
        "Host: a\r\nhost: b",
        "Host:",
        "Host: a b",
        "Host: a/b",
        "Host: a@b",
        "Host: a,b",
        "Host: a..b",
        "Host: a:b",
        "Host: a:80:80",
        "Host: [::1",
        "Host: a\\b",
        "Host: a#b",
        "Host: a?b",
        "Host: a:65536",
        "Host: \u{e4}",
    ];
    let head = Head::new("GET", &format!("/v?id={number}"), "HTTP/1.1").line(random.pick(&lines).as_bytes());
    extra(head, random).case("bad Host", Expect::Refused, b"")
}

fn bad_request_line(random: &mut Random, number: u64) -> Case {
    let lines = [
        "get /v?id=N HTTP/1.1",
        " GET /v?id=N HTTP/1.1",
        "GET\t/v?id=N HTTP/1.1",
        "GET /v?id=N HTTP/1.1 x",
        "GET /v a?id=N HTTP/1.1",
        "GET v?id=N HTTP/1.1",
        "GET http:///v?id=N HTTP/1.1",
        "GET http://u@h/v?id=N HTTP/1.1",
        "GET /v?id=N HTTP/2.0",
        "GET /v?id=N HTTP/11.1",
        "GET /v?id=N http/1.1",
        "GET /v?id=N HTTP/1",
        "GET /v?id=N HTTP/1.x",
        "GET /v?id=N HTTP/1.1\rX",
        "GET /v?id=N HTTP/1.1\r",
        "GET /v?id=N HTTP/1.1\t",
        "GET /v?id=N HTTP/1.1\u{c}",
        "GET /v\0?id=N HTTP/1.1",
        "GET /v\u{1}?id=N HTTP/1.1",
        "G\0ET /v?id=N HTTP/1.1",
        "GET /../v?id=N HTTP/1.1",
        "GET /a/../../v?id=N HTTP/1.1",
        "GET /%00?id=N HTTP/1.1",
        "GET /%zz?id=N HTTP/1.1",
        "CONNECT a:443 HTTP/1.1",
        "TRACE /v?id=N HTTP/1.1",
        "POST /v?id=N",
        "PRI * HTTP/1.1",
        "GET",
        "",
    ];
    let line = random.pick(&lines).replace('N', &number.to_string());
    let mut head = Head { bytes: Vec::new(), is_head: false }.line(line.as_bytes()).line(b"Host: corpus");
    // An empty first line is skipped, and what follows is no request line either.
    head.is_head = false;
    extra(head, random).case("bad request line", Expect::Refused, b"")
}

fn too_large(random: &mut Random, number: u64) -> Case {
    let head = match random.below(3) {
        0 => {
            Head::new("GET", &format!("/{}?id={number}", "a".repeat(9000)), "HTTP/1.1").line(b"Host: corpus")
        }
        1 => Head::usual("GET", number).line(format!("X: {}", "a".repeat(9000)).as_bytes()),
        _ => Head::usual("GET", number).line("X: 1\r\n".repeat(1001).trim_end().as_bytes()),
    };
    head.case("too large", Expect::Refused, b"")
}

fn odd_names(random: &mut Random, number: u64) -> Case {
    let body = format!("0\r\n\r\n{}", hidden(number));
    let names = [
        "Transfer_Encoding: chunked",
        "Transfer-Encoding.: chunked",
        "Transfer~Encoding: chunked",
        "Transfer-Encoding': chunked",
        "Content_Length: 5",
        "Content-Length!: 5",
        "X-Transfer-Encoding: chunked",
        "Transfer-Encodin\u{11f}: chunked",
    ];
    let head = Head::usual("POST", number)
        .line(format!("Content-Length: {}", body.len()).as_bytes())
        .line(random.pick(&names).as_bytes());
    extra(head, random).case("odd names", Expect::Either, body.as_bytes())
}

fn bare_line_feeds(random: &mut Random, number: u64) -> Case {
    let case = plain(random, number);
    let mut bytes = Vec::new();
    for line in case.bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_bare = random.once_in(2);
        bytes.extend_from_slice(if is_bare { &line[..line.len() - 2] } else { line });
        bytes.extend_from_slice(if is_bare { b"\n" } else { b"" });
    }
    Case { kind: "bare LF", expect: Expect::Either, bytes, ..case }
}

fn trailers(random: &mut Random, number: u64) -> Case {
    let lines = [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: other",
        "Connection: close",
        "X_Y: 1",
        "Authorization: Basic x",
        "X-Forwarded-For: 1.1.1.1",
        "Content-Length: 5\r\nContent-Length: 6",
    ];
    let body = format!("5\r\nhello\r\n0\r\n{}\r\n\r\n", random.pick(&lines));
    let head = Head::usual("POST", number).line(b"Transfer-Encoding: chunked");
    extra(head, random).case("odd trailers", Expect::Either, body.as_bytes())
}

/// A sound request whose body is a whole request.
fn smuggling(random: &mut Random, number: u64) -> Case {
    let inner = hidden(number);
    let head = Head::usual(random.pick(METHODS_BODY), number);
    match random.once_in(2) {
        true => extra(head.line(format!("Content-Length: {}", inner.len()).as_bytes()), random).case(
            "request in a body",
            Expect::Accepted,
            inner.as_bytes(),
        ),
        false => extra(head.line(b"Transfer-Encoding: chunked"), random).case(
            "request in a body",
            Expect::Accepted,
            format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()).as_bytes(),
        ),
    }
}

/// A valid head with some of its bytes changed.
fn mutated(random: &mut Random, number: u64) -> Case {
    const BYTES: &[u8] = b"\r\n\0 \t:;,/?#%\x0b\x7f\x80\xff\"\\AHz9._-";
    let case = match random.below(3) {
        0 => plain(random, number),
        1 => hop_headers(random, number),
        _ => absolute_form(random, number),
    };
    let mut bytes = case.bytes;
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len() - 4);
        let byte = BYTES[random.below(BYTES.len())];
        match random.below(3) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
    }
    let is_head = bytes.trim_ascii_start().starts_with(b"HEAD ");
    Case { kind: "mutated", expect: Expect::Either, bytes, is_head }
}
