//! A replica as a process of its own, which `kill -9` really ends.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::NamedTempFile;

use super::programs::{free_port, shell, until};
use super::{Client, User, World};

const START_MAX: Duration = Duration::from_secs(30);

pub struct Process {
    child: Child,
    pub addr: SocketAddr,
}

/// What a process says, in JSON.
pub struct Log(NamedTempFile);

impl Log {
    pub fn text(&self) -> String {
        std::fs::read_to_string(self.0.path()).unwrap()
    }

    /// The lines whose message begins so.
    pub fn lines(&self, message: &str) -> Vec<Value> {
        let lines =
            self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        lines.into_iter().filter(|line| line["message"].as_str().unwrap().starts_with(message)).collect()
    }
}

impl Process {
    /// A process that serves.
    pub async fn start(world: &World, name: &str, more: &[(&str, &str)]) -> Self {
        Self::start_with(world, name, more, Stdio::inherit()).await
    }

    /// The same with its log, which it writes in JSON.
    pub async fn start_with_log(world: &World, name: &str, more: &[(&str, &str)]) -> (Self, Log) {
        let log = NamedTempFile::new().unwrap();
        let stderr = log.reopen().unwrap().into();
        let process =
            Self::start_with(world, name, &[&[("LOG_FORMAT", "json")], more].concat(), stderr).await;
        (process, Log(log))
    }

    async fn start_with(world: &World, name: &str, more: &[(&str, &str)], stderr: Stdio) -> Self {
        let (port, ops_port) = (free_port(), free_port());
        let mut environment = world.environment(name, more);
        environment.insert("PORT".into(), port.to_string());
        environment.insert("OPS_PORT".into(), ops_port.to_string());
        let child = Command::new(env!("CARGO_BIN_EXE_web"))
            .env_clear()
            .envs(environment)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the program was built with the tests");
        let process = Self { child, addr: SocketAddr::from(([127, 0, 0, 1], port)) };
        let client = process.client();
        until(
            "the process is ready",
            START_MAX,
            async || matches!(client.try_get("/health").await, Some(answer) if answer.status == 200),
        )
        .await;
        process
    }

    pub fn client(&self) -> Client {
        Client::new(self.addr)
    }

    pub fn client_of(&self, user: &User) -> Client {
        self.client().with_token(&user.token)
    }

    /// SIGSTOP: when this returns each of its threads stands still; its connections stay.
    pub async fn freeze(&self) {
        shell(&format!("kill -STOP {}", self.child.id()));
        until("the process stands still", START_MAX, async || self.stands_still()).await;
    }

    fn stands_still(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.flatten().all(|thread| {
            // The state follows the name, which stands in parentheses.
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// SIGCONT: it goes on as if nothing had been.
    pub fn thaw(&self) {
        shell(&format!("kill -CONT {}", self.child.id()));
    }

    /// SIGKILL: it has no time for a word to anybody.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
