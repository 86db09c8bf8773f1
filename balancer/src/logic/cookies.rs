//! `Set-Cookie` taken apart and put together, and its flags changed as `proxy_cookie_flags` says.

use std::borrow::Cow;

/// `name=value` or a bare `name`; the first one is the cookie itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute<'a> {
    pub name: &'a [u8],
    pub value: Option<Cow<'a, [u8]>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    secure: Option<bool>,
    http_only: Option<bool>,
    same_site: Option<SameSite>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SameSite {
    Strict,
    Lax,
    None,
    Off,
}

impl SameSite {
    fn text(self) -> &'static [u8] {
        match self {
            SameSite::Strict => b"Strict",
            SameSite::Lax => b"Lax",
            SameSite::None => b"None",
            SameSite::Off => b"",
        }
    }
}

/// Never empty.
pub fn attributes(value: &[u8]) -> Vec<Attribute<'_>> {
    let attribute = |part| match memchr::memchr(b'=', part) {
        Some(at) => Attribute { name: trimmed(&part[..at]), value: Some(trimmed(&part[at + 1..]).into()) },
        None => Attribute { name: trimmed(part), value: None },
    };
    value.split(|byte| *byte == b';').map(attribute).collect()
}

/// Spaces only: nginx takes a tab for a part of the name.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

pub fn write(attributes: &[Attribute<'_>], out: &mut Vec<u8>) {
    for (i, attribute) in attributes.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(attribute.name);
        if let Some(value) = &attribute.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
}

impl Flags {
    /// Takes a word of the configuration; false where it means nothing.
    pub fn add(&mut self, word: &[u8]) -> bool {
        match &word.to_ascii_lowercase()[..] {
            b"secure" => self.secure = Some(true),
            b"nosecure" => self.secure = Some(false),
            b"httponly" => self.http_only = Some(true),
            b"nohttponly" => self.http_only = Some(false),
            b"samesite=strict" => self.same_site = Some(SameSite::Strict),
            b"samesite=lax" => self.same_site = Some(SameSite::Lax),
            b"samesite=none" => self.same_site = Some(SameSite::None),
            b"nosamesite" => self.same_site = Some(SameSite::Off),
            _ => return false,
        }
        true
    }

    /// False where there is nothing to change.
    pub fn apply(self, attributes: &mut Vec<Attribute<'_>>) -> bool {
        if self == Flags::default() {
            return false;
        }
        switch(attributes, b"Secure", self.secure);
        switch(attributes, b"HttpOnly", self.http_only);
        if let Some(same_site) = self.same_site {
            let is_it = |attribute: &Attribute<'_>| attribute.name.eq_ignore_ascii_case(b"samesite");
            let fits = |attribute: &Attribute<'_>| {
                attribute.value.as_deref().is_some_and(|value| value.eq_ignore_ascii_case(same_site.text()))
            };
            let wanted = Attribute { name: b"SameSite", value: Some(same_site.text().into()) };
            match attributes[1..].iter().position(is_it).map(|at| at + 1) {
                Some(_) if same_site == SameSite::Off => {
                    let cookie = attributes[0].clone();
                    attributes.retain(|attribute| *attribute == cookie || !is_it(attribute));
                }
                Some(at) if fits(&attributes[at]) => {}
                Some(at) => attributes[at] = wanted,
                None if same_site == SameSite::Off => {}
                None => attributes.push(wanted),
            }
        }
        true
    }
}

fn switch(attributes: &mut Vec<Attribute<'_>>, name: &'static [u8], on: Option<bool>) {
    let found = attributes[1..].iter().position(|attribute| attribute.name.eq_ignore_ascii_case(name));
    match (on, found) {
        (Some(true), None) => attributes.push(Attribute { name, value: None }),
        (Some(false), Some(at)) => drop(attributes.remove(at + 1)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(words: &[&str], value: &str) -> String {
        let mut flags = Flags::default();
        for word in words {
            assert!(flags.add(word.as_bytes()), "{word}");
        }
        let mut parts = attributes(value.as_bytes());
        flags.apply(&mut parts);
        let mut out = Vec::new();
        write(&parts, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn flags_are_set_and_taken_off() {
        assert_eq!(with(&["secure", "httponly"], "a=1"), "a=1; Secure; HttpOnly");
        assert_eq!(with(&["secure"], "a=1; secure; Path=/"), "a=1; secure; Path=/");
        assert_eq!(with(&["nosecure", "nohttponly"], "a=1; Secure; HTTPOnly; Path=/"), "a=1; Path=/");
        assert_eq!(with(&["samesite=lax"], "a=1; samesite=strict"), "a=1; SameSite=Lax");
        assert_eq!(with(&["samesite=lax"], "a=1; samesite=LAX"), "a=1; samesite=LAX");
        assert_eq!(with(&["nosamesite"], "a=1; SameSite=None"), "a=1");
    }

    #[test]
    fn a_cookie_named_like_a_flag_keeps_its_name() {
        assert_eq!(with(&["nosecure", "nosamesite"], "secure=1"), "secure=1");
        assert_eq!(with(&["secure"], "samesite=1"), "samesite=1; Secure");
    }

    proptest! {
        #[test]
        fn what_is_taken_apart_is_put_together_again(value in "[a-z]{1,4}(=[a-z=]{0,4})?(; [a-z]{1,4}(=[a-z=]{0,4})?){0,4}") {
            let mut out = Vec::new();
            write(&attributes(value.as_bytes()), &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value);
        }

        #[test]
        fn the_cookie_itself_is_never_touched(value in ".{0,40}", word in "(no)?(secure|httponly)|nosamesite|samesite=(lax|none|strict)") {
            let mut flags = Flags::default();
            flags.add(word.as_bytes());
            let mut parts = attributes(value.as_bytes());
            let first = parts[0].clone();
            flags.apply(&mut parts);
            prop_assert_eq!(&parts[0], &first);
        }
    }
}
