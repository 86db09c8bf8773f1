//! `map SOURCE $NAME { … }`: a variable whose value is looked up by another's.

use std::collections::HashMap;

use super::location::{Captures, Pattern};
use super::template::Template;
use super::variables::{Facts, WithGroups};

/// One map block; shared by every template that names its variable.
#[derive(Debug)]
pub struct Map {
    pub name: Box<str>,
    pub source: Template,
    /// Keys are lower-case: nginx compares them without case.
    pub exact: HashMap<Box<[u8]>, Template>,
    /// `~pattern` and `~*pattern`, in the order written.
    pub patterns: Vec<(Pattern, Template)>,
    /// `.example.com`, `*.example.com` with `hostnames`: suffixes with their leading dot, longest first.
    pub suffixes: Vec<(Box<[u8]>, Template)>,
    /// `example.*` with `hostnames`: prefixes with their trailing dot, longest first.
    pub prefixes: Vec<(Box<[u8]>, Template)>,
    pub hostnames: bool,
    pub default: Template,
}

impl Map {
    /// Appends the value that belongs to the source's present value.
    pub fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) {
        let source = self.source.to_bytes(facts);
        match self.find(&source) {
            (value, Some(captures)) => value.render(&WithGroups { facts, captures }, out),
            (value, None) => value.render(facts, out),
        }
    }

    fn find(&self, source: &[u8]) -> (&Template, Option<Captures>) {
        let mut key = source.to_ascii_lowercase();
        if self.hostnames && key.last() == Some(&b'.') {
            key.pop();
        }
        if let Some(value) = self.exact.get(&key[..]) {
            return (value, None);
        }
        let suffix = self.suffixes.iter().find(|(suffix, _)| key.ends_with(suffix));
        if let Some((_, value)) = suffix {
            return (value, None);
        }
        let prefix = self.prefixes.iter().find(|(prefix, _)| key.starts_with(prefix));
        if let Some((_, value)) = prefix {
            return (value, None);
        }
        for (pattern, value) in &self.patterns {
            if let Some(captures) = pattern.captures(source) {
                return (value, Some(captures));
            }
        }
        (&self.default, None)
    }
}
