//! `set`, `if`, `rewrite`, `return`, `break` → steps.

use std::sync::Arc;

use super::guard::assignment;
use super::http::Shared;
use super::locations::{Site, location, return_at};
use super::names::{Case, Names};
use super::scope::Scope;
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::location::LocationKind;
use crate::conf::rewrite::{Condition, If, Rewrite, Step, Test, Then};
use crate::conf::table::Context;
use crate::conf::template::{Part, Template};

pub(super) fn steps(scope: &Scope<'_>, site: &Site<'_>, shared: &mut Shared<'_>) -> Result<Arc<[Step]>> {
    let mut steps = Vec::new();
    for node in scope.nodes {
        match &node.name[..] {
            "set" => {
                let (to, value) = assignment(node, shared.names)?;
                steps.push(Step::Set(to, value));
            }
            "rewrite" => steps.push(Step::Rewrite(rewrite(node, shared.names)?)),
            "return" => steps.push(Step::Return(return_at(node, shared.names)?)),
            "break" => steps.push(Step::Break),
            "if" => steps.push(Step::If(if_block(scope, node, site, shared)?)),
            _ => {}
        }
    }
    Ok(steps.into())
}

fn rewrite(node: &Node, names: &Names<'_>) -> Result<Rewrite> {
    let pattern = names.pattern(node.arg(0), Case::Matters, node)?;
    let text = node.arg(1);
    if text.is_empty() {
        return Err(node.error("empty replacement"));
    }
    let is_url = ["http://", "https://", "$scheme"].iter().any(|start| text.starts_with(start));
    let then = match (node.arg(2), is_url) {
        ("permanent", _) => Then::Redirect(301),
        ("redirect", _) | ("" | "last" | "break", true) => Then::Redirect(302),
        ("", false) => Then::GoOn,
        ("last", false) => Then::Last,
        ("break", false) => Then::Break,
        (other, _) => return Err(node.invalid(other)),
    };
    let (text, keeps_args) = match text.strip_suffix('?') {
        Some(text) => (text, false),
        None => (text, true),
    };
    let whole = names.template(text, node)?;
    let (path, args) = match then {
        Then::Redirect(_) => (whole, None),
        _ => split_args(&whole),
    };
    Ok(Rewrite { pattern, path, args, keeps_args, then })
}

/// At the first `?` that is written: one that a variable brings in belongs to the path.
fn split_args(whole: &Template) -> (Template, Option<Template>) {
    for (index, part) in whole.parts().iter().enumerate() {
        let Part::Text(text) = part else { continue };
        let Some(at) = text.iter().position(|byte| *byte == b'?') else { continue };
        let before = whole.parts()[..index].iter().cloned().chain([Part::Text(text[..at].into())]);
        let after =
            [Part::Text(text[at + 1..].into())].into_iter().chain(whole.parts()[index + 1..].iter().cloned());
        return (Template::new(before), Some(Template::new(after)));
    }
    (whole.clone(), None)
}

fn if_block(scope: &Scope<'_>, node: &Node, site: &Site<'_>, shared: &mut Shared<'_>) -> Result<If> {
    let condition = condition(node, shared.names)?;
    let inner = scope.inside(node, Context::LOCATION);
    if site.kind == LocationKind::Root {
        return Ok(If { condition, steps: steps(&inner, site, shared)?, location: None });
    }
    let within = Site { in_if: true, ..*site };
    let found = location(&inner, &within, shared)?;
    Ok(If { condition, steps: found.steps.clone(), location: Some(Arc::new(found)) })
}

fn condition(node: &Node, names: &Names<'_>) -> Result<Condition> {
    let mut words: Vec<&str> = node.args.iter().map(|word| &word.text[..]).collect();
    let invalid = |text: &str| node.error(format!("invalid condition \"{text}\""));
    let first = words.first().and_then(|word| word.strip_prefix('('));
    let first = first.ok_or_else(|| invalid(node.arg(0)))?;
    words[0] = first;
    let end = words.len() - 1;
    words[end] = words[end].strip_suffix(')').ok_or_else(|| invalid(node.arg(end)))?;
    words.retain(|word| !word.is_empty());
    // An empty right side is written with quotes and must survive.
    let quoted_empty = node.args.iter().any(|word| word.quoted && word.text.is_empty());
    match words[..] {
        [one] if one.starts_with('$') => {
            Ok(Condition { negated: false, test: Test::True(names.template(one, node)?) })
        }
        [operator, path] => match file_test(operator, names.template(path, node)?) {
            Some(condition) => Ok(condition),
            None if quoted_empty && path_is_operator(path) => compare(node, names, [operator, path, ""]),
            None => Err(invalid(operator)),
        },
        [left, operator, right] if left.starts_with('$') => compare(node, names, [left, operator, right]),
        [other, ..] => Err(invalid(other)),
        [] => Err(invalid(node.arg(0))),
    }
}

fn path_is_operator(text: &str) -> bool {
    matches!(text, "=" | "!=")
}

fn compare(node: &Node, names: &Names<'_>, [left, operator, right]: [&str; 3]) -> Result<Condition> {
    let left = names.template(left, node)?;
    let pattern = |case| names.pattern(right, case, node);
    let test = match operator.trim_start_matches('!') {
        "=" => Test::Equal(left, names.template(right, node)?),
        "~" => Test::Matches(left, pattern(Case::Matters)?),
        "~*" => Test::Matches(left, pattern(Case::Ignored)?),
        _ => return Err(node.error(format!("unexpected \"{operator}\" in condition"))),
    };
    Ok(Condition { negated: operator.starts_with('!'), test })
}

fn file_test(operator: &str, path: Template) -> Option<Condition> {
    let test = match operator.trim_start_matches('!') {
        "-f" => Test::File(path),
        "-d" => Test::Folder(path),
        "-e" => Test::Exists(path),
        "-x" => Test::Executable(path),
        _ => return None,
    };
    Some(Condition { negated: operator.starts_with('!'), test })
}
