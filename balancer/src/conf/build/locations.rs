//! `location` blocks, and what a block of http, server or location says about a request.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::dress::{added, dress, rates};
use super::files::files;
use super::guard::guard;
use super::http::Shared;
use super::names::{Case, Names};
use super::proxying::{self, Passing};
use super::rewrites::steps;
use super::scope::Scope;
use super::{World, full_path};
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::location::{
    AccessRule, Action, AddHeader, BodyLimits, ClientKeepalive, DisabledFor, ErrorAnswer, ErrorPage, Except,
    FileOnly, Lingering, LingeringMode, Location, LocationKind, Locations, RealIp, RealIpSource, Return,
    ReturnBody, ServerTokens, SpoolTerms, Verdict, Who,
};
use crate::conf::proxy::Proxy;
use crate::conf::settings::AccessLog;
use crate::conf::table::Context;
use crate::conf::template::{Part, Template};
use crate::conf::value;
use crate::conf::variables::Variable;
use crate::logic::min_rate::MinRate;
use crate::metrics::ZoneKind;

/// Which block becomes a [`Location`].
pub(super) struct Site<'a> {
    pub kind: LocationKind,
    pub path: &'a str,
    /// An `if` block of the location: it takes over where the location leads.
    pub in_if: bool,
    /// How much of a path the `alias` that holds here replaces; `None`: all of it.
    pub alias_len: Option<usize>,
}

pub(super) fn locations(scope: &Scope<'_>, outside: &Site<'_>, shared: &mut Shared<'_>) -> Result<Locations> {
    let mut found = Locations::default();
    for node in scope.own("location") {
        let site = site(node)?;
        check_nesting(node, &site, outside)?;
        let inner = scope.inside(node, Context::LOCATION);
        let alias_len = match inner.own("alias").next() {
            None => outside.alias_len,
            Some(_) => (site.kind != LocationKind::Pattern).then_some(site.path.len()),
        };
        let site = Site { alias_len, ..site };
        let location = Arc::new(location(&inner, &site, shared)?);
        let duplicate = match site.kind {
            LocationKind::Exact => found.exact.insert(site.path.as_bytes().into(), location).is_some(),
            LocationKind::Named => found.named.insert(site.path.into(), location).is_some(),
            LocationKind::Pattern => {
                let (case, text) = pattern_of(node);
                found.patterns.push((shared.names.pattern(text, case, node)?, location));
                false
            }
            LocationKind::Prefix | LocationKind::PrefixFinal | LocationKind::Root => {
                let known = found.prefixes.iter().any(|known| *known.path == *site.path.as_bytes());
                found.prefixes.push(location);
                known
            }
        };
        if duplicate {
            return Err(node.error(format!("duplicate location \"{}\"", site.path)));
        }
    }
    found.prefixes.sort_by_key(|location| std::cmp::Reverse(location.path.len()));
    Ok(found)
}

fn site(node: &Node) -> Result<Site<'_>> {
    let modifier = |text: &str| match text {
        "=" => Some(LocationKind::Exact),
        "^~" => Some(LocationKind::PrefixFinal),
        "~" | "~*" => Some(LocationKind::Pattern),
        _ => None,
    };
    if node.args.len() == 2 {
        let kind = modifier(node.arg(0));
        let kind =
            kind.ok_or_else(|| node.error(format!("invalid location modifier \"{}\"", node.arg(0))))?;
        return Ok(Site { kind, path: node.arg(1), in_if: false, alias_len: None });
    }
    let text = node.arg(0);
    let (kind, path) = if let Some(path) = text.strip_prefix('=') {
        (LocationKind::Exact, path)
    } else if let Some(path) = text.strip_prefix("^~") {
        (LocationKind::PrefixFinal, path)
    } else if let Some(path) = text.strip_prefix('~') {
        (LocationKind::Pattern, Case::of(path).1)
    } else if text.starts_with('@') {
        (LocationKind::Named, text)
    } else {
        (LocationKind::Prefix, text)
    };
    Ok(Site { kind, path, in_if: false, alias_len: None })
}

fn pattern_of(node: &Node) -> (Case, &str) {
    match node.args.len() {
        2 => (Case::of(&node.arg(0)[1..]).0, node.arg(1)),
        _ => Case::of(&node.arg(0)[1..]),
    }
}

