//! Logs on standard error: text for people, JSON for machines. Services add their fields, never secrets; a line bears the
//! fields of the spans within which it was written.

use std::fmt;

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::registry::{Extensions, LookupSpan};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log level \"{level}\" is not understood: {cause}; use error, warn, info, debug or trace")]
    Level { level: String, cause: String },
    #[error("a log subscriber is installed already")]
    Installed,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("\"{text}\" is no log format; use text or json")),
        }
    }
}

/// Installs the process's log subscriber. `level` is a level or a filter such as `info,sqlx=warn`.
///
/// # Errors
/// The level is not understood, or a subscriber is installed already.
pub fn init(service: &'static str, format: Format, level: &str) -> Result<(), Error> {
    let dispatch = dispatch(format, filter(level)?, std::io::stderr);
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| Error::Installed)?;
    tracing::debug!(service, "logging begins");
    Ok(())
}

fn dispatch<W>(format: Format, filter: EnvFilter, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_timer(Utc)
        .with_ansi(false);
    match format {
        Format::Text => Dispatch::new(base.with_target(false).finish()),
        Format::Json => {
            let json = base.json().flatten_event(true).with_current_span(false).with_span_list(false);
            Dispatch::new(json.map_event_format(WithSpans).finish())
        }
    }
}

/// Whether [`init`] would take this level.
///
/// # Errors
/// The level is not understood.
pub fn check_level(level: &str) -> Result<(), Error> {
    filter(level).map(drop)
}

fn filter(level: &str) -> Result<EnvFilter, Error> {
    // The library takes `sqlx=` for `sqlx=trace`.
    if let Some(bare) = level.split(',').find(|directive| directive.trim_end().ends_with('=')) {
        return Err(Error::Level { level: level.to_owned(), cause: format!("no level behind \"{bare}\"") });
    }
    EnvFilter::try_new(level)
        .map_err(|cause| Error::Level { level: level.to_owned(), cause: cause.to_string() })
}

/// Time in RFC 3339, UTC, with microseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        let now = OffsetDateTime::now_utc();
        let micros = now.replace_microsecond(now.microsecond()).unwrap_or(now);
        write!(w, "{}", micros.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

/// A line of JSON with the fields of its spans beside its own, so that who looks for a request finds all lines by one
/// name. Of two of a name the innermost stays.
struct WithSpans<E>(E);

impl<S, N, E> FormatEvent<S, N> for WithSpans<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(line.trim_end().strip_suffix('}').ok_or(fmt::Error)?)?;
        let mut names: Vec<String> = event.fields().map(|field| field.name().to_owned()).collect();
        for span in context.event_scope().into_iter().flatten() {
            for (name, value) in fields_of::<N>(&span.extensions()) {
                if !names.contains(&name) {
                    write!(writer, ",{}:{value}", Value::from(name.as_str()))?;
                    names.push(name);
                }
            }
        }
        writeln!(writer, "}}")
    }
}

fn fields_of<N: 'static>(extensions: &Extensions<'_>) -> Map<String, Value> {
    let fields = extensions.get::<FormattedFields<N>>();
    fields.and_then(|fields| serde_json::from_str(fields).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::{error_span, info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: Format, level: &str, work: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let writer = kept.clone();
        let dispatch = dispatch(format, filter(level).unwrap(), move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, work);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// What the log says of a request, within it and after it.
    fn work() {
        error_span!("request", request_id = %"r-\"1", trace_id = Some("t-1")).in_scope(|| {
            error_span!("part", part = 2, login = 8).in_scope(|| warn!(login = 7, "it came twice"));
        });
        info!("nobody asked");
    }

    #[test]
    fn a_line_of_text_names_the_spans_it_was_written_in() {
        let lines = lines(Format::Text, "info", work);
        let spans = r#"request{request_id=r-"1 trace_id="t-1"}:part{part=2 login=8}: "#;
        assert!(lines[0].contains(spans) && lines[0].ends_with("it came twice login=7"), "{}", lines[0]);
        assert!(lines[1].ends_with(" INFO nobody asked"), "{}", lines[1]);
    }

    #[test]
    fn a_line_of_json_has_the_fields_of_its_spans_beside_its_own() {
        let lines = lines(Format::Json, "info", work);
        let mut within: Map<String, Value> = serde_json::from_str(&lines[0]).unwrap();
        assert!(within.remove("timestamp").is_some_and(|at| at.as_str().unwrap().ends_with('Z')));
        let wanted = serde_json::json!({
            "level": "WARN", "message": "it came twice", "target": "chassis::logs::tests", "login": 7,
            "part": 2, "request_id": "r-\"1", "trace_id": "t-1",
        });
        assert_eq!(Value::from(within), wanted);
        assert_eq!(lines[0].matches("login").count(), 1, "{}", lines[0]);
        let after: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!((after.get("request_id"), &after["message"]), (None, &Value::from("nobody asked")));
    }

    #[test]
    fn a_span_is_told_whatever_the_level_is() {
        let failed = || error_span!("request", request_id = 1).in_scope(|| tracing::error!("failed"));
        assert!(lines(Format::Text, "error", failed)[0].contains("request{request_id=1}: failed"));
    }
}
