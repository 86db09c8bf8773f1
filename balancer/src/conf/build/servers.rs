//! `server` blocks: their names, limits and locations.

use std::sync::Arc;

use super::http::Shared;
use super::listens::{ListenLine, listen_lines};
use super::locations::{Site, location, locations};
use super::names::{Case, Names};
use super::rewrites::steps;
use super::scope::Scope;
use super::ssl::server_tls;
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::location::{HeadLimits, Http2, LocationKind, Pattern, Server};
use crate::conf::template::Template;
use crate::metrics::ZoneKind;

/// A server block and what leads to it.
pub(super) struct Built<'a> {
    pub server: Arc<Server>,
    pub names: Vec<ServerName>,
    pub listens: Vec<ListenLine<'a>>,
}

/// One argument of `server_name`, lower-case.
pub(super) enum ServerName {
    Exact(String),
    /// With the leading dot.
    Suffix(String),
    /// With the trailing dot.
    Prefix(String),
    Pattern(Arc<Pattern>),
}

pub(super) fn server<'a>(scope: &Scope<'a>, node: &'a Node, shared: &mut Shared<'_>) -> Result<Built<'a>> {
    let names = server_names(scope, shared.names)?;
    let site = Site { kind: LocationKind::Root, path: "", in_if: false, alias_len: None };
    let early_read = early_read(scope, shared.names)?;
    let root = location(scope, &site, shared)?;
    if !early_read.is_empty() {
        shared.body_folders.insert(root.body.spool.folder.clone());
    }
    let server = Server {
        name: shown_name(scope),
        early_read,
        head: head_limits(scope)?,
        tls: server_tls(scope, &mut shared.session_zones, shared.world)?,
        http2: http2(scope),
        zone: shared.zone(scope, ZoneKind::Server),
        steps: steps(scope, &site, shared)?,
        locations: locations(scope, &site, shared)?,
        root: Arc::new(root),
    };
    let listens = listen_lines(scope, node, shared.world)?;
    Ok(Built { server: Arc::new(server), names, listens })
}

fn early_read(scope: &Scope<'_>, names: &Names<'_>) -> Result<Box<[Template]>> {
    let Some(node) = scope.given("client_body_early_read") else { return Ok(Box::default()) };
    node.args.iter().map(|word| names.template(&word.text, node)).collect()
}

fn http2(scope: &Scope<'_>) -> Http2 {
    let bare = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Http2 {
        is_on: scope.flag("http2"),
        streams_max: bare(scope.count("http2_max_concurrent_streams")),
        body_preread_len: bare(scope.bytes("http2_body_preread_size")),
    }
}

fn head_limits(scope: &Scope<'_>) -> Result<HeadLimits> {
    let (large_buffers, large_buffer_len) = scope.buffers("large_client_header_buffers")?;
    Ok(HeadLimits {
        header_timeout: scope.duration("client_header_timeout"),
        min_rate: scope.min_rate("client_header_min_rate")?,
        header_buffer_len: scope.len("client_header_buffer_size"),
        large_buffers,
        large_buffer_len,
        headers_max: scope.count("max_headers") as usize,
        ignore_invalid_headers: scope.flag("ignore_invalid_headers"),
        underscores_in_headers: scope.flag("underscores_in_headers"),
        merge_slashes: scope.flag("merge_slashes"),
    })
}

/// `$server_name`: the first name, without the dot of `.example.com`.
fn shown_name(scope: &Scope<'_>) -> Box<str> {
    let first = scope.own("server_name").next().map_or("", |node| node.arg(0));
    first.strip_prefix('.').unwrap_or(first).into()
}

fn server_names(scope: &Scope<'_>, names: &Names<'_>) -> Result<Vec<ServerName>> {
    let mut found = Vec::new();
    for node in scope.own("server_name") {
        for word in &node.args {
            server_name(&word.text, node, names, &mut found)?;
        }
    }
    if found.is_empty() {
        found.push(ServerName::Exact(String::new()));
    }
    Ok(found)
}

fn server_name(text: &str, node: &Node, names: &Names<'_>, found: &mut Vec<ServerName>) -> Result<()> {
    if let Some(pattern) = text.strip_prefix('~') {
        if pattern.is_empty() {
            return Err(node.error("empty regex in server name \"~\""));
        }
        found.push(ServerName::Pattern(Arc::new(names.pattern(pattern, Case::Ignored, node)?)));
        return Ok(());
    }
    let lower = text.to_ascii_lowercase();
    let invalid = || node.error(format!("server name \"{text}\" is invalid"));
    if lower.contains('/') {
        return Err(invalid());
    }
    if let Some(rest) = lower.strip_prefix('.') {
        if rest.is_empty() || rest.contains('*') {
            return Err(invalid());
        }
        found.push(ServerName::Exact(rest.into()));
        found.push(ServerName::Suffix(lower));
    } else if let Some(rest) = lower.strip_prefix("*.").filter(|rest| !rest.is_empty() && !rest.contains('*'))
    {
        found.push(ServerName::Suffix(format!(".{rest}")));
    } else if let Some(rest) = lower.strip_suffix(".*").filter(|rest| !rest.is_empty() && !rest.contains('*'))
    {
        found.push(ServerName::Prefix(format!("{rest}.")));
    } else if lower.contains('*') {
        return Err(invalid());
    } else {
        found.push(ServerName::Exact(lower));
    }
    Ok(())
}