fn check_nesting(node: &Node, site: &Site<'_>, outside: &Site<'_>) -> Result<()> {
    let (inner, outer) = (site.path, outside.path);
    let what = match (outside.kind, site.kind) {
        (LocationKind::Root, _) => return Ok(()),
        (LocationKind::Exact, _) => {
            format!("location \"{inner}\" cannot be inside the exact location \"{outer}\"")
        }
        (LocationKind::Named, _) => {
            format!("location \"{inner}\" cannot be inside the named location \"{outer}\"")
        }
        (_, LocationKind::Named) => format!("named location \"{inner}\" can be on the server level only"),
        (LocationKind::Pattern, _) | (_, LocationKind::Pattern) => return Ok(()),
        _ if inner.starts_with(outer) => return Ok(()),
        _ => format!("location \"{inner}\" is outside location \"{outer}\""),
    };
    Err(node.error(what))
}

/// A block with all that it inherits.
pub(super) fn location(scope: &Scope<'_>, site: &Site<'_>, shared: &mut Shared<'_>) -> Result<Location> {
    let names = shared.names;
    let nested =
        if site.kind == LocationKind::Root { Locations::default() } else { locations(scope, site, shared)? };
    let headers: Arc<[AddHeader]> = added(scope, names, "add_header")?.into();
    let logs = shared.logs.of(scope, shared.http)?;
    let spool = spool_terms(scope, shared.world, (&headers, &logs));
    if spool.is_wanted() {
        shared.body_folders.insert(spool.folder.clone());
    }
    let proxy = proxying::proxy(scope, names, shared.world)?;
    Ok(Location {
        kind: site.kind,
        path: site.path.as_bytes().into(),
        nested,
        action: action(scope, site, shared)?,
        zone: (site.kind != LocationKind::Root).then(|| shared.zone(scope, ZoneKind::Location)).flatten(),
        steps: if site.kind == LocationKind::Root { [].into() } else { steps(scope, site, shared)? },
        files: files(scope, site, names, shared.world)?,
        body: BodyLimits {
            len_max: scope.bytes("client_max_body_size"),
            timeout: scope.duration("client_body_timeout"),
            min_rate: body_min_rate(scope, &proxy)?,
            buffer_len: scope.len("client_body_buffer_size"),
            spool,
        },
        proxy: Arc::new(proxy),
        keepalive: keepalive(scope)?,
        send_timeout: scope.duration("send_timeout"),
        lingering: lingering(scope),
        default_type: scope.text("default_type").as_bytes().into(),
        dress: dress(scope, names, &headers, &logs)?,
        rates: rates(scope, names)?,
        headers,
        access: access(scope)?,
        guard: guard(scope, names, &shared.limit_zones, shared.world)?,
        except: except(scope, site, shared)?,
        error_log: shared.error_logs.of(scope)?,
        log_not_found: scope.flag("log_not_found"),
        logs,
        error_pages: error_pages(scope, names)?,
        recursive_error_pages: scope.flag("recursive_error_pages"),
        real_ip: real_ip(scope, shared.world)?,
        server_tokens: match scope.text("server_tokens") {
            "off" => ServerTokens::Off,
            "build" => ServerTokens::Build,
            _ => ServerTokens::On,
        },
        early_hints: early_hints(scope, names)?,
        absolute_redirect: scope.flag("absolute_redirect"),
        server_name_in_redirect: scope.flag("server_name_in_redirect"),
        port_in_redirect: scope.flag("port_in_redirect"),
        tcp_nodelay: scope.flag("tcp_nodelay"),
        reset_timedout: scope.flag("reset_timedout_connection"),
        internal: scope.own("internal").next().is_some(),
    })
}

/// By default only where nginx reads a body whole before anybody sees of it: elsewhere it may be one half of a conversation.
fn body_min_rate(scope: &Scope<'_>, proxy: &Proxy) -> Result<Option<MinRate>> {
    let name = "client_body_min_rate";
    match scope.given(name) {
        None if !proxy.request_buffering => Ok(None),
        _ => scope.min_rate(name),
    }
}

fn action(scope: &Scope<'_>, site: &Site<'_>, shared: &mut Shared<'_>) -> Result<Action> {
    if site.kind == LocationKind::Root {
        return Ok(Action::Nothing);
    }
    let own = scope.own("proxy_pass").chain(scope.own("grpc_pass")).next();
    // What an `if` block names itself has no location whose path could be replaced.
    let kind = if site.in_if && own.is_some() { LocationKind::Pattern } else { site.kind };
    let passing = Passing { scope, names: shared.names, world: shared.world, kind, path: site.path };
    let node = match own {
        None if site.in_if => scope.of_location("proxy_pass").or(scope.of_location("grpc_pass")),
        own => own,
    };
    match node {
        Some(node) => {
            let pass = proxying::proxy_pass(node, &mut shared.groups, &passing)?;
            shared.groups.add_check(scope, Some(&pass))?;
            Ok(Action::Proxy(pass))
        }
        None => {
            shared.groups.add_check(scope, None)?;
            status_action(scope, site)
        }
    }
}

