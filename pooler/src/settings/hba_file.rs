//! The form of HBA and ident files: words, quoted names, commas, comments. A line that cannot be read is left out with
//! a warning, as in PgBouncer; what it would have allowed stays closed, and a rule that would have refused is replaced
//! by one that refuses everything it could have meant.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::ldap_options;
use super::load::LoadFile;
use super::table::NO_PAM;
use crate::logic::hba::{AddressMatch, ConnectionKind, MapEntry, Method, NameMatch, Rule};

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    /// In double quotes: a name even when it is a keyword.
    Quoted(String),
    Comma,
}

/// Splits a line; None when a quote does not end.
pub(super) fn tokens(line: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        match first {
            '#' => break,
            ',' => {
                tokens.push(Token::Comma);
                rest = &rest[1..];
            }
            '"' => {
                let (name, after) = quoted(&rest[1..])?;
                tokens.push(Token::Quoted(name));
                rest = after;
            }
            _ => {
                let ends = |char: char| char.is_whitespace() || matches!(char, ',' | '#' | '"');
                let (word, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
                tokens.push(Token::Word(word.to_string()));
                rest = after;
            }
        }
        rest = rest.trim_start();
    }
    Some(tokens)
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        name.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, after)),
        }
    }
}

/// Reads an HBA file; `@file` in a list of names is read through `load`.
pub struct HbaReader<'a> {
    pub path: &'a Path,
    pub maps: &'a [MapEntry],
    pub load: LoadFile<'a>,
    pub warnings: Vec<String>,
}

/// The words of a line that were not used yet.
struct Words<'a> {
    rest: &'a [Token],
}

impl Words<'_> {
    fn word(&mut self) -> Option<String> {
        let (Token::Word(word) | Token::Quoted(word)) = self.rest.first()? else { return None };
        self.rest = &self.rest[1..];
        Some(word.clone())
    }

    fn keyword(&mut self) -> Option<String> {
        let Token::Word(word) = self.rest.first()? else { return None };
        self.rest = &self.rest[1..];
        Some(word.clone())
    }

    fn comma(&mut self) -> bool {
        let is_comma = self.rest.first() == Some(&Token::Comma);
        self.rest = &self.rest[usize::from(is_comma)..];
        is_comma
    }
}

impl HbaReader<'_> {
    pub fn rules(&mut self, text: &str) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let parsed = match tokens(line) {
                Some(tokens) if tokens.is_empty() => continue,
                Some(tokens) => self.rule(number, &tokens),
                None => Err("a quote does not end".to_string()),
            };
            match parsed {
                Ok(rule) => rules.push(rule),
                Err(what) => {
                    let path = self.path.display();
                    self.warnings.push(format!("could not parse hba config line {number} ({path}): {what}"));
                    // A refusal that cannot be read must not let anybody in.
                    rules.extend(refusal_instead(number, line));
                }
            }
        }
        rules
    }

    fn rule(&self, line: usize, tokens: &[Token]) -> Result<Rule, String> {
        let mut words = Words { rest: tokens };
        let kind = match words.keyword().as_deref() {
            Some("local") => ConnectionKind::Local,
            Some("host") => ConnectionKind::Host,
            Some("hostssl") => ConnectionKind::HostSsl,
            Some("hostnossl") => ConnectionKind::HostNoSsl,
            _ => return Err("unknown type: expected local, host, hostssl or hostnossl".to_string()),
        };
        let databases = self.names(&mut words, true)?;
        let users = self.names(&mut words, false)?;
        let address = match kind {
            ConnectionKind::Local => AddressMatch::All,
            _ => address(&mut words)?,
        };
        let method = method(words.keyword().as_deref())?;
        if method == Method::Ldap {
            let directory = Some(ldap_options::parse_tokens(words.rest)?);
            return Ok(Rule { line, kind, databases, users, address, method, map: None, directory });
        }
        let map = match words.keyword() {
            None => None,
            Some(option) => Some(self.map(&option)?),
        };
        if !words.rest.is_empty() {
            return Err("unsupported parameters".to_string());
        }
        Ok(Rule { line, kind, databases, users, address, method, map, directory: None })
    }

    fn map(&self, option: &str) -> Result<String, String> {
        let name = option
            .strip_prefix("map=")
            .ok_or_else(|| format!("Ident map {option} is malformed. It is not in map=value format."))?;
        if self.maps.iter().any(|entry| entry.map == name) {
            Ok(name.to_string())
        } else {
            Err(format!("Ident map {name} is not found in ident config file"))
        }
    }

    /// A list of names, with the keywords of its column.
    fn names(&self, words: &mut Words<'_>, is_database: bool) -> Result<NameMatch, String> {
        let mut names = NameMatch::default();
        loop {
            match words.rest.first() {
                Some(Token::Quoted(name)) => names.names.push(name.clone()),
                Some(Token::Word(word)) => self.name(&mut names, word, is_database)?,
                _ => return Err("a list of names is missing".to_string()),
            }
            words.rest = &words.rest[1..];
            if !words.comma() {
                return Ok(names);
            }
        }
    }

    fn name(&self, names: &mut NameMatch, word: &str, is_database: bool) -> Result<(), String> {
        match word {
            "all" => names.all = true,
            "sameuser" if is_database => names.same_user = true,
            "replication" if is_database => names.replication = true,
            "samerole" | "samegroup" if is_database => return Err(format!("{word} is not supported")),
            _ if word.starts_with('+') => {
                return Err(format!("{word}: membership in roles is not known to the pooler"));
            }
            _ => match word.strip_prefix('@') {
                Some(file) => self.name_file(names, file, is_database)?,
                None => names.names.push(word.to_string()),
            },
        }
        Ok(())
    }

    /// A file of names, next to the HBA file unless its path is absolute.
    fn name_file(&self, names: &mut NameMatch, file: &str, is_database: bool) -> Result<(), String> {
        let path: PathBuf = self.path.parent().unwrap_or(Path::new("")).join(file);
        let text = (self.load)(&path).map_err(|what| format!("{}: {what}", path.display()))?;
        for line in text.lines() {
            for token in tokens(line).ok_or_else(|| format!("{}: a quote does not end", path.display()))? {
                match token {
                    Token::Quoted(name) => names.names.push(name),
                    // A file of names inside a file of names could go round for ever.
                    Token::Word(word) if word.starts_with('@') => {
                        return Err(format!("{}: {word} inside a file of names", path.display()));
                    }
                    Token::Word(word) => self.name(names, &word, is_database)?,
                    Token::Comma => {}
                }
            }
        }
        Ok(())
    }
}

