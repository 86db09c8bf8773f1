//! Generated requests in every form that RFC 9112 allows. Each is a pure function of seed and number.

use crate::hostile::HOSTILE;
use crate::random::Random;

/// What must become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// A valid form: an origin is asked, and the connection goes on.
    Accepted,
    /// A valid form that ends the connection.
    AcceptedLast,
    /// No origin may be asked.
    Refused,
    /// The head is sound and the body is not: no request may follow it.
    BrokenBody,
    /// Servers differ in good faith: either is right, as long as all agree on where the request ends.
    Either,
}

#[derive(Debug)]
pub struct Case {
    pub kind: &'static str,
    pub expect: Expect,
    pub bytes: Vec<u8>,
    pub is_head: bool,
}

/// Identifies a request wherever it is logged. What a hostile body carries has a number that no request has.
pub fn smuggled_id(number: u64) -> u64 {
    number + 1_000_000_000
}

pub fn canary(number: u64) -> Vec<u8> {
    format!("GET /canary?id={number} HTTP/1.1\r\nHost: canary\r\n\r\n").into_bytes()
}

pub type Make = fn(&mut Random, u64) -> Case;

const VALID: &[Make] = &[
    plain,
    with_length,
    chunked,
    absolute_form,
    targets,
    hosts,
    closing,
    hop_headers,
    expecting,
    empty_lines,
];

/// Half of all cases are valid; the other half is `hostile`.
pub fn case(seed: u64, number: u64) -> Case {
    let mut random = Random::of_case(seed, number);
    let family = if random.once_in(2) { VALID } else { HOSTILE };
    let make = family[random.below(family.len())];
    make(&mut random, number)
}

const TCHAR: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
const METHODS_PLAIN: &[&str] = &["GET", "HEAD", "OPTIONS", "DELETE", "GET", "GET"];
pub const METHODS_BODY: &[&str] = &["POST", "PUT", "PATCH", "DELETE", "POST"];

/// A head in the making.
pub struct Head {
    pub bytes: Vec<u8>,
    pub is_head: bool,
}

impl Head {
    pub fn new(method: &str, target: &str, version: &str) -> Head {
        Head { bytes: format!("{method} {target} {version}\r\n").into_bytes(), is_head: method == "HEAD" }
    }

    /// The usual first lines.
    pub fn usual(method: &str, number: u64) -> Head {
        Head::new(method, &format!("/v?id={number}"), "HTTP/1.1").line(b"Host: corpus")
    }