fn early_hints(scope: &Scope<'_>, names: &Names<'_>) -> Result<Option<Arc<[Template]>>> {
    let Some(node) = scope.given("early_hints") else { return Ok(None) };
    let conditions = node.args.iter().map(|word| names.template(&word.text, node));
    conditions.collect::<Result<Arc<[Template]>>>().map(Some)
}

/// `api`, `dashboard` and `stub_status`.
fn status_action(scope: &Scope<'_>, site: &Site<'_>) -> Result<Action> {
    // What stands in `if` and `limit_except` changes who may ask, not what answers.
    let named = |name: &str| {
        let own = scope.own(name).next();
        own.or_else(|| scope.of_location(name).filter(|_| site.in_if))
    };
    if let Some(node) = named("api") {
        return match node.arg(0) {
            "" | "write=off" => Ok(Action::Api { writes: false }),
            "write=on" => Ok(Action::Api { writes: true }),
            other => Err(node.invalid(other)),
        };
    }
    if named("stub_status").is_some() {
        return Ok(Action::Status);
    }
    match named("dashboard") {
        Some(node) if !node.arg(0).starts_with('/') || node.arg(0).contains(['"', '<', '&', '\\']) => {
            Err(node.invalid(node.arg(0)))
        }
        Some(node) => Ok(Action::Dashboard { api: node.arg(0).trim_end_matches('/').into() }),
        None => Ok(Action::Nothing),
    }
}

pub(super) fn return_at(node: &Node, names: &Names<'_>) -> Result<Return> {
    let text = node.args.get(1).map(|word| names.template(&word.text, node)).transpose()?;
    let Some(status) = value::count(node.arg(0)) else {
        let is_url = ["http://", "https://", "$scheme"].iter().any(|start| node.arg(0).starts_with(start));
        if node.args.len() == 1 && is_url {
            let url = names.template(node.arg(0), node)?;
            return Ok(Return { status: 302, body: ReturnBody::Redirect(url) });
        }
        return Err(node.error(format!("invalid return code \"{}\"", node.arg(0))));
    };
    let Some(status) = u16::try_from(status).ok().filter(|status| *status <= 999) else {
        return Err(node.error(format!("invalid return code \"{}\"", node.arg(0))));
    };
    let body = match (status, text) {
        (444, _) => ReturnBody::Close,
        (301 | 302 | 303 | 307 | 308, Some(url)) => ReturnBody::Redirect(url),
        (_, Some(text)) => ReturnBody::Text(text),
        (_, None) => ReturnBody::Page,
    };
    Ok(Return { status, body })
}

fn keepalive(scope: &Scope<'_>) -> Result<ClientKeepalive> {
    let node = scope.given("keepalive_timeout");
    let first = value::millis(scope.text("keepalive_timeout").split(' ').next().unwrap_or_default());
    let second = node.and_then(|node| node.args.get(1)).map(|word| value::seconds(&word.text));
    match (first, second, node) {
        (None, _, Some(node)) | (_, Some(None), Some(node)) => Err(node.directive_error("invalid value")),
        (timeout, header_timeout, _) => Ok(ClientKeepalive {
            timeout: timeout.unwrap_or_default(),
            min_timeout: scope.duration("keepalive_min_timeout"),
            header_timeout: header_timeout.flatten(),
            requests_max: scope.count("keepalive_requests"),
            time: scope.duration("keepalive_time"),
            disabled: disabled_for(scope)?,
        }),
    }
}

fn spool_terms(
    scope: &Scope<'_>,
    world: &dyn World,
    (headers, logs): (&[AddHeader], &[AccessLog]),
) -> SpoolTerms {
    let asks = |template: &Template| {
        template.parts().iter().any(|part| matches!(part, Part::Variable(Variable::RequestBodyFile)))
    };
    let templates = headers.iter().map(|header| &header.value);
    // By default only what a buffer holds is read first; who writes the directive out wants all of a body.
    let is_whole =
        scope.given("proxy_request_buffering").is_some_and(|node| value::flag(node.arg(0)) == Some(true));
    SpoolTerms {
        only: match scope.text("client_body_in_file_only") {
            "on" => FileOnly::On,
            "clean" => FileOnly::Clean,
            _ => FileOnly::Off,
        },
        is_asked_for: is_whole || templates.chain(logs.iter().map(|log| &log.format.line)).any(asks),
        folder: full_path(world, scope.text("client_body_temp_path")).into(),
    }
}

fn disabled_for(scope: &Scope<'_>) -> Result<DisabledFor> {
    let mut disabled = DisabledFor::default();
    let Some(node) = scope.given("keepalive_disable") else {
        return Ok(DisabledFor { msie6: true, ..disabled });
    };
    for word in &node.args {
        match &word.text[..] {
            "msie6" => disabled.msie6 = true,
            "safari" => disabled.safari = true,
            "none" => {}
            other => return Err(node.error(format!("invalid value \"{other}\""))),
        }
    }
    Ok(disabled)
}

