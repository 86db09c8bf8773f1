//! Texts with `$variables` → templates. Knows the names that the configuration itself makes: maps, named groups.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::location::{CaptureName, Pattern};
use crate::conf::map::Map;
use crate::conf::rewrite::UserVariable;
use crate::conf::template::{Part, Template};
use crate::conf::variables::Variable;

/// All names that templates may use.
pub struct Names<'a> {
    map_nodes: HashMap<&'a str, &'a Node>,
    maps: RefCell<HashMap<&'a str, State>>,
    groups: RefCell<Vec<Box<str>>>,
    /// Variables that `set` makes, wherever it stands.
    users: RefCell<Vec<Box<str>>>,
}

enum State {
    /// Being made: meeting it again means that maps refer to one another in a circle.
    Open,
    Done(Arc<Map>),
}

impl<'a> Names<'a> {
    pub fn new(http: &'a [Node]) -> Result<Names<'a>> {
        let mut map_nodes = HashMap::new();
        for node in http.iter().filter(|node| node.name == "map") {
            let Some(name) = node.arg(1).strip_prefix('$').filter(|name| !name.is_empty()) else {
                return Err(node.error(format!("invalid variable name \"{}\"", node.arg(1))));
            };
            map_nodes.insert(name, node);
        }
        let names = Names {
            map_nodes,
            maps: RefCell::default(),
            groups: RefCell::default(),
            users: RefCell::default(),
        };
        names.collect_groups(http);
        names.collect_users(http);
        Ok(names)
    }

    /// Makes every map, so that mistakes in maps that nobody uses are found too.
    pub fn check_maps(&self) -> Result<()> {
        let mut nodes: Vec<(&&str, &&Node)> = self.map_nodes.iter().collect();
        nodes.sort_by_key(|(_, node)| node.place.line);
        nodes.into_iter().try_for_each(|(name, node)| self.map(name, node).map(drop))
    }

    /// Named groups may be used before the pattern that has them.
    fn collect_groups(&self, nodes: &[Node]) {
        for node in nodes {
            let words = node.args.iter().map(|word| &word.text[..]).chain([&node.name[..]]);
            for text in words {
                for rest in text.split("(?").skip(1) {
                    let name = rest.trim_start_matches('P').strip_prefix('<');
                    let name = name.and_then(|name| name.split_once('>')).map(|(name, _)| name);
                    if let Some(name) = name.filter(|name| name.bytes().all(is_name_byte)) {
                        self.group(name);
                    }
                }
            }
            self.collect_groups(&node.block);
        }
    }

    fn collect_users(&self, nodes: &[Node]) {
        for node in nodes {
            let name =
                Some(node.arg(0)).filter(|_| node.name == "set").and_then(|name| name.strip_prefix('$'));
            if let Some(name) = name
                && Variable::builtin(name).is_none()
                && !self.map_nodes.contains_key(name)
                && self.user(name).is_none()
            {
                self.users.borrow_mut().push(name.into());
            }
            self.collect_users(&node.block);
        }
    }

    /// The variable that `set` makes under this name.
    pub fn user(&self, name: &str) -> Option<UserVariable> {
        self.users.borrow().iter().position(|known| **known == *name).map(UserVariable)
    }

    fn group(&self, name: &str) -> CaptureName {
        let mut groups = self.groups.borrow_mut();
        let known = groups.iter().position(|known| **known == *name);
        CaptureName(known.unwrap_or_else(|| {
            groups.push(name.into());
            groups.len() - 1
        }))
    }

    pub fn variable(&self, name: &str, node: &Node) -> Result<Variable> {
        if let Some((name, map_node)) = self.map_nodes.get_key_value(name) {
            return Ok(Variable::Map(self.map(name, map_node)?));
        }
        if let Some(user) = self.user(name) {
            return Ok(Variable::User(user));
        }
        if let Some(variable) = Variable::builtin(name) {
            return Ok(variable);
        }
        let known = self.groups.borrow().iter().position(|known| **known == *name);
        match known {
            Some(index) => Ok(Variable::Named(CaptureName(index))),
            None => Err(node.error(format!("unknown \"{name}\" variable"))),
        }
    }

    /// `text $name ${name}text`.
    pub fn template(&self, text: &str, node: &Node) -> Result<Template> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            parts.push(Part::Text(rest.as_bytes()[..dollar].into()));
            let (name, after) = variable_name(&rest[dollar + 1..])
                .ok_or_else(|| node.error(format!("invalid variable name in \"{text}\"")))?;
            parts.push(Part::Variable(self.variable(name, node)?));
            rest = after;
        }
        parts.push(Part::Text(rest.as_bytes().into()));
        Ok(Template::new(parts))
    }

    pub fn pattern(&self, text: &str, case: Case, node: &Node) -> Result<Pattern> {
        let regex = regex(text, case, node)?;
        let named = regex.capture_names().enumerate();
        let names = named.filter_map(|(group, name)| Some((self.group(name?), group))).collect();
        Ok(Pattern { regex, names })
    }

    fn map(&self, name: &'a str, node: &'a Node) -> Result<Arc<Map>> {
        match self.maps.borrow().get(name) {
            Some(State::Done(map)) => return Ok(map.clone()),
            Some(State::Open) => {
                return Err(node.error(format!("cycle while evaluating variable \"{name}\"")));
            }
            None => {}
        }
        self.maps.borrow_mut().insert(name, State::Open);
        let map = Arc::new(self.read_map(name, node)?);
        self.maps.borrow_mut().insert(name, State::Done(map.clone()));
        Ok(map)
    }

    fn read_map(&self, name: &str, node: &Node) -> Result<Map> {
        let hostnames = node.block.iter().any(|entry| entry.name == "hostnames" && entry.args.is_empty());
        let mut map = Map {
            name: name.into(),
            source: self.template(node.arg(0), node)?,
            exact: HashMap::new(),
            patterns: Vec::new(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
            hostnames,
            default: Template::default(),
        };
        let mut has_default = false;
        for entry in &node.block {
            match (&entry.name[..], entry.args.len()) {
                ("hostnames" | "volatile", 0) => {}
                ("default", 1) if has_default => return Err(entry.error("duplicate default map parameter")),
                ("default", 1) => {
                    has_default = true;
                    map.default = self.template(entry.arg(0), entry)?;
                }
                (_, 1) => self.map_entry(&mut map, entry)?,
                _ => return Err(entry.error("invalid number of the map parameters")),
            }
        }
        map.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        map.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(map)
    }

    fn map_entry(&self, map: &mut Map, entry: &Node) -> Result<()> {
        let value = self.template(entry.arg(0), entry)?;
        let key = &entry.name[..];
        if let Some(pattern) = key.strip_prefix('~') {
            let (case, pattern) = Case::of(pattern);
            map.patterns.push((self.pattern(pattern, case, entry)?, value));
            return Ok(());
        }
        let lower = key.strip_prefix('\\').unwrap_or(key).to_ascii_lowercase();
        let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
        if map.hostnames {
            if let Some(rest) = lower.strip_prefix("*.") {
                map.suffixes.push((bytes(&format!(".{rest}")), value));
                return Ok(());
            }
            if let Some(rest) = lower.strip_prefix('.') {
                map.suffixes.push((bytes(&lower), value.clone()));
                map.exact.insert(bytes(rest), value);
                return Ok(());
            }
            if let Some(rest) = lower.strip_suffix(".*") {
                map.prefixes.push((bytes(&format!("{rest}.")), value));
                return Ok(());
            }
        }
        match map.exact.insert(bytes(&lower), value) {
            Some(_) => Err(entry.error(format!("conflicting parameter \"{key}\""))),
            None => Ok(()),
        }
    }
}

