//! `error_log`: events of the whole process in nginx's format, to the files and levels that the configuration names.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::access_log::append;
use crate::clock::Zone;
use crate::conf::Origin;
use crate::conf::error::system;
use crate::conf::settings::{ErrorLevel, ErrorLog, ErrorTarget, LogId};

/// Where events go. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct ErrorLogs {
    targets: Arc<Mutex<Targets>>,
    zone: Zone,
}

#[derive(Debug, Default)]
pub struct Targets {
    main: Vec<Target>,
    /// Of blocks with lines of their own.
    sets: HashMap<LogId, Vec<Target>>,
}

impl Targets {
    /// What the configuration names, all of it or nothing.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn open(main: &[ErrorLog], sets: &[(LogId, Vec<ErrorLog>)]) -> Result<Targets, String> {
        let target = |log: &ErrorLog| {
            let sink = match &log.target {
                ErrorTarget::Stderr => Sink::Stderr,
                ErrorTarget::File(path) => Sink::open(path.clone())?,
            };
            Ok(Target { level: log.level, sink })
        };
        let targets = |logs: &[ErrorLog]| logs.iter().map(target).collect::<Result<Vec<Target>, String>>();
        let set = |(id, logs): &(LogId, Vec<ErrorLog>)| Ok((*id, targets(logs)?));
        let sets = sets.iter().map(set).collect::<Result<_, String>>()?;
        Ok(Targets { main: targets(main)?, sets })
    }

    fn main(target: Target) -> Targets {
        Targets { main: vec![target], sets: HashMap::new() }
    }

    /// Those of a set that is gone since a reload are those of the main context.
    fn of(&mut self, log: LogId) -> &mut [Target] {
        self.sets.get_mut(&log).unwrap_or(&mut self.main)
    }
}

#[derive(Debug)]
struct Target {
    level: ErrorLevel,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Stderr,
    File(PathBuf, File),
}

impl ErrorLogs {
    /// Until a configuration is read: stderr.
    pub fn to_stderr() -> ErrorLogs {
        let logs = ErrorLogs::default();
        logs.replace(Targets::main(Target { level: ErrorLevel::Notice, sink: Sink::Stderr }));
        logs
    }

    /// From now on every event of the process comes here.
    pub fn install(&self) {
        // Only a second call in one process could fail, and then the first one stands.
        let _ = tracing_subscriber::registry().with(Lines(self.clone())).try_init();
    }

    /// A start that failed: also for who looks into the log that `-e` names.
    pub fn last_words(&self, origin: &Origin, what: &str) {
        let Some(path) = &origin.error_log else { return };
        let Ok(sink) = Sink::open(origin.prefix.join(path)) else { return };
        self.replace(Targets::main(Target { level: ErrorLevel::Emerg, sink }));
        let words = Words { message: what.into(), ..Words::default() };
        self.write(LogId::MAIN, ErrorLevel::Emerg, || {
            line(self.zone.local(SystemTime::now()), ErrorLevel::Emerg, &words)
        });
    }

    /// USR1.
    pub fn reopen(&self) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let Targets { main, sets } = &mut *targets;
        for target in main.iter_mut().chain(sets.values_mut().flatten()) {
            let Sink::File(path, _) = &target.sink else { continue };
            // A file that cannot be opened anew: the old one is better than none.
            if let Ok(sink) = Sink::open(path.clone()) {
                target.sink = sink;
            }
        }
    }

    /// From now on lines go there.
    pub fn replace(&self, targets: Targets) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    /// The line is made only where somebody wants it.
    fn write(&self, log: LogId, level: ErrorLevel, line: impl FnOnce() -> String) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = targets.of(log).iter_mut().filter(|target| target.level >= level);
        let mut wanted = wanted.peekable();
        if wanted.peek().is_none() {
            return;
        }
        let line = line();
        for target in wanted {
            // There is no place to say that the place for errors cannot be written to.
            let _ = match &mut target.sink {
                Sink::Stderr => std::io::stderr().write_all(line.as_bytes()),
                Sink::File(_, file) => file.write_all(line.as_bytes()),
            };
        }
    }
}

impl Sink {
    fn open(path: PathBuf) -> Result<Sink, String> {
        let file = append(&path).map_err(|error| system("open", &path, &error))?;
        Ok(Sink::File(path, file))
    }
}

/// Turns events into lines.
struct Lines(ErrorLogs);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let meta = event.metadata();
        let ours = meta.target().starts_with("balancer") || meta.target().starts_with("chassis");
        // What libraries say below a warning is about themselves.
        if !ours && *meta.level() > Level::WARN {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let level = words.raised.unwrap_or_else(|| level_of(*meta.level()));
        self.0.write(words.log, level, || line(self.0.zone.local(SystemTime::now()), level, &words));
    }
}

