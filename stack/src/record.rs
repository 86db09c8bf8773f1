//! One small file per running child, so that a stack whose supervisor was killed can still be taken down.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dirs::Dirs;

/// A process by pid and start time: a pid alone may have been given to another process since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks since the system's start, field 22 of /proc/PID/stat.
    started_ticks: u64,
}

impl Process {
    /// The process with this pid, if it runs.
    pub fn running(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        // A zombie has ended and only its parent has not looked yet. But the first thread can be one before the others
        // have gone, and until then the process holds its sockets.
        let has_ended = stat.state == 'Z' && stat.threads <= 1;
        (!has_ended).then_some(Self { pid, started_ticks: stat.started_ticks })
    }

    pub fn is_alive(&self) -> bool {
        Self::running(self.pid) == Some(*self)
    }

    /// Sends a signal if the process is still the same one.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            // It may end between the look and the signal; then there is nothing left to tell.
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), signal);
        }
    }
}

/// Fields of /proc/PID/stat.
struct Stat {
    state: char,
    threads: u64,
    started_ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold blanks and brackets: fields are counted from its last closing bracket.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        state: field(3)?.chars().next()?,
        threads: field(20)?.parse().ok()?,
        started_ticks: field(22)?.parse().ok()?,
    })
}

/// The record of one child; the file goes when this is dropped.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
}

impl Record {
    /// # Errors
    /// The file cannot be written.
    pub fn write(dirs: &Dirs, name: &str, pid: u32) -> Result<Self> {
        let path = path_of(dirs, name);
        let ticks = stat(pid).map_or(0, |stat| stat.started_ticks);
        fs::write(&path, format!("{pid} {ticks}\n"))
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn path_of(dirs: &Dirs, name: &str) -> PathBuf {
    dirs.run().join(format!("{name}.pid"))
}

/// Children on record, by name, that still run. Records of processes that are gone are removed.
pub fn left_over(dirs: &Dirs) -> Vec<(String, Process)> {
    let mut found = Vec::new();
    for path in fs::read_dir(dirs.run()).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let Some(name) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".pid"))
        else {
            continue;
        };
        match read(&path).filter(Process::is_alive) {
            Some(process) => found.push((name.to_owned(), process)),
            None => {
                let _ = fs::remove_file(&path);
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn read(path: &Path) -> Option<Process> {
    let text = fs::read_to_string(path).ok()?;
    let (pid, ticks) = text.trim().split_once(' ')?;
    Some(Process { pid: pid.parse().ok()?, started_ticks: ticks.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::RunAs;

    #[test]
    fn a_running_child_is_on_record_and_a_dead_one_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::prepare(dir.path(), &RunAs::Starter).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let record = Record::write(&dirs, "web-1", child.id()).unwrap();
        let found = left_over(&dirs);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.as_str(), found[0].1.pid), ("web-1", child.id()));
        found[0].1.signal(Signal::SIGKILL);
        child.wait().unwrap();
        assert!(left_over(&dirs).is_empty());
        assert!(!dirs.run().join("web-1.pid").exists());
        drop(record);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_still_runs() {
        let script = "import ctypes, threading, time\n\
            threading.Thread(target=time.sleep, args=(600,)).start()\n\
            ctypes.CDLL(None).pthread_exit(None)";
        let mut child = std::process::Command::new("python3").args(["-c", script]).spawn().unwrap();
        while stat(child.id()).is_some_and(|stat| stat.state != 'Z') {
            std::thread::yield_now();
        }
        let process = Process::running(child.id()).expect("its second thread sleeps");
        process.signal(Signal::SIGKILL);
        child.wait().unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_ours() {
        let me = Process::running(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { started_ticks: me.started_ticks + 1, ..me }.is_alive());
    }
}
