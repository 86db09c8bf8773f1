//! What the rows are served by: an origin that tells what it saw, files, keys, and for each row two servers of its own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use regex::Regex;

use crate::common::{Client, Origin};
use crate::keys::Keys;
use crate::rows::{self, Row};

/// With the row's directive, and without.
pub const MODES: [&str; 2] = ["on", "off"];

/// Behind both programs.
pub struct World {
    pub origin: Origin,
    /// Takes connections and says nothing.
    pub mute: Origin,
    pub files: tempfile::TempDir,
    pub keys: Keys,
}

impl World {
    pub fn new() -> World {
        World {
            origin: origin(),
            mute: Origin::scripted(|_| {
                loop {
                    std::thread::park();
                }
            }),
            files: files(),
            keys: keys(),
        }
    }

    /// Two server blocks for each row, each at an address of its own, for a program that knows these rows. `logs` is
    /// its own folder.
    pub fn configuration(&self, knows: impl Fn(&Row) -> bool, logs: &Path) -> String {
        let mut http = String::from(
            "default_type text/plain; proxy_http_version 1.1;\n\
             server { listen 127.0.0.1:PORT; }\n",
        );
        for (number, row) in rows::all().enumerate().filter(|(_, row)| knows(row)) {
            let is_for_each = row.http.contains("NAME");
            if !is_for_each {
                writeln!(http, "{}", row.http).unwrap();
            }
            for mode in MODES {
                let text = if mode == "on" { row.on } else { row.off };
                let is_inside = row.inner.contains('@');
                let server = row.server.replace('@', if is_inside { "" } else { text });
                let mut servers = if is_for_each { format!("{}\n", row.http) } else { String::new() };
                writeln!(servers, "server {{ listen OWN:PORT; server_name NAME; {server} }}").unwrap();
                if !row.inner.is_empty() {
                    writeln!(servers, "server {{ listen INNER {} }}", row.inner.replace('@', text)).unwrap();
                }
                http += &self.filled(&servers, number, mode);
            }
        }
        http.replace("LOG", &logs.display().to_string())
    }

    fn filled(&self, servers: &str, number: usize, mode: &str) -> String {
        let third = number + 1;
        let kind = if mode == "on" { 1 } else { 2 };
        servers
            .replace("CERT", "ssl_certificate KEYS/inner.test.crt; ssl_certificate_key KEYS/inner.test.key;")
            .replace("OWN", &own(number, mode).to_string())
            .replace("INNER", &format!("127.2.{third}.{kind}:PORT"))
            .replace("DEAD", &format!("127.3.{third}.{kind}:1"))
            .replace("MUTE", &format!("127.0.0.1:{}", self.mute.port))
            .replace("ORIGIN", &format!("http://127.0.0.1:{}", self.origin.port))
            .replace("FILES", &self.files.path().display().to_string())
            .replace("KEYS", &self.keys.0.path().display().to_string())
            .replace("NAME", &name(number, mode))
            .replace("LOG", &format!("LOG/{}.log", name(number, mode)))
    }
}

fn name(number: usize, mode: &str) -> String {
    format!("{mode}{number}")
}

/// Where the row's server listens: what a directive says there holds for no other row.
fn own(number: usize, mode: &str) -> Ipv4Addr {
    let third = u8::try_from(number + 1).unwrap();
    Ipv4Addr::new(127, 1, third, if mode == "on" { 1 } else { 2 })
}

/// Answers with what it saw; words in the path ask for more.
fn origin() -> Origin {
    Origin::scripted(|served| {
        while let Some((head, body)) = served.read_request_with_body() {
            let seen = format!("{head}{}", String::from_utf8_lossy(&body));
            let asks = |word: &str| head.lines().next().unwrap().contains(word);
            let mut answer = String::new();
            if asks("hints") {
                answer.push_str("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
            }
            let status = if asks("missing") { "404 Not Found" } else { "200 OK" };
            write!(answer, "HTTP/1.1 {status}\r\nContent-Type: text/html\r\n").unwrap();
            for (word, line) in [
                ("cookie", "Set-Cookie: a=b; Domain=origin.test; Path=/in/\r\n"),
                ("moved", "Location: http://origin.test/in/x\r\n"),
                ("accel", "X-Accel-Redirect: /aside\r\n"),
                ("server", "Server: theirs\r\n"),
            ] {
                answer.push_str(if asks(word) { line } else { "" });
            }
            if asks("large") {
                write!(answer, "X-Large: {}\r\n", "x".repeat(3000)).unwrap();
            }
            write!(answer, "X-Seen: yes\r\nContent-Length: {}\r\n\r\n{seen}", seen.len()).unwrap();
            served.send(&answer);
        }
    })
}

fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = "text ".repeat(100);
    for (name, text) in
        [("one.txt", &text[..]), ("index.html", "index"), ("other.html", "other"), ("page.zzz", "zzz")]
    {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"packed").unwrap();
    std::fs::write(folder.path().join("one.txt.gz"), packed.finish().unwrap()).unwrap();
    std::fs::write(folder.path().join("users"), "user:{PLAIN}secret\n").unwrap();
    open(folder.path());
    folder
}

