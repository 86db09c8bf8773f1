//! Every directive does something: the answer to a request changes with it, or what the origin saw does, and in both
//! cases it is what nginx answers: Debian's, or whichever stands first in `PATH`. Directives that a request of this kind
//! cannot show are named with the test that shows them, or with the reason why none does.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

#[path = "directives/between.rs"]
mod between;
mod common;
#[path = "directives/elsewhere.rs"]
mod elsewhere;
mod keys;
mod nginx;
#[path = "directives/rows.rs"]
mod rows;
#[path = "directives/shown.rs"]
mod shown;
#[path = "directives/world.rs"]
mod world;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use balancer::conf::table;
use common::{Balancer, Client, wait_until};
use elsewhere::{EXCUSED, SHOWN_ELSEWHERE};
use nginx::Nginx;
use world::{MODES, World};

#[test]
fn each_directive_changes_the_answer_as_it_does_in_nginx() {
    let world = World::new();
    let logs = tempfile::tempdir().unwrap();
    world::open(logs.path());
    let version = nginx::version();
    let nginx = Nginx::start(&world.configuration(|row| row.since <= version, logs.path()));
    let balancer = Balancer::start(&world.configuration(|_| true, Path::new("DIR")));
    let mut wrong = String::new();
    for (number, row) in rows::all().enumerate() {
        let name = row.directive;
        let mut ours = Vec::new();
        for mode in MODES {
            let (our, took) = world::answers(balancer.port, (number, mode), row);
            let is_late = mode == "on" && took < Duration::from_millis(row.no_faster);
            if is_late {
                writeln!(wrong, "{name} took only {took:?}").unwrap();
            }
            // Else something else was slow, and the directive might do nothing. A busy machine is asked again.
            let is_slow = |took: Duration| took >= Duration::from_millis(row.no_faster);
            let mut again = (0..3).map(|_| world::answers(balancer.port, (number, mode), row).1);
            if mode == "off" && row.no_faster > 0 && is_slow(took) && again.all(is_slow) {
                writeln!(wrong, "without {name} it took {took:?} all the same").unwrap();
            }
            if row.since <= version {
                let (theirs, _) = world::answers(nginx.port, (number, mode), row);
                if theirs != our {
                    writeln!(wrong, "{name} {mode}:\n--- nginx\n{theirs}\n--- ours\n{our}").unwrap();
                }
            }
            ours.push(our);
        }
        if ours[0] == ours[1] && row.no_faster == 0 {
            writeln!(wrong, "{name} changes nothing:\n{}", ours[0]).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_directive_is_shown_to_do_something_or_excused() {
    let mut unshown = Vec::new();
    for directive in table::all().filter(|directive| !table::is_moot(directive)) {
        let name = directive.name;
        let ways = [
            rows::all().any(|row| row.directive == name),
            EXCUSED.iter().any(|(excused, _)| *excused == name),
            SHOWN_ELSEWHERE.iter().any(|shown| shown.directives.contains(&name)),
        ];
        match ways.iter().filter(|is_so| **is_so).count() {
            0 => unshown.push(name),
            1 => {}
            _ => panic!("{name} is listed in several places"),
        }
    }
    assert!(unshown.is_empty(), "no test shows what these do: {unshown:?}");
}

#[test]
fn tests_that_show_a_directive_have_it_in_their_configurations() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for shown in SHOWN_ELSEWHERE {
        let source = std::fs::read_to_string(tests.join(shown.file)).unwrap();
        let text = shown::text_of(&source, shown.test);
        let text = text.unwrap_or_else(|| panic!("{} has no test {}", shown.file, shown.test));
        for name in shown.directives {
            assert!(table::all().any(|directive| directive.name == *name), "there is no {name}");
            assert!(shown::has_statement(&text, name), "{} has no {name} in its configurations", shown.test);
        }
    }
}

#[test]
fn debians_own_configuration_is_taken_and_serves_its_site() {
    let folder = tempfile::tempdir().unwrap();
    let etc = Path::new("/etc/nginx");
    let binary = env!("CARGO_BIN_EXE_balancer");
    // As it is, line for line, but that port and folders are the test's: others may have the port, and modules are
    // nginx's own.
    let port = free_port();
    let dir = folder.path().display().to_string();
    let read = |name: &str| std::fs::read_to_string(etc.join(name)).expect("Debian's nginx is installed");
    let moved = |text: String, from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in\n{text}");
        text.replace(from, to)
    };
    let mut site = read("sites-available/default");
    for (from, to) in [
        ("listen 80 default_server;", format!("listen {port} default_server;")),
        ("listen [::]:80 default_server;", format!("listen [::]:{port} default_server;")),
        ("root /var/www/html;", format!("root {dir};")),
    ] {
        site = moved(site, from, &to);
    }
    let mut main = read("nginx.conf");
    for (from, to) in [
        ("include /etc/nginx/sites-enabled/*;", format!("include {dir}/sites-enabled/*;")),
        ("include /etc/nginx/modules-enabled/*.conf;", format!("include {dir}/modules-enabled/*.conf;")),
        ("/var/log/nginx", dir.clone()),
        ("/run/nginx.pid", format!("{dir}/pid")),
    ] {
        main = moved(main, from, &to);
    }
    for name in ["sites-enabled", "modules-enabled"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("sites-enabled/default"), site).unwrap();
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
    let mut by_ipv6 = std::net::TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, port)).unwrap();
    by_ipv6.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    by_ipv6.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nIt is here"), "{answer}");
    let _ = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    );
    let _ = child.wait();
}

/// Free on all addresses of both families.
fn free_port() -> u16 {
    let bound = |address: &str, port: u16| std::net::TcpListener::bind((address, port));
    loop {
        let v4 = bound("0.0.0.0", 0).unwrap();
        let port = v4.local_addr().unwrap().port();
        drop(v4);
        // A socket of this kind listens on both.
        if bound("::", port).is_ok() {
            return port;
        }
    }
}
