//! Which part reads which setting. A part's environment holds what it reads and what every process knows of its machine,
//! and nothing else: a new secret reaches nobody whose table does not have it.

use std::collections::BTreeMap;

use super::{Lines, SETTINGS};

/// Every setting of every part: the tests keep it complete.
const EXAMPLE: &str = include_str!("../../../config.env.example");
/// The heading in it under which the web service's own settings stand.
const WEB_HEADING: &str = "The web service";

/// Of the stack's own settings those that the web service reads too.
const ALSO_WEBS: [&str; 18] = [
    "DB_HOST",
    "DB_PORT",
    "DB_NAME",
    "DB_USER",
    "DB_PASSWORD",
    "DATABASE_URL",
    "DATABASE_URL_DIRECT",
    "ACTUAL_DB_HOST",
    "ACTUAL_DB_PORT",
    "DB_READ_HOST",
    "POOLER_POOL_MODE",
    "POOLER_DEFAULT_POOL_SIZE",
    "POOLER_MAX_CLIENT_CONN",
    "REDIS_URL",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_PASSWORD",
    "SECRET_KEY",
];

const BALANCERS: [&str; 3] = ["BALANCER_OPS_PORT", "BALANCER_OPS_ADDR", "BALANCER_DRAIN_TIMEOUT"];

/// What a process may know of its machine and its starter. None of it holds a secret.
const BASICS: [&str; 26] = [
    "PATH",
    "LD_LIBRARY_PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TMPDIR",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NUMERIC",
    "LC_TIME",
    "TZ",
    "TZDIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "RUST_LIB_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    // Whom the pooler's directory servers are checked by.
    "LDAPCONF",
    "NO_COLOR",
];

/// The way to endpoints outside, which may have a password in it: the web service alone goes there.
const PROXIES: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// A program that takes settings from its environment. Pooler, Postgres and Redis have theirs in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    Web,
    Balancer,
}

impl Reader {
    /// Whether its table has the setting; `NAME_FILE` names a file with the value of NAME.
    pub fn reads(self, name: &str) -> bool {
        let setting = name.strip_suffix("_FILE").unwrap_or(name);
        [name, setting].into_iter().any(|name| match self {
            Self::Balancer => BALANCERS.contains(&name),
            Self::Web => {
                ALSO_WEBS.contains(&name)
                    || PROXIES.contains(&name)
                    || names_of(under(WEB_HEADING)).any(|own| own == name)
            }
        })
    }
}

/// What `config.env` and the environment say of settings and of the machine, by name; the environment wins, and an
/// empty value counts as none in both. Secrets are among it.
#[derive(Clone, Default)]
pub struct Told(BTreeMap<String, String>);

impl Told {
    pub fn read(file: &Lines, outer: &dyn Fn(&str) -> Option<String>) -> Self {
        let lookup = super::lookup(file, outer);
        let settings = known_names().flat_map(|name| [name.to_owned(), format!("{name}_FILE")]);
        let others = BASICS.into_iter().chain(PROXIES).map(str::to_owned);
        Self(
            settings
                .chain(others)
                .filter_map(|name| Some((lookup(&name)?, name)))
                .map(|(v, k)| (k, v))
                .collect(),
        )
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What this program's table has of it.
    pub fn of(&self, reader: Reader) -> BTreeMap<String, String> {
        self.only(|name| reader.reads(name))
    }

    /// What every process may know.
    pub fn basics(&self) -> BTreeMap<String, String> {
        self.only(|name| BASICS.contains(&name))
    }

    fn only(&self, is_wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
        let wanted = self.0.iter().filter(|(name, _)| is_wanted(name));
        wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Whether some part takes the name from `config.env`.
pub fn is_known(name: &str) -> bool {
    let setting = name.strip_suffix("_FILE").unwrap_or(name);
    known_names().any(|known| known == name || known == setting)
        || BASICS.contains(&name)
        || PROXIES.contains(&name)
}

/// Every setting of every part.
pub fn known_names() -> impl Iterator<Item = &'static str> {
    // What is new in the table is known before the example has it.
    names_of(EXAMPLE).chain(SETTINGS.iter().map(|setting| setting.name))
}

fn names_of(text: &'static str) -> impl Iterator<Item = &'static str> {
    let keys = text.lines().filter_map(|line| line.trim_start_matches('#').split_once('='));
    keys.map(|(key, _)| key)
        .filter(|key| !key.is_empty() && key.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_')))
}

/// The part of the example between this heading and the next.
fn under(heading: &str) -> &'static str {
    let after = EXAMPLE.split_once(&format!("\n# {heading}\n")).map_or("", |(_, after)| after);
    after.split("# ===").nth(1).unwrap_or_default()
}
