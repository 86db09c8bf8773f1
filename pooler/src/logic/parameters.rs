//! Settings that follow a client from server to server: what is tracked, when two sets are the same, and the SET batch
//! that makes a server's equal to a client's.

use std::fmt::Write;
use std::sync::Arc;

/// Reported by Postgres whenever they change.
pub const REPORTED: &[&str] =
    &["client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings", "application_name"];

/// Accepted in `options=-c …` and as startup parameters though Postgres does not report them: we set them on each
/// server that serves the client and reset them for others.
pub const UNREPORTED: &[&str] = &[
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
    "search_path",
    "extra_float_digits",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "default_transaction_deferrable",
    "geqo",
    "jit",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "row_security",
    "synchronous_commit",
    "work_mem",
];

/// Values by name, sorted by name without case. Never changed in place, so that equal sets can be one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<Parameter>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    /// As written in REPORTED, UNREPORTED or track_extra_parameters.
    name: Arc<str>,
    value: Arc<str>,
    is_reported: bool,
}

impl Parameters {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).ok().map(|i| &*self.0[i].value)
    }

    /// The set with one value changed. None when it is so already.
    pub fn with(&self, name: &str, value: &str, is_reported: bool) -> Option<Parameters> {
        let mut all = self.0.clone();
        match self.find(name) {
            Ok(i) if *all[i].value == *value => return None,
            Ok(i) => all[i].value = value.into(),
            Err(i) => all.insert(i, Parameter { name: name.into(), value: value.into(), is_reported }),
        }
        Some(Parameters(all))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|p| (&*p.name, &*p.value))
    }

    /// With whether Postgres reports it.
    pub fn iter_all(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.0.iter().map(|p| (&*p.name, &*p.value, p.is_reported))
    }

    /// What a client is told at login.
    pub fn reported(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(|p| p.is_reported).map(|p| (&*p.name, &*p.value))
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        let lower = |b: u8| b.to_ascii_lowercase();
        self.0.binary_search_by(|p| p.name.bytes().map(lower).cmp(name.bytes().map(lower)))
    }

    /// The set in which each unreported value is in doubt: whoever comes next sets or resets it.
    pub fn doubted(&self) -> Option<Parameters> {
        let mut all = self.0.clone();
        let unreported = all.iter_mut().filter(|p| !p.is_reported && &*p.value != IN_DOUBT);
        let changed = unreported.map(|p| p.value = IN_DOUBT.into()).count();
        (changed > 0).then_some(Parameters(all))
    }
}

/// No value that Postgres could take: texts there have no zero byte.
const IN_DOUBT: &str = "\0";

/// The SQL that gives the server the client's values, and the server's values after it. None: nothing to do.
pub fn difference(server: &Parameters, client: &Parameters) -> Option<(String, Parameters)> {
    let mut sql = String::new();
    let mut after: Vec<Parameter> = Vec::with_capacity(client.0.len());
    for wanted in &client.0 {
        let has = server.find(&wanted.name).ok().map(|i| &server.0[i]);
        if has.is_none_or(|p| !is_same(&p.value, &wanted.value)) {
            let _ = write!(sql, "SET {}={};", quote_name(&wanted.name), value_sql(wanted));
        }
        // A reported value is believed when the server reports it, in its own spelling.
        after.push(has.filter(|_| wanted.is_reported).unwrap_or(wanted).clone());
    }
    for left in &server.0 {
        if client.find(&left.name).is_ok() {
            continue;
        }
        if left.is_reported {
            after.push(left.clone());
        } else {
            let _ = write!(sql, "RESET {};", quote_name(&left.name));
        }
    }
    if sql.is_empty() {
        return None;
    }
    after.sort_by_cached_key(|p| p.name.to_ascii_lowercase());
    Some((sql, Parameters(after)))
}

/// How a tracked parameter is spelled and whether Postgres reports it; None when it is not tracked.
pub fn tracked<'a>(name: &str, extra: &'a [String]) -> Option<(&'a str, bool)> {
    let same = |n: &&str| n.eq_ignore_ascii_case(name);
    if let Some(name) = REPORTED.iter().copied().find(|n| same(n)) {
        return Some((name, true));
    }
    extra.iter().map(String::as_str).find(|n| same(n)).map(|n| (n, true))
}

/// A parameter that we keep per client though the server says nothing about it.
pub fn kept(name: &str) -> Option<&'static str> {
    UNREPORTED.iter().copied().find(|n| n.eq_ignore_ascii_case(name))
}

