//! Parts of files: what a real nginx answers to the same `Range`, to the byte.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod nginx;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use common::{Balancer, Client};
use nginx::Nginx;
use regex::Regex;

const LISTS: &[&str] = &[
    "0-3",
    "4-",
    "-7",
    "0-",
    "0-0,99-",
    "0-9,20-29,-5",
    "90-120,0-1",
    "50-40,1-2",
    "200-,300-",
    "0-99,0-0",
    "0-50,0-48",
    "0-50,0-49",
    "200-",
    "-0",
    "-0,1-2",
    "5-4",
    "x",
    "",
    "0-1,",
    ",0-1",
    "1-2,,3-4",
    " 1 - 2 , 3-",
    "- 3",
    "1 2-3",
    "9223372036854775807-",
    "0-9223372036854775807",
    "0-9223372036854775808",
    "-9223372036854775807",
    "18446744073709551616-",
];

/// xorshift64: the same lists in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Lists of ranges, most of them sound.
fn drawn(count: usize) -> Vec<String> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut lists = Vec::new();
    for _ in 0..count {
        let mut list = String::new();
        for place in 0..1 + dice.below(5) {
            let (a, b) = (dice.below(130), dice.below(40));
            let comma = if place > 0 { ["", ",", ", ", " ,", ",", ",", ",", ","][dice.below(8)] } else { "" };
            list.push_str(comma);
            let _ = match dice.below(8) {
                0 => write!(list, "-{b}"),
                1 => write!(list, "{a}-"),
                2 => write!(list, "{a} - {b}"),
                3 => write!(list, "{a}"),
                _ => write!(list, "{a}-{}", a + b),
            };
        }
        lists.push(list);
    }
    lists
}

fn http_block(root: &Path) -> String {
    let root = root.display();
    format!(
        "server {{ listen 127.0.0.1:PORT; root {root}; default_type text/plain; keepalive_requests 100000;\n\
         types {{ image/png png; text/html html; }}\n\
         location /charset/ {{ alias {root}/; charset utf-8; charset_types *; }}\n\
         location /packed/ {{ alias {root}/; gzip on; gzip_min_length 1; gzip_types text/plain; gzip_http_version 1.0; }}\n\
         location /page/ {{ alias {root}/; ssi on; ssi_types text/plain; }}\n\
         location /none/ {{ alias {root}/; default_type ''; types {{ }} }} }}"
    )
}

/// The answer without what may differ: the server's name, the time, and the boundary, whose form is looked at.
fn answer(port: u16, method: &str, path: &str, fields: &str) -> (String, BTreeSet<String>, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
    let (bytes, is_clean) = Client::connect(port).send(&request).rest();
    assert!(is_clean, "{request}");
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let boundary = Regex::new("boundary=([0-9]{20})\r\n").unwrap();
    let (mut head, mut body) = (format!("{head}\r\n"), body.to_owned());
    if let Some(found) = boundary.captures(&head) {
        let found = found[1].to_owned();
        head = head.replace(&found, "BOUNDARY");
        body = body.replace(&found, "BOUNDARY");
    }
    // A page of nginx's own names it.
    let body = Regex::new("nginx/[0-9.]+").unwrap().replace_all(&body, "nginx").into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap().to_owned();
    let is_same = |line: &&str| !line.starts_with("Server:") && !line.starts_with("Date:");
    let page_len = |line: &str| match status.contains(" 416 ") && line.starts_with("Content-Length:") {
        true => "Content-Length: of the page".to_owned(),
        false => line.to_owned(),
    };
    let fields = lines.filter(is_same).map(page_len).collect();
    (status, fields, body)
}

