//! Runs the steps of `set`, `if`, `rewrite`, `return`, `break` and finds the location that is meant in the end.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Exchange;
use super::answer::Answer;
use super::story::PathIs;
use crate::conf::location::Action;
use crate::conf::rewrite::{Condition, Rewrite, Step, Test, Then};
use crate::conf::settings::ErrorLevel;
use crate::conf::template::{Part, Template};
use crate::conf::variables::Variable;

/// So often a path may be changed before it is taken for a loop; nginx's number.
const CHANGES_MAX: u32 = 10;

/// How a run of steps ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// All steps ran.
    Through,
    /// `last`, `break` or the word `break`: no more steps.
    Ended,
}

impl<'a> Exchange<'a> {
    /// The server's steps, then those of the location that is found.
    pub(super) fn rewrite_and_find(&mut self) -> Result<(), Answer> {
        let server = self.server;
        let mut changed = false;
        self.run(&server.steps, &mut changed)?;
        self.find_and_run()
    }

    /// The location, then its steps; again while they change the path.
    pub(super) fn find_and_run(&mut self) -> Result<(), Answer> {
        for _ in 0..=CHANGES_MAX {
            self.find_location()?;
            if !self.run_location()? {
                return Ok(());
            }
        }
        let path = self.path_text();
        self.say(
            ErrorLevel::Error,
            format_args!("rewrite or internal redirection cycle while processing \"{path}\""),
        );
        Err(Answer::page(500))
    }

    /// The steps of the location that was found; true when they ask for another one.
    pub(super) fn run_location(&mut self) -> Result<bool, Answer> {
        let location = self.location;
        if location.steps.is_empty() {
            return Ok(false);
        }
        let mut changed = false;
        self.run(&location.steps, &mut changed)?;
        Ok(changed)
    }

    fn run(&mut self, steps: &'a [Step], changed: &mut bool) -> Result<Flow, Answer> {
        for step in steps {
            match step {
                Step::Set(to, value) => {
                    let value = self.step_value(value, *changed);
                    self.assign(*to, value);
                }
                Step::Return(answer) => return Err(self.returned(answer)),
                Step::Break => {
                    if std::mem::take(changed) {
                        self.scratch.story.path_is = PathIs::Rewritten;
                    }
                    return Ok(Flow::Ended);
                }
                Step::Rewrite(rewrite) => {
                    if self.rewrite(rewrite, changed)? == Flow::Ended {
                        return Ok(Flow::Ended);
                    }
                }
                Step::If(block) => {
                    if !self.holds(&block.condition, *changed) {
                        continue;
                    }
                    if let Some(location) = &block.location {
                        let loses = matches!(self.location.action, Action::Proxy(_));
                        self.scratch.story.lost_pass |= loses && matches!(location.action, Action::Nothing);
                        self.location = location;
                    }
                    if self.run(&block.steps, changed)? == Flow::Ended {
                        return Ok(Flow::Ended);
                    }
                }
            }
        }
        Ok(Flow::Through)
    }

    fn rewrite(&mut self, rewrite: &Rewrite, changed: &mut bool) -> Result<Flow, Answer> {
        let Some(captures) = rewrite.pattern.captures(&self.scratch.story.path) else {
            self.forget_groups();
            return Ok(Flow::Through);
        };
        self.scratch.story.remember(captures);
        if let Then::Redirect(status) = rewrite.then {
            return Err(Answer::redirect(status, self.redirect_target(rewrite)));
        }
        let path = rewrite.path.to_bytes(&self.facts());
        if path.is_empty() {
            self.say(ErrorLevel::Error, format_args!("the rewritten URI has a zero length"));
            return Err(Answer::page(500));
        }
        if let Some(args) = &rewrite.args {
            let mut args = self.with_captures_escaped(args);
            let own = self.args();
            if rewrite.keeps_args && !own.is_empty() {
                args.push(b'&');
                args.extend_from_slice(own);
            }
            self.scratch.story.args = Some(args);
        } else if !rewrite.keeps_args {
            self.scratch.story.args = Some(Vec::new());
        }
        let story = &mut self.scratch.story;
        story.path = path;
        story.is_internal = true;
        story.change_path();
        if rewrite.then == Then::Break {
            story.path_is = PathIs::Rewritten;
        }
        *changed = rewrite.then != Then::Break;
        Ok(if rewrite.then == Then::GoOn { Flow::Through } else { Flow::Ended })
    }

    fn redirect_target(&self, rewrite: &Rewrite) -> Vec<u8> {
        let mut target = unescape_url(self.with_captures_escaped(&rewrite.path));
        let has_args = |part: &Part| matches!(part, Part::Text(text) if text.contains(&b'?'));
        let args = self.args();
        if rewrite.keeps_args && !args.is_empty() {
            target.push(if rewrite.path.parts().iter().any(has_args) { b'&' } else { b'?' });
            target.extend_from_slice(args);
        }
        target
    }