/// Whether a pattern tells upper from lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Matters,
    Ignored,
}

impl Case {
    /// What follows `~`: `*` means that case is ignored.
    pub fn of(text: &str) -> (Case, &str) {
        match text.strip_prefix('*') {
            Some(rest) => (Case::Ignored, rest),
            None => (Case::Matters, text),
        }
    }
}

pub fn regex(text: &str, case: Case, node: &Node) -> Result<Regex> {
    let text = &unquoted(text);
    let built = RegexBuilder::new(text).case_insensitive(case == Case::Ignored).unicode(false).build();
    let built = built.or_else(|_| RegexBuilder::new(text).case_insensitive(case == Case::Ignored).build());
    built.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        node.error(format!("pattern \"{text}\" cannot be used: {reason}"))
    })
}

/// PCRE's `\\Q…\\E`, which quotes everything between, spelt out.
fn unquoted(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("\\Q") {
        let (quoted, after) = after.split_once("\\E").unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(&regex::escape(quoted));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Splits what follows `$` into the name and the rest.
fn variable_name(text: &str) -> Option<(&str, &str)> {
    if let Some(inner) = text.strip_prefix('{') {
        let (name, rest) = inner.split_once('}')?;
        return (!name.is_empty() && name.bytes().all(is_name_byte)).then_some((name, rest));
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return Some(text.split_at(1));
    }
    let len = text.bytes().take_while(|byte| is_name_byte(*byte)).count();
    (len > 0).then(|| text.split_at(len))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
