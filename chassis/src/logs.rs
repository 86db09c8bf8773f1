//! Logs on standard error: text for people, JSON for machines. Services add their fields, never secrets.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

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
    let filter = filter(level)?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_timer(Utc);
    let installed = match format {
        Format::Text => {
            tracing::subscriber::set_global_default(base.with_ansi(false).with_target(false).finish())
        }
        Format::Json => tracing::subscriber::set_global_default(
            base.json().flatten_event(true).with_current_span(false).finish(),
        ),
    };
    installed.map_err(|_| Error::Installed)?;
    tracing::debug!(service, "logging begins");
    Ok(())
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