fn level_of(level: Level) -> ErrorLevel {
    match level {
        Level::ERROR => ErrorLevel::Error,
        Level::WARN => ErrorLevel::Warn,
        Level::INFO => ErrorLevel::Notice,
        Level::DEBUG => ErrorLevel::Info,
        Level::TRACE => ErrorLevel::Debug,
    }
}

fn level_name(level: ErrorLevel) -> &'static str {
    match level {
        ErrorLevel::Emerg => "emerg",
        ErrorLevel::Alert => "alert",
        ErrorLevel::Crit => "crit",
        ErrorLevel::Error => "error",
        ErrorLevel::Warn => "warn",
        ErrorLevel::Notice => "notice",
        ErrorLevel::Info => "info",
        ErrorLevel::Debug => "debug",
    }
}

/// The message, and the fields that nginx's lines end with.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
    log: LogId,
    /// Of the client, where the event is about one.
    connection: Option<u64>,
    /// To more than an error, for which libraries have no level.
    raised: Option<ErrorLevel>,
}

/// Fields that stand behind the message, in the order in which they are recorded; others serve programs, not readers.
const SHOWN_FIELDS: [&str; 6] = ["client", "server", "request", "upstream", "host", "referrer"];

impl Visit for Words {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "log" => self.log = LogId(value),
            "connection" => self.connection = Some(value),
            _ => {}
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "alert" if value => self.raised = Some(ErrorLevel::Alert),
            "crit" if value => self.raised = Some(ErrorLevel::Crit),
            _ => {}
        }
    }

    /// A text stands as it is; who wants quotes around it, as nginx has them around requests, brings them.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else if SHOWN_FIELDS.contains(&field.name()) {
            let _ = write!(self.fields, ", {}: {value:?}", field.name());
        }
    }
}

/// `2026/11/21 11:15:10 [error] 7#7: *12 message, client: …`
fn line(now: time::OffsetDateTime, level: ErrorLevel, words: &Words) -> String {
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second) = now.to_hms();
    let process = std::process::id();
    let mut line = format!(
        "{year:04}/{:02}/{day:02} {hour:02}:{minute:02}:{second:02} [{}] {process}#{process}: ",
        u8::from(month),
        level_name(level),
    );
    if let Some(connection) = words.connection {
        let _ = write!(line, "*{connection} ");
    }
    // A value from outside must not begin a line of its own.
    for letter in words.message.chars().chain(words.fields.chars()) {
        match letter {
            letter if letter.is_control() => line.extend(letter.escape_default()),
            letter => line.push(letter),
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn lines_look_like_nginx() {
        let (message, fields) = ("no live\nupstreams".into(), ", client: 127.0.0.1".into());
        let words = Words { message, fields, connection: Some(12), ..Words::default() };
        let at = time::OffsetDateTime::from(UNIX_EPOCH + Duration::from_secs(86_399));
        let shown = line(at, ErrorLevel::Error, &words);
        let process = std::process::id();
        assert_eq!(
            shown,
            format!(
                "1970/01/01 23:59:59 [error] {process}#{process}: *12 no live\\nupstreams, client: 127.0.0.1\n"
            )
        );
    }

    #[test]
    fn events_go_where_their_level_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let log = |name: &str, level| ErrorLog { target: ErrorTarget::File(folder.path().join(name)), level };
        let logs = ErrorLogs::default();
        let own = vec![log("own", ErrorLevel::Error)];
        let main = [log("all", ErrorLevel::Debug), log("few", ErrorLevel::Error)];
        logs.replace(Targets::open(&main, &[(LogId(7), own)]).unwrap());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Lines(logs)), || {
            tracing::warn!("a warning");
            tracing::error!(upstream = %"a:1", host = "\"h\"", other = 1, "an error");
            tracing::error!(log = 7u64, "elsewhere");
            tracing::warn!(log = 7u64, "not wanted there");
            tracing::error!(log = 7u64, alert = false, crit = true, "worse");
            tracing::error!(log = 7u64, alert = true, "worst");
        });
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("all").lines().count(), 2);
        assert!(read("few").ends_with(": an error, upstream: a:1, host: \"h\"\n"), "{}", read("few"));
        assert_eq!(read("few").lines().count(), 1);
        let levels = ["[error]", "[crit]", "[alert]"];
        let own = read("own");
        assert!(own.lines().zip(levels).all(|(line, level)| line.contains(level)), "{own}");
        assert_eq!(own.lines().count(), levels.len());
        assert!(own.contains(": elsewhere\n"), "{own}");
    }
}
