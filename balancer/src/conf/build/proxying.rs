//! `proxy_*` directives → [`Proxy`] and [`ProxyPass`].

use super::cookies::cookies;
use super::family::{Family, Settings};
use super::names::{Case, Names};
use super::scope::Scope;
use super::upstream_ssl::upstream_tls;
use super::upstreams::{Endpoint, Groups};
use super::{World, full_path};
use crate::conf::blocks::Node;
use crate::conf::cookies::Cookies;
use crate::conf::error::Result;
use crate::conf::location::LocationKind;
use crate::conf::proxy::{
    BacklogTerms, HeaderSet, Ignored, Matcher, NextUpstream, Proxy, ProxyPass, RedirectRule, Redirects,
    RetryStatuses, SetHeader, Target, UriForm,
};
use crate::conf::template::{Part, Template};
use crate::conf::variables::{Variable, name_hash};

/// Headers that a request to an upstream does not take over from the client's, unless `proxy_set_header` sends them.
const OWN_HEADERS: [&str; 9] = [
    "Host",
    "Connection",
    "Proxy-Connection",
    "Content-Length",
    "Transfer-Encoding",
    "TE",
    "Keep-Alive",
    "Expect",
    "Upgrade",
];

/// Headers of an answer that stay here unless `proxy_pass_header` says otherwise.
const HIDDEN_HEADERS: [&str; 8] = [
    "Date",
    "Server",
    "X-Pad",
    "X-Accel-Expires",
    "X-Accel-Redirect",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
];

pub(super) fn proxy(scope: &Scope<'_>, names: &Names<'_>, world: &dyn World) -> Result<Proxy> {
    let own = Settings { scope, family: Family::of(scope) };
    let is_grpc = own.family == Family::Grpc;
    let (set_headers, replaced) = request_headers(&own, names)?;
    let optional = |rest: &str| -> Result<Option<Template>> {
        own.given(rest).map(|node| names.template(node.arg(0), node)).transpose()
    };
    Ok(Proxy {
        connect_timeout: own.duration("connect_timeout"),
        send_timeout: own.duration("send_timeout"),
        read_timeout: own.duration("read_timeout"),
        version: own.version(),
        // Messages of gRPC pass as they come, both ways.
        buffering: own.flag("buffering") && !is_grpc,
        backlog: backlog(scope, world)?,
        request_buffering: own.flag("request_buffering") && !is_grpc,
        buffer_len: own.len("buffer_size"),
        next: next_upstream(&own)?,
        set_headers,
        replaced,
        hidden: hidden_headers(&own),
        pass_request_headers: own.flag("pass_request_headers"),
        pass_request_body: own.flag("pass_request_body"),
        pass_trailers: own.flag("pass_trailers") || is_grpc,
        method: optional("method")?,
        body: optional("set_body")?,
        intercept_errors: own.flag("intercept_errors"),
        ignore_client_abort: own.flag("ignore_client_abort"),
        redirects: if is_grpc { Redirects::Off } else { redirects(scope, names)? },
        cookies: if is_grpc { Cookies::default() } else { cookies(scope, names)? },
        ignored: ignored(&own)?,
        bind: own
            .given("bind")
            .filter(|node| node.arg(0) != "off")
            .map(|node| names.template(node.arg(0), node))
            .transpose()?,
        socket_keepalive: own.flag("socket_keepalive"),
        protocol: own.proxy_protocol(),
    })
}

fn backlog(scope: &Scope<'_>, world: &dyn World) -> Result<BacklogTerms> {
    let (buffers, size) = scope.buffers("proxy_buffers")?;
    let file_len_max = scope.bytes("proxy_max_temp_file_size");
    let least = scope.bytes("proxy_buffer_size").max(size as u64);
    if let Some(node) = scope.given("proxy_max_temp_file_size")
        && (1..least).contains(&file_len_max)
    {
        return Err(node.error(
            "\"proxy_max_temp_file_size\" must be equal to zero to disable temporary files usage or must be equal to or \
             greater than the maximum of the value of \"proxy_buffer_size\" and one of the \"proxy_buffers\"",
        ));
    }
    let folder = full_path(world, scope.text("proxy_temp_path")).into();
    Ok(BacklogTerms { memory_len: buffers.saturating_mul(size).max(1), file_len_max, folder })
}

