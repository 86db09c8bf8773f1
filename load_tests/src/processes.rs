//! Signals to parts of the stack under trial, never to anything else that has got their number meanwhile.

use crate::http::{Call, Client};
use crate::logic::fleet::Replica;
use crate::site::Site;
use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const ASK_EVERY: Duration = Duration::from_millis(50);

/// A process of the stack, known by number and name.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: u32,
    command: &'static str,
}

impl Process {
    pub fn of_replica(replica: &Replica) -> anyhow::Result<Self> {
        let pid = replica.pid.with_context(|| format!("the status names no pid of {}", replica.name))?;
        Ok(Self { pid, command: "web" })
    }

    pub fn of_redis(site: &Site) -> anyhow::Result<Self> {
        let redis = site.services.iter().find(|service| service.name == "redis");
        let pid =
            redis.and_then(|redis| redis.pid).context("the status names no Redis of the stack's own")?;
        Ok(Self { pid, command: "redis-server" })
    }

    /// # Errors
    /// The number belongs to another process by now, or the signal is not allowed.
    pub fn signal(self, signal: Signal) -> anyhow::Result<()> {
        // The status may be old, and its number another process by now.
        let command = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        anyhow::ensure!(
            command.trim() == self.command,
            "process {} is not {} any more: take a new status",
            self.pid,
            self.command
        );
        kill(Pid::from_raw(i32::try_from(self.pid)?), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.command))
    }

    /// SIGSTOP; returns once each of its threads stands still, which on a busy machine is some time later.
    ///
    /// # Errors
    /// As of [`Process::signal`], or a thread goes on all the same.
    pub async fn freeze(self, limit: Duration) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let began = Instant::now();
        while !stands_still(self.pid) {
            if began.elapsed() > limit {
                self.signal(Signal::SIGCONT)?;
                anyhow::bail!("process {} does not stand still", self.pid);
            }
            sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until it is no more.
    pub async fn gone(self, limit: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while !is_gone(self.pid) {
            anyhow::ensure!(
                began.elapsed() < limit,
                "process {} was still there after {} s",
                self.pid,
                limit.as_secs()
            );
            sleep(ASK_EVERY).await;
        }
        Ok(began.elapsed())
    }

    /// CPU time so far, all threads.
    pub fn cpu_time(self) -> anyhow::Result<Duration> {
        // Each thread's own account in nanoseconds; the sums in stat come in hundredths of a second.
        let mut sum = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).context("the process has gone")? {
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let ns = text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
            sum += Duration::from_nanos(ns);
        }
        Ok(sum)
    }

    /// Memory in use, in bytes.
    pub fn rss(self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
        Ok(kib * 1024)
    }
}

/// Waits until the replica says that it should get traffic.
pub async fn healthy(site: &Site, replica: &Replica, limit: Duration) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut client = Client::new(site.dialer_of(replica).await?);
    loop {
        let answer = client.call(&Call::get("/health", "/health")).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return Ok(began.elapsed());
        }
        anyhow::ensure!(
            began.elapsed() < limit,
            "{} did not come back within {} s",
            replica.name,
            limit.as_secs()
        );
        sleep(ASK_EVERY).await;
    }
}

/// Each of its threads is stopped.
fn stands_still(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.map(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    });
    states.all(|is_stopped| is_stopped)
}

/// Also where nobody reaps it, as the first process of a container may fail to do: a zombie without other threads.
pub fn is_gone(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // Fields 3 and 20 of proc(5), counted from behind the name, which may hold anything.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.next() == Some("Z") && fields.nth(16).is_none_or(|threads| matches!(threads, "0" | "1"))
}
