//! Server side includes: runs the commands of a page. What they look like: logic/ssi.rs.

use std::collections::HashMap;

use super::Exchange;
use super::inside::{MADE_MAX, PAGE_LEN_MAX, too_long};
use crate::conf::settings::ErrorLevel;
use crate::conf::variables::Variable;
use crate::error::Error;
use crate::logic::escape::escape_path;
use crate::logic::h1::target::safe_target;
use crate::logic::ssi::{self, Command, Piece, condition, escape_entities, is_equal};

const BROKEN: &[u8] = b"[an error occurred while processing the directive]";
const NONE: &[u8] = b"(none)";

/// A page while it is made.
struct Page {
    out: Vec<u8>,
    /// Bytes that `include` has brought.
    included: usize,
    /// What `set` and `include set=` gave.
    values: HashMap<Vec<u8>, Vec<u8>>,
    blocks: HashMap<Vec<u8>, Vec<u8>>,
    /// The block that is being gathered: its name and where it begins in `out`.
    block: Option<(Vec<u8>, usize)>,
    branches: Vec<Branch>,
    broken: Vec<u8>,
    is_silent: bool,
}

/// One `if` and where in it we are.
struct Branch {
    is_taken: bool,
    /// One of the branches so far was the one.
    was_taken: bool,
}

impl Page {
    fn is_skipped(&self) -> bool {
        self.branches.iter().any(|branch| !branch.is_taken)
    }

    fn say_broken(&mut self) {
        if !self.is_silent {
            self.out.extend_from_slice(&self.broken);
        }
    }
}

