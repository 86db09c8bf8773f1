//! Settings declared once, in a table: name, kind, default, live or not, one line of documentation.
//!
//! From the table come parsing, error messages and the section of `config.env.example`. A service
//! reads through a lookup function, so tests hand in a map and only `main` sees the environment.

mod env_file;
mod example;
mod kind;
pub mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use env_file::{EnvFile, Unreadable};
pub use example::example;
pub use kind::Kind;

/// One setting, as an operator sees it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The environment variable's name.
    pub name: &'static str,
    pub kind: Kind,
    /// The value when nothing is given, written as the operator would write it; empty: unset.
    pub default: &'static str,
    /// Whether a running service takes a new value without a restart.
    pub live: bool,
    /// One line: what it means. The unit and the range come from `kind`.
    pub doc: &'static str,
}

/// A row of a table: a setting that is read at the start.
pub const fn fixed(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting { name, kind, default, live: false, doc }
}

/// Everything that is wrong with the settings, reported at once.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .problems.join("\n"))]
pub struct Errors {
    pub problems: Vec<String>,
}

/// Checked values of one table.
#[derive(Clone)]
pub struct Values {
    table: &'static [Setting],
    by_name: BTreeMap<&'static str, String>,
    given: BTreeSet<&'static str>,
}

/// Reads every setting of `table` through `lookup` and checks it against its kind.
///
/// An empty value counts as unset, because compose files and shells cannot unset what they pass on.
/// `NAME_FILE` names a file that holds the value, as container secrets do. The caller's lookup
/// decides where values come from; see [`environment`].
///
/// # Errors
/// All problems of all settings together, each with the setting's name, what was found and what is allowed.
pub fn read(table: &'static [Setting], lookup: &dyn Fn(&str) -> Option<String>) -> Result<Values, Errors> {
    let (values, problems) = read_all(table, lookup);
    if problems.is_empty() { Ok(values) } else { Err(Errors { problems }) }
}

/// As [`read`], for callers with checks of their own: a wrong value is replaced by its default, so that they
/// can go on and tell everything at once.
pub fn read_all(table: &'static [Setting], lookup: &dyn Fn(&str) -> Option<String>) -> (Values, Vec<String>) {
    let mut values = Values { table, by_name: BTreeMap::new(), given: BTreeSet::new() };
    let mut problems = Vec::new();
    for setting in table {
        let found = find(setting, lookup).and_then(|text| match text {
            Some(text) => match setting.kind.check(&text) {
                Ok(()) => Ok(Some(text)),
                Err(wanted) => Err(refusal(setting, &text, &wanted)),
            },
            None => Ok(None),
        });
        let text = found.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        if text.is_some() {
            values.given.insert(setting.name);
        }
        values.by_name.insert(setting.name, text.unwrap_or_else(|| setting.default.to_owned()));
    }
    (values, problems)
}

/// The lookup that `main` hands to [`read`]: the process environment.
pub fn environment() -> impl Fn(&str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the environment")]
    |name: &str| std::env::var(name).ok()
}

fn find(setting: &Setting, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if let Some(text) = lookup(setting.name).filter(|text| !text.is_empty()) {
        return Ok(Some(text));
    }
    let file_name = format!("{}_FILE", setting.name);
    let Some(path) = lookup(&file_name).filter(|path| !path.is_empty()) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(cause) => Err(format!("{file_name}: cannot read {path}: {cause}")),
    }
}

/// A secret's value is never repeated: the message may end up in a log.
fn refusal(setting: &Setting, text: &str, wanted: &str) -> String {
    match setting.kind {
        kind if kind.is_secret() => format!("{}: the value given is no {wanted}", setting.name),
        _ => format!("{}: \"{text}\" is no {wanted}", setting.name),
    }
}

impl Values {
    /// The value as text; empty when unset and without a default.
    pub fn text(&self, name: &str) -> &str {
        self.by_name.get(name).unwrap_or_else(|| panic!("{name} is not in the table of settings"))
    }

    /// The value, or `None` when it is empty.
    pub fn opt(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Whether the operator gave a value, be it equal to the default or not.
    pub fn given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    pub fn ip(&self, name: &str) -> IpAddr {
        self.text(name).parse().expect("an address was checked when it was read; defaults are tested")
    }

    pub fn count(&self, name: &str) -> u64 {
        self.text(name).parse().expect("a count was checked when it was read; defaults are tested")
    }

    pub fn port(&self, name: &str) -> u16 {
        self.text(name).parse().expect("a port was checked when it was read; defaults are tested")
    }

    pub fn flag(&self, name: &str) -> bool {
        kind::flag(self.text(name)).expect("a flag was checked when it was read; defaults are tested")
    }

    /// A duration of kind `Seconds` or `Millis`.
    pub fn duration(&self, name: &str) -> Duration {
        let setting = self.table.iter().find(|setting| setting.name == name);
        let kind = setting.unwrap_or_else(|| panic!("{name} is not in the table of settings")).kind;
        kind.duration(self.text(name)).expect("a duration was checked when it was read; defaults are tested")
    }

    /// A comma-separated list, blanks around the items dropped.
    pub fn list(&self, name: &str) -> Vec<String> {
        kind::items(self.text(name)).map(str::to_owned).collect()
    }
}

/// Values without the secrets among them.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |setting: &Setting| match setting.kind {
            kind if kind.is_secret() && self.opt(setting.name).is_some() => "…".to_owned(),
            _ => self.text(setting.name).to_owned(),
        };
        f.debug_map().entries(self.table.iter().map(|setting| (setting.name, shown(setting)))).finish()
    }
}

#[cfg(test)]
mod tests;
