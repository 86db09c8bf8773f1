//! What a location does to every answer beside passing it on: `expires`, `add_trailer`, gzip, limits of speed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;

use super::location::AddHeader;
use super::template::Template;

#[derive(Debug)]
pub struct Dress {
    pub expires: Option<Expires>,
    /// `add_trailer`, in the order written.
    pub trailers: Box<[AddHeader]>,
    /// `add_header` gives `ETag` or `Last-Modified`, in place of the answer's own.
    pub replaces_validators: bool,
    /// Something of this location asks for `$sent_http_*`.
    pub tells_head: bool,
    pub chunked: bool,
    pub charset: Option<Charset>,
    /// Those that an upstream may order (`X-Accel-Charset`).
    pub charsets: Arc<[Box<[u8]>]>,
    pub pages: Option<Pages>,
    pub gzip: Gzip,
}

/// `ssi`: answers of these types are pages whose commands are run.
#[derive(Debug)]
pub struct Pages {
    /// Lower-case; `*` is all.
    pub types: HashSet<Box<[u8]>>,
    /// `ssi_silent_errors`.
    pub is_silent: bool,
    /// `ssi_last_modified`: the page is as old as its text.
    pub keeps_date: bool,
}

/// `charset`, `charset_types`, `override_charset`.
#[derive(Debug)]
pub struct Charset {
    pub name: Template,
    /// Lower-case; `*` is all.
    pub types: HashSet<Box<[u8]>>,
    /// In place of what an upstream says.
    pub overrides: bool,
}

impl Dress {
    /// Whether an answer of this type is a page whose commands are run.
    pub fn makes_page(&self, content_type: &[u8]) -> bool {
        let Some(pages) = &self.pages else { return false };
        let bare = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        let bare = bare.trim_ascii().to_ascii_lowercase();
        !bare.is_empty() && (pages.types.contains(&bare[..]) || pages.types.contains(&b"*"[..]))
    }

    /// Nothing to do: heads go out as they are made.
    pub fn is_plain(&self) -> bool {
        self.expires.is_none()
            && self.trailers.is_empty()
            && !self.replaces_validators
            && !self.tells_head
            && self.chunked
            && self.charset.is_none()
            && self.pages.is_none()
            && !self.gzip.on
            && !self.gzip.gunzip
    }
}

/// `expires`.
#[derive(Debug, Clone)]
pub enum Expires {
    Fixed(Moment),
    /// A value with variables, read per answer. `modified`: counted from `Last-Modified`.
    Dynamic {
        value: Template,
        modified: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Off,
    Epoch,
    Max,
    /// Seconds from the request, or from `Last-Modified`.
    After {
        seconds: i64,
        modified: bool,
    },
    /// `@15h30m`: at this time of the day.
    Daily(i64),
}

impl Moment {
    /// What the directive or its value says.
    pub fn read(text: &str, modified: bool) -> Option<Moment> {
        match text {
            "epoch" if !modified => return Some(Moment::Epoch),
            "max" if !modified => return Some(Moment::Max),
            "off" if !modified => return Some(Moment::Off),
            _ => {}
        }
        let seconds = |text: &str| super::value::seconds(text).map(|time| time.as_secs().cast_signed());
        if let Some(time) = text.strip_prefix('@') {
            return seconds(time).filter(|time| !modified && *time <= 86_400).map(Moment::Daily);
        }
        let (sign, rest) = match text.as_bytes().first() {
            Some(b'-') => (-1, &text[1..]),
            Some(b'+') => (1, &text[1..]),
            _ => (1, text),
        };
        seconds(rest).map(|time| Moment::After { seconds: sign * time, modified })
    }
}

/// `gzip*`, `gunzip`.
#[derive(Debug)]
pub struct Gzip {
    pub on: bool,
    pub ready_made: ReadyMade,
    pub gunzip: bool,
    pub vary: bool,
    /// Answers shorter than this are not worth it.
    pub len_min: u64,
    pub level: u32,
    /// Lower-case; `*` is all.
    pub types: HashSet<Box<[u8]>>,
    /// Also for HTTP/1.0.
    pub http_10: bool,
    pub proxied: Proxied,
    /// User agents that get none.
    pub disabled: Box<[Regex]>,
}

/// `gzip_static`: whether `FILE.gz` is sent in place of `FILE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyMade {
    Off,
    /// To clients that take it.
    On,
    Always,
}

/// `gzip_proxied`: what of requests that came through a proxy is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proxied {
    pub any: bool,
    pub expired: bool,
    pub no_cache: bool,
    pub no_store: bool,
    pub private: bool,
    pub no_last_modified: bool,
    pub no_etag: bool,
    pub auth: bool,
}

/// `limit_rate`, `limit_rate_after`, `proxy_limit_rate`: values that may have variables; empty: no limit.
#[derive(Debug, Default)]
pub struct Rates {
    pub down: Template,
    pub after: Template,
    pub up: Template,
}

/// How long the day of [`Moment::Daily`] is.
pub const DAY: Duration = Duration::from_secs(86_400);