/// Reading it is for nginx's worker, whoever that is.
pub fn open(folder: &Path) {
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
}

fn keys() -> Keys {
    let keys = Keys::new();
    keys.own("ca", "rsa");
    keys.own("stranger", "rsa");
    keys.authority("middle", "ca");
    for (name, ca) in [("inner.test", "ca"), ("client", "ca"), ("far", "middle")] {
        keys.signed(name, ca);
    }
    keys.chained("far", "middle", "far.chain");
    keys.sealed("client");
    keys.revoked("inner.test", "ca", "crl.pem");
    open(keys.0.path());
    keys
}

/// All that a client gets for the row's requests, without what cannot be the same, and how long it took.
pub fn answers(port: u16, (number, mode): (usize, &str), row: &Row) -> (String, Duration) {
    let mut got = String::new();
    let start = Instant::now();
    let host = name(number, mode);
    for request in row.requests {
        let mut client = Client::connect_to(own(number, mode), port);
        let request = match request.strip_prefix('/') {
            Some(path) => format!("GET /{path} HTTP/1.1\r\nHost: HOST\r\n\r\n"),
            None => (*request).to_owned(),
        };
        let request = request.replace("HOST", &host);
        let request = [2000, 8000, 64_000]
            .iter()
            .fold(request, |request, len| request.replace(&format!("FILL{len}"), &"x".repeat(*len)));
        // The connection ends with the answer to the second, whatever the first one did.
        client.send(&request).send("GET /end HTTP/1.1\r\nHost: end\r\nConnection: close\r\n\r\n");
        let (bytes, _) = client.rest();
        let text = String::from_utf8_lossy(&bytes);
        let first = text.rfind("HTTP/1.1 ").filter(|at| *at > 0).map_or(&text[..], |at| &text[..at]);
        got.push_str(first);
    }
    (normalised(&got, port, &host), start.elapsed())
}

/// Without versions and times; lines of heads in any order, also of those that the origin saw.
fn normalised(text: &str, port: u16, host: &str) -> String {
    let rules = [
        (r"\r\ndate: [^\r]*", ""),
        (r"nginx/[0-9.]+( \([^)]*\))?", "nginx/V"),
        (r"127\.[123]\.\d+\.[12]", "ADDRESS"),
        // What `stub_status` counts.
        (r"(?s)Active connections: .*", "Active connections"),
        // Lines of a log: when, by whom, of which connection.
        (r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (\[[a-z]+\]) \d+#\d+: \*\d+ ", "$1 "),
        (r"excess: \d\.\d+", "excess: N"),
        (r"\r\nlast-modified: [^\r]*", "\r\nlast-modified: DATE"),
        (r"\r\netag: [^\r]*", "\r\netag: TAG"),
    ];
    // Names of fields come in small letters from whoever got them in HTTP/2.
    let name = Regex::new(r"\r\n[A-Za-z-]+: ").unwrap();
    let text = name.replace_all(text, |found: &regex::Captures<'_>| found[0].to_ascii_lowercase());
    // What is packed may be packed in more than one way; nginx offers parts of ready-made files only of late.
    let packed = text.contains("content-encoding: gzip");
    let text = if packed { text.split("\r\n\r\n").next().unwrap() } else { &*text };
    let text = if packed { text.replace("\r\naccept-ranges: bytes", "") } else { text.to_owned() };
    let text = text.replace(&port.to_string(), "PORT").replace(host, "HOST");
    let text = rules.into_iter().fold(text, |text, (pattern, with)| {
        Regex::new(pattern).unwrap().replace_all(&text, with).into_owned()
    });
    let text = if text.contains("Active connections") || text.contains("\n[") {
        Regex::new(r"\r\ncontent-length: [^\r]*").unwrap().replace_all(&text, "").into_owned()
    } else {
        text
    };
    let sorted = |part: &str| {
        let mut lines: Vec<&str> = part.split("\r\n").collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    text.split("\r\n\r\n").map(sorted).collect::<Vec<String>>().join("\n\n")
}