/// `all`, `10.0.0.0/8`, or an address and a mask.
fn address(words: &mut Words<'_>) -> Result<AddressMatch, String> {
    let word = words.keyword().ok_or("an address is missing")?;
    if word == "all" {
        return Ok(AddressMatch::All);
    }
    let net = match word.split_once('/') {
        Some(_) => word.parse::<IpNet>().map_err(|_| format!("failed to parse address - {word}"))?,
        None => {
            let address: IpAddr = word.parse().map_err(|_| format!("failed to parse address - {word}"))?;
            let mask = words.keyword().ok_or("did not find mask")?;
            let mask: IpAddr = mask.parse().map_err(|_| format!("failed to parse mask: {mask}"))?;
            IpNet::with_netmask(address, mask).map_err(|_| format!("invalid mask {mask}"))?
        }
    };
    Ok(AddressMatch::Net(net.trunc()))
}

fn method(word: Option<&str>) -> Result<Method, String> {
    match word {
        Some("trust") => Ok(Method::Trust),
        Some("reject") => Ok(Method::Reject),
        Some("password") => Ok(Method::Plain),
        Some("md5") => Ok(Method::Md5),
        Some("scram-sha-256") => Ok(Method::Scram),
        Some("cert") => Ok(Method::Cert),
        Some("peer") => Ok(Method::Peer),
        Some("ldap") => Ok(Method::Ldap),
        Some("pam") => Err(NO_PAM.to_string()),
        Some(other) => Err(format!("unsupported method {other}")),
        None => Err("a method is missing".to_string()),
    }
}

/// For a line that says `reject` but cannot be read: a rule that rejects all.
fn refusal_instead(line: usize, text: &str) -> Option<Rule> {
    let words = tokens(text).unwrap_or_default();
    if !words.contains(&Token::Word("reject".to_string())) {
        return None;
    }
    let kind = match words.first() {
        Some(Token::Word(word)) if word == "local" => ConnectionKind::Local,
        Some(Token::Word(word)) if word == "hostssl" => ConnectionKind::HostSsl,
        Some(Token::Word(word)) if word == "hostnossl" => ConnectionKind::HostNoSsl,
        _ => ConnectionKind::Host,
    };
    let all = NameMatch { all: true, replication: true, ..NameMatch::default() };
    let (databases, users) = (all.clone(), all);
    let (address, method) = (AddressMatch::All, Method::Reject);
    Some(Rule { line, kind, databases, users, address, method, map: None, directory: None })
}

/// Reads an ident file: map, system user, Postgres user or `all`.
pub fn parse_maps(path: &str, text: &str, warnings: &mut Vec<String>) -> Vec<MapEntry> {
    let mut maps = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match tokens(line) {
            Some(tokens) if tokens.is_empty() => {}
            Some(tokens) => match map_entry(&tokens) {
                Some(entry) => maps.push(entry),
                None => warnings.push(format!("could not parse ident config line {} ({path})", index + 1)),
            },
            None => warnings.push(format!("could not parse ident config line {} ({path})", index + 1)),
        }
    }
    maps
}

fn map_entry(tokens: &[Token]) -> Option<MapEntry> {
    let mut words = Words { rest: tokens };
    let map = words.keyword()?;
    let system_name = words.word()?;
    let user = match words.rest.first()? {
        Token::Word(word) if word == "all" => None,
        Token::Word(name) | Token::Quoted(name) => Some(name.clone()),
        Token::Comma => return None,
    };
    (words.rest.len() == 1).then_some(MapEntry { map, system_name, user })
}

#[cfg(test)]
mod tests;
