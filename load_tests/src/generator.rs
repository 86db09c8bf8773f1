//! What the generator itself runs on and takes: read from /proc, so that a report can tell.

use crate::logic::report::Environment;
use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::fs;
use std::time::Duration;

/// CPU time of this process so far, user and system, all threads.
pub fn cpu_time() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("cannot read this process's CPU time")?;
    let span = |time: TimeVal| {
        let us = time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
        Duration::from_micros(us)
    };
    Ok(span(usage.user_time()) + span(usage.system_time()))
}

/// The machine, as far as /proc tells it.
pub fn environment() -> Environment {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?.to_owned();
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory_kib = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    Environment {
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_mib: memory_kib.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024,
        version: env!("CARGO_PKG_VERSION"),
    }
}
