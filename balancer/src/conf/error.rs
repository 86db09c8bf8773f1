//! What is wrong in a configuration, and where. In nginx's words, so that what people know of them holds here.

use std::fmt;
use std::sync::Arc;

/// Where a directive stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u32,
}

/// The name that stands for `-g` on the command line, which has no lines.
pub const COMMAND_LINE: &str = "command line";

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.file {
            COMMAND_LINE => f.write_str(COMMAND_LINE),
            file => write!(f, "{file}:{}", self.line),
        }
    }
}

/// A configuration that cannot be used; says what, where and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{what} in {file}:{line}")]
    At { what: String, file: String, line: u32 },
    #[error("{what} in command line")]
    InCommandLine { what: String },
    /// About the file as a whole: it cannot be read, or lacks a section.
    #[error("{what}")]
    Whole { what: String },
}

impl Error {
    pub fn at(place: &Place, what: impl Into<String>) -> Error {
        match &*place.file {
            COMMAND_LINE => Error::InCommandLine { what: what.into() },
            file => Error::At { what: what.into(), file: file.to_owned(), line: place.line },
        }
    }

    pub fn whole(what: impl Into<String>) -> Error {
        Error::Whole { what: what.into() }
    }
}

/// A system error as nginx writes it: `open() "/x" failed (2: No such file or directory)`.
pub fn system(call: &str, path: &std::path::Path, error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let code = error.raw_os_error().map_or(String::new(), |code| format!("{code}: "));
    format!("{call}() \"{}\" failed ({code}{text})", path.display())
}

pub type Result<T> = std::result::Result<T, Error>;
