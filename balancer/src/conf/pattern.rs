//! Regular expressions of the configuration, as PCRE would read them, and what their groups hold.

use regex::bytes::{CaptureLocations, Regex};

use super::rewrite::UserVariable;

/// A regular expression with its named groups resolved.
#[derive(Debug)]
pub struct Pattern {
    regex: Regex,
    /// Which group each variable is.
    names: Vec<(UserVariable, usize)>,
    has_dollar: bool,
}

impl Pattern {
    pub fn new(regex: Regex, names: Vec<(UserVariable, usize)>) -> Pattern {
        let has_dollar = has_dollar(regex.as_str());
        Pattern { regex, names, has_dollar }
    }

    pub fn captures(&self, text: &[u8]) -> Option<Captures> {
        let mut locations = self.regex.capture_locations();
        match text {
            [line @ .., b'\n'] if self.has_dollar => self.read_line(&mut locations, line, text)?,
            _ => drop(self.regex.captures_read(&mut locations, text)?),
        }
        let group = |n: usize| locations.get(n).map(|(start, end)| text[start..end].to_vec());
        let groups = (0..locations.len()).map(group).collect();
        // A group that took no part is empty.
        let named = self.names.iter().map(|(name, n)| (*name, group(*n).unwrap_or_default())).collect();
        Some(Captures { groups, named })
    }

    /// PCRE's `$` stands before a line end that comes last too: as if the text had ended there. Of two matches from the
    /// same place the one that takes the line end is meant, since quantifiers are greedy.
    fn read_line(&self, found: &mut CaptureLocations, line: &[u8], text: &[u8]) -> Option<()> {
        let start_in =
            |found: &mut CaptureLocations, text| Some(self.regex.captures_read(found, text)?.start());
        let in_line = start_in(found, line);
        let in_text = start_in(found, text);
        match (in_text, in_line) {
            (None, None) => return None,
            (Some(_), None) => {}
            (Some(text), Some(line)) if text <= line => {}
            (_, Some(_)) => drop(start_in(found, line)),
        }
        Some(())
    }
}

/// Whether a `$` that means an end is in the pattern, and no `\z`.
fn has_dollar(pattern: &str) -> bool {
    let (mut depth, mut found, mut rest) = (0u32, false, pattern);
    while let Some(first) = rest.chars().next() {
        let (_, after) = rest.split_at(first.len_utf8());
        rest = after;
        match first {
            '\\' if rest.starts_with('z') => return false,
            '\\' => rest = rest.get(rest.chars().next().map_or(0, char::len_utf8)..).unwrap_or_default(),
            '[' => {
                depth += 1;
                let inner = rest.strip_prefix('^').unwrap_or(rest);
                rest = inner.strip_prefix(']').unwrap_or(inner);
            }
            ']' => depth = depth.saturating_sub(1),
            '$' => found |= depth == 0,
            // With `m` it stands at every line's end, for both.
            '(' if depth == 0 && sets_multiline(rest) => return false,
            _ => {}
        }
    }
    found
}

/// Whether a quantifier of PCRE gives nothing back (`a++`), which would be read as one upon another here.
pub fn has_possessive(pattern: &str) -> bool {
    let (mut depth, mut last, mut is_quantified) = (0u32, 0, false);
    let mut rest = pattern.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let was_quantified = std::mem::replace(&mut is_quantified, false);
        let last = std::mem::replace(&mut last, *first);
        match first {
            b'\\' => rest = rest.get(1..).unwrap_or_default(),
            b'[' => {
                depth += 1;
                let inner = rest.strip_prefix(b"^").unwrap_or(rest);
                rest = inner.strip_prefix(b"]").unwrap_or(inner);
            }
            b']' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            b'+' if was_quantified => return true,
            // What follows a quantifier makes it lazy, what follows a parenthesis says what it is.
            b'?' if was_quantified || last == b'(' => {}
            b'*' | b'+' | b'?' => is_quantified = true,
            b'{' => {
                let len = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b',').count();
                let is_count = rest.first().is_some_and(u8::is_ascii_digit) && rest.get(len) == Some(&b'}');
                if is_count {
                    (rest, is_quantified) = (&rest[len + 1..], true);
                }
            }
            _ => {}
        }
    }
    false
}

