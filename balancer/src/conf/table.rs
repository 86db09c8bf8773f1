//! Every directive that is understood, declared once: name, contexts, arguments, default, what it does. Parsing, error
//! messages and the table in the docs come from here. A directive that is not here is refused by name.

mod checks;
mod core;
mod grpc;
mod http;
mod moot;
mod proxy;
mod ssl;
mod upstream;
mod upstream_ssl;

use std::ops::RangeInclusive;

use super::blocks::Node;
use super::error::Result;
use super::value;

/// One row.
#[derive(Debug, Clone)]
pub struct Directive {
    pub name: &'static str,
    pub contexts: Context,
    /// How many arguments it takes.
    pub args: RangeInclusive<usize>,
    pub kind: Kind,
    pub body: Body,
    pub times: Times,
    /// The argument that holds where nothing is given; empty: none.
    pub default: &'static str,
    pub doc: &'static str,
}

/// What the first argument must look like. `Words` are checked where they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Flag,
    Size,
    Offset,
    Seconds,
    Millis,
    Count,
    Choice(&'static [&'static str]),
    Words,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    None,
    /// `{ … }`, in this context.
    Block(Context),
}

/// How often a block may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    Once,
    Many,
}

/// Where a directive may stand: a set of contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context(u16);

impl Context {
    pub const MAIN: Context = Context(1);
    pub const EVENTS: Context = Context(1 << 1);
    pub const HTTP: Context = Context(1 << 2);
    pub const UPSTREAM: Context = Context(1 << 3);
    pub const SERVER: Context = Context(1 << 4);
    pub const LOCATION: Context = Context(1 << 5);
    /// The body of `map`: pairs, not directives.
    pub const FREE: Context = Context(1 << 6);
    /// An `if` block of a server, and one of a location.
    pub const IF_SERVER: Context = Context(1 << 7);
    pub const IF_LOCATION: Context = Context(1 << 8);
    /// The body of `match`.
    pub const MATCH: Context = Context(1 << 9);
    /// A `limit_except` block.
    pub const LIMIT_EXCEPT: Context = Context(1 << 10);
    /// http, server and location: what most directives of a request allow.
    pub const REQUEST: Context = Context(1 << 2 | 1 << 4 | 1 << 5);

    pub const fn or(self, other: Context) -> Context {
        Context(self.0 | other.0)
    }

    pub fn contains(self, one: Context) -> bool {
        self.0 & one.0 != 0
    }

    pub fn is_free(self) -> bool {
        self == Context::FREE
    }

    /// For the docs: `http, server, location`.
    pub fn names(self) -> String {
        let all = [
            (Context::MAIN, "main"),
            (Context::EVENTS, "events"),
            (Context::HTTP, "http"),
            (Context::UPSTREAM, "upstream"),
            (Context::SERVER, "server"),
            (Context::LOCATION, "location"),
            (Context::IF_SERVER, "if in server"),
            (Context::IF_LOCATION, "if in location"),
            (Context::MATCH, "match"),
            (Context::LIMIT_EXCEPT, "limit_except"),
        ];
        let named: Vec<&str> =
            all.iter().filter(|(one, _)| self.contains(*one)).map(|(_, name)| *name).collect();
        named.join(", ")
    }
}

impl Directive {
    pub fn is_block(&self) -> bool {
        matches!(self.body, Body::Block(_))
    }

    /// The context inside its braces.
    pub fn opens(&self) -> Context {
        match self.body {
            Body::Block(context) => context,
            Body::None => Context::FREE,
        }
    }

    const fn args(mut self, count: usize) -> Directive {
        self.args = count..=count;
        self
    }

    const fn many(mut self) -> Directive {
        self.times = Times::Many;
        self
    }

    const fn opening(mut self, context: Context) -> Directive {
        self.body = Body::Block(context);
        self
    }
}

/// A directive with one argument of a plain kind.
const fn one(
    name: &'static str,
    contexts: Context,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Directive {
    Directive { name, contexts, args: 1..=1, kind, body: Body::None, times: Times::Once, default, doc }
}

/// A directive whose arguments are read by its own code.
const fn words(
    name: &'static str,
    contexts: Context,
    args: RangeInclusive<usize>,
    default: &'static str,
    doc: &'static str,
) -> Directive {
    Directive { name, contexts, args, kind: Kind::Words, body: Body::None, times: Times::Once, default, doc }
}

/// More arguments than anyone writes.
const ANY: usize = usize::MAX;

pub fn all() -> impl Iterator<Item = &'static Directive> {
    [
        checks::ROWS,
        core::ROWS,
        grpc::ROWS,
        http::ROWS,
        moot::ROWS,
        proxy::ROWS,
        ssl::ROWS,
        upstream::ROWS,
        upstream_ssl::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// Whether a directive is taken without effect, because what it tunes is not there; said when it is met.
pub fn is_moot(directive: &Directive) -> bool {
    moot::ROWS.iter().any(|row| row.name == directive.name)
}

/// The first row of that name.
pub fn find(name: &str) -> Option<&'static Directive> {
    all().find(|directive| directive.name == name)
}

/// The row of that name in that context.
pub fn find_in(name: &str, context: Context) -> Option<&'static Directive> {
    all().find(|directive| directive.name == name && directive.contexts.contains(context))
}

/// Refuses a first argument that is not of the row's kind.
pub fn check_value(directive: &Directive, node: &Node) -> Result<()> {
    let text = node.arg(0);
    let fits = match directive.kind {
        Kind::Words => true,
        Kind::Flag if value::flag(text).is_none() => {
            let name = &node.name;
            return Err(node.error(format!(
                "invalid value \"{text}\" in \"{name}\" directive, it must be \"on\" or \"off\""
            )));
        }
        Kind::Flag => true,
        Kind::Count if value::count(text).is_none() => return Err(node.directive_error("invalid number")),
        Kind::Count => true,
        Kind::Size => value::size(text).is_some(),
        Kind::Offset => value::offset(text).is_some(),
        Kind::Seconds => value::seconds(text).is_some(),
        Kind::Millis => value::millis(text).is_some(),
        Kind::Choice(choices) if !choices.contains(&text) => {
            return Err(node.error(format!("invalid value \"{text}\"")));
        }
        Kind::Choice(_) => true,
    };
    if fits { Ok(()) } else { Err(node.directive_error("invalid value")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_unique_documented_and_its_default_fits() {
        let mut seen: Vec<(&str, Context)> = Vec::new();
        for row in all() {
            assert!(!row.doc.is_empty(), "{} has no doc line", row.name);
            let clash =
                seen.iter().any(|(name, contexts)| *name == row.name && contexts.contains(row.contexts));
            assert!(!clash, "{} is declared twice for one context", row.name);
            seen.push((row.name, row.contexts));
            let default = row.default;
            let fits = match row.kind {
                _ if default.is_empty() => true,
                Kind::Words => true,
                Kind::Flag => value::flag(default).is_some(),
                Kind::Size => value::size(default).is_some(),
                Kind::Offset => value::offset(default).is_some(),
                Kind::Seconds => value::seconds(default).is_some(),
                Kind::Millis => value::millis(default).is_some(),
                Kind::Count => value::count(default).is_some(),
                Kind::Choice(choices) => choices.contains(&default),
            };
            assert!(fits, "{}: default {default} is not of its kind", row.name);
        }
    }
}
