//! `proxy_cookie_*` → [`Cookies`].

use super::names::Names;
use super::proxying::matcher;
use super::scope::Scope;
use crate::conf::blocks::Node;
use crate::conf::cookies::{Cookies, FlagRule};
use crate::conf::error::Result;
use crate::conf::proxy::RedirectRule;
use crate::logic::cookies::Flags;

pub(super) fn cookies(scope: &Scope<'_>, names: &Names<'_>) -> Result<Cookies> {
    let is_pattern = |node: &Node| node.arg(0).starts_with('~');
    let domain = |node: &Node| {
        // Domains are compared and written without their leading dot.
        let bare = |text: &str| match is_pattern(node) {
            true => text.to_owned(),
            false => text.strip_prefix('.').unwrap_or(text).to_owned(),
        };
        let from = bare(node.arg(0));
        let from = from.strip_prefix('~').map_or_else(|| from.clone(), |pattern| format!("~*{pattern}"));
        rule(node, &from, &bare(node.arg(1)), names)
    };
    let path = |node: &Node| rule(node, node.arg(0), node.arg(1), names);
    Ok(Cookies {
        domains: rules(scope, "proxy_cookie_domain", domain)?,
        paths: rules(scope, "proxy_cookie_path", path)?,
        flags: rules(scope, "proxy_cookie_flags", |node| flag_rule(node, names))?,
    })
}

/// The lines of a directive whose only line may also be `off`.
fn rules<T>(scope: &Scope<'_>, name: &str, read: impl Fn(&Node) -> Result<T>) -> Result<Box<[T]>> {
    let given = scope.nearest(name);
    let off = given.iter().find(|node| node.args.len() == 1);
    match off {
        Some(node) if node.arg(0) == "off" => Ok([].into()),
        Some(node) => Err(node.invalid(node.arg(0))),
        None => given.into_iter().map(read).collect(),
    }
}

fn rule(node: &Node, from: &str, to: &str, names: &Names<'_>) -> Result<RedirectRule> {
    Ok(RedirectRule { from: matcher(from, node, names)?, to: names.template(to, node)? })
}

fn flag_rule(node: &Node, names: &Names<'_>) -> Result<FlagRule> {
    let text = node.arg(0);
    // Names are compared without case, by patterns too.
    let name = match text.strip_prefix('~') {
        Some(pattern) => matcher(&format!("~*{pattern}"), node, names)?,
        None => matcher(text, node, names)?,
    };
    let mut words = Vec::new();
    for word in &node.args[1..] {
        if !word.text.contains('$') && !Flags::default().add(word.text.as_bytes()) {
            return Err(node.error(format!("invalid parameter \"{}\"", word.text)));
        }
        words.push(names.template(&word.text, node)?);
    }
    Ok(FlagRule { name, words: words.into() })
}
