//! The file with the process id: refuses a second pooler, is written when the sockets are open, goes at the end.

use std::fs;
use std::io::ErrorKind;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// The path of the pidfile; empty = none.
#[derive(Clone, Debug)]
pub struct Pidfile {
    path: String,
}

impl Pidfile {
    /// Fails when a process that lives is written there.
    pub fn check(path: &str) -> anyhow::Result<Pidfile> {
        let pidfile = Pidfile { path: path.to_string() };
        match pidfile.process() {
            Some(process) if is_alive(process) => {
                anyhow::bail!(
                    "pidfile {path} exists and process {process} lives: is another instance running?"
                )
            }
            _ => Ok(pidfile),
        }
    }

    /// Whoever is written there: this process comes in its place.
    pub fn of_another(path: &str) -> Pidfile {
        Pidfile { path: path.to_string() }
    }

    /// The process written there.
    pub fn process(&self) -> Option<i32> {
        fs::read_to_string(&self.path).ok()?.trim().parse().ok().filter(|process| *process > 0)
    }

    pub fn write(&self) -> anyhow::Result<()> {
        if self.path.is_empty() {
            return Ok(());
        }
        fs::write(&self.path, format!("{}\n", std::process::id()))
            .with_context(|| format!("could not write pidfile {}", self.path))
    }

    /// Only when it is still ours.
    pub fn remove(&self) {
        if self.process() != i32::try_from(std::process::id()).ok() {
            return;
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!("could not remove pidfile {}: {error}", self.path);
            }
            _ => {}
        }
    }
}

/// A process of another user counts as well.
fn is_alive(process: i32) -> bool {
    process != std::process::id() as i32 && !matches!(kill(Pid::from_raw(process), None), Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_respected_and_a_dead_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid").display().to_string();
        assert!(Pidfile::check(&path).is_ok(), "no file");
        fs::write(&path, "1\n").unwrap();
        assert!(Pidfile::check(&path).is_err(), "process 1 always lives");
        fs::write(&path, "nonsense").unwrap();
        let pidfile = Pidfile::check(&path).unwrap();
        pidfile.write().unwrap();
        assert_eq!(pidfile.process(), Some(std::process::id() as i32));
        pidfile.remove();
        assert!(!fs::exists(&path).unwrap());
        fs::write(&path, "1\n").unwrap();
        pidfile.remove();
        assert!(fs::exists(&path).unwrap(), "another's");
    }
}
