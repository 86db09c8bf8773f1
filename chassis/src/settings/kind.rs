//! The kinds a setting can have: what is allowed, and how it is called in an error.

use std::time::Duration;

/// What values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Text that is never shown.
    Secret,
    /// `true|false`, `yes|no`, `on|off`, `1|0`, in any case.
    Flag,
    Count {
        min: u64,
        max: u64,
    },
    Ip,
    /// 1 to 65535; 0 lets the system choose, which tests use.
    Port,
    /// Seconds, with a fraction if need be: `30`, `0.25`.
    Seconds,
    Millis,
    Choice(&'static [&'static str]),
    /// Items between commas.
    List,
    Path,
    /// `scheme://…`; may hold a password and is never shown.
    Url,
}

impl Kind {
    /// Whether a value may hold what must not be shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Url)
    }

    /// # Errors
    /// What would have been allowed, as a noun phrase.
    pub(super) fn check(self, text: &str) -> Result<(), String> {
        let fits = match self {
            Self::Text | Self::Secret | Self::List | Self::Path => true,
            Self::Flag => flag(text).is_some(),
            Self::Count { min, max } => text.parse().is_ok_and(|n: u64| (min..=max).contains(&n)),
            Self::Ip => text.parse::<std::net::IpAddr>().is_ok(),
            Self::Port => text.parse::<u16>().is_ok(),
            Self::Seconds | Self::Millis => self.duration(text).is_some(),
            Self::Choice(words) => words.contains(&text),
            Self::Url => {
                text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty())
            }
        };
        if fits { Ok(()) } else { Err(self.wanted()) }
    }

    /// The allowed values as a noun phrase, for errors and for the example file.
    pub(super) fn wanted(self) -> String {
        match self {
            Self::Text | Self::Secret => "text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Count { min, max: u64::MAX } => format!("whole number from {min}"),
            Self::Count { min, max } => format!("whole number from {min} to {max}"),
            Self::Ip => "IP address".to_owned(),
            Self::Port => "port number (0 to 65535)".to_owned(),
            Self::Seconds => "number of seconds".to_owned(),
            Self::Millis => "number of milliseconds".to_owned(),
            Self::Choice(words) => format!("choice of: {}", words.join(", ")),
            Self::List => "list with commas".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Url => "URL (scheme://…)".to_owned(),
        }
    }

    pub(super) fn duration(self, text: &str) -> Option<Duration> {
        match self {
            Self::Millis => text.parse().ok().map(Duration::from_millis),
            _ => text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        }
    }
}

pub(super) fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}