/// Methods that `limit_except` may name; what allows GET allows HEAD.
const METHODS: [&str; 16] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "MKCOL",
    "COPY",
    "MOVE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
    "CONNECT",
    "TRACE",
];

fn except(scope: &Scope<'_>, site: &Site<'_>, shared: &mut Shared<'_>) -> Result<Option<Except>> {
    let Some(node) = scope.own("limit_except").next() else { return Ok(None) };
    let mut methods: Vec<Box<[u8]>> = Vec::new();
    for word in &node.args {
        let method = METHODS.iter().find(|method| method.eq_ignore_ascii_case(&word.text));
        let method = method.ok_or_else(|| node.error(format!("invalid method \"{}\"", word.text)))?;
        methods.push(method.as_bytes().into());
        if *method == "GET" {
            methods.push(b"HEAD"[..].into());
        }
    }
    let inner = scope.inside(node, Context::LOCATION);
    let within = Site { in_if: true, ..*site };
    Ok(Some(Except { methods: methods.into(), location: Arc::new(location(&inner, &within, shared)?) }))
}

fn lingering(scope: &Scope<'_>) -> Lingering {
    Lingering {
        mode: match scope.text("lingering_close") {
            "off" => LingeringMode::Off,
            "always" => LingeringMode::Always,
            _ => LingeringMode::On,
        },
        time: scope.duration("lingering_time"),
        timeout: scope.duration("lingering_timeout"),
    }
}

fn access(scope: &Scope<'_>) -> Result<Arc<[AccessRule]>> {
    let rule = |node: &&Node| -> Result<AccessRule> {
        let verdict = if node.name == "allow" { Verdict::Allow } else { Verdict::Deny };
        Ok(AccessRule { verdict, who: who(node)? })
    };
    scope.nearest_of(&["allow", "deny"]).iter().map(rule).collect()
}

fn who(node: &Node) -> Result<Who> {
    let text = node.arg(0);
    match text {
        "all" => return Ok(Who::All),
        "unix:" => return Ok(Who::Unix),
        _ => {}
    }
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|net| Who::Net(net.trunc())).ok_or_else(|| node.invalid(text))
}

fn error_pages(scope: &Scope<'_>, names: &Names<'_>) -> Result<Arc<[ErrorPage]>> {
    let mut pages = Vec::new();
    for node in scope.nearest("error_page") {
        let Some((target, words)) = node.args.split_last() else { continue };
        let (answer, codes) = match words.split_last() {
            Some((last, codes)) if last.text.starts_with('=') => (error_answer(node, &last.text)?, codes),
            _ => (ErrorAnswer::Same, words),
        };
        let status = |text: &str| {
            let status = text.parse::<u16>().ok().filter(|status| (300..=599).contains(status));
            status.ok_or_else(|| node.error(format!("value \"{text}\" must be between 300 and 599")))
        };
        let statuses = codes.iter().map(|word| status(&word.text)).collect::<Result<Vec<u16>>>()?;
        if statuses.is_empty() {
            return Err(node.invalid(&target.text));
        }
        pages.push(ErrorPage { statuses, answer, target: names.template(&target.text, node)? });
    }
    Ok(pages.into())
}

fn error_answer(node: &Node, text: &str) -> Result<ErrorAnswer> {
    match &text[1..] {
        "" => Ok(ErrorAnswer::OfTarget),
        code => {
            code.parse().map(ErrorAnswer::Status).map_err(|_| node.error(format!("invalid value \"{text}\"")))
        }
    }
}

fn real_ip(scope: &Scope<'_>, world: &dyn World) -> Result<Option<Arc<RealIp>>> {
    let mut trusted = Vec::new();
    for node in scope.nearest("set_real_ip_from") {
        match (who(node), world.resolve(node.arg(0), 0)) {
            (Ok(who), _) => trusted.push(who),
            (Err(_), Ok(found)) => trusted.extend(found.iter().map(|found| Who::Net(found.ip().into()))),
            (Err(_), Err(_)) => {
                return Err(node.error(format!("host not found in set_real_ip_from \"{}\"", node.arg(0))));
            }
        }
    }
    if scope.given("set_real_ip_from").is_none() {
        return Ok(None);
    }
    let source = match scope.text("real_ip_header") {
        "proxy_protocol" => RealIpSource::ProxyProtocol,
        header => RealIpSource::Header(header.to_ascii_lowercase().into_bytes().into()),
    };
    Ok(Some(Arc::new(RealIp { trusted, source, recursive: scope.flag("real_ip_recursive") })))
}
