//! `expires`, `add_trailer`, `gzip*`, `gunzip`, `limit_rate*` → [`Dress`] and [`Rates`].

use std::collections::HashSet;
use std::sync::Arc;

use super::names::{Case, Names, regex};
use super::scope::Scope;
use crate::conf::blocks::Node;
use crate::conf::dress::{Charset, Dress, Expires, Gzip, Moment, Pages, Proxied, Rates, ReadyMade};
use crate::conf::error::Result;
use crate::conf::location::AddHeader;
use crate::conf::settings::AccessLog;
use crate::conf::template::{Part, Template};
use crate::conf::value;
use crate::conf::variables::Variable;

pub(super) fn dress(
    scope: &Scope<'_>,
    names: &Names<'_>,
    headers: &[AddHeader],
    logs: &[AccessLog],
) -> Result<Arc<Dress>> {
    let trailers = added(scope, names, "add_trailer")?;
    let is_validator = |header: &AddHeader| {
        [&b"etag"[..], b"last-modified"].iter().any(|name| header.name.eq_ignore_ascii_case(name))
    };
    let templates = headers.iter().chain(trailers.iter()).map(|header| &header.value);
    let tells_head = templates.chain(logs.iter().map(|log| &log.format.line)).any(asks_for_head);
    Ok(Arc::new(Dress {
        expires: expires(scope, names)?,
        replaces_validators: headers.iter().any(is_validator),
        tells_head,
        chunked: scope.flag("chunked_transfer_encoding"),
        charset: charset(scope, names)?,
        charsets: names.charsets().clone(),
        pages: pages(scope),
        gzip: gzip(scope)?,
        trailers,
    }))
}

/// `add_header`, `add_trailer`.
pub(super) fn added(scope: &Scope<'_>, names: &Names<'_>, directive: &str) -> Result<Box<[AddHeader]>> {
    let mut added = Vec::new();
    for node in scope.nearest(directive) {
        let always = match node.arg(2) {
            "" => false,
            "always" => true,
            other => return Err(node.invalid(other)),
        };
        let value = names.template(node.arg(1), node)?;
        added.push(AddHeader { name: node.arg(0).as_bytes().into(), value, always });
    }
    Ok(added.into())
}

/// A variable that the configuration makes may ask for it in turn.
fn asks_for_head(template: &Template) -> bool {
    let asks = |part: &Part| matches!(part, Part::Variable(Variable::SentHttp(_) | Variable::Made(_)));
    template.parts().iter().any(asks)
}

fn expires(scope: &Scope<'_>, names: &Names<'_>) -> Result<Option<Expires>> {
    let Some(node) = scope.given("expires") else { return Ok(None) };
    let (text, modified) = match node.args.len() {
        1 => (node.arg(0), false),
        _ if node.arg(0) == "modified" => (node.arg(1), true),
        _ => return Err(node.error("invalid value")),
    };
    if text.contains('$') {
        return Ok(Some(Expires::Dynamic { value: names.template(text, node)?, modified }));
    }
    match Moment::read(text, modified) {
        Some(Moment::Off) => Ok(None),
        Some(moment) => Ok(Some(Expires::Fixed(moment))),
        None => Err(node.error("invalid value")),
    }
}

/// nginx's, where nothing else is said.
const CHARSET_TYPES: [&str; 5] =
    ["text/xml", "text/plain", "text/vnd.wap.wml", "application/javascript", "application/rss+xml"];

fn charset(scope: &Scope<'_>, names: &Names<'_>) -> Result<Option<Charset>> {
    let Some(node) = scope.given("charset").filter(|node| node.arg(0) != "off") else { return Ok(None) };
    let given = scope.nearest("charset_types");
    let types = match given.is_empty() {
        true => ["text/html"].into_iter().chain(CHARSET_TYPES).map(|kind| kind.as_bytes().into()).collect(),
        false => types(&given),
    };
    let overrides = scope.flag("override_charset");
    Ok(Some(Charset { name: names.template(node.arg(0), node)?, types, overrides }))
}

fn pages(scope: &Scope<'_>) -> Option<Pages> {
    scope.flag("ssi").then(|| Pages {
        types: types(&scope.nearest("ssi_types")),
        is_silent: scope.flag("ssi_silent_errors"),
        keeps_date: scope.flag("ssi_last_modified"),
    })
}

/// The types that a directive names, beside text/html.
fn types(nodes: &[&Node]) -> HashSet<Box<[u8]>> {
    let given = nodes.iter().flat_map(|node| &node.args);
    let given = given.map(|word| word.text.to_ascii_lowercase().into_bytes().into());
    given.chain([b"text/html"[..].into()]).collect()
}

fn gzip(scope: &Scope<'_>) -> Result<Gzip> {
    let level = scope.count("gzip_comp_level");
    if let Some(node) = scope.given("gzip_comp_level").filter(|_| !(1..=9).contains(&level)) {
        return Err(node.error("value must be between 1 and 9"));
    }
    Ok(Gzip {
        on: scope.flag("gzip"),
        ready_made: match scope.text("gzip_static") {
            "on" => ReadyMade::On,
            "always" => ReadyMade::Always,
            _ => ReadyMade::Off,
        },
        gunzip: scope.flag("gunzip"),
        vary: scope.flag("gzip_vary"),
        len_min: scope.bytes("gzip_min_length"),
        level: level as u32,
        types: types(&scope.nearest("gzip_types")),
        http_10: scope.text("gzip_http_version") == "1.0",
        proxied: proxied(scope)?,
        disabled: disabled(scope)?,
    })
}

fn proxied(scope: &Scope<'_>) -> Result<Proxied> {
    let mut proxied = Proxied::default();
    for node in scope.nearest("gzip_proxied") {
        for word in &node.args {
            match &word.text[..] {
                "off" => {}
                "any" => proxied.any = true,
                "expired" => proxied.expired = true,
                "no-cache" => proxied.no_cache = true,
                "no-store" => proxied.no_store = true,
                "private" => proxied.private = true,
                "no_last_modified" => proxied.no_last_modified = true,
                "no_etag" => proxied.no_etag = true,
                "auth" => proxied.auth = true,
                other => return Err(node.error(format!("invalid value \"{other}\""))),
            }
        }
    }
    Ok(proxied)
}

fn disabled(scope: &Scope<'_>) -> Result<Box<[regex::bytes::Regex]>> {
    let mut patterns = Vec::new();
    for node in scope.nearest("gzip_disable") {
        for word in &node.args {
            // nginx's word for the browsers that cannot unpack.
            let text = if word.text == "msie6" { "MSIE [4-6]\\." } else { &word.text };
            patterns.push(regex(text, Case::Ignored, node)?);
        }
    }
    Ok(patterns.into())
}

pub(super) fn rates(scope: &Scope<'_>, names: &Names<'_>) -> Result<Arc<Rates>> {
    let rate = |name: &str| -> Result<Template> {
        let Some(node) = scope.given(name) else { return Ok(Template::default()) };
        check_size(node)?;
        names.template(node.arg(0), node)
    };
    Ok(Arc::new(Rates {
        down: rate("limit_rate")?,
        after: rate("limit_rate_after")?,
        up: rate("proxy_limit_rate")?,
    }))
}

fn check_size(node: &Node) -> Result<()> {
    if node.arg(0).contains('$') || value::size(node.arg(0)).is_some() {
        return Ok(());
    }
    Err(node.directive_error("invalid value"))
}
