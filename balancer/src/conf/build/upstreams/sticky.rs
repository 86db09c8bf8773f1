//! `sticky cookie|route|learn …`.

use super::{Names, Node, Result};
use crate::conf::template::Template;
use crate::conf::upstream::{CookieExpires, Sticky, StickyCookie, StickyKind, StickyLearn};
use crate::conf::value;
use std::time::Duration;

/// nginx: 32k hold about 200 sessions, 1m about 8000.
const SESSION_LEN: u64 = 131;
/// nginx refuses a zone of less than eight pages.
const ZONE_LEN_MIN: u64 = 8 * 4096;
const LEARN_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn sticky(node: &Node, names: &Names<'_>) -> Result<Sticky> {
    match node.arg(0) {
        "cookie" => cookie(node, names),
        "route" => route(node, names),
        "learn" => learn(node, names),
        other => Err(node.error(format!("unknown parameter \"{other}\""))),
    }
}

fn route(node: &Node, names: &Names<'_>) -> Result<Sticky> {
    let variable = |text: &str| match text.starts_with('$') {
        true => names.template(text, node),
        false => Err(node.error(format!("invalid variable name \"{text}\""))),
    };
    let lookup = node.args.iter().skip(1).map(|word| variable(&word.text)).collect::<Result<_>>()?;
    Ok(Sticky { lookup, kind: StickyKind::Route })
}

fn cookie(node: &Node, names: &Names<'_>) -> Result<Sticky> {
    let name = node.arg(1);
    if name.is_empty() {
        return Err(node.directive_error("empty cookie name"));
    }
    let mut cookie = StickyCookie {
        name: name.as_bytes().into(),
        expires: None,
        domain: None,
        path: None,
        samesite: None,
        httponly: false,
        secure: false,
    };
    for word in node.args.iter().skip(2) {
        cookie_option(&mut cookie, &word.text, node, names)?;
    }
    let lookup = vec![names.template(&format!("$cookie_{name}"), node)?];
    Ok(Sticky { lookup, kind: StickyKind::Cookie(cookie) })
}

fn cookie_option(cookie: &mut StickyCookie, text: &str, node: &Node, names: &Names<'_>) -> Result<()> {
    let (key, given) = text.split_once('=').map_or((text, None), |(key, given)| (key, Some(given)));
    let is_duplicate = match (key, given) {
        ("domain" | "path", Some("")) => {
            return Err(node.directive_error(&format!("no value for \"{key}\"")));
        }
        ("domain", Some(given)) => cookie.domain.replace(names.template(given, node)?).is_some(),
        ("path", Some(given)) => cookie.path.replace(given.as_bytes().into()).is_some(),
        ("expires", Some("max")) => cookie.expires.replace(CookieExpires::Max).is_some(),
        ("expires", Some(given)) => {
            let invalid = || node.directive_error("invalid \"expires\" parameter value");
            let after = value::seconds(given).ok_or_else(invalid)?;
            cookie.expires.replace(CookieExpires::After(after)).is_some()
        }
        ("samesite", Some(given)) => cookie.samesite.replace(samesite(given, node, names)?).is_some(),
        ("httponly", None) => std::mem::replace(&mut cookie.httponly, true),
        ("secure", None) => std::mem::replace(&mut cookie.secure, true),
        _ => return Err(node.error(format!("unknown parameter \"{text}\""))),
    };
    match is_duplicate {
        true => Err(node.directive_error(&format!("parameter \"{key}\" is duplicate"))),
        false => Ok(()),
    }
}

fn samesite(given: &str, node: &Node, names: &Names<'_>) -> Result<Template> {
    let template = names.template(given, node)?;
    match template.constant() {
        Some(constant) if !crate::logic::sticky::is_samesite(constant) => {
            Err(node.directive_error("invalid \"samesite\" parameter value"))
        }
        _ => Ok(template),
    }
}

fn learn(node: &Node, names: &Names<'_>) -> Result<Sticky> {
    let (mut lookup, mut create) = (Vec::new(), Vec::new());
    let (mut zone, mut timeout, mut at_header) = (None, None, false);
    for word in node.args.iter().skip(1) {
        let variable = |given: &str, key: &str| match given.starts_with('$') {
            true => names.template(given, node),
            false => Err(node.directive_error(&format!("missing variable in the \"{key}\" parameter"))),
        };
        match word.text.split_once('=').unwrap_or((&word.text, "")) {
            ("lookup", given) => lookup.push(variable(given, "lookup")?),
            ("create", given) => create.push(variable(given, "create")?),
            ("zone", _) if zone.is_some() => return Err(node.directive_error("duplicate zone")),
            ("zone", given) => zone = Some(session_zone(given, node)?),
            ("timeout", _) if timeout.is_some() => return Err(node.directive_error("duplicate timeout")),
            ("timeout", given) => {
                let given = value::millis(given).filter(|given| !given.is_zero());
                timeout = Some(given.ok_or_else(|| node.directive_error("invalid timeout"))?);
            }
            ("header", "") => at_header = true,
            _ => return Err(node.error(format!("unknown parameter \"{}\"", word.text))),
        }
    }
    let missing = |key: &str| node.directive_error(&format!("\"{key}\" parameter is not specified"));
    if lookup.is_empty() || create.is_empty() {
        return Err(missing(if lookup.is_empty() { "lookup" } else { "create" }));
    }
    let (name, sessions_max) = zone.ok_or_else(|| missing("zone"))?;
    let timeout = timeout.unwrap_or(LEARN_TIMEOUT);
    let learn = StickyLearn { create, zone: name, sessions_max, timeout, at_header };
    Ok(Sticky { lookup, kind: StickyKind::Learn(learn) })
}

/// `NAME:SIZE` → the name and how many sessions fit.
fn session_zone(text: &str, node: &Node) -> Result<(Box<str>, usize)> {
    let missing = |what: &str| node.directive_error(&format!("zone {what} is not specified"));
    let (name, size) = text.split_once(':').ok_or_else(|| missing("size"))?;
    if name.is_empty() {
        return Err(missing("name"));
    }
    let size = value::size(size).ok_or_else(|| node.directive_error("invalid zone size"))?;
    if size < ZONE_LEN_MIN {
        return Err(node.directive_error("zone is too small"));
    }
    Ok((name.into(), usize::try_from(size / SESSION_LEN).unwrap_or(usize::MAX)))
}
