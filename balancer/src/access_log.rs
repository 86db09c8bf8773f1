//! Access logs: each worker renders its lines into its own buffer and writes them in batches; no lock per request.
//! Files are opened once per process and opened anew on USR1.

mod named;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::named::OpenFiles;
use crate::conf::error::system;
use crate::conf::settings::{AccessLog, Escape, LogFormat, LogTarget};
use crate::conf::template::Part;
use crate::conf::variables::Facts;

/// A worker's lines are written at the latest when they fill this.
const BATCH_LEN: usize = 16 << 10;
/// … and this long after the first of them, so that who watches the log sees it live.
const BATCH_DELAY: Duration = Duration::from_millis(50);
/// With `buffer=` and without `flush=`: nginx waits for the buffer to fill, which on a quiet host takes for ever.
const BUFFER_DELAY: Duration = Duration::from_secs(5);

/// The open log files of the process, by path.
#[derive(Debug, Default)]
pub struct LogFiles {
    open: Mutex<HashMap<Arc<Path>, Weak<LogFile>>>,
}

/// The files that one configuration writes to: open for as long as anything is under way in it.
#[derive(Debug, Clone)]
pub struct HeldFiles(#[expect(dead_code, reason = "held, not read")] Arc<[Arc<LogFile>]>);

#[derive(Debug)]
struct LogFile {
    path: Arc<Path>,
    file: Mutex<File>,
}

impl LogFiles {
    /// Opens what a configuration names and is not open yet. Files of others stay as long as those hold them.
    pub fn open(&self, paths: &[Arc<Path>]) -> Result<HeldFiles, String> {
        let held = paths.iter().map(|path| match self.find(path) {
            Some(file) => Ok(file),
            None => {
                let file = append(path).map_err(|error| system("open", path, &error))?;
                Ok(Arc::new(LogFile { path: path.clone(), file: Mutex::new(file) }))
            }
        });
        let held: Arc<[Arc<LogFile>]> = held.collect::<Result<_, String>>()?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, file| file.strong_count() > 0);
        open.extend(held.iter().map(|file| (file.path.clone(), Arc::downgrade(file))));
        Ok(HeldFiles(held))
    }

    /// USR1: the names may lead to other files now.
    pub fn reopen(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for log in open.values().filter_map(Weak::upgrade) {
            match append(&log.path) {
                Ok(file) => *log.file.lock().unwrap_or_else(PoisonError::into_inner) = file,
                Err(error) => tracing::error!("{}", system("open", &log.path, &error)),
            }
        }
    }

    fn find(&self, path: &Path) -> Option<Arc<LogFile>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(path)?.upgrade()
    }
}

/// A container's output may belong to another user: it can be written to, but not opened by its name.
pub fn append(path: &Path) -> io::Result<File> {
    match path.to_str() {
        Some("/dev/stdout") => return io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Some("/dev/stderr") => return io::stderr().as_fd().try_clone_to_owned().map(File::from),
        _ => {}
    }
    OpenOptions::new().create(true).append(true).open(path)
}

impl LogFile {
    fn write(&self, lines: &[u8]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(lines) {
            tracing::error!("{}", system("write", &self.path, &error));
        }
    }
}

/// One worker's lines that are not written yet.
#[derive(Debug)]
pub struct Journal {
    files: Arc<LogFiles>,
    batches: RefCell<Vec<Batch>>,
    /// Of logs with variables in their names.
    named: RefCell<OpenFiles>,
    /// Some batch has got its first line.
    begun: Notify,
}

#[derive(Debug)]
struct Batch {
    file: Arc<LogFile>,
    terms: BatchTerms,
    lines: Vec<u8>,
    due: Option<Instant>,
}

/// How a log wants its lines held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BatchTerms {
    len_max: usize,
    /// Each batch is packed by itself.
    gzip: Option<u32>,
    /// No `buffer=` holds its lines back.
    is_live: bool,
}

impl Journal {
    pub fn new(files: Arc<LogFiles>) -> Journal {
        Journal { files, batches: RefCell::default(), named: RefCell::default(), begun: Notify::new() }
    }

    /// One line for each log of the location whose condition holds.
    pub fn write(&self, logs: &[AccessLog], facts: &dyn Facts) {
        for log in logs {
            if log.condition.as_ref().is_none_or(|condition| condition.is_true(facts)) {
                self.write_line(log, facts);
            }
        }
    }