/// Host comes first, then what the configuration sets, in its order. Other empty constants only suppress.
fn request_headers(own: &Settings<'_>, names: &Names<'_>) -> Result<(Box<[SetHeader]>, HeaderSet)> {
    let mut replaced: HeaderSet = OWN_HEADERS.into_iter().collect();
    let mut host = Template::new([Part::Variable(Variable::ProxyHost)]);
    let mut others = Vec::new();
    for node in own.nearest("set_header") {
        let (name, value) = (node.arg(0).as_bytes(), names.template(node.arg(1), node)?);
        replaced.insert(name);
        if name.eq_ignore_ascii_case(b"host") {
            host = value;
        } else if value.constant() != Some(b"") {
            others.push(set_header(name, value));
        }
    }
    others.insert(0, set_header(b"Host", host));
    Ok((others.into(), replaced))
}

fn set_header(name: &[u8], value: Template) -> SetHeader {
    SetHeader { name: name.into(), hash: name_hash(name), value }
}

fn hidden_headers(own: &Settings<'_>) -> HeaderSet {
    let mut set: HeaderSet = HIDDEN_HEADERS.into_iter().collect();
    own.nearest("hide_header").iter().for_each(|node| set.insert(node.arg(0).as_bytes()));
    own.nearest("pass_header").iter().for_each(|node| set.remove(node.arg(0).as_bytes()));
    set
}

fn next_upstream(own: &Settings<'_>) -> Result<NextUpstream> {
    let mut next = NextUpstream {
        error: false,
        timeout: false,
        invalid_header: false,
        non_idempotent: false,
        statuses: RetryStatuses::default(),
        tries_max: u32::try_from(own.count("next_upstream_tries")).unwrap_or(u32::MAX),
        time_max: own.duration("next_upstream_timeout"),
    };
    let Some(node) = own.given("next_upstream") else {
        return Ok(NextUpstream { error: true, timeout: true, ..next });
    };
    for word in &node.args {
        let status = |text: &str| text.strip_prefix("http_").and_then(|status| status.parse().ok());
        match &word.text[..] {
            "error" => next.error = true,
            "timeout" => next.timeout = true,
            "invalid_header" => next.invalid_header = true,
            "non_idempotent" => next.non_idempotent = true,
            "off" => {}
            text if status(text).is_some_and(|status| next.statuses.add(status)) => {}
            other => return Err(node.error(format!("invalid value \"{other}\""))),
        }
    }
    if node.args.iter().any(|word| word.text == "off") {
        next = NextUpstream { error: false, timeout: false, invalid_header: false, ..next };
        next.statuses = RetryStatuses::default();
    }
    Ok(next)
}

/// `proxy_ignore_headers`: of an upstream's `X-Accel-*`, what is not obeyed. Others of nginx's list concern caches.
fn ignored(own: &Settings<'_>) -> Result<Ignored> {
    let mut ignored = Ignored::default();
    for node in own.nearest("ignore_headers") {
        for word in &node.args {
            match &word.text.to_ascii_lowercase()[..] {
                "x-accel-redirect" => ignored.redirect = true,
                "x-accel-limit-rate" => ignored.limit_rate = true,
                "x-accel-buffering" => ignored.buffering = true,
                "x-accel-charset" => ignored.charset = true,
                "x-accel-expires" | "expires" | "cache-control" | "set-cookie" | "vary" => {}
                _ => return Err(node.error(format!("invalid value \"{}\"", word.text))),
            }
        }
    }
    Ok(ignored)
}

fn redirects(scope: &Scope<'_>, names: &Names<'_>) -> Result<Redirects> {
    let given = scope.nearest("proxy_redirect");
    let mut rules = Vec::new();
    if given.is_empty() {
        return Ok(Redirects::Rules { rules, default: true });
    }
    let mut default = false;
    for node in given {
        match (node.arg(0), node.args.len()) {
            ("off", 1) => return Ok(Redirects::Off),
            ("default", 1) => default = true,
            (other, 1) => return Err(node.invalid(other)),
            (from, _) => {
                rules.push(RedirectRule {
                    from: matcher(from, node, names)?,
                    to: names.template(node.arg(1), node)?,
                });
            }
        }
    }
    Ok(Redirects::Rules { rules, default })
}

/// `~pattern`, `~*pattern` or a text.
pub(super) fn matcher(text: &str, node: &Node, names: &Names<'_>) -> Result<Matcher> {
    match text.strip_prefix('~') {
        Some(pattern) => {
            let (case, pattern) = Case::of(pattern);
            Ok(Matcher::Pattern(names.pattern(pattern, case, node)?))
        }
        None => Ok(Matcher::Text(names.template(text, node)?)),
    }
}

