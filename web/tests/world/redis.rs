//! Private Redis servers and Sentinels.

use std::path::Path;

use super::programs::{Guarded, START_MAX, free_port, new_dir, shell, until};

/// A Redis of one test.
pub struct Redis {
    pub port: u16,
    server: Option<Guarded>,
}

impl Redis {
    pub async fn start() -> Self {
        let mut redis = Self { port: free_port(), server: None };
        redis.restart().await;
        redis
    }

    /// A replica of the Redis on this port.
    pub async fn follow(master: u16) -> Self {
        let mut redis = Self { port: free_port(), server: None };
        redis.start_with(&format!("--port {} --replicaof 127.0.0.1 {master}", redis.port)).await;
        redis
    }

    /// One that speaks TLS only and lets in one user; gives its certificate too.
    pub async fn with_tls_and_user(user: &str, password: &str) -> (Self, String) {
        let dir = new_dir("certificate");
        let certificate = make_certificate(&dir);
        let place = dir.display();
        let mut redis = Self { port: free_port(), server: None };
        redis
            .start_with(&format!(
                "--port 0 --tls-port {} --tls-cert-file {place}/cert.pem --tls-key-file {place}/key.pem \
                 --tls-auth-clients no --user {user} on '>{password}' '~*' '&*' '+@all' --user default off",
                redis.port
            ))
            .await;
        std::fs::remove_dir_all(dir).unwrap();
        (redis, certificate)
    }

    pub async fn restart(&mut self) {
        self.start_with(&format!("--port {}", self.port)).await;
    }

    async fn start_with(&mut self, options: &str) {
        let dir = new_dir("redis");
        let server = format!(
            "redis-server {options} --bind 127.0.0.1 --save '' --appendonly no --dir {}",
            dir.display()
        );
        self.server = Some(Guarded::start(&server, "KILL", &dir));
        wait_for(self.port).await;
    }

    pub async fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            tokio::task::spawn_blocking(move || server.end()).await.unwrap();
        }
    }

    /// Keeps every question waiting for so long.
    pub async fn pause(&self, time: std::time::Duration) {
        let mut command = redis::cmd("CLIENT");
        self.command::<()>(command.arg("PAUSE").arg(u64::try_from(time.as_millis()).unwrap())).await;
    }

    /// As when it comes back empty, and so soon that nobody has noticed.
    pub async fn lose_all(&self) {
        self.command::<()>(&redis::cmd("FLUSHALL")).await;
    }

    /// How often this command was called since Redis began.
    pub async fn calls(&self, name: &str) -> u64 {
        let told: String = self.command(redis::cmd("INFO").arg("commandstats")).await;
        let calls =
            told.split_once(&format!("cmdstat_{name}:calls=")).and_then(|(_, rest)| rest.split_once(','));
        calls.map_or(0, |(calls, _)| calls.parse().unwrap())
    }

    pub async fn command<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        command.query_async(&mut connection).await.unwrap()
    }

    /// Stops the process without ending it: connections stay open and nothing is answered.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        self.server.as_ref().expect("Redis runs").signal(name);
    }
}

/// A Sentinel that decides by itself and soon.
pub struct Sentinel {
    pub port: u16,
    _server: Guarded,
}

impl Sentinel {
    /// Watches the master on this port, and the replicas that it knows of.
    pub async fn watch(master: u16) -> Self {
        let (dir, port) = (new_dir("sentinel"), free_port());
        let config = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
        );
        std::fs::write(dir.join("sentinel.conf"), config).unwrap();
        let server = format!("redis-server {}/sentinel.conf --sentinel", dir.display());
        let sentinel = Self { port, _server: Guarded::start(&server, "KILL", &dir) };
        wait_for(port).await;
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        // Without it there is nobody to promote.
        let mut known = 0;
        while known == 0 {
            let mut question = redis::cmd("SENTINEL");
            let replicas: Vec<redis::Value> =
                question.arg("replicas").arg("mymaster").query_async(&mut connection).await.unwrap();
            known = replicas.len();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        sentinel
    }

    /// Names the server on this port, by TLS only, to those who log in as `login` says in the words of sentinel.conf;
    /// gives its certificate too.
    pub async fn guarded(master: u16, login: &str) -> (Self, String) {
        let (dir, port) = (new_dir("sentinel"), free_port());
        let certificate = make_certificate(&dir);
        let config = format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\ntls-cert-file {place}/cert.pem\ntls-key-file {place}/key.pem\n\
             tls-ca-cert-file {place}/cert.pem\ntls-auth-clients no\n{login}\n\
             sentinel monitor mymaster 127.0.0.1 {master} 1\n",
            place = dir.display()
        );
        std::fs::write(dir.join("sentinel.conf"), config).unwrap();
        let server = format!("redis-server {}/sentinel.conf --sentinel", dir.display());
        let sentinel = Self { port, _server: Guarded::start(&server, "KILL", &dir) };
        wait_for(port).await;
        (sentinel, certificate)
    }
}

/// Puts `cert.pem` and `key.pem` of 127.0.0.1 into a folder; gives the certificate.
fn make_certificate(dir: &Path) -> String {
    let place = dir.display();
    shell(&format!(
        "openssl req -x509 -newkey ed25519 -nodes -days 2 -subj /CN=redis -keyout {place}/key.pem \
         -out {place}/cert.pem -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
    ));
    std::fs::read_to_string(dir.join("cert.pem")).unwrap()
}

pub(super) async fn wait_for(port: u16) {
    until("Redis answers", START_MAX, async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
}
