//! What the generator itself runs on and takes: read from /proc, so that a report can tell.

use crate::logic::report::Environment;
use anyhow::Context;
use std::fs;
use std::time::Duration;

/// CPU time of this process so far, user and system, all threads.
pub fn cpu_time() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/self/schedstat").context("cannot read this process's CPU time")?;
    // schedstat's first figure is nanoseconds on a CPU of the main thread: the generator has one thread that works.
    let nanos: u64 = text
        .split_whitespace()
        .next()
        .and_then(|field| field.parse().ok())
        .context("schedstat has no figure")?;
    Ok(Duration::from_nanos(nanos))
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
