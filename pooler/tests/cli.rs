//! The program `pooler` as an operator starts it: options, exit codes, messages, background, pidfile.

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// A folder with a configuration that listens on a unix socket alone.
struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new(more: &str) -> Folder {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // The pooler may run as another user than the test.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("our own folder");
        let path = folder.path().display();
        let text = format!(
            "[databases]\nx = host=127.0.0.1 port=1\n[pgbouncer]\nunix_socket_dir = {path}\n\
             metrics_listen_port = 0\nlogfile = {path}/log\npidfile = {path}/pid\n{more}\n"
        );
        fs::write(folder.path().join("a.ini"), text).expect("our own folder");
        Folder { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

fn pooler(arguments: &[&str], config: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
    command.args(arguments).args(config);
    command.output().expect("the program starts")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// As root the pooler has to be told whom to run as.
fn as_user<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = arguments.to_vec();
    if Uid::effective().is_root() {
        all.extend(["-u", "nobody"]);
    }
    all
}

#[test]
fn check_tells_all_problems_and_fails() {
    let good = Folder::new("");
    let output = pooler(&["--check"], Some(&good.path("a.ini")));
    assert!(output.status.success(), "{}", said(&output.stderr));
    let bad = Folder::new("pool_mod = session\nmax_client_conn = many");
    let output = pooler(&["--check"], Some(&bad.path("a.ini")));
    let text = said(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("a.ini:8: unknown parameter \"pool_mod\"; did you mean pool_mode?"), "{text}");
    assert!(text.contains("a.ini:9: max_client_conn: expected a whole number"), "{text}");
}

/// A socket of somebody else, and its port.
fn taken_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = listener.local_addr().expect("it has an address").port();
    (listener, port)
}

#[test]
fn an_address_that_cannot_be_listened_on_keeps_nobody_from_the_others() {
    let (_taken, port) = taken_port();
    let folder = Folder::new(&format!("listen_addr = 127.0.0.1, 127.0.0.2\nlisten_port = {port}"));
    let mut process = Command::new(env!("CARGO_BIN_EXE_pooler"))
        .args(as_user(&["-q"]))
        .arg(folder.path("a.ini"))
        .spawn()
        .expect("the program starts");
    let _end = KillAtEnd(process.id() as i32);
    wait_until("it serves", || folder.text("log").contains("process up"));
    let log = folder.text("log");
    assert_eq!(log.matches(&format!("WARNING cannot listen on 127.0.0.1:{port}: ")).count(), 1, "{log}");
    assert!(log.contains(&format!("LOG listening on 127.0.0.2:{port}\n")), "{log}");
    kill(Pid::from_raw(process.id() as i32), Signal::SIGINT).expect("it is our child");
    process.wait().expect("it is our child");
}

#[test]
fn a_pooler_that_can_listen_on_none_of_its_addresses_does_not_start() {
    let (_taken, port) = taken_port();
    let folder = Folder::new(&format!("listen_addr = 127.0.0.1\nlisten_port = {port}"));
    let output = pooler(&as_user(&[]), Some(&folder.path("a.ini")));
    assert_eq!(output.status.code(), Some(1));
    let wanted = "FATAL failed to listen on any address in listen_addr list: 127.0.0.1\n";
    assert!(said(&output.stderr).ends_with(wanted), "{}", said(&output.stderr));
    assert!(folder.text("log").ends_with(wanted), "{}", folder.text("log"));
}

/// One that served without it would hand out in clear what was to be encrypted.
#[test]
fn a_pooler_whose_tls_cannot_be_set_up_does_not_start() {
    for (wrong, told) in [
        ("client_tls_sslmode = require", "client_tls_key_file and client_tls_cert_file must be set"),
        ("server_tls_sslmode = require\nserver_tls_protocols = foo", "invalid server_tls_protocols"),
        ("server_tls_sslmode = verify-full\nserver_tls_ca_file = /nowhere", "server_tls_ca_file /nowhere"),
    ] {
        let folder = Folder::new(wrong);
        for arguments in [as_user(&[]), as_user(&["--check"])] {
            let output = pooler(&arguments, Some(&folder.path("a.ini")));
            let text = said(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
            assert!(
                text.contains("FATAL") && text.contains("TLS setup failed: ") && text.contains(told),
                "{text}"
            );
        }
    }
}

#[test]
fn a_pidfile_that_cannot_be_written_keeps_the_pooler_from_starting() {
    let folder = Folder::new("pidfile = /nowhere/pid");
    let output = pooler(&as_user(&[]), Some(&folder.path("a.ini")));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("/nowhere/pid"), "{}", said(&output.stderr));
}

#[test]
fn the_first_line_of_the_version_is_pgbouncers() {
    for option in ["-V", "--version"] {
        let text = said(&pooler(&[option], None).stdout);
        assert!(text.starts_with("PgBouncer 1.25.2\n"), "{text}");
    }
    assert!(pooler(&["-h"], None).status.success());
}

#[test]
fn a_missing_file_is_named() {
    let output = pooler(&[], Some(Path::new("/does/not/exist.ini")));
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output.stderr);
    assert!(text.contains("/does/not/exist.ini: could not open: No such file"), "{text}");
}

