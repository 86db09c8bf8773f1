//! Private Postgres and Redis servers. Each is started under a shell that waits on a pipe held by the test process:
//! when that ends, in whatever way, the shell ends the server and removes its files.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

pub const USER: &str = "arena_user";
pub const PASSWORD: &str = "arena password";
pub(super) const START_MAX: Duration = Duration::from_secs(60);

/// Waits until `holds` says so; fails loudly, naming what did not come.
pub async fn until(what: &str, at_most: Duration, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < at_most, "waited {at_most:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A server under its shell.
pub(super) struct Guarded {
    shell: Child,
    /// The server's own process.
    pid: u32,
}

impl Guarded {
    /// `server` runs in the background of a shell that prints its process id; when the pipe closes, it gets `signal`
    /// and its files in `dir` are removed.
    pub(super) fn start(server: &str, signal: &str, dir: &Path) -> Self {
        let dir = dir.display();
        let script = format!(
            "{server} >{dir}/log 2>&1 & pid=$!; echo $pid; cat >/dev/null; kill -{signal} $pid; wait $pid; rm -rf {dir}"
        );
        let mut shell = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh is there");
        let mut line = String::new();
        let stdout = shell.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the shell prints a process id");
        Self { pid: line.trim().parse().expect("a process id"), shell }
    }

    pub(super) fn signal(&self, name: &str) {
        shell(&format!("kill -{name} {}", self.pid));
    }

    pub(super) fn end(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.end();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where Debian puts the programs, else wherever PATH finds them.
fn postgres_program(name: &str) -> String {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = found.map(|entry| entry.path().join("bin").join(name)).collect();
    versions.retain(|path| path.exists());
    versions.sort();
    versions.last().map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

/// Postgres refuses root.
fn unprivileged() -> &'static str {
    static PREFIX: OnceLock<&'static str> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let answers = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().expect("a basic program is there");
            (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        match answers("id", &["-u"]).1.as_str() {
            // setpriv becomes the program that it starts, so that a signal reaches it.
            "0" if answers("id", &["postgres"]).0 => {
                "setpriv --reuid=postgres --regid=postgres --clear-groups --"
            }
            "0" => "setpriv --reuid=nobody --regid=nogroup --clear-groups --",
            _ => "",
        }
    })
}

/// As its superuser, at the primary or a standby.
pub async fn connect_to(port: u16) -> PgConnection {
    let url = format!("postgres://{USER}:arena%20password@127.0.0.1:{port}/postgres");
    PgConnection::connect(&url).await.expect("the server answers")
}

pub(super) fn shell(script: &str) {
    let output = Command::new("sh").args(["-c", script]).output().expect("sh is there");
    assert!(
        output.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(super) fn new_dir(kind: &str) -> PathBuf {
    let dir = tempfile::Builder::new().prefix(&format!("arena-{kind}-")).tempdir().unwrap().keep();
    shell(&format!("chmod 0777 {}", dir.display()));
    dir
}

/// A server with superuser [`USER`].
pub struct Postgres {
    pub port: u16,
    dir: PathBuf,
    server: Guarded,
}

/// The pooler in front of it, where `WEB_TESTS_POOLER` names its program: then every test goes through it. A test that
/// kills one has its own.
pub struct Pooler {
    pub port: u16,
    postgres_port: u16,
    program: String,
    server: Guarded,
}

/// A standby that follows it.
pub struct Standby {
    pub port: u16,
    _server: Guarded,
}

fn start_postgres(dir: &Path, port: u16) -> Guarded {
    let server = format!(
        "{} {} -D {dir}/data -p {port} -k {dir} -c listen_addresses=127.0.0.1 -c fsync=off -c full_page_writes=off \
         -c max_connections=300 -c shared_buffers=64MB -c shared_preload_libraries=pg_stat_statements",
        unprivileged(),
        postgres_program("postgres"),
        dir = dir.display()
    );
    // SIGQUIT is Postgres' immediate shutdown: all its processes end at once.
    Guarded::start(&server, "QUIT", dir)
}

fn wait_for_postgres(port: u16, dir: &Path) {
    let began = Instant::now();
    let ready = || {
        let program = postgres_program("pg_isready");
        let asked = Command::new(program).args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]).status();
        asked.expect("pg_isready is there").success()
    };
    while !ready() {
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(began.elapsed() < START_MAX, "Postgres does not start:\n{log}");
    }
}

impl Postgres {
    /// The one of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub fn start() -> Self {
        let (dir, port) = (new_dir("postgres"), free_port());
        std::fs::write(dir.join("password"), PASSWORD).unwrap();
        shell(&format!("chmod 0644 {}/password", dir.display()));
        shell(&format!(
            "{} {} -D {dir}/data -U {USER} --pwfile={dir}/password --auth=scram-sha-256 -E UTF8 --locale=C --no-sync",
            unprivileged(),
            postgres_program("initdb"),
            dir = dir.display()
        ));
        let server = start_postgres(&dir, port);
        wait_for_postgres(port, &dir);
        Self { port, dir, server }
    }

    /// Ends it as a crash would: no backend says a word. Only in a world apart: other tests use the one of the process.
    pub fn crash(&self) {
        self.server.signal("KILL");
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:arena%20password@127.0.0.1:{}/{database}", self.port)
    }

    pub async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url(database)).await.expect("Postgres answers")
    }

    pub async fn create_database(&self, name: &str) {
        let mut connection = self.connect("postgres").await;
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .unwrap();
    }

    pub async fn standby(&self) -> Standby {
        let (dir, port) = (new_dir("standby"), free_port());
        shell(&format!(
            "PGPASSWORD='{PASSWORD}' {} {} -h 127.0.0.1 -p {} -U {USER} -D {}/data -R -X stream --checkpoint=fast --no-sync",
            unprivileged(),
            postgres_program("pg_basebackup"),
            self.port,
            dir.display()
        ));
        let server = start_postgres(&dir, port);
        wait_for_postgres(port, &dir);
        Standby { port, _server: server }
    }
}

