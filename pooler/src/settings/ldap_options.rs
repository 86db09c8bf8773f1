//! The options of LDAP: `name=value` words as in an HBA line, or a URL that says most of them at once.

use super::Secret;
use super::hba_file::{Token, tokens};
use crate::logic::ldap::{Directory, Encryption, Lookup, Scope, Search};

const LDAP_PORT: u16 = 389;
const LDAPS_PORT: u16 = 636;

/// What was said so far. None: nothing about it.
#[derive(Default)]
struct Options {
    scheme: Option<String>,
    tls: bool,
    server: Option<String>,
    port: Option<u16>,
    prefix: Option<String>,
    suffix: Option<String>,
    base: Option<String>,
    bind_name: Option<String>,
    bind_password: Option<Secret>,
    attribute: Option<String>,
    filter: Option<String>,
    scope: Option<Scope>,
}

/// A name, a value, and what is left to read.
type Pair<'a> = (String, String, &'a [Token]);

/// Reads auth_ldap_options.
pub fn parse(text: &str) -> Result<Directory, String> {
    parse_tokens(&tokens(text).ok_or("a quote does not end")?)
}

/// Reads what follows the method in an HBA line.
pub(super) fn parse_tokens(tokens: &[Token]) -> Result<Directory, String> {
    let mut options = Options::default();
    let mut rest = tokens;
    while let Some((name, value, after)) = next_option(rest)? {
        options.set(&name, value)?;
        rest = after;
    }
    options.directory()
}

/// `name=value`, where either may be in quotes.
fn next_option(mut rest: &[Token]) -> Result<Option<Pair<'_>>, String> {
    while let [Token::Comma, after @ ..] = rest {
        rest = after;
    }
    let (name, value, after) = match rest {
        [] => return Ok(None),
        [Token::Quoted(name), Token::Word(word), after @ ..] if word.starts_with('=') => {
            (name.clone(), word[1..].to_string(), after)
        }
        [Token::Word(word), after @ ..] => {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: expected name=value"))?;
            (name.to_string(), value.to_string(), after)
        }
        _ => return Err("expected name=value".to_string()),
    };
    match after {
        [Token::Quoted(quoted), after @ ..] if value.is_empty() => Ok(Some((name, quoted.clone(), after))),
        _ if value.is_empty() => Err(format!("{name} has no value")),
        _ => Ok(Some((name, value, after))),
    }
}

impl Options {
    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "ldapurl" => self.set_url(&value)?,
            "ldapscheme" if value == "ldap" || value == "ldaps" => self.scheme = Some(value),
            "ldapscheme" => return Err(format!("invalid ldapscheme value: \"{value}\"")),
            "ldaptls" => self.tls = value == "1",
            "ldapserver" => self.server = Some(value),
            "ldapport" => self.port = Some(port(&value)?),
            "ldapprefix" => self.prefix = Some(value),
            "ldapsuffix" => self.suffix = Some(value),
            "ldapbasedn" => self.base = Some(value),
            "ldapbinddn" => self.bind_name = Some(value),
            "ldapbindpasswd" => self.bind_password = Some(Secret::new(value)),
            "ldapsearchattribute" => self.attribute = Some(value),
            "ldapsearchfilter" => self.filter = Some(value),
            _ => return Err(format!("invalid LDAP option: \"{name}\"")),
        }
        Ok(())
    }

    /// `ldap://host:port/base?attribute?scope?filter`
    fn set_url(&mut self, url: &str) -> Result<(), String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("no LDAP URL: {url}"))?;
        if scheme != "ldap" && scheme != "ldaps" {
            return Err(format!("unsupported LDAP URL scheme: {scheme}"));
        }
        self.scheme = Some(scheme.to_string());
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        match host.rsplit_once(':').filter(|(_, after)| !after.contains(']')) {
            Some((name, number)) => (self.server, self.port) = (some(name), Some(port(number)?)),
            None => self.server = some(host),
        }
        let mut parts = path.splitn(4, '?').map(decoded);
        let mut part = || parts.next().unwrap_or(Ok(String::new()));
        self.base = some(&part()?);
        self.attribute = part()?.split(',').next().and_then(some);
        self.scope = match part()?.as_str() {
            // The standard's default, and so OpenLDAP's.
            "" | "base" => Some(Scope::Base),
            "one" | "onelevel" => Some(Scope::OneLevel),
            "sub" | "subtree" => Some(Scope::Subtree),
            other => return Err(format!("unknown scope in an LDAP URL: {other}")),
        };
        self.filter = some(&part()?);
        Ok(())
    }

    fn directory(self) -> Result<Directory, String> {
        let encryption = match (self.scheme.as_deref(), self.tls) {
            (Some("ldaps"), true) => return Err("ldaptls=1 does not go with ldaps".to_string()),
            (Some("ldaps"), false) => Encryption::Tls,
            (_, true) => Encryption::StartTls,
            (_, false) => Encryption::None,
        };
        let default_port = if encryption == Encryption::Tls { LDAPS_PORT } else { LDAP_PORT };
        let (port, server) = (self.port.unwrap_or(default_port), self.server.clone());
        let hosts = server.unwrap_or_else(|| "localhost".to_string());
        let hosts = hosts.split_whitespace().map(str::to_string).collect();
        Ok(Directory { hosts, port, encryption, lookup: self.lookup()? })
    }

    fn lookup(self) -> Result<Lookup, String> {
        let is_between = self.prefix.is_some() || self.suffix.is_some();
        let is_search = self.base.is_some()
            || self.bind_name.is_some()
            || self.bind_password.is_some()
            || self.attribute.is_some()
            || self.filter.is_some();
        if is_between && is_search {
            return Err("cannot mix options for simple bind and search+bind modes".to_string());
        }
        if is_between {
            let (prefix, suffix) = (self.prefix.unwrap_or_default(), self.suffix.unwrap_or_default());
            return Ok(Lookup::Between { prefix, suffix });
        }
        let Some(base) = self.base else {
            let text = "method \"ldap\" requires \"ldapbasedn\", \"ldapprefix\", or \"ldapsuffix\" to be set";
            return Err(text.to_string());
        };
        let filter = match (self.attribute, self.filter) {
            (Some(_), Some(_)) => {
                return Err("cannot use ldapsearchattribute together with ldapsearchfilter".to_string());
            }
            (_, Some(filter)) if filter.starts_with('(') => filter,
            (_, Some(filter)) => format!("({filter})"),
            (attribute, None) => format!("({}=$username)", attribute.as_deref().unwrap_or("uid")),
        };
        Ok(Lookup::Search(Search {
            base,
            scope: self.scope.unwrap_or(Scope::Subtree),
            filter,
            bind_name: self.bind_name.unwrap_or_default(),
            bind_password: self.bind_password.unwrap_or_default(),
        }))
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid LDAP port number: \"{text}\""))
}

/// `%2C` for a comma.
fn decoded(text: &str) -> Result<String, String> {
    let bad = || format!("malformed escape in an LDAP URL: {text}");
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok()).ok_or_else(bad)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests;