#[test]
fn a_daemon_is_ready_when_its_parent_returns_and_cleans_up() {
    let folder = Folder::new("");
    let config = folder.path("a.ini");
    let output = pooler(&as_user(&["-d", "-q"]), Some(&config));
    assert!(output.status.success(), "{}{}", said(&output.stderr), folder.text("log"));
    let process: i32 = folder.text("pid").trim().parse().expect("the pidfile holds a number");
    let guard = KillAtEnd(process);
    assert!(folder.path(".s.PGSQL.6432").exists());

    let second = pooler(&as_user(&["-d"]), Some(&config));
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second.stderr).contains("is another instance running?"), "{}", said(&second.stderr));

    kill(Pid::from_raw(process), Signal::SIGTERM).expect("our own process");
    wait_until_gone(process);
    // Its number may be somebody else's by now.
    std::mem::forget(guard);
    assert!(!folder.path("pid").exists() && !folder.path(".s.PGSQL.6432").exists());
    assert!(folder.text("log").contains("got SIGTERM, shutting down"), "{}", folder.text("log"));
}

#[test]
fn a_daemon_that_cannot_listen_fails_in_its_parent() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let folder = Folder::new(&format!("listen_addr = 127.0.0.1\nlisten_port = {port}"));
    let output = pooler(&as_user(&["-d"]), Some(&folder.path("a.ini")));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("/log tells why"), "{}", said(&output.stderr));
    assert!(folder.text("log").contains("Address already in use"), "{}", folder.text("log"));
    assert!(!folder.path("pid").exists());
}

/// A failing test leaves no process behind.
struct KillAtEnd(i32);

impl Drop for KillAtEnd {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::yield_now();
    }
}

/// The process is no child of ours: there is nothing to wait on but its id.
fn wait_until_gone(process: i32) {
    wait_until(&format!("process {process} ends"), || is_gone(process));
}

/// In a container whose first process reaps nobody a process that has ended stays a zombie, and so do its threads.
fn is_gone(process: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return true };
    threads.flatten().all(|thread| {
        let state = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    })
}

#[test]
fn a_daemon_can_be_taken_over_by_another_one() {
    let folder = Folder::new("");
    let config = folder.path("a.ini");
    let lonely = pooler(&as_user(&["-R", "-d"]), Some(&config));
    assert_eq!(lonely.status.code(), Some(1), "there is nobody to take over from");
    assert!(folder.text("log").contains("start without -R"), "{}", folder.text("log"));

    assert!(pooler(&as_user(&["-d", "-q"]), Some(&config)).status.success());
    let old: i32 = folder.text("pid").trim().parse().expect("the pidfile holds a number");
    let _old_guard = KillAtEnd(old);
    let output = pooler(&as_user(&["-R", "-d", "-q"]), Some(&config));
    assert!(output.status.success(), "{}{}", said(&output.stderr), folder.text("log"));
    wait_until_gone(old);
    let new: i32 = folder.text("pid").trim().parse().expect("the pidfile holds a number");
    let _new_guard = KillAtEnd(new);
    assert_ne!(new, old);
    assert!(folder.path(".s.PGSQL.6432").exists(), "the old one leaves the socket's file alone");
    kill(Pid::from_raw(new), Signal::SIGTERM).expect("our own process");
    wait_until_gone(new);
    assert!(!folder.path(".s.PGSQL.6432").exists() && !folder.path("pid").exists());
}

