//! One block seen together with the blocks around it: how http → server → location inherit.

use std::time::Duration;

use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::table::{self, Context};
use crate::conf::value;
use crate::logic::min_rate::MinRate;

/// The directives of a block and a way outwards. What is given here hides what is given outside, as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub nodes: &'a [Node],
    pub context: Context,
    outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    pub fn root(nodes: &'a [Node]) -> Scope<'a> {
        Scope { nodes, context: Context::MAIN, outer: None }
    }

    /// The block of one of our directives, inheriting from us.
    pub fn inside(&'a self, node: &'a Node, context: Context) -> Scope<'a> {
        Scope { nodes: &node.block, context, outer: Some(self) }
    }

    /// A block that inherits nothing.
    pub fn alone(node: &'a Node, context: Context) -> Scope<'a> {
        Scope { nodes: &node.block, context, outer: None }
    }

    /// The directives of that name in this very block.
    pub fn own(&self, name: &str) -> impl Iterator<Item = &'a Node> + use<'a, '_> {
        let name = name.to_owned();
        self.nodes.iter().filter(move |node| node.name == name)
    }

    /// The directive of the location that an `if` block belongs to.
    pub fn of_location(&self, name: &str) -> Option<&'a Node> {
        self.outer?.own(name).next()
    }

    /// The directives of that name from the innermost block that has any.
    pub fn nearest(&self, name: &str) -> Vec<&'a Node> {
        let own: Vec<&Node> = self.own(name).collect();
        match self.outer {
            Some(outer) if own.is_empty() => outer.nearest(name),
            _ => own,
        }
    }

    /// As [`Scope::nearest`], for names that hide one another: any of them hides all of them outside.
    pub fn nearest_of(&self, names: &[&str]) -> Vec<&'a Node> {
        let own: Vec<&Node> = self.nodes.iter().filter(|node| names.contains(&&node.name[..])).collect();
        match self.outer {
            Some(outer) if own.is_empty() => outer.nearest_of(names),
            _ => own,
        }
    }

    pub fn given(&self, name: &str) -> Option<&'a Node> {
        self.nearest(name).first().copied()
    }

    /// The first argument, or the default of the table.
    pub fn text(&self, name: &str) -> &'a str {
        self.given(name).map_or_else(|| self.default(name), |node| node.arg(0))
    }

    fn default(&self, name: &str) -> &'static str {
        table::find_in(name, self.context).map_or("", |directive| directive.default)
    }

    // The parser has checked the forms: what does not fit here can only be a hole in the table, which its tests rule out.

    pub fn flag(&self, name: &str) -> bool {
        value::flag(self.text(name)).unwrap_or_default()
    }

    pub fn count(&self, name: &str) -> u64 {
        value::count(self.text(name)).unwrap_or_default()
    }

    pub fn bytes(&self, name: &str) -> u64 {
        value::offset(self.text(name)).unwrap_or_default()
    }

    pub fn len(&self, name: &str) -> usize {
        usize::try_from(self.bytes(name)).unwrap_or(usize::MAX)
    }

    pub fn duration(&self, name: &str) -> Duration {
        value::millis(self.text(name)).unwrap_or_default()
    }

    /// `NUMBER SIZE`, given or by default: both, checked.
    pub fn buffers(&self, name: &str) -> Result<(usize, usize)> {
        let node = self.given(name);
        let default = self.default(name);
        let (number, size) = match node {
            Some(node) => (node.arg(0), node.arg(1)),
            None => default.split_once(' ').unwrap_or((default, "")),
        };
        let parsed = value::count(number).filter(|number| *number > 0).zip(value::size(size));
        match (parsed, node) {
            (Some((number, size)), _) => Ok((number as usize, size as usize)),
            (None, Some(node)) => Err(node.directive_error("invalid value")),
            (None, None) => Ok((0, 0)),
        }
    }

    /// `RATE [after=TIME]`, given or by default; `None`: `off`.
    pub fn min_rate(&self, name: &str) -> Result<Option<MinRate>> {
        let (default, default_after) = self.default(name).split_once(' ').unwrap_or_default();
        let node = self.given(name);
        let rate = node.map_or(default, |node| node.arg(0));
        let after = node.filter(|node| node.args.len() > 1).map_or(default_after, |node| node.arg(1));
        let per_second = if rate == "off" { Some(0) } else { value::size(rate) };
        match (per_second, after.strip_prefix("after=").and_then(value::millis), node) {
            (Some(per_second), Some(after), _) => {
                Ok(Some(MinRate { per_second, after }).filter(|rate| rate.per_second > 0))
            }
            (None, _, Some(node)) => Err(node.directive_error("invalid value")),
            (_, None, Some(node)) => Err(node.invalid(after)),
            (_, _, None) => Ok(None),
        }
    }
}
