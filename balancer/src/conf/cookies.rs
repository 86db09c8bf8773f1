//! `proxy_cookie_domain`, `proxy_cookie_path`, `proxy_cookie_flags`: how `Set-Cookie` of an upstream is rewritten.

use super::proxy::{Matcher, RedirectRule};
use super::template::Template;
use super::variables::{Facts, WithGroups};
use crate::logic::cookies::{Attribute, Flags, attributes, write};

#[derive(Debug, Default)]
pub struct Cookies {
    /// The first that fits counts. Texts are whole domains without their leading dot.
    pub domains: Box<[RedirectRule]>,
    /// The first that fits counts. Texts are prefixes.
    pub paths: Box<[RedirectRule]>,
    pub flags: Box<[FlagRule]>,
}

#[derive(Debug)]
pub struct FlagRule {
    /// A cookie's whole name, in any case, or a pattern.
    pub name: Matcher,
    /// Words as the configuration has them; variables make some of them.
    pub words: Box<[Template]>,
}

impl Cookies {
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty() && self.paths.is_empty() && self.flags.is_empty()
    }

    /// Appends the value as the rules have it; false, and nothing appended, where none fits.
    pub fn rewrite(&self, value: &[u8], facts: &dyn Facts, out: &mut Vec<u8>) -> bool {
        let mut parts = attributes(value);
        if parts[0].value.is_none() {
            return false;
        }
        let mut is_changed = false;
        for part in &mut parts[1..] {
            let Some(value) = &mut part.value else { continue };
            let changed = match () {
                () if part.name.eq_ignore_ascii_case(b"domain") => self.domain(value, facts),
                () if part.name.eq_ignore_ascii_case(b"path") => first(&self.paths, value, facts),
                () => None,
            };
            if let Some(changed) = changed {
                *value = changed.into();
                is_changed = true;
            }
        }
        is_changed |= self.set_flags(&mut parts, facts);
        if is_changed {
            write(&parts, out);
        }
        is_changed
    }

    /// A leading dot stays where it was.
    fn domain(&self, value: &[u8], facts: &dyn Facts) -> Option<Vec<u8>> {
        let (dot, bare) = match value.strip_prefix(b".") {
            Some(bare) => (&b"."[..], bare),
            None => (&b""[..], value),
        };
        self.domains.iter().find_map(|rule| match &rule.from {
            Matcher::Text(text) if !text.to_bytes(facts).eq_ignore_ascii_case(bare) => None,
            Matcher::Text(_) => Some([dot, &rule.to.to_bytes(facts)].concat()),
            Matcher::Pattern(_) => first(std::slice::from_ref(rule), value, facts),
        })
    }

    fn set_flags(&self, parts: &mut Vec<Attribute<'_>>, facts: &dyn Facts) -> bool {
        let name = parts[0].name;
        let found = self.flags.iter().find_map(|rule| match &rule.name {
            Matcher::Text(text) => text.to_bytes(facts).eq_ignore_ascii_case(name).then(|| rule.flags(facts)),
            Matcher::Pattern(pattern) => {
                let captures = pattern.captures(name)?;
                Some(rule.flags(&WithGroups { facts, captures }))
            }
        });
        found.is_some_and(|flags| flags.apply(parts))
    }
}

impl FlagRule {
    fn flags(&self, facts: &dyn Facts) -> Flags {
        let mut flags = Flags::default();
        for word in &self.words {
            // A word that a variable brought and that means nothing changes nothing.
            let _ = flags.add(&word.to_bytes(facts));
        }
        flags
    }
}

fn first(rules: &[RedirectRule], value: &[u8], facts: &dyn Facts) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    rules.iter().any(|rule| rule.apply(value, facts, &mut out)).then_some(out)
}