    fn write_line(&self, log: &AccessLog, facts: &dyn Facts) {
        let path = match &log.target {
            LogTarget::File(path) => path,
            LogTarget::Named { name, folder, open } => {
                let name = name.to_bytes(facts);
                let path = folder.join(OsStr::from_bytes(&name));
                let mut line = Vec::new();
                render(&log.format, facts, &mut line);
                let now = std::time::Instant::now();
                if let Err(error) = self.named.borrow_mut().write(&path, &line, open.as_ref(), now) {
                    tracing::error!("{}", system("open", &path, &error));
                }
                return;
            }
        };
        let mut batches = self.batches.borrow_mut();
        let Some(index) = self.batch(&mut batches, path, log) else { return };
        let batch = &mut batches[index];
        render(&log.format, facts, &mut batch.lines);
        if batch.lines.len() >= batch.terms.len_max {
            batch.flush();
        } else if batch.due.is_none() {
            let delay = match (log.buffer_len, log.flush) {
                (_, Some(delay)) => delay,
                (Some(_), None) => BUFFER_DELAY,
                (None, None) => BATCH_DELAY,
            };
            batch.due = Some(Instant::now() + delay);
            self.begun.notify_one();
        }
    }

    /// The batch of a log; the file is looked up when this worker first writes to it. Few: a scan finds it.
    fn batch(&self, batches: &mut Vec<Batch>, path: &Arc<Path>, log: &AccessLog) -> Option<usize> {
        let terms = BatchTerms {
            len_max: log.buffer_len.unwrap_or(BATCH_LEN),
            gzip: log.gzip,
            is_live: log.buffer_len.is_none(),
        };
        let is_its = |batch: &Batch| {
            (Arc::ptr_eq(&batch.file.path, path) || batch.file.path == *path) && batch.terms == terms
        };
        if let Some(known) = batches.iter().position(is_its) {
            return Some(known);
        }
        batches.push(Batch { file: self.files.find(path)?, terms, lines: Vec::new(), due: None });
        Some(batches.len() - 1)
    }

    /// Writes batches as they come due; a worker runs this for as long as it lives.
    pub async fn run(&self) {
        loop {
            let next = self.batches.borrow().iter().filter_map(|batch| batch.due).min();
            let Some(due) = next else {
                self.begun.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(due) => self.flush_due(),
                () = self.begun.notified() => {}
            }
        }
    }

    fn flush_due(&self) {
        let now = Instant::now();
        let mut batches = self.batches.borrow_mut();
        batches.iter_mut().filter(|batch| batch.due.is_some_and(|due| due <= now)).for_each(Batch::flush);
    }

    /// Before a connection closes: who sees it end finds its lines in the log, as with nginx.
    pub fn flush_live(&self) {
        self.batches.borrow_mut().iter_mut().filter(|batch| batch.terms.is_live).for_each(Batch::flush);
    }

    /// Everything, at once: before the worker ends.
    pub fn flush(&self) {
        self.batches.borrow_mut().iter_mut().for_each(Batch::flush);
    }

    /// After a reload: files that no log names any more are let go.
    pub fn start_over(&self) {
        self.flush();
        self.batches.borrow_mut().clear();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Batch {
    fn flush(&mut self) {
        self.due = None;
        if !self.lines.is_empty() {
            match self.terms.gzip {
                Some(level) => self.file.write(&packed(&self.lines, level)),
                None => self.file.write(&self.lines),
            }
            self.lines.clear();
        }
    }
}

fn packed(lines: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    // Packing from memory into memory cannot fail.
    let _ = encoder.write_all(lines);
    encoder.finish().unwrap_or_default()
}

/// Appends the line that the format makes, with its end.
pub fn render(format: &LogFormat, facts: &dyn Facts, out: &mut Vec<u8>) {
    for part in format.line.parts() {
        match part {
            Part::Text(text) => out.extend_from_slice(text),
            Part::Variable(variable) => {
                let start = out.len();
                let found = variable.write(facts, out);
                if !found && out.len() == start && format.escape == Escape::Default {
                    out.push(b'-');
                } else {
                    escape_from(format.escape, start, out);
                }
            }
        }
    }
    out.push(b'\n');
}

/// Escapes what stands from `start` on. Nearly every value has nothing to escape, so it is looked through first.
fn escape_from(escape: Escape, start: usize, out: &mut Vec<u8>) {
    let plain = |byte: &u8| match escape {
        Escape::Default => (0x20..0x7f).contains(byte) && *byte != b'"' && *byte != b'\\',
        Escape::Json => *byte >= 0x20 && *byte != b'"' && *byte != b'\\',
        Escape::None => true,
    };
    let Some(first) = out[start..].iter().position(|byte| !plain(byte)) else { return };
    let rest = out.split_off(start + first);
    for byte in rest {
        match (escape, byte) {
            (_, byte) if plain(&byte) => out.push(byte),
            (Escape::Json, byte) => escape_json(byte, out),
            (_, byte) => {
                out.extend_from_slice(b"\\x");
                out.push(HEX_UPPER[usize::from(byte >> 4)]);
                out.push(HEX_UPPER[usize::from(byte & 15)]);
            }
        }
    }
}

const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn escape_json(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        byte => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX_UPPER[usize::from(byte >> 4)]);
            out.push(HEX_UPPER[usize::from(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests;
