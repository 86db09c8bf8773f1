//! Starts one child: as whom, with which environment, and where its words go.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};

use crate::dirs::Dirs;
use crate::identity::RunAs;
use crate::logic::plan::{Identity, Part};

/// What all children have in common.
#[derive(Debug, Clone)]
pub struct Nest {
    pub dirs: Dirs,
    pub run_as: RunAs,
    /// What every process may know of its machine.
    pub basics: BTreeMap<String, String>,
}

impl Nest {
    /// Starts a long-running part; its output is appended to its log.
    ///
    /// # Errors
    /// The program or its log cannot be opened.
    pub fn start(&self, part: &Part) -> Result<Child> {
        let mut command = self.command(&part.program, part.identity, &part.env);
        let log = self.open_log(&part.name, part.identity)?;
        command.args(&part.args).stdout(log.try_clone()?).stderr(log);
        // A group of its own: what is typed at the terminal reaches the supervisor alone.
        command.process_group(0);
        command.spawn().with_context(|| format!("starting {}: {}", part.name, part.program.display()))
    }

    /// Runs a program that ends by itself, such as a migration; its output goes to the log `name`.
    ///
    /// # Errors
    /// It cannot be started or does not end well; the error shows the end of its log.
    pub async fn run_once(
        &self,
        name: &str,
        program: &Path,
        args: &[&str],
        env: &BTreeMap<String, String>,
    ) -> Result<()> {
        let mut command = self.command(program, Identity::Unprivileged, env);
        let log = self.open_log(name, Identity::Unprivileged)?;
        command.args(args).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let status =
            command.status().await.with_context(|| format!("starting {name}: {}", program.display()))?;
        if status.success() {
            return Ok(());
        }
        bail!("{name} ended with {status}\n{}", log_tail(&self.dirs.log_of(name)))
    }

    /// A command of the parts' user. Of the starter's environment it has the basics and nothing else, and `env`.
    pub fn command(&self, program: &Path, identity: Identity, env: &BTreeMap<String, String>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dirs.root()).stdin(Stdio::null());
        command.env_clear().envs(&self.basics).envs(env);
        if let Some(user) = self.run_as.user_for(identity) {
            command.uid(user.uid).gid(user.gid).env("HOME", self.dirs.root());
            command.env("USER", &user.name).env("LOGNAME", &user.name);
        }
        command
    }

    fn open_log(&self, name: &str, identity: Identity) -> Result<File> {
        let path = self.dirs.log_of(name);
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        // A part may open /dev/stdout anew, which asks for permission to the file itself.
        if identity == Identity::Unprivileged {
            self.run_as.give(&path)?;
        }
        Ok(file)
    }
}

/// How much of a log an error shows.
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 8 * 1024;

/// The last lines of a log, each indented, for an error message.
pub fn log_tail(path: &Path) -> String {
    let lines = last_lines(path, TAIL_LINES).unwrap_or_default();
    let mut text = format!("  the end of {}:\n", path.display());
    for line in lines {
        text.push_str(&format!("    {line}\n"));
    }
    text.truncate(text.trim_end().len());
    text
}

/// The last lines of a file, reading no more than its end.
///
/// # Errors
/// The file cannot be read.
pub fn last_lines(path: &Path, count: usize) -> std::io::Result<Vec<String>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let wanted = TAIL_BYTES.max(count as u64 * 256);
    file.seek(SeekFrom::Start(len.saturating_sub(wanted)))?;
    let mut bytes = Vec::new();
    file.take(wanted).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, text).unwrap();
        assert_eq!(last_lines(&path, 2).unwrap(), ["line 9998", "line 9999"]);
        assert!(log_tail(&path).ends_with("    line 9999"));
    }
}