/// A shell stands for the service manager: it passes its standard input on as the first socket.
#[test]
fn a_service_manager_passes_sockets_and_hears_how_it_goes() {
    let folder = Folder::new("");
    let passed = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = passed.local_addr().expect("it is bound");
    let manager = UnixDatagram::bind(folder.path("notify")).expect("our own folder");
    fs::set_permissions(folder.path("notify"), fs::Permissions::from_mode(0o777)).expect("our own file");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    let heard = || {
        let mut buffer = [0; 200];
        let len = manager.recv(&mut buffer).expect("the pooler tells its state");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let script = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let mut child = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_pooler")])
        .args(as_user(&["-q"]))
        .arg(folder.path("a.ini"))
        .env("NOTIFY_SOCKET", folder.path("notify"))
        .stdin(std::os::fd::OwnedFd::from(passed))
        .spawn()
        .expect("sh starts");
    let _guard = KillAtEnd(child.id() as i32);
    assert_eq!(heard(), "READY=1");
    std::net::TcpStream::connect(address).expect("the passed socket is listened to");
    assert!(!folder.path(".s.PGSQL.6432").exists(), "what was passed takes the place of the settings");
    let process = Pid::from_raw(child.id() as i32);
    kill(process, Signal::SIGHUP).expect("our own process");
    assert!(heard().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard(), "READY=1");
    kill(process, Signal::SIGTERM).expect("our own process");
    assert_eq!(heard(), "STOPPING=1");
    assert!(child.wait().expect("our own process").success());
}

#[test]
fn the_unix_socket_belongs_to_its_group() {
    let mine = nix::unistd::Group::from_gid(nix::unistd::getegid()).ok().flatten().expect("a group of ours");
    let folder = Folder::new(&format!("unix_socket_mode = 0770\nunix_socket_group = {}", mine.name));
    if Uid::effective().is_root() {
        // Only a member may give a file to a group; root's rights are gone by then.
        let output = pooler(&as_user(&["-q"]), Some(&folder.path("a.ini")));
        assert_eq!(output.status.code(), Some(1));
        assert!(folder.text("log").contains("cannot be given to"), "{}", folder.text("log"));
        return;
    }
    assert!(pooler(&["-d", "-q"], Some(&folder.path("a.ini"))).status.success());
    let process: i32 = folder.text("pid").trim().parse().expect("the pidfile holds a number");
    let _guard = KillAtEnd(process);
    let socket = fs::metadata(folder.path(".s.PGSQL.6432")).expect("the socket is there");
    assert_eq!((socket.gid(), socket.permissions().mode() & 0o777), (mine.gid.as_raw(), 0o770));
}

#[test]
fn an_abstract_socket_is_listened_to_and_taken_over() {
    let name = format!("pooler-cli-{}", std::process::id());
    let folder = Folder::new(&format!("unix_socket_dir = @{name}"));
    let config = folder.path("a.ini");
    let address = SocketAddr::from_abstract_name(format!("{name}/.s.PGSQL.6432")).expect("a short name");
    assert!(UnixStream::connect_addr(&address).is_err(), "nobody listens yet");
    let daemon = |arguments: &[&str]| {
        let output = pooler(&as_user(arguments), Some(&config));
        assert!(output.status.success(), "{}{}", said(&output.stderr), folder.text("log"));
        folder.text("pid").trim().parse::<i32>().expect("the pidfile holds a number")
    };
    let old = daemon(&["-d", "-q"]);
    let _old_guard = KillAtEnd(old);
    UnixStream::connect_addr(&address).expect("it listens");
    let new = daemon(&["-R", "-d", "-q"]);
    let _new_guard = KillAtEnd(new);
    wait_until_gone(old);
    UnixStream::connect_addr(&address).expect("the new one listens");
    kill(Pid::from_raw(new), Signal::SIGQUIT).expect("our own process");
    wait_until_gone(new);
}

#[test]
fn a_pooler_that_can_be_reached_nowhere_does_not_start() {
    let folder = Folder::new("unix_socket_dir =");
    let output = pooler(&as_user(&[]), Some(&folder.path("a.ini")));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output.stderr).contains("nowhere to listen on"), "{}", said(&output.stderr));
}
