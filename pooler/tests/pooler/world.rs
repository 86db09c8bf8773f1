//! A private Postgres for the whole test process, and poolers in front of it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

/// The Postgres of this process. A shell stands guard: when the tests end, however they end, its input closes and it
/// stops Postgres and removes the folder. TERM first: one that has just been started ignores INT, as all that a shell
/// runs in the background does until it says otherwise.
pub struct Postgres {
    pub port: u16,
    _guard: Child,
}

static POSTGRES: OnceLock<Postgres> = OnceLock::new();

const GUARD: &str = r#"
"$1/initdb" -D "$2/data" -A trust -U postgres -E UTF8 --locale=C --no-sync >"$2/initdb.log" 2>&1 || exit 1
cat >>"$2/data/pg_hba.conf.new" <<HBA
host all scram_user 127.0.0.1/32 scram-sha-256
host all md5_user 127.0.0.1/32 md5
host all plain_user 127.0.0.1/32 password
host all all 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
local all all trust
HBA
mv "$2/data/pg_hba.conf.new" "$2/data/pg_hba.conf"
"$1/postgres" -D "$2/data" -p "$3" -k "$2" -c listen_addresses=127.0.0.1 -c fsync=off -c wal_level=logical -c max_connections=100 >"$2/log" 2>&1 &
pid=$!
cat >/dev/null
kill -TERM $pid
kill -INT $pid
wait $pid
rm -rf "$2"
"#;

pub fn postgres() -> &'static Postgres {
    POSTGRES.get_or_init(start_postgres)
}

fn start_postgres() -> Postgres {
    let folder = tempfile::Builder::new().prefix("pooler-pg-").tempdir().expect("a temporary folder").keep();
    give_away(&folder);
    let port = free_port();
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "guard"]).arg(programs()).arg(&folder).arg(port.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/tmp");
    drop_rights(&mut command);
    let guard = command.spawn().expect("sh starts");
    let postgres = Postgres { port, _guard: guard };
    wait_until("Postgres answers", || postgres.query("SELECT 1").is_ok());
    for statement in [
        "CREATE ROLE alice LOGIN",
        "CREATE ROLE bob LOGIN",
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram_user LOGIN PASSWORD 'secret'",
        "SET password_encryption = 'md5'; CREATE ROLE md5_user LOGIN PASSWORD 'secret'",
        "CREATE ROLE plain_user LOGIN PASSWORD 'secret'",
        "CREATE TABLE numbers AS SELECT n, repeat('x', 100) AS text FROM generate_series(1, 1000) n",
        "CREATE TABLE copied (n int, t text)",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC",
    ] {
        postgres.query(statement).expect("the test database is set up");
    }
    postgres
}