impl Exchange<'_> {
    /// A page that was held back is made and goes on its way, now that all of it is here.
    pub(super) async fn finish_page(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let Some(text) = self.scratch.sink.take_page() else { return Ok(()) };
        let made = self.make_page(&text).await;
        let trailers = self.trailer_lines();
        self.scratch.sink.push(&made, out)?;
        self.scratch.sink.finish(&trailers, out)
    }

    pub(super) async fn make_page(&mut self, text: &[u8]) -> Vec<u8> {
        let mut page = Page {
            out: Vec::with_capacity(text.len()),
            included: 0,
            values: HashMap::new(),
            blocks: HashMap::new(),
            block: None,
            branches: Vec::new(),
            broken: BROKEN.to_vec(),
            is_silent: self.location.dress.pages.as_ref().is_some_and(|pages| pages.is_silent),
        };
        for piece in ssi::pieces(text) {
            match piece {
                Piece::Command(command) => self.obey(&mut page, &command).await,
                _ if page.is_skipped() => {}
                Piece::Text(text) => page.out.extend_from_slice(text),
                Piece::Broken => page.say_broken(),
            }
        }
        page.out
    }

    async fn obey(&mut self, page: &mut Page, command: &Command<'_>) {
        if self.branch(page, command).is_some() || page.is_skipped() {
            return;
        }
        let done = match command.name {
            b"include" => self.include(page, command).await,
            b"echo" => self.echo(page, command),
            b"set" => self.set(page, command),
            b"config" => config(page, command),
            b"block" => {
                let name = command.argument(b"name").map(<[u8]>::to_vec);
                name.filter(|_| page.block.is_none()).map(|name| page.block = Some((name, page.out.len())))
            }
            b"endblock" => page.block.take().map(|(name, start)| {
                let text = page.out.split_off(start.min(page.out.len()));
                page.blocks.insert(name, text);
            }),
            _ => None,
        };
        if done.is_none() {
            self.say(
                ErrorLevel::Error,
                format_args!("invalid SSI command: \"{}\"", String::from_utf8_lossy(command.name)),
            );
            page.say_broken();
        }
    }

    /// `if`, `elif`, `else`, `endif`; `None`: something else.
    fn branch(&mut self, page: &mut Page, command: &Command<'_>) -> Option<()> {
        match command.name {
            b"if" => {
                let is_taken = !page.is_skipped() && self.is_met(page, command);
                page.branches.push(Branch { is_taken, was_taken: is_taken });
            }
            b"elif" | b"else" => {
                let Some(mut branch) = page.branches.pop() else {
                    page.say_broken();
                    return Some(());
                };
                let may_be = !branch.was_taken && !page.is_skipped();
                branch.is_taken = may_be && (command.name == b"else" || self.is_met(page, command));
                branch.was_taken |= branch.is_taken;
                page.branches.push(branch);
            }
            b"endif" => drop(page.branches.pop()),
            _ => return None,
        }
        Some(())
    }

    fn is_met(&mut self, page: &Page, command: &Command<'_>) -> bool {
        let Some(asked) = command.argument(b"expr").and_then(condition) else { return false };
        let left = self.expand(page, asked.left);
        match asked.right {
            None => !left.is_empty(),
            Some(right) => is_equal(&left, &self.expand(page, right.text)) != right.is_negated,
        }
    }

    fn expand(&self, page: &Page, text: &[u8]) -> Vec<u8> {
        ssi::expand(text, &mut |name| self.value_in(page, name))
    }

    /// What a page has set goes before what the request knows.
    fn value_in(&self, page: &Page, name: &[u8]) -> Option<Vec<u8>> {
        if let Some(value) = page.values.get(name) {
            return Some(value.clone());
        }
        let name = std::str::from_utf8(name).ok()?;
        let variable = match name {
            "date_local" => Some(Variable::TimeLocal),
            "date_gmt" => {
                return Some(httpdate::fmt_http_date(self.worker.clock.wall(self.now)).into_bytes());
            }
            name => {
                self.running.settings.http.variables.get(name).cloned().or_else(|| Variable::builtin(name))
            }
        };
        let mut value = Vec::new();
        variable?.write(&self.facts(), &mut value).then_some(value)
    }

    async fn include(&mut self, page: &mut Page, command: &Command<'_>) -> Option<()> {
        let (uri, is_file) = match (command.argument(b"virtual"), command.argument(b"file")) {
            (Some(uri), None) => (uri, false),
            (None, Some(file)) => (file, true),
            _ => return None,
        };
        let mut target = self.expand(page, uri);
        // What is not absolute lies beside the page.
        if target.first() != Some(&b'/') || is_file {
            let path = &self.scratch.story.path;
            let folder = memchr::memrchr(b'/', path).map_or(0, |at| at + 1);
            let mut beside = Vec::new();
            escape_path(&path[..folder], &mut beside);
            beside.extend_from_slice(target.strip_prefix(b"/").unwrap_or(&target));
            target = beside;
        }
        let Some(place) = safe_target(&target) else {
            let target = String::from_utf8_lossy(&target);
            self.say(ErrorLevel::Error, format_args!("unsafe URI \"{target}\" was detected"));
            return None;
        };
        if self.scratch.story.made_inside >= MADE_MAX {
            self.say(ErrorLevel::Error, format_args!("too many includes for one request"));
            return None;
        }
        let (status, mut body) = self.fetch(place).await;
        if let Some(stub) = command.argument(b"stub")
            && (body.is_empty() || status >= 400)
        {
            body = page.blocks.get(stub).cloned().unwrap_or_default();
        }
        page.included += body.len();
        if page.included > PAGE_LEN_MAX {
            self.log(&too_long(), None);
            return None;
        }
        match command.argument(b"set") {
            Some(name) => drop(page.values.insert(name.to_vec(), body)),
            None => page.out.extend(body),
        }
        Some(())
    }

    fn echo(&mut self, page: &mut Page, command: &Command<'_>) -> Option<()> {
        let name = command.argument(b"var")?;
        let value = self.value_in(page, name);
        let value = value.unwrap_or_else(|| command.argument(b"default").unwrap_or(NONE).to_vec());
        match command.argument(b"encoding").unwrap_or(b"entity") {
            b"none" => page.out.extend(value),
            b"url" => escape_path(&value, &mut page.out),
            b"entity" => escape_entities(&value, &mut page.out),
            _ => return None,
        }
        Some(())
    }

    fn set(&mut self, page: &mut Page, command: &Command<'_>) -> Option<()> {
        let (name, value) = (command.argument(b"var")?, command.argument(b"value")?);
        let value = self.expand(page, value);
        page.values.insert(name.to_vec(), value);
        Some(())
    }
}

/// `errmsg`; of `timefmt` nothing is kept: times are told in one form.
fn config(page: &mut Page, command: &Command<'_>) -> Option<()> {
    if let Some(text) = command.argument(b"errmsg") {
        page.broken = text.to_vec();
    }
    Some(())
}