/// `?flags:` or `?flags)` with an `m` that is not taken back.
fn sets_multiline(group: &str) -> bool {
    let Some(flags) = group.strip_prefix('?') else { return false };
    let end = flags.find(|flag: char| !flag.is_ascii_alphabetic()).unwrap_or(flags.len());
    flags[end..].starts_with([':', ')', '-']) && flags[..end].contains('m')
}

/// What the groups of a matched pattern hold.
#[derive(Debug, Clone, Default)]
pub struct Captures {
    groups: Vec<Option<Vec<u8>>>,
    named: Vec<(UserVariable, Vec<u8>)>,
}

impl Captures {
    pub fn group(&self, n: u8) -> Option<&[u8]> {
        self.groups.get(usize::from(n))?.as_deref()
    }

    /// What named groups hold, for the variables of these names.
    pub fn take_named(&mut self) -> Vec<(UserVariable, Vec<u8>)> {
        std::mem::take(&mut self.named)
    }

    pub fn forget_groups(&mut self) {
        self.groups.clear();
    }

    pub fn named(&self, name: UserVariable) -> Option<&[u8]> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| &value[..])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::bytes::RegexBuilder;

    use super::*;

    fn compiled(text: &str) -> Regex {
        RegexBuilder::new(text).unicode(false).build().unwrap()
    }

    #[test]
    fn a_dollar_is_found_where_it_means_an_end() {
        for text in ["a$", "(a$)|b", r"\\$", "[$]$", "[]$]$", "(?i)a$", "(?<m>a)$", "(?i-m)$"] {
            assert!(has_dollar(text), "{text}");
        }
        for text in ["a", r"a\$", "[$]", "[]$]", "[^]$]", r"[\]$]", "[a[$]]", "(?m)a$", "(?im:a$)", r"a$|b\z"]
        {
            assert!(!has_dollar(text), "{text}");
        }
    }

    #[test]
    fn a_quantifier_that_gives_nothing_back_is_found() {
        for text in ["a++", "a*+b", "(a|b)?+", "a{2}+", "a{1,3}+", r"\.++", "[a+]++", "[]+]*+", "é++"] {
            assert!(has_possessive(text), "{text}");
        }
        for text in [
            "a+", "a+?", "a\\++", "[+*]+", "[a]+[++]", "(?:a)+", "(?i)+", "a{,}x", "a+b+", "a+?b+",
            "[a[+]+]+",
        ] {
            assert!(!has_possessive(text), "{text}");
        }
    }

    proptest! {
        /// In a text with one line end a `$` of many lines stands where PCRE's does.
        #[test]
        fn a_last_line_end_counts_as_in_pcre(
            atoms in proptest::collection::vec(("[ab\\.s]|\\[\\^a\\]|\\[ab\\]", "[*+?]?"), 0..5),
            is_anchored: bool,
            line in "[ab]{0,6}",
            has_end: bool,
        ) {
            let atoms: String = atoms
                .iter()
                .map(|(atom, times)| format!("({}{times})", if atom == "s" { r"\s" } else { atom }))
                .collect();
            let start = if is_anchored { "^" } else { "" };
            let pattern = Pattern::new(compiled(&format!("{start}{atoms}$")), Vec::new());
            let text = if has_end { format!("{line}\n") } else { line };
            let groups = |captures: Captures| captures.groups[1..].to_vec();
            let ours = pattern.captures(text.as_bytes()).map(groups);
            let pcre = compiled(&format!("{start}{atoms}(?m:$)"));
            let theirs = Pattern { regex: pcre, names: Vec::new(), has_dollar: false };
            prop_assert_eq!(ours, theirs.captures(text.as_bytes()).map(groups), "{} in {:?}", atoms, text);
        }
    }
}