/// A value and its canonical spelling, such as `ISO` and `ISO, MDY`, meet at the first SET: from then on the client has
/// the server's spelling. Encodings and zones have no case.
fn is_same(a: &str, b: &str) -> bool {
    a == b
}

/// A list such as search_path is given as it was written: quoting it whole would make it one name.
fn value_sql(parameter: &Parameter) -> String {
    if parameter.name.eq_ignore_ascii_case("search_path") && is_plain_list(&parameter.value) {
        return if parameter.value.is_empty() { "''".to_string() } else { parameter.value.to_string() };
    }
    quote_literal(&parameter.value)
}

/// Names, quoted names, commas and blanks only: nothing that could be other SQL.
fn is_plain_list(text: &str) -> bool {
    let element = |part: &str| {
        let part = part.trim();
        let quoted = part.len() >= 2 && part.starts_with('"') && part.ends_with('"');
        let inner = if quoted { &part[1..part.len() - 1] } else { part };
        let fits =
            |c: char| c.is_alphanumeric() || c == '_' || (quoted && (c == '$' || c == '-' || c == ' '));
        (quoted || !part.is_empty() && !part.starts_with(|c: char| c.is_ascii_digit()))
            && inner.chars().all(fits)
    };
    text.is_empty() || text.split(',').all(element)
}

/// Works whatever standard_conforming_strings says.
fn quote_literal(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 3);
    let escape = value.contains('\\');
    out.push_str(if escape { "E'" } else { "'" });
    for c in value.chars() {
        if c == '\'' || c == '\\' {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}

fn quote_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if !name.is_empty() && name.chars().all(plain) {
        name.to_string()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(pairs: &[(&str, &str, bool)]) -> Parameters {
        let mut out = Parameters::default();
        for (name, value, reported) in pairs {
            out = out.with(name, value, *reported).unwrap_or(out);
        }
        out
    }

    #[test]
    fn names_have_no_case() {
        let p = set(&[("TimeZone", "UTC", true)]);
        assert_eq!(p.get("timezone"), Some("UTC"));
        assert!(p.with("TIMEZONE", "UTC", true).is_none());
    }

    #[test]
    fn one_batch_makes_a_server_equal() {
        let server =
            set(&[("TimeZone", "UTC", true), ("statement_timeout", "5", false), ("DateStyle", "ISO", true)]);
        let client = set(&[
            ("TimeZone", "Mars/O'Hare", true),
            ("lock_timeout", "7", false),
            ("DateStyle", "ISO", true),
        ]);
        let (sql, after) = difference(&server, &client).unwrap();
        assert_eq!(sql, "SET lock_timeout='7';SET TimeZone='Mars/O''Hare';RESET statement_timeout;");
        assert_eq!(after.get("lock_timeout"), Some("7"));
        assert_eq!(after.get("TimeZone"), Some("UTC"), "believed when the server reports it");
        assert_eq!(after.get("statement_timeout"), None);
    }

    #[test]
    fn search_path_stays_a_list_and_never_becomes_other_sql() {
        let sql = |v: &str| difference(&Parameters::default(), &set(&[("search_path", v, false)])).unwrap().0;
        assert_eq!(sql("a, \"$user\", public"), "SET search_path=a, \"$user\", public;");
        assert_eq!(sql(""), "SET search_path='';");
        assert_eq!(sql("a; drop table x"), "SET search_path='a; drop table x';");
        assert_eq!(sql("a\\'"), "SET search_path=E'a\\\\''';");
    }

    proptest! {
        #[test]
        fn a_quoted_value_ends_where_it_should(value in any::<String>()) {
            let quoted = quote_literal(&value);
            let inner = quoted.trim_start_matches('E');
            let inner = &inner[1..inner.len() - 1];
            let unescaped = inner.replace("''", "'").replace("\\\\", "\\");
            if !value.contains("''") && !value.contains("\\\\") && !value.contains("\\'") {
                prop_assert_eq!(unescaped, value);
            }
            prop_assert_eq!(inner.matches('\'').count() % 2, 0);
            prop_assert_eq!(inner.matches('\\').count() % 2, 0);
        }

        #[test]
        fn equal_sets_need_nothing(pairs in proptest::collection::vec(("[a-z]{1,6}", "[a-zA-Z ]{0,6}", any::<bool>()), 0..8)) {
            let pairs: Vec<_> = pairs.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), *c)).collect();
            prop_assert!(difference(&set(&pairs), &set(&pairs)).is_none());
        }
    }
}