impl Pooler {
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Pooler>> = OnceLock::new();
        let start = |program: String| Self::start(program, Postgres::shared().port, free_port());
        SHARED.get_or_init(|| chassis::settings::environment()("WEB_TESTS_POOLER").map(start)).as_ref()
    }

    /// Our own pooler in front of this Postgres, for one test alone.
    pub fn apart(postgres: &Postgres) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_web")).with_file_name("pooler");
        assert!(program.exists(), "{} is not there: cargo build -p pooler", program.display());
        Self::start(program.display().to_string(), postgres.port, free_port())
    }

    /// SIGKILL: clients and servers find their connections cut.
    pub fn kill(&self) {
        self.server.signal("KILL");
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        *self = Self::start(self.program.clone(), self.postgres_port, self.port);
    }

    fn start(program: String, postgres_port: u16, port: u16) -> Self {
        let dir = new_dir("pooler");
        let userlist = dir.join("userlist.txt");
        std::fs::write(&userlist, format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
        let ini = format!(
            "[databases]\n* = host=127.0.0.1 port={postgres_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\npool_mode = transaction\ndefault_pool_size = 5\n\
             max_prepared_statements = 200\nauth_type = scram-sha-256\nauth_file = {}\nstats_users = {USER}\n",
            userlist.display()
        );
        std::fs::write(dir.join("pgbouncer.ini"), ini).unwrap();
        let server = format!("{} {program} {}/pgbouncer.ini", unprivileged(), dir.display());
        let server = Guarded::start(&server, "KILL", &dir);
        wait_for_postgres(port, &dir);
        Self { port, postgres_port, program, server }
    }
}

impl Standby {
    async fn run(&self, sql: impl Into<String>) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(&mut connection).await.unwrap();
    }

    /// From now on the standby stays where it is.
    pub async fn pause_replay(&self) {
        self.run("SELECT pg_wal_replay_pause()").await;
    }

    pub async fn resume_replay(&self) {
        self.run("SELECT pg_wal_replay_resume()").await;
    }

    /// From now on it replays each commit this much later.
    pub async fn delay_replay(&self, delay_ms: u32) {
        self.run("ALTER SYSTEM SET recovery_min_apply_delay = DELAY".replace("DELAY", &delay_ms.to_string()))
            .await;
        self.run("SELECT pg_reload_conf()").await;
    }

    /// From now on it receives nothing: what the primary writes is lost with it.
    pub async fn cut_off(&self) {
        self.run("ALTER SYSTEM SET primary_conninfo = ''").await;
        self.run("SELECT pg_reload_conf()").await;
        until("the standby receives nothing", START_MAX, async || {
            !self.ask("SELECT EXISTS (SELECT 1 FROM pg_stat_wal_receiver)").await
        })
        .await;
    }

    /// Makes it a primary.
    pub async fn promote(&self) {
        self.run("SELECT pg_promote()").await;
    }

    /// Until the last question of somebody matches this pattern.
    pub async fn until_asked(&self, pattern: &str) {
        let asked = format!(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query ~ '{pattern}')"
        );
        until("the standby is asked", START_MAX, async || self.ask(&asked).await).await;
    }

    /// Whether it has replayed everything that the primary has written by now.
    pub async fn catch_up_with(&self, primary: &Postgres) {
        let mut connection = primary.connect("postgres").await;
        let lsn: String = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let there = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
        until("the standby has caught up", START_MAX, async || self.ask(&there).await).await;
    }

    async fn ask(&self, sql: &str) -> bool {
        let mut connection = self.connect().await;
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
    }

    async fn connect(&self) -> PgConnection {
        connect_to(self.port).await
    }
}