#[test]
fn parts_of_files_are_those_that_nginx_sends() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..100u8).map(|number| char::from(b' ' + number % 90)).collect();
    for name in ["text", "x.png", "x.html"] {
        std::fs::write(folder.path().join(name), &text).unwrap();
    }
    std::fs::write(folder.path().join("empty"), "").unwrap();
    let http = http_block(folder.path());
    let (nginx, balancer) = (Nginx::start(&http), Balancer::start(&http));
    let drawn = drawn(300);
    let lists = LISTS.iter().copied().chain(drawn.iter().map(String::as_str));
    let mut cases: Vec<(&str, &str, String)> =
        lists.map(|list| ("GET", "/text", format!("Range: bytes={list}\r\n"))).collect();
    let several = "Range: bytes=0-9,20-29\r\n";
    for path in
        ["/x.png", "/x.html", "/charset/text", "/charset/x.png", "/page/text", "/none/text", "/packed/text"]
    {
        for fields in [several, "Range: bytes=3-4\r\n", "Range: bytes=200-\r\n"] {
            cases.push(("GET", path, fields.to_owned()));
            // A page's head tells us its length where nobody runs its commands; nginx leaves that out.
            if !path.starts_with("/page/") {
                cases.push(("HEAD", path, fields.to_owned()));
            }
        }
    }
    cases.push(("GET", "/packed/x.png", format!("{several}Accept-Encoding: gzip\r\n")));
    for list in ["0-3", "-3", "1-", "0-0,0-1", "1-2,3-4"] {
        cases.push(("GET", "/empty", format!("Range: bytes={list}\r\n")));
        cases.push(("GET", "/text", format!("Range: BYTES={list}\r\n")));
        cases.push(("GET", "/text", format!("Range: byte={list}\r\n")));
    }
    let mut statuses = BTreeSet::new();
    for (method, path, fields) in cases {
        let theirs = answer(nginx.port, method, path, &fields);
        let ours = answer(balancer.port, method, path, &fields);
        assert_eq!(ours, theirs, "{method} {path} {fields}");
        statuses.insert((ours.0, ours.2.contains("--BOUNDARY--")));
    }
    let seen: Vec<(&str, bool)> = statuses.iter().map(|(status, parts)| (&status[9..12], *parts)).collect();
    assert_eq!(seen, [("200", false), ("206", false), ("206", true), ("416", false)]);
}

#[test]
fn what_is_packed_on_its_way_has_no_parts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "word ".repeat(1000)).unwrap();
    let balancer = Balancer::start(&http_block(folder.path()));
    for path in ["/packed/text", "/text"] {
        let fields = "Range: bytes=0-9,20-29\r\nAccept-Encoding: gzip\r\n";
        let (status, head, _) = answer(balancer.port, "GET", path, fields);
        let is_packed = head.contains("Content-Encoding: gzip");
        assert_eq!((&status[9..12], is_packed), if path == "/text" { ("206", false) } else { ("200", true) });
    }
}

#[test]
fn ranges_that_cost_more_than_the_whole_get_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "x".repeat(100)).unwrap();
    let http = http_block(folder.path());
    let balancer = Balancer::start(&http);
    // nginx counts so since 1.31.
    let nginx = (nginx::version() >= (1, 31, 5)).then(|| Nginx::start(&http));
    for (count, status) in [(16, "206"), (17, "200"), (90, "200")] {
        let fields = format!("Range: bytes={}\r\n", vec!["7-7"; count].join(","));
        let ours = answer(balancer.port, "GET", "/text", &fields);
        assert_eq!(&ours.0[9..12], status, "{count} ranges");
        if let Some(nginx) = &nginx {
            assert_eq!(ours, answer(nginx.port, "GET", "/text", &fields), "{count} ranges");
        }
    }
}

#[test]
fn an_error_page_stands_in_for_a_range_that_cannot_be_had_and_a_condition_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "x".repeat(100)).unwrap();
    std::fs::write(folder.path().join("page"), "our page").unwrap();
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; root {}; error_page 412 416 /page; }}",
        folder.path().display()
    ));
    for (fields, status) in [("Range: bytes=200-\r\n", "416"), ("If-Match: \"none\"\r\n", "412")] {
        let (line, head, body) = answer(balancer.port, "GET", "/text", fields);
        assert_eq!((&line[9..12], &body[..]), (status, "our page"));
        assert_eq!(head.contains("Content-Range: bytes */100"), status == "416", "{head:?}");
    }
}