/// Where a location's `proxy_pass` leads.
pub(super) struct Passing<'a, 'n> {
    pub scope: &'a Scope<'a>,
    pub names: &'a Names<'n>,
    pub world: &'a dyn World,
    pub kind: LocationKind,
    pub path: &'a str,
}

pub(super) fn proxy_pass(node: &Node, groups: &mut Groups, passing: &Passing<'_, '_>) -> Result<ProxyPass> {
    let url = node.arg(0);
    let family = if node.name == "grpc_pass" { Family::Grpc } else { Family::Proxy };
    let tls = || upstream_tls(passing.scope, family.prefix(), passing.names, passing.world).map(Some);
    if url.contains('$') {
        let naming = groups.resolvers.naming(&[passing.scope], passing.world)?;
        let target = Target::Dynamic { url: passing.names.template(url, node)?, naming };
        let (host, port) = ([].into(), [].into());
        let tls = tls()?;
        return Ok(ProxyPass { target, uri: UriForm::OfUrl, host, port, default_redirect: None, tls });
    }
    let Some((prefix, is_tls)) = scheme(url, family) else { return Err(node.error("invalid URL prefix")) };
    let usual_port = if is_tls { 443 } else { 80 };
    let tls = if is_tls { tls()? } else { None };
    let (authority, uri) = split_url(&url[prefix.len()..]);
    let endpoint = Endpoint::read(authority)
        .ok_or_else(|| node.error(format!("invalid host or port in upstream \"{authority}\"")))?;
    let with_port = format!("{authority}:{usual_port}");
    let endpoint = match endpoint.port {
        None if usual_port != 80 && !endpoint.host.starts_with("unix:") => {
            Endpoint { text: &with_port, port: Some(usual_port), ..endpoint }
        }
        _ => endpoint,
    };
    let id = match groups.find(authority) {
        Some(id) => id,
        None => groups.implicit(&endpoint, node, passing.world)?,
    };
    let fixed =
        matches!(passing.kind, LocationKind::Exact | LocationKind::Prefix | LocationKind::PrefixFinal);
    let default_redirect = Some(match uri {
        "" => (format!("{url}/").into_bytes().into(), Box::from(&b"/"[..])),
        _ => (url.as_bytes().into(), passing.path.as_bytes().into()),
    });
    let uri = match (uri, fixed) {
        ("", _) => UriForm::AsReceived,
        _ if family == Family::Grpc => return Err(node.error("\"grpc_pass\" cannot have URI part")),
        (uri, true) => UriForm::Replace { with: uri.as_bytes().into(), prefix_len: passing.path.len() },
        (_, false) => {
            return Err(node.error(
                "\"proxy_pass\" cannot have URI part in location given by regular expression, \
                 or inside named location, or inside \"if\" statement, or inside \"limit_except\" block",
            ));
        }
    };
    let is_unix = endpoint.host.starts_with("unix:");
    let shown = match (is_unix, endpoint.port) {
        (true, _) => "localhost",
        (false, None) => endpoint.host,
        (false, Some(port)) if port == usual_port => endpoint.host,
        (false, Some(_)) => authority,
    };
    let port = if is_unix { String::new() } else { endpoint.port_or_default().to_string() };
    let (host, port) = (shown.as_bytes().into(), port.into_bytes().into());
    Ok(ProxyPass { target: Target::Group(id), uri, host, port, default_redirect, tls })
}

/// What a URL begins with, and whether that means TLS. gRPC needs no scheme.
fn scheme(url: &str, family: Family) -> Option<(&str, bool)> {
    let known: &[(&str, bool)] = match family {
        Family::Proxy => &[("http://", false), ("https://", true)],
        Family::Grpc => &[("grpc://", false), ("grpcs://", true), ("", false)],
    };
    let starts =
        |prefix: &str| url.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    known.iter().find(|(prefix, _)| starts(prefix)).map(|(prefix, tls)| (&url[..prefix.len()], *tls))
}

/// Authority and URI of a URL whose scheme is off; a unix path ends at a `:`.
fn split_url(rest: &str) -> (&str, &str) {
    if let Some(path) = rest.strip_prefix("unix:") {
        return match path.find(':') {
            Some(colon) => (&rest[.."unix:".len() + colon], &path[colon + 1..]),
            None => (rest, ""),
        };
    }
    rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()))
}
