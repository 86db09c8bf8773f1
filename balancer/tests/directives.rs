//! Every directive does something: the answer to a request changes with it, or what the origin saw does, and in both
//! cases it is what nginx (Debian's) answers. Directives that a request of this kind cannot show are named with the test
//! that shows them.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;
mod nginx;
#[path = "directives/rows.rs"]
mod rows;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use balancer::conf::table;
use common::{Balancer, Client, Origin, wait_until};
use nginx::Nginx;
use regex::Regex;
use rows::{ROWS, Row, SHOWN_ELSEWHERE, UNSHOWN};

/// Answers with what it saw; words in the path ask for more.
fn origin() -> Origin {
    Origin::scripted(|served| {
        while let Some((head, body)) = served.read_request_with_body() {
            let seen = format!("{head}{}", String::from_utf8_lossy(&body));
            let mut answer = String::from("HTTP/1.1 ");
            let asks = |word: &str| head.lines().next().unwrap().contains(word);
            answer.push_str(if asks("missing") { "404 Not Found" } else { "200 OK" });
            answer.push_str("\r\nContent-Type: text/html\r\n");
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

/// Two server blocks for each row: with the directive and without.
fn configuration(origin: &Origin, files: &Path) -> String {
    let mut http = String::from("default_type text/plain; proxy_http_version 1.1;\n");
    for (number, row) in ROWS.iter().enumerate() {
        writeln!(http, "{}", row.http).unwrap();
        for (name, text) in [("on", row.on), ("off", row.off)] {
            let server = row.server.replace('@', text);
            writeln!(http, "server {{ listen 127.0.0.1:PORT; server_name {name}{number}; {server} }}")
                .unwrap();
        }
    }
    let origin = format!("http://127.0.0.1:{}", origin.port);
    http.replace("ORIGIN", &origin).replace("FILES", &files.display().to_string())
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
    // Reading it is for nginx's worker, whoever that is.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// All that a client gets for the row's requests, without what cannot be the same.
fn answers(port: u16, host: &str, row: &Row) -> String {
    let mut got = String::new();
    for request in row.requests {
        let mut client = Client::connect(port);
        let request = match request.strip_prefix('/') {
            Some(path) => format!("GET /{path} HTTP/1.1\r\nHost: HOST\r\n\r\n"),
            None => (*request).to_owned(),
        };
        // The connection ends with the answer to the second, whatever the first one did.
        let request = request.replace("HOST", host);
        client.send(&request).send("GET /end HTTP/1.1\r\nHost: on0\r\nConnection: close\r\n\r\n");
        let (bytes, _) = client.rest();
        let text = String::from_utf8_lossy(&bytes);
        let first = text.rfind("HTTP/1.1 ").filter(|at| *at > 0).map_or(&text[..], |at| &text[..at]);
        got.push_str(first);
    }
    normalised(&got, port, host)
}

/// Without versions and times; lines of heads in any order, also of those that the origin saw.
fn normalised(text: &str, port: u16, host: &str) -> String {
    let rules = [(r"\r\nDate: [^\r]*", ""), (r"nginx/[0-9.]+( \([^)]*\))?", "nginx/V")];
    // What is packed may be packed in more than one way; nginx offers parts of ready-made files only of late.
    let packed = text.contains("Content-Encoding: gzip");
    let text = if packed { text.split("\r\n\r\n").next().unwrap() } else { text };
    let text = if packed { text.replace("\r\nAccept-Ranges: bytes", "") } else { text.to_owned() };
    let text = text.replace(&port.to_string(), "PORT").replace(host, "HOST");
    let text = rules.into_iter().fold(text, |text, (pattern, with)| {
        Regex::new(pattern).unwrap().replace_all(&text, with).into_owned()
    });
    let sorted = |part: &str| {
        let mut lines: Vec<&str> = part.split("\r\n").collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    text.split("\r\n\r\n").map(sorted).collect::<Vec<String>>().join("\n\n")
}

#[test]
fn each_directive_changes_the_answer_as_it_does_in_nginx() {
    let (origin, files) = (origin(), files());
    let http = configuration(&origin, files.path());
    let nginx = Nginx::start(&http);
    let balancer = Balancer::start(&http);
    let mut wrong = String::new();
    for (number, row) in ROWS.iter().enumerate() {
        let mut ours = Vec::new();
        for name in ["on", "off"] {
            let host = format!("{name}{number}");
            let (theirs, our) = (answers(nginx.port, &host, row), answers(balancer.port, &host, row));
            if theirs != our {
                writeln!(wrong, "{} {name}:\n--- nginx\n{theirs}\n--- ours\n{our}", row.directive).unwrap();
            }
            ours.push(our);
        }
        if ours[0] == ours[1] {
            writeln!(wrong, "{} changes nothing:\n{}", row.directive, ours[0]).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_directive_is_shown_to_do_something_or_named() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut unshown = Vec::new();
    for directive in table::all().filter(|directive| !table::is_moot(directive)) {
        let name = directive.name;
        let is_row = ROWS.iter().any(|row| row.directive == name);
        assert!(!is_row || !UNSHOWN.contains(&name), "{name} is shown: it need not be excused");
        if is_row || UNSHOWN.contains(&name) {
            continue;
        }
        let shown = SHOWN_ELSEWHERE.iter().find(|(_, names)| names.contains(&name));
        let is_there = shown.is_some_and(|(file, _)| {
            let text = std::fs::read_to_string(sources.join(file)).unwrap();
            Regex::new(&format!(r"\b{name}\b")).unwrap().is_match(&text)
        });
        if !is_there {
            unshown.push(name);
        }
    }
    assert!(unshown.is_empty(), "no test shows what these do: {unshown:?}");
}

#[test]
fn debians_own_configuration_is_taken_and_serves_its_site() {
    let folder = tempfile::tempdir().unwrap();
    let etc = Path::new("/etc/nginx");
    let binary = env!("CARGO_BIN_EXE_balancer");
    // As it is, but for what only root may do, and for the port.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = folder.path().display().to_string();
    let read = |name: &str| std::fs::read_to_string(etc.join(name)).expect("Debian's nginx is installed");
    let site = read("sites-available/default");
    let site = site.replace("listen 80 default_server", &format!("listen 127.0.0.1:{port} default_server"));
    let site = site.replace("listen [::]:80 default_server;", "").replace("/var/www/html", &dir);
    let main = read("nginx.conf");
    assert!(main.contains("include /etc/nginx/sites-enabled/*;") && site.contains(&port.to_string()));
    let main = main
        .replace("include /etc/nginx/sites-enabled/*;", &format!("include {dir}/site;"))
        .replace("include /etc/nginx/modules-enabled/*.conf;", "")
        .replace("/var/log/nginx", &dir)
        .replace("/run/nginx.pid", &format!("{dir}/pid"));
    std::fs::write(folder.path().join("site"), site).unwrap();
    std::fs::write(folder.path().join("nginx.conf"), main).unwrap();
    std::fs::write(folder.path().join("index.html"), "It is here").unwrap();
    // Root becomes www-data, who has to read it.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let conf = folder.path().join("nginx.conf");
    let run = |more: &[&str]| {
        let mut command = Command::new(binary);
        command.args(["-p", "/etc/nginx", "-c"]).arg(&conf).args(["-g", "daemon off;"]).args(more);
        command
    };
    let tested = run(&["-t"]).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    let mut child = run(&[]).stderr(Stdio::null()).spawn().unwrap();
    wait_until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut client = Client::connect(port);
    let found = client.get("/");
    assert_eq!(
        (found.status, &found.body[..], found.header("content-type")),
        (200, "It is here", Some("text/html"))
    );
    assert_eq!(client.get("/nothing").status, 404);
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    );
    let _ = child.wait();
}