    /// What a step that is no `rewrite` makes of text. As in nginx it holds what was caught as an argument would, until a
    /// `rewrite` of the same run has `changed` the path.
    fn step_value(&self, template: &Template, changed: bool) -> Vec<u8> {
        if changed { template.to_bytes(&self.facts()) } else { self.with_captures_escaped(template) }
    }

    /// What a pattern caught was decoded; where a client is to read it as part of a URL it is encoded again.
    fn with_captures_escaped(&self, template: &Template) -> Vec<u8> {
        let mut out = Vec::new();
        let facts = self.facts();
        let is_escaped = self.had_escapes();
        for part in template.parts() {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(variable) => {
                    let start = out.len();
                    variable.write(&facts, &mut out);
                    if is_escaped && matches!(variable, Variable::Capture(_)) {
                        let caught = out.split_off(start);
                        escape(&caught, &mut out);
                    }
                }
            }
        }
        out
    }

    /// Whether the path came with escapes, or with a plus, which some read as a space.
    fn had_escapes(&self) -> bool {
        let story = &self.scratch.story;
        let sent = story.request.target.path.of(self.scratch.inbound.unread());
        !story.is_sub() && sent.iter().any(|byte| matches!(byte, b'%' | b'+'))
    }

    fn holds(&mut self, condition: &Condition, changed: bool) -> bool {
        let value = |x: &Exchange<'_>, template: &Template| x.step_value(template, changed);
        let met = match &condition.test {
            Test::True(template) => template.is_true(&self.facts()),
            Test::Equal(left, right) => left.to_bytes(&self.facts()) == value(self, right),
            Test::Matches(left, pattern) => match pattern.captures(&left.to_bytes(&self.facts())) {
                Some(captures) => {
                    self.scratch.story.remember(captures);
                    true
                }
                None => {
                    self.forget_groups();
                    false
                }
            },
            Test::File(path) => about(&value(self, path)).is_some_and(|about| about.is_file()),
            Test::Folder(path) => about(&value(self, path)).is_some_and(|about| about.is_dir()),
            Test::Exists(path) => about(&value(self, path)).is_some(),
            Test::Executable(path) => {
                about(&value(self, path)).is_some_and(|about| about.permissions().mode() & 0o111 != 0)
            }
        };
        met != condition.negated
    }

    /// A pattern did not match: nginx knows of no `$1` then, not of an earlier one either.
    fn forget_groups(&mut self) {
        if let Some(captures) = &mut self.scratch.story.captures {
            captures.forget_groups();
        }
    }

    fn path_text(&self) -> String {
        String::from_utf8_lossy(&self.scratch.story.path).into_owned()
    }
}

fn about(path: &[u8]) -> Option<std::fs::Metadata> {
    std::fs::metadata(Path::new(std::ffi::OsStr::from_bytes(path))).ok()
}

/// A URL that came in as an argument: what needs no escaping in it is decoded, up to its query string.
fn unescape_url(url: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(url.len());
    let mut at = 0;
    while at < url.len() {
        let decoded = url.get(at..at + 3).and_then(hex_pair);
        match decoded {
            _ if url[at] == b'?' => break,
            Some(b'?') => {
                out.push(b'?');
                at += 3;
                break;
            }
            Some(byte @ 0x26..=0x7e) => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(url[at]);
                at += 1;
            }
        }
    }
    out.extend_from_slice(&url[at..]);
    out
}

/// The byte that `%XX` means.
fn hex_pair(code: &[u8]) -> Option<u8> {
    let [b'%', high, low] = code else { return None };
    let digit = |byte: u8| (byte as char).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// As nginx escapes arguments.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        match byte {
            0..=0x20
            | b'"'
            | b'#'
            | b'%'
            | b'&'
            | b'+'
            | b';'
            | b'<'
            | b'>'
            | b'?'
            | b'\\'
            | b'^'
            | b'`'
            | b'{'
            | b'|'
            | b'}'
            | 0x7f.. => {
                out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            byte => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_from_arguments_are_decoded_as_far_as_is_safe() {
        let case = |text: &str| String::from_utf8(unescape_url(text.into())).unwrap();
        assert_eq!(case("http%3A%2F%2Fexample.com%2F%3Ffrom%3Dx"), "http://example.com/?from%3Dx");
        assert_eq!(case("http%3A//a%0D%0Ab%20%25%7f"), "http://a%0D%0Ab%20%25%7f");
        assert_eq!(case("/a?b%41"), "/a?b%41");
        assert_eq!(case("%"), "%");
    }

    proptest::proptest! {
        #[test]
        fn escaped_text_holds_nothing_that_ends_a_line(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            escape(&text, &mut out);
            proptest::prop_assert!(out.iter().all(u8::is_ascii_graphic));
            let again = unescape_url(out);
            proptest::prop_assert!(!again.contains(&b'\n') && !again.contains(&b'\r'));
        }
    }
}
