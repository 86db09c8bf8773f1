//! A stack in a temporary folder: real supervisor, real Postgres and Redis where asked for, stand-ins for the services.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

const FAKE: &str = include_str!("fake.py");
/// Ports of one world: 8 of the stores, then 20 of replicas and 20 of their ops ports.
const PORTS: u16 = 50;

/// Which stores the stack brings itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stores {
    Private,
    /// Named in config.env as the operator's own: nothing is dialled, the stand-ins do not need them.
    Elsewhere,
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub base: u16,
}

/// What a call of `stack` said.
pub struct Said {
    pub status: i32,
    pub text: String,
}

impl World {
    pub fn new(stores: Stores) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Root's stack runs as another user, who must be able to enter.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let world = Self { folder, base: free_ports() };
        world.install_fakes();
        let deploy = world.path("deploy");
        std::fs::create_dir(&deploy).unwrap();
        let texts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy");
        for name in ["nginx.conf", "pgbouncer.ini", "postgresql.conf"] {
            std::fs::copy(texts.join(name), deploy.join(name)).unwrap();
        }
        let elsewhere = "ACTUAL_DB_HOST=db.invalid\nREDIS_HOST=cache.invalid\nDB_PASSWORD=operators-own\n";
        world.configure(if stores == Stores::Elsewhere { elsewhere } else { "" });
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the stack's own folder.
    pub fn stack_path(&self, name: &str) -> PathBuf {
        self.path(".stack").join(name)
    }

    /// Programs as a build leaves them; again: another build.
    pub fn install_fakes(&self) {
        let programs = self.path("programs");
        std::fs::create_dir_all(&programs).unwrap();
        for name in ["web", "pooler", "balancer"] {
            let path = programs.join(name);
            std::fs::write(&path, FAKE).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    pub fn configure(&self, more: &str) {
        let base = self.base;
        let ports = [
            "HTTP_PORT",
            "BALANCER_OPS_PORT",
            "DB_PORT",
            "POOLER_METRICS_PORT",
            "STACK_POSTGRES_PORT",
            "STACK_STANDBY_PORT",
            "STACK_REDIS_PORT",
        ];
        let mut text = String::new();
        for (offset, name) in ports.iter().enumerate() {
            text.push_str(&format!("{name}={}\n", usize::from(base) + offset));
        }
        text.push_str(&format!("WEB_PORT_BASE={}\nWEB_OPS_PORT_BASE={}\n", base + 8, base + 28));
        text.push_str("STACK_STOP_TIMEOUT=10\n");
        text.push_str(more);
        std::fs::write(self.path("config.env"), text).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        command.arg("--home").arg(self.folder.path()).arg("--programs").arg(self.path("programs"));
        command.args(args).current_dir("/");
        command
    }

    pub fn stack(&self, args: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        Said { status: status.code().unwrap_or(-1), text }
    }

    /// A call that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.stack(args);
        assert_eq!(said.status, 0, "stack {args:?}:\n{}\n{}", said.text, self.log("stack"));
        said.text
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.stack(&["status", "--json"]).text).unwrap()
    }

    /// The row of one part.
    pub fn part(&self, name: &str) -> Value {
        let status = self.status();
        let rows = status["services"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}")).clone()
    }

    /// Waits until the part is as asked.
    pub fn part_until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut row = Value::Null;
        let came = comes_true(|| {
            row = self.part(name);
            wanted(&row)
        });
        assert!(came, "{name} did not come to it: {row}");
        row
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.stack_path(&format!("logs/{name}.log"))).unwrap_or_default()
    }

    /// Every pid of the stack that the status names.
    pub fn pids(&self) -> Vec<i64> {
        let status = self.status();
        let rows = status["services"].as_array().unwrap().iter();
        rows.filter_map(|row| row["pid"].as_i64()).chain(status["stack"]["pid"].as_i64()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that failed in the middle leaves nothing behind either.
        let _ = self.command(&["down", "--purge"]).output();
    }
}

pub fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    assert!(comes_true(is_so), "not in time: {what}");
}

/// Asks again for as long as a slow machine may need.
fn comes_true(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

pub fn is_alive(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub fn kill(pid: &Value) {
    let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// The first of a row of ports that nobody listens on. Each process and each world of it looks elsewhere.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 200).unwrap() * PORTS;
    for _ in 0..400 {
        let step = NEXT.fetch_add(PORTS, Ordering::Relaxed);
        let base = 20_000 + (start + step) % 12_000;
        if (base..base + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
    panic!("no {PORTS} free ports in a row");
}
