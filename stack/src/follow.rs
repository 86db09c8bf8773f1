//! `stack logs`: the ends of the parts' logs, and what is appended to them.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::Site;
use crate::dirs::Dirs;
use crate::spawn::last_lines;
use crate::supervisor::todays_name;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Read from one log before the next has its turn.
const CHUNK_BYTES_MAX: u64 = 1024 * 1024;

struct Log {
    name: String,
    path: PathBuf,
    read_to: u64,
    /// A line whose end has not come.
    begun: Vec<u8>,
}

/// Prints the last lines of one log or of all, and goes on until interrupted when `follow` is asked.
///
/// # Errors
/// There is no such log.
pub async fn logs(site: &Site, service: Option<&str>, follow: bool, lines: usize) -> Result<ExitCode> {
    let dirs = Dirs::at(&site.dir);
    let mut logs = find(&dirs, service.map(todays_name))?;
    for log in &mut logs {
        log.read_to = std::fs::metadata(&log.path).map_or(0, |meta| meta.len());
        for line in last_lines(&log.path, lines).unwrap_or_default() {
            print_line(&log.name, line.as_bytes())?;
        }
    }
    if !follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        for log in &mut logs {
            log.print_new()?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn find(dirs: &Dirs, service: Option<&str>) -> Result<Vec<Log>> {
    let entries =
        std::fs::read_dir(dirs.logs()).with_context(|| format!("no logs in {}", dirs.root().display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".log")?.to_owned()))
        .collect();
    names.sort();
    let wanted: Vec<&String> = match service {
        None => names.iter().collect(),
        Some("web") => names.iter().filter(|name| name.starts_with("web-")).collect(),
        Some(service) => names.iter().filter(|name| *name == service).collect(),
    };
    if wanted.is_empty() {
        bail!("no log of {}; there are: {}", service.unwrap_or("any part"), names.join(", "));
    }
    let log =
        |name: &String| Log { name: name.clone(), path: dirs.log_of(name), read_to: 0, begun: Vec::new() };
    Ok(wanted.into_iter().map(log).collect())
}

impl Log {
    fn print_new(&mut self) -> Result<()> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        let len = file.metadata()?.len();
        if len < self.read_to {
            // It was trimmed: what is in it now is all new.
            self.read_to = 0;
        }
        file.seek(SeekFrom::Start(self.read_to))?;
        let mut bytes = Vec::new();
        self.read_to += file.take(CHUNK_BYTES_MAX).read_to_end(&mut bytes)? as u64;
        self.begun.extend(bytes);
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            print_line(&self.name, &line[..end])?;
        }
        Ok(())
    }
}

fn print_line(name: &str, line: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written =
        write!(out, "{name:<10} | ").and_then(|()| out.write_all(line)).and_then(|()| out.write_all(b"\n"));
    match written {
        // The reader, such as `head`, has seen enough.
        Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}
