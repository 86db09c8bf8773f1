//! Every directive does something: the answer to a request changes with it, or what the origin saw does, and in both
//! cases it is what nginx answers: Debian's, or whichever stands first in `PATH`. Directives that a request of this kind
//! cannot show are named with the test that shows them, or with the reason why none does.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

#[path = "directives/between.rs"]
mod between;
mod common;
mod keys;
mod nginx;
#[path = "directives/rows.rs"]
mod rows;
#[path = "directives/shown.rs"]
mod shown;
#[path = "directives/world.rs"]
mod world;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use balancer::conf::table;
use common::{Balancer, Client, wait_until};
use nginx::Nginx;
use rows::{EXCUSED, SHOWN_ELSEWHERE};
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
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut unshown = Vec::new();
    for directive in table::all().filter(|directive| !table::is_moot(directive)) {
        let name = directive.name;
        let is_row = rows::all().any(|row| row.directive == name);
        let is_excused = EXCUSED.iter().any(|(excused, _)| *excused == name);
        assert!(!is_row || !is_excused, "{name} is shown: it need not be excused");
        if is_row || is_excused {
            continue;
        }
        let shown = SHOWN_ELSEWHERE.iter().find(|(_, names)| names.contains(&name));
        let is_there = shown.is_some_and(|(file, _)| {
            assert_ne!(*file, "tests/conf_errors.rs", "what is refused shows nothing of {name}");
            let source = std::fs::read_to_string(sources.join(file)).unwrap();
            shown::has_statement(&source, name)
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