    pub fn line(mut self, line: &[u8]) -> Head {
        self.bytes.extend_from_slice(line);
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    pub fn case(mut self, kind: &'static str, expect: Expect, body: &[u8]) -> Case {
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(body);
        Case { kind, expect, bytes: self.bytes, is_head: self.is_head }
    }
}

/// Fields that mean nothing to anybody, in every form that the grammar has.
pub fn extra(mut head: Head, random: &mut Random) -> Head {
    for _ in 0..random.below(6) {
        let name_len = 1 + random.below(20);
        let mut line = b"X-".to_vec();
        line.extend(random.text(name_len, TCHAR));
        line.push(b':');
        line.extend_from_slice(random.pick(&[" ", "", "\t", " \t ", "   "]).as_bytes());
        let value_len = random.below(60);
        let value = random.text(value_len, b"abcXYZ019!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \t\x80\xc3\xff");
        line.extend(value);
        line.extend_from_slice(random.pick(&["", " ", "\t", "  "]).as_bytes());
        head = head.line(&line);
    }
    head
}

pub fn plain(random: &mut Random, number: u64) -> Case {
    let method = random.pick(METHODS_PLAIN);
    extra(Head::usual(method, number), random).case("plain", Expect::Accepted, b"")
}

fn body(random: &mut Random) -> Vec<u8> {
    let len = *random.pick(&[&0usize, &1, &5, &100, &1000, &8191, &16384, &20000]);
    let len = if random.once_in(2) { len } else { random.below(300) };
    random.text(len, b"abc \r\n\0:{}0123456789GET/HTTP.")
}

fn with_length(random: &mut Random, number: u64) -> Case {
    let body = body(random);
    let zeros = "0".repeat(if random.once_in(8) { random.below(5) } else { 0 });
    let name = random.pick(&["Content-Length", "content-length", "CONTENT-LENGTH"]);
    let line =
        format!("{name}:{}{zeros}{}{}", random.pick(&[" ", "", "\t"]), body.len(), random.pick(&["", " "]));
    let head = Head::usual(random.pick(METHODS_BODY), number).line(line.as_bytes());
    extra(head, random).case("content-length", Expect::Accepted, &body)
}

/// A body in chunks, each line in one of the forms of RFC 9112, section 7.1.
fn chunks(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.below(6) {
        let len = 1 + if random.once_in(10) { random.below(20000) } else { random.below(60) };
        let data = random.text(len, b"abc\r\n0;:GET /HTTP1.");
        let size = match random.below(3) {
            0 => format!("{len:x}"),
            1 => format!("{len:X}"),
            _ => format!("{}{len:x}", "0".repeat(random.below(6))),
        };
        out.extend_from_slice(size.as_bytes());
        out.extend_from_slice(extension(random).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend(data);
        out.extend_from_slice(b"\r\n");
    }
    let last = format!("{}{}\r\n", random.pick(&["0", "0", "000"]), extension(random));
    out.extend_from_slice(last.as_bytes());
    out
}

fn extension(random: &mut Random) -> String {
    let choices = ["", "", "", ";a", ";a=b", ";a=\"q;r\"", ";a=\"\\\"\"", " ; a = b", ";a;b=c"];
    random.pick(&choices).to_owned()
}

fn chunked(random: &mut Random, number: u64) -> Case {
    let mut body = chunks(random);
    if random.once_in(4) {
        body.extend_from_slice(
            random.pick(&["X-Sum: 1\r\n", "X-A: b\r\nX-C:\t d \r\n", "Expires: 0\r\n"]).as_bytes(),
        );
    }
    body.extend_from_slice(b"\r\n");
    let line = random.pick(&[
        "Transfer-Encoding: chunked",
        "transfer-encoding:chunked",
        "Transfer-Encoding:\tChunked ",
        "TRANSFER-ENCODING: CHUNKED",
    ]);
    let head = Head::usual(random.pick(METHODS_BODY), number).line(line.as_bytes());
    extra(head, random).case("chunked", Expect::Accepted, &body)
}

pub fn absolute_form(random: &mut Random, number: u64) -> Case {
    let scheme = random.pick(&["http", "HTTP", "Http"]);
    let host = random.pick(&["corpus", "CORPUS", "corpus:80", "127.0.0.1", "[::1]:80"]);
    let path = random.pick(&["/v", "/", "", "/a/b"]);
    let own = random.pick(&["corpus", "other", "other:81"]);
    let head =
        Head::new(random.pick(METHODS_PLAIN), &format!("{scheme}://{host}{path}?id={number}"), "HTTP/1.1");
    extra(head.line(format!("Host: {own}").as_bytes()), random).case("absolute-form", Expect::Accepted, b"")
}

fn targets(random: &mut Random, number: u64) -> Case {
    let len = 1 + random.below(80);
    let path = random.text(len, b"abcXYZ019-._~!$&'()*+,;=:@/");
    let path = String::from_utf8_lossy(&path).into_owned();
    // Dots and slashes in a row are normalised, and may lead above the root: their own kind.
    let path = path.replace("..", "-").replace("//", "/a").replace("/.", "/a");
    let percent = random.pick(&["", "%20", "%41", "%c3%a9", "%7e"]);
    let query = random.text(random.clone().below(30), b"abc019-._~!$'()*+,;:@/?%5B%5D=");
    let query = String::from_utf8_lossy(&query).into_owned().replace('%', "");
    let target = format!("/{path}{percent}?id={number}&{query}");
    let head = Head::new(random.pick(METHODS_PLAIN), &target, "HTTP/1.1").line(b"Host: corpus");
    extra(head, random).case("target", Expect::Accepted, b"")
}

fn hosts(random: &mut Random, number: u64) -> Case {
    let host = random.pick(&[
        "a",
        "a.b.",
        "a:80",
        "[::1]:80",
        "[::1]",
        "1.2.3.4",
        "a:",
        "A-b.C",
        "xn--bcher-kva.example",
    ]);
    let head =
        Head::new("GET", &format!("/v?id={number}"), "HTTP/1.1").line(format!("Host:{host}").as_bytes());
    extra(head, random).case("host", Expect::Accepted, b"")
}

fn closing(random: &mut Random, number: u64) -> Case {
    let target = format!("/v?id={number}");
    let head = match random.below(4) {
        0 => Head::new("GET", &target, "HTTP/1.0"),
        1 => Head::new("GET", &target, "HTTP/1.0").line(b"Host: corpus"),
        2 => Head::usual("GET", number).line(b"Connection: close"),
        _ => Head::usual("GET", number).line(b"Connection: x-a, CLOSE"),
    };
    extra(head, random).case("closing", Expect::AcceptedLast, b"")
}

pub fn hop_headers(random: &mut Random, number: u64) -> Case {
    let lines = [
        "Connection: keep-alive",
        "Connection: X-Taken\r\nX-Taken: 1",
        "Connection: Host, Content-Length",
        "TE: trailers\r\nConnection: TE",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Upgrade: websocket\r\nConnection: Upgrade",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Trailer: X-Sum",
    ];
    let head = Head::usual("GET", number).line(random.pick(&lines).as_bytes());
    extra(head, random).case("hop headers", Expect::Accepted, b"")
}

fn expecting(random: &mut Random, number: u64) -> Case {
    let body = body(random);
    let head = Head::usual("POST", number)
        .line(format!("Content-Length: {}", body.len()).as_bytes())
        .line(random.pick(&["Expect: 100-continue", "expect:100-Continue"]).as_bytes());
    extra(head, random).case("expect", Expect::Accepted, &body)
}

fn empty_lines(random: &mut Random, number: u64) -> Case {
    let mut case = plain(random, number);
    for _ in 0..=random.below(2) {
        case.bytes.splice(0..0, *b"\r\n");
    }
    Case { kind: "empty lines before", ..case }
}