impl Postgres {
    /// Asks Postgres itself, without a pooler. The first column of the first row.
    pub fn query(&self, sql: &str) -> Result<String, String> {
        let output = Command::new("psql")
            .args(["-X", "-A", "-t", "-q", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"])
            .args(["-p", &self.port.to_string(), "-c", sql])
            .output()
            .expect("psql is installed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

/// A pooler with its own folder.
pub struct Pooler {
    pub port: u16,
    pub folder: tempfile::TempDir,
    child: Child,
}

impl Pooler {
    /// In transaction mode with trust, with these lines added to `[pgbouncer]`.
    pub fn start(settings: &str) -> Pooler {
        Pooler::start_with("", settings)
    }

    pub fn start_with(databases: &str, settings: &str) -> Pooler {
        let folder = tempfile::Builder::new().prefix("pooler-").tempdir().expect("a temporary folder");
        give_away(folder.path());
        let (port, pg_port) = (free_port(), postgres().port);
        let here = folder.path().display();
        let users = "\"postgres\" \"\"\n\"alice\" \"alicepw\"\n\"bob\" \"bobpw\"\n\"scram_user\" \"secret\"\n\
                     \"md5_user\" \"secret\"\n\"plain_user\" \"secret\"\n";
        std::fs::write(folder.path().join("users.txt"), users).expect("users.txt is written");
        let ini = format!(
            "[databases]\npostgres = host=127.0.0.1 port={pg_port}\nother = host=127.0.0.1 port={pg_port} dbname=postgres\n\
             {databases}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {here}\n\
             auth_type = trust\nauth_file = {here}/users.txt\nadmin_users = postgres\npool_mode = transaction\n\
             logfile = {here}/log\nmetrics_listen_port = 0\nworker_threads = 2\nworker_busy = 0\n{settings}\n"
        );
        std::fs::write(folder.path().join("pooler.ini"), ini).expect("the ini file is written");
        let child = program(folder.path()).spawn().expect("the pooler starts");
        let pooler = Pooler { port, folder, child };
        wait_until("the pooler listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        pooler
    }

    /// Another process takes over (`-R`). Returns the one that was there, once the new one answers.
    pub fn take_over(&mut self) -> Child {
        let new = program(self.folder.path()).arg("-R").spawn().expect("the pooler starts");
        let pid = new.id();
        let old = std::mem::replace(&mut self.child, new);
        self.wait_for_log(&format!("[{pid}] LOG process up"));
        old
    }

    pub async fn client(&self) -> tokio_postgres::Client {
        self.client_as("postgres", "").await.expect("the login succeeds")
    }

    /// A client with more in its connection string.
    pub async fn client_as(
        &self,
        user: &str,
        more: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let text = format!("host=127.0.0.1 port={} user={user} {more}", self.port);
        let text = if more.contains("dbname") { text } else { format!("{text} dbname=postgres") };
        let (client, connection) = tokio_postgres::connect(&text, tokio_postgres::NoTls).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Lines behind the last one of the configuration file; RELOAD takes them in.
    pub fn add_settings(&self, lines: &str) {
        let path = self.folder.path().join("pooler.ini");
        let text = std::fs::read_to_string(&path).expect("the ini file is there");
        std::fs::write(path, format!("{text}\n{lines}\n")).expect("the ini file is written");
    }

    pub fn replace_settings(&self, from: &str, to: &str) {
        let path = self.folder.path().join("pooler.ini");
        let text = std::fs::read_to_string(&path).expect("the ini file is there");
        assert!(text.contains(from), "{from} is not in {text}");
        std::fs::write(path, text.replace(from, to)).expect("the ini file is written");
    }

    /// One command of the console.
    pub fn admin(&self, command: &str) -> String {
        let output = Command::new("psql")
            .args(["-X", "-A", "-t", "-q", "-h", "127.0.0.1", "-U", "postgres", "-d", "pgbouncer"])
            .args(["-p", &self.port.to_string(), "-c", command])
            .output()
            .expect("psql is installed");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn wait_for_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill is installed");
        assert!(status.success());
    }

    /// Waits for the process to end by itself.
    pub fn wait_end(&mut self) {
        let child = &mut self.child;
        wait_until("the pooler ends", || matches!(child.try_wait(), Ok(Some(_))));
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the pooler's log:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pooler with the configuration of this folder.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
    command.arg("-q").arg(folder.join("pooler.ini")).current_dir("/tmp");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Not drop_rights(): the checkout may lie where only root may look, as /root does.
    if let Some(user) = unprivileged() {
        command.args(["-u", &user.name]);
    }
    command
}

/// Waits for something that another process does. Fails loudly when it does not happen.
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Of the metrics port.
pub fn get_page(port: u16, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    text
}

/// A port that is this test's until its process ends: locked against the others, each in a process of its own, and none of
/// those that the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static LOCKS: Mutex<Vec<std::fs::File>> = Mutex::new(Vec::new());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ports");
    std::fs::create_dir_all(&folder).expect("the target folder is ours");
    let first = std::process::id() * 37;
    let port = (0..PORTS.len() as u32).find_map(|step| {
        let port =
            PORTS.start + u16::try_from((first + step) % PORTS.len() as u32).expect("within the range");
        let lock = std::fs::File::create(folder.join(port.to_string())).expect("the folder is ours");
        let is_ours = lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
        is_ours.then(|| {
            LOCKS.lock().expect("nobody panics while holding it").push(lock);
            port
        })
    });
    port.expect("a port is free")
}

const PORTS: std::ops::Range<u16> = 10_000..20_000;

/// The settings for these HBA rules, which stand in a file that outlives the test.
pub fn hba(rules: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let mut file = tempfile::Builder::new().prefix("pooler-hba-").tempfile().expect("a temporary file");
    file.write_all(rules.as_bytes()).expect("the rules are written");
    let permissions = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(file.path(), permissions).expect("the file is ours");
    let (_, path) = file.keep().expect("the file may stay");
    format!("auth_type = hba\nauth_hba_file = {}", path.display())
}

/// The certificate and key `names` of tests/certs, where the user who runs the pooler can read them.
pub struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub fn source() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certs")
    }

    pub fn copy() -> Certificates {
        let folder = tempfile::tempdir().expect("a temporary folder");
        open_to_all(folder.path());
        for name in ["names.key", "names.crt"] {
            let copy = folder.path().join(name);
            std::fs::copy(Certificates::source().join(name), &copy).expect("the certificate is there");
            open_to_all(&copy);
        }
        Certificates { folder }
    }

    /// The settings with which clients have to speak TLS.
    pub fn client_tls(&self) -> String {
        let here = self.folder.path().display();
        format!(
            "client_tls_sslmode = require\nclient_tls_key_file = {here}/names.key\n\
             client_tls_cert_file = {here}/names.crt"
        )
    }
}

/// Speaks TLS on this connection and trusts the authority of `Certificates`.
pub fn tls_client(
    stream: std::net::TcpStream,
    alpn: &[&[u8]],
) -> rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream> {
    let authority = CertificateDer::from_pem_file(Certificates::source().join("ca.crt"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.expect("it is there")).expect("it is an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config.expect("the defaults").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("127.0.0.1").expect("it is an address");
    let tls = rustls::ClientConnection::new(Arc::new(config), name).expect("the configuration is whole");
    rustls::StreamOwned::new(tls, stream)
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("the file is ours");
}

/// A command that is run by the user who runs the pooler.
pub fn as_the_pooler(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(if unprivileged().is_some() { "runuser" } else { program });
    if let Some(user) = unprivileged() {
        command.args(["-u", &user.name, "--", program]);
    }
    command.args(args).current_dir("/tmp");
    command
}

/// Postgres refuses root.
fn drop_rights(command: &mut Command) {
    if let Some(user) = unprivileged() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
}

fn give_away(folder: &Path) {
    if let Some(user) = unprivileged() {
        nix::unistd::chown(folder, Some(user.uid), Some(user.gid)).expect("root may give a folder away");
    }
}

fn unprivileged() -> Option<nix::unistd::User> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let by_name = |name| nix::unistd::User::from_name(name).ok().flatten();
    Some(by_name("postgres").or_else(|| by_name("nobody")).expect("an unprivileged user"))
}

fn programs() -> PathBuf {
    let find = "command -v initdb || ls -d /usr/lib/postgresql/*/bin/initdb | tail -1";
    let output = Command::new("sh").args(["-c", find]).output().expect("sh starts");
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    path.parent().expect("Postgres is not installed: initdb was not found").to_path_buf()
}

/// Reads until the peer closes.
pub fn drain(stream: &mut std::net::TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

pub fn write(stream: &mut std::net::TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the peer takes the bytes");
}
