//! The log in PgBouncer's form, for the tools that read it: `2026-11-21 12:00:00.123 UTC [pid] LOG message`.
//!
//! Everyone logs through `tracing`; this is where the lines end up: the log file, the standard error, the syslog.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard};

use time::OffsetDateTime;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use crate::settings::Keys;

/// The log of this process. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    sink: Arc<Mutex<Sink>>,
    filter: reload::Handle<Targets, Registry>,
}

/// Where lines go.
struct Sink {
    to_stderr: bool,
    path: String,
    file: Option<File>,
    syslog: Option<Syslog>,
}

struct Syslog {
    socket: UnixDatagram,
    facility: u8,
    ident: String,
}

impl Log {
    /// Starts the log of the process. `quiet`: nothing on the standard error.
    pub fn start(keys: &Keys, quiet: bool) -> Result<Log, String> {
        let sink = Sink { to_stderr: !quiet, path: String::new(), file: None, syslog: None };
        let sink = Arc::new(Mutex::new(sink));
        let (filter, handle) = reload::Layer::new(targets(keys.verbose));
        let lines = Lines { sink: sink.clone(), process_id: std::process::id() };
        let subscriber = Registry::default().with(filter).with(lines);
        tracing::subscriber::set_global_default(subscriber).map_err(|error| error.to_string())?;
        let log = Log { sink, filter: handle };
        log.apply(keys)?;
        Ok(log)
    }

    /// Takes over logfile, verbose and the syslog's keys, after the start, RELOAD and SET.
    pub fn apply(&self, keys: &Keys) -> Result<(), String> {
        self.filter.reload(targets(keys.verbose)).map_err(|error| error.to_string())?;
        let mut sink = lock(&self.sink);
        sink.syslog = keys.syslog.then(|| Syslog::open(keys)).transpose()?;
        if sink.path == keys.logfile && (sink.file.is_some() || sink.path.is_empty()) {
            return Ok(());
        }
        sink.file = open(&keys.logfile)?;
        sink.path.clone_from(&keys.logfile);
        Ok(())
    }

    /// Opens the log file anew, after it was moved away. The old one stays when that fails.
    pub fn reopen(&self) -> Result<(), String> {
        let mut sink = lock(&self.sink);
        if let Some(file) = open(&sink.path)? {
            sink.file = Some(file);
        }
        Ok(())
    }
}

/// A panic while a line was written leaves at most half a line.
fn lock(sink: &Mutex<Sink>) -> MutexGuard<'_, Sink> {
    sink.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn open(path: &str) -> Result<Option<File>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map(Some).map_err(|error| format!("could not open logfile {path}: {error}"))
}

/// Ours in the asked detail; libraries only when something is wrong.
fn targets(verbose: u32) -> Targets {
    let level = match verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let ours = ["pooler", "chassis", "pgwire"].map(|name| (name, level));
    Targets::new().with_targets(ours).with_default(LevelFilter::WARN)
}

/// The target of an error that ends the process.
pub const FATAL: &str = "pooler::fatal";

/// PgBouncer's levels: those of events, and one more.
#[derive(Clone, Copy)]
enum Severity {
    Fatal,
    Error,
    Warning,
    Log,
    Debug,
    Noise,
}

/// Turns events into lines.
struct Lines {
    sink: Arc<Mutex<Sink>>,
    process_id: u32,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        lock(&self.sink).write(Severity::of(event.metadata()), self.process_id, &message.0);
    }
}

/// The message of an event. Its fields say the same again for machines and are left out.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

impl Sink {
    /// A log that cannot be written must not stop the pooler: errors are passed over.
    fn write(&mut self, severity: Severity, process_id: u32, message: &str) {
        let line = line(OffsetDateTime::now_utc(), severity, process_id, message);
        if let Some(file) = &mut self.file {
            let _ = file.write_all(line.as_bytes());
        }
        if self.to_stderr {
            let _ = io::stderr().write_all(line.as_bytes());
        }
        if let Some(syslog) = &self.syslog {
            syslog.send(severity, process_id, message);
        }
    }
}

impl Severity {
    fn of(event: &Metadata<'_>) -> Severity {
        match *event.level() {
            Level::ERROR if event.target() == FATAL => Severity::Fatal,
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            Level::INFO => Severity::Log,
            Level::DEBUG => Severity::Debug,
            Level::TRACE => Severity::Noise,
        }
    }

    /// PgBouncer's names.
    fn name(self) -> &'static str {
        match self {
            Severity::Fatal => "FATAL",
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
            Severity::Log => "LOG",
            Severity::Debug => "DEBUG",
            Severity::Noise => "NOISE",
        }
    }

    /// Numbers of RFC 5424.
    fn in_syslog(self) -> u8 {
        match self {
            Severity::Fatal => 2,
            Severity::Error => 3,
            Severity::Warning => 4,
            Severity::Log => 6,
            Severity::Debug | Severity::Noise => 7,
        }
    }
}

fn line(now: OffsetDateTime, severity: Severity, process_id: u32, message: &str) -> String {
    let format =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3] UTC");
    let stamp = now.format(&format).unwrap_or_default();
    // One event is one line, whatever a peer put into the text.
    let message = message.replace(['\n', '\r'], " ");
    format!("{stamp} [{process_id}] {} {message}\n", severity.name())
}

impl Syslog {
    fn open(keys: &Keys) -> Result<Syslog, String> {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.connect("/dev/log")?;
            // A syslog that does not keep up loses lines rather than stopping a worker.
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let socket = socket.map_err(|error| format!("could not open the syslog at /dev/log: {error}"))?;
        let facility = facility(&keys.syslog_facility)
            .ok_or_else(|| format!("unknown syslog_facility \"{}\"", keys.syslog_facility))?;
        Ok(Syslog { socket, facility, ident: keys.syslog_ident.clone() })
    }

    fn send(&self, severity: Severity, process_id: u32, message: &str) {
        let priority = self.facility * 8 + severity.in_syslog();
        let _ = self.socket.send(format!("<{priority}>{}[{process_id}]: {message}", self.ident).as_bytes());
    }
}

/// Numbers of RFC 3164.
fn facility(name: &str) -> Option<u8> {
    let number = match name {
        "user" => 1,
        "mail" => 2,
        "daemon" => 3,
        "auth" => 4,
        "news" => 7,
        "uucp" => 8,
        "cron" => 9,
        "authpriv" => 10,
        "ftp" => 11,
        _ => {
            let local: u8 = name.strip_prefix("local")?.parse().ok()?;
            return (local <= 7).then_some(16 + local);
        }
    };
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_pgbouncers_form_and_stays_one_line() {
        let now = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_789).unwrap();
        let text = line(now, Severity::Log, 42, "C-0x1: bad\nname");
        assert_eq!(text, "2023-11-14 22:13:20.123 UTC [42] LOG C-0x1: bad name\n");
    }

    #[test]
    fn the_log_file_can_be_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pooler.log");
        let file = open(path.to_str().unwrap()).unwrap();
        let mut sink = Sink { to_stderr: false, path: path.display().to_string(), file, syslog: None };
        sink.write(Severity::Error, 1, "first");
        std::fs::rename(&path, folder.path().join("old.log")).unwrap();
        sink.file = open(&sink.path).unwrap();
        sink.write(Severity::Fatal, 1, "second");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("FATAL second\n") && !text.contains("first"), "{text}");
    }

    #[test]
    fn facilities_have_their_numbers() {
        assert_eq!((facility("daemon"), facility("local7"), facility("local8")), (Some(3), Some(23), None));
    }
}
