//! `upstream` blocks and the groups that `proxy_pass` makes by naming an address.

mod checks;
mod sticky;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::names::Names;
use super::naming::Resolvers;
use super::scope::Scope;
use super::{World, full_path};
use crate::conf::blocks::{self, Node};
use crate::conf::check::{HealthCheck, Match};
use crate::conf::error::Result;
use crate::conf::naming::{NamedServer, Naming, ResolverTerms};
use crate::conf::proxy::ProxyPass;
use crate::conf::settings::group_key;
use crate::conf::table::Context;
use crate::conf::upstream::{
    Address, Better, Duty, Keepalive, LeastTime, Method, Origin, Peer, QueueTerms, Sid, StickyKind, Terms,
    Tier, Until, Upstream, UpstreamId,
};
use crate::conf::value;

/// All groups found so far.
#[derive(Default)]
pub(super) struct Groups {
    list: Vec<Arc<Upstream>>,
    names: HashMap<Box<str>, UpstreamId>,
    matches: Vec<(Box<str>, Arc<Match>)>,
    checks: Vec<HealthCheck>,
    pub resolvers: Resolvers,
}

/// All groups, their names, the checks that look after them, and who knows the names of their servers.
pub(super) struct Parts {
    pub upstreams: Vec<Arc<Upstream>>,
    pub names: HashMap<Box<str>, UpstreamId>,
    pub checks: Vec<HealthCheck>,
    pub resolvers: Vec<Arc<ResolverTerms>>,
}

impl Groups {
    pub fn into_parts(self) -> Parts {
        let Groups { list, names, checks, resolvers, .. } = self;
        Parts { upstreams: list, names, checks, resolvers: resolvers.list }
    }

    pub fn read_matches(&mut self, http: &Scope<'_>) -> Result<()> {
        self.matches = checks::matchers(http)?;
        Ok(())
    }

    /// `health_check` of a location, which may stand in any of its kinds but needs a group to look after.
    pub fn add_check(&mut self, scope: &Scope<'_>, pass: Option<&ProxyPass>) -> Result<()> {
        let Some(node) = scope.own("health_check").next() else { return Ok(()) };
        let Some(upstream) = pass.and_then(ProxyPass::group).map(|id| self.list[id.0].clone()) else {
            return Err(node.directive_error("needs a \"proxy_pass\" to a group in the same location"));
        };
        let named = |name: &str| {
            let found = self.matches.iter().find(|(known, _)| **known == *name);
            found.map(|(_, matcher)| matcher.clone())
        };
        let mut check = checks::health_check(node, scope, (upstream.id, &upstream.name), named)?;
        check.terms.place = self.checks.iter().filter(|known| known.group == upstream.id).count();
        let tls = pass.and_then(|pass| pass.tls.as_ref());
        check.tls = tls.map(|tls| checks::tls_peer(tls, &upstream.name, &check.host, node));
        self.checks.push(check);
        Ok(())
    }

    pub fn find(&self, name: &str) -> Option<UpstreamId> {
        self.names.get(&group_key(name)).copied()
    }

    pub fn add_block(
        &mut self,
        node: &Node,
        http: &Scope<'_>,
        names: &Names<'_>,
        world: &dyn World,
    ) -> Result<()> {
        let name = node.arg(0);
        if self.find(name).is_some() {
            return Err(node.error(format!("duplicate upstream \"{name}\"")));
        }
        let scope = Scope::alone(node, Context::UPSTREAM);
        let method = method(&scope, names)?;
        let kept = kept_servers(&scope, world)?;
        let naming = self.resolvers.naming(&[&scope, http], world)?;
        let mut peers = Vec::new();
        let mut named = Vec::new();
        for (server, line) in scope.own("server").chain(&kept).zip(0..) {
            match read_server(server, line, &method, world)? {
                Servers::Fixed(found) => peers.extend(found),
                Servers::Named(server) => named.push(server),
            }
        }
        if !named.is_empty() {
            check_naming(node, &scope, naming)?;
        }
        // Primaries first: the balance counts on it, and each tier keeps the order of the file.
        peers.sort_by_key(|peer| peer.terms.tier);
        let state = scope.given("state");
        let has_named = named.iter().any(|server| server.terms.tier == Tier::Primary);
        let has_primary = has_named || peers.first().is_some_and(|peer| peer.terms.tier == Tier::Primary);
        if state.is_none() && !has_primary {
            return Err(node.error(match peers.is_empty() && named.is_empty() {
                true => "no servers are inside upstream",
                false => "no servers are inside upstream: all of them are backups",
            }));
        }
        let sticky = scope.given("sticky").map(|node| sticky::sticky(node, names)).transpose()?;
        if let Some(StickyKind::Learn(learn)) = sticky.as_ref().map(|sticky| &sticky.kind) {
            self.check_session_zone(&learn.zone, scope.given("sticky").unwrap_or(node))?;
        }
        self.add(Upstream {
            id: UpstreamId(self.list.len()),
            name: name.into(),
            origin: Origin::Block,
            method,
            peers,
            named,
            naming,
            keepalive: keepalive(&scope)?,
            sticky: sticky.map(Arc::new),
            queue: scope.given("queue").map(queue).transpose()?,
            zone: scope.given("zone").map(|zone| zone.arg(0).into()),
            state_file: state.map(|node| full_path(world, node.arg(0))),
        });
        Ok(())
    }

    /// Two groups cannot learn sessions in one zone.
    fn check_session_zone(&self, zone: &str, node: &Node) -> Result<()> {
        let uses = |known: &&Arc<Upstream>| match known.sticky.as_ref().map(|sticky| &sticky.kind) {
            Some(StickyKind::Learn(learn)) => *learn.zone == *zone,
            _ => false,
        };
        match self.list.iter().find(uses) {
            None => Ok(()),
            Some(known) => {
                Err(node
                    .error(format!("sticky zone \"{zone}\" is already used in upstream \"{}\"", known.name)))
            }
        }
    }

    /// The group for `host:port` of a URL, made when first named.
    pub fn implicit(&mut self, server: &Endpoint<'_>, node: &Node, world: &dyn World) -> Result<UpstreamId> {
        let name = server.text.to_owned();
        if let Some(id) = self.find(&name) {
            return Ok(id);
        }
        let addresses = resolve(server, node, world, "upstream")?;
        let terms = Terms::new(&name);
        let peers = addresses.into_iter().map(|address| Peer::at(address, terms.clone())).collect();
        // As nginx: only a group that the configuration names keeps connections.
        let keepalive =
            keepalive(&Scope::alone(&Node { block: Vec::new(), ..node.clone() }, Context::UPSTREAM))?;
        let keepalive = Keepalive { idle_max: 0, ..keepalive };
        Ok(self.add(Upstream {
            id: UpstreamId(self.list.len()),
            name: name.into(),
            origin: Origin::Implicit,
            method: Method::RoundRobin,
            peers,
            named: Vec::new(),
            naming: NAMELESS,
            keepalive,
            sticky: None,
            queue: None,
            zone: None,
            state_file: None,
        }))
    }

    fn add(&mut self, upstream: Upstream) -> UpstreamId {
        let id = upstream.id;
        self.names.insert(group_key(&upstream.name), id);
        self.list.push(Arc::new(upstream));
        id
    }
}

/// The `server` lines that the API left in the `state` file; none at the very first start.
fn kept_servers(scope: &Scope<'_>, world: &dyn World) -> Result<Vec<Node>> {
    let Some(node) = scope.given("state") else { return Ok(Vec::new()) };
    if scope.given("zone").is_none() {
        return Err(node.directive_error("needs a \"zone\" in the same upstream"));
    }
    if let Some(server) = scope.own("server").next() {
        return Err(server.directive_error("is not compatible with \"state\""));
    }
    let path = full_path(world, node.arg(0));
    match world.read(&path) {
        Ok(text) => blocks::fragment(&text, &path, Context::UPSTREAM),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(node.error(crate::conf::error::system("open", &path, &error))),
    }
}

fn queue(node: &Node) -> Result<QueueTerms> {
    let len_max = value::count(node.arg(0)).filter(|len| *len > 0);
    let len_max = len_max.ok_or_else(|| node.error(format!("invalid value \"{}\"", node.arg(0))))?;
    let timeout = match node.args.get(1).map(|word| &word.text[..]) {
        None => QUEUE_TIMEOUT,
        Some(text) => {
            let given = text.strip_prefix("timeout=").and_then(value::millis);
            given.ok_or_else(|| node.invalid(text))?
        }
    };
    Ok(QueueTerms { len_max: usize::try_from(len_max).unwrap_or(usize::MAX), timeout })
}

/// NGINX Plus's.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);

fn method(scope: &Scope<'_>, names: &Names<'_>) -> Result<Method> {
    // nginx only warns of a second method; the last one counts.
    let mut methods = scope.nodes.iter().rev().filter(|node| METHODS.contains(&&node.name[..]));
    let Some(node) = methods.next() else { return Ok(Method::RoundRobin) };
    if methods.next().is_some() {
        tracing::warn!("load balancing method redefined in {}", node.place);
    }
    let ipv6_bits = ipv6_bits(scope)?;
    let balance_percent = balance_percent(scope)?;
    let until = |text: &str| match text {
        "header" => Ok(Until::Header),
        "last_byte" => Ok(Until::LastByte),
        other => Err(node.error(format!("invalid value \"{other}\""))),
    };
    match (&node.name[..], node.arg(0), node.arg(1)) {
        ("ip_hash", ..) => Ok(Method::IpHash { ipv6_bits }),
        ("least_conn", ..) => Ok(Method::LeastConn),
        ("least_time", text, "") => Ok(Method::LeastTime(LeastTime { until: until(text)?, inflight: false })),
        ("least_time", text, "inflight") => {
            Ok(Method::LeastTime(LeastTime { until: until(text)?, inflight: true }))
        }
        ("hash", key, "") => Ok(Method::Hash { key: names.template(key, node)?, balance_percent }),
        ("hash", key, "consistent") => {
            Ok(Method::ConsistentHash { key: names.template(key, node)?, balance_percent })
        }
        ("random", "", _) => Ok(Method::Random),
        ("random", "two", "" | "least_conn") => Ok(Method::RandomTwo(Better::LeastConn)),
        ("random", "two", text) => match text.strip_prefix("least_time=") {
            Some(text) => Ok(Method::RandomTwo(Better::LeastTime(until(text)?))),
            None => Err(node.invalid(text)),
        },
        ("random", other, _) | (_, _, other) => Err(node.invalid(other)),
    }
}

const METHODS: [&str; 5] = ["ip_hash", "least_conn", "least_time", "hash", "random"];

fn ipv6_bits(scope: &Scope<'_>) -> Result<u8> {
    let bits = scope.count("ip_hash_ipv6_bits");
    match (u8::try_from(bits).ok().filter(|bits| (1..=128).contains(bits)), scope.given("ip_hash_ipv6_bits"))
    {
        (Some(bits), _) => Ok(bits),
        (None, Some(node)) => Err(node.directive_error("invalid value, it must be from 1 to 128")),
        (None, None) => Ok(128),
    }
}

fn balance_percent(scope: &Scope<'_>) -> Result<u32> {
    let percent = u32::try_from(scope.count("hash_balance_factor")).unwrap_or(0);
    match scope.given("hash_balance_factor") {
        Some(node) if percent != 0 && percent <= 100 => {
            Err(node.directive_error("invalid value, it must be 0 or more than 100"))
        }
        Some(node) if !scope.nodes.iter().any(|node| node.name == "hash") => {
            Err(node.directive_error("needs \"hash\" in the same upstream"))
        }
        _ => Ok(percent),
    }
}

fn keepalive(scope: &Scope<'_>) -> Result<Keepalive> {
    let text = scope.text("keepalive");
    let node = scope.given("keepalive");
    let invalid = |text: &str| {
        node.map(|node| node.error(format!("invalid value \"{text}\" in \"keepalive\" directive")))
    };
    let Some(idle_max) = value::count(text) else {
        return invalid(text).map_or(Ok(Keepalive::default()), Err);
    };
    if let Some(node) = node.filter(|node| !matches!(node.arg(1), "" | "local")) {
        return Err(node.invalid(node.arg(1)));
    }
    Ok(Keepalive {
        idle_max: idle_max as usize,
        requests_max: scope.count("keepalive_requests"),
        time: scope.duration("keepalive_time"),
        timeout: scope.duration("keepalive_timeout"),
    })
}

/// What a `server` line stands for.
enum Servers {
    Fixed(Vec<Peer>),
    Named(NamedServer),
}

/// `resolve` without a place for what is found, or without anybody to ask.
fn check_naming(node: &Node, scope: &Scope<'_>, naming: Naming) -> Result<()> {
    let what = match (scope.given("zone"), naming.resolver) {
        (None, _) => "resolving names at run time requires a \"zone\" in upstream",
        (_, None) => "no resolver defined to resolve names at run time in upstream",
        _ => return Ok(()),
    };
    Err(node.error(format!("{what} \"{}\"", node.arg(0))))
}

fn read_server(node: &Node, line: u32, method: &Method, world: &dyn World) -> Result<Servers> {
    let ServerLine { terms, resolve: is_named, service } = server_line(node)?;
    if terms.tier == Tier::Backup && !allows_backup(method) {
        return Err(node.error("balancing method does not support parameter \"backup\""));
    }
    if !terms.slow_start.is_zero() && !allows_slow_start(method) {
        return Err(node.error("balancing method does not support parameter \"slow_start\""));
    }
    let endpoint = Endpoint::read(node.arg(0))
        .ok_or_else(|| node.error(format!("invalid port in upstream \"{}\"", node.arg(0))))?;
    let is_address = endpoint.host.starts_with("unix:") || ip_of(&endpoint).is_some();
    let refused = match &service {
        Some(_) if !is_named => Some("requires \"resolve\" parameter"),
        Some(_) if endpoint.port.is_some() => Some("may not have port"),
        Some(_) if is_address => Some("requires domain name"),
        _ => None,
    };
    if let Some(refused) = refused {
        return Err(node.error(format!("service upstream \"{}\" {refused}", node.arg(0))));
    }
    if is_named && !is_address {
        let (host, port) = (endpoint.host.into(), endpoint.port_or_default());
        return Ok(Servers::Named(NamedServer { line, host, port, service, terms }));
    }
    let addresses = resolve(&endpoint, node, world, "upstream")?;
    Ok(Servers::Fixed(addresses.into_iter().map(|address| Peer::at(address, terms.clone())).collect()))
}

struct ServerLine {
    terms: Terms,
    resolve: bool,
    service: Option<Box<str>>,
}

/// What a `server` line says.
fn server_line(node: &Node) -> Result<ServerLine> {
    let mut line = ServerLine { terms: Terms::new(node.arg(0)), resolve: false, service: None };
    for word in node.args.iter().skip(1) {
        match word.text.split_once('=') {
            None if word.text == "resolve" => line.resolve = true,
            Some(("service", "")) => return Err(node.error("service is empty")),
            Some(("service", service)) => line.service = Some(service.into()),
            _ => server_option(&mut line.terms, &word.text).ok_or_else(|| node.invalid(&word.text))?,
        }
    }
    Ok(line)
}

/// The terms of a `server` line.
pub fn server_terms(node: &Node) -> Result<Terms> {
    server_line(node).map(|line| line.terms)
}

/// nginx: not where a key or chance chooses.
pub fn allows_backup(method: &Method) -> bool {
    matches!(method, Method::RoundRobin | Method::LeastConn | Method::LeastTime(_))
}

/// nginx: as with backups.
pub fn allows_slow_start(method: &Method) -> bool {
    allows_backup(method)
}

fn server_option(terms: &mut Terms, text: &str) -> Option<()> {
    let number = |text: &str| value::count(text).and_then(|number| u32::try_from(number).ok());
    match text.split_once('=').unwrap_or((text, "")) {
        ("weight", weight) => terms.weight = number(weight).filter(|weight| is_weight(*weight))?,
        ("max_conns", count) => terms.max_conns = number(count)?,
        ("max_fails", count) => terms.max_fails = number(count)?,
        ("fail_timeout", time) => terms.fail_timeout = value::seconds(time).filter(is_server_time)?,
        ("slow_start", time) => terms.slow_start = value::seconds(time).filter(is_server_time)?,
        ("route", route) if !route.is_empty() && route.len() <= ROUTE_LEN_MAX => {
            terms.sid = Sid::Route(route.into());
        }
        ("backup", "") => terms.tier = Tier::Backup,
        ("down", "") => terms.duty = Duty::Down,
        ("drain", "") => terms.duty = Duty::Drain,
        _ => return None,
    }
    Some(())
}

/// As much as an SRV record can say; the consistent hash has 160 points for each.
pub fn is_weight(weight: u32) -> bool {
    (1..=65_535).contains(&weight)
}

/// A century is for good, and sums of such times are still times.
pub fn is_server_time(time: &Duration) -> bool {
    *time <= Duration::from_secs(100 * 365 * 86_400)
}

/// As long as nginx's own ids.
pub const ROUTE_LEN_MAX: usize = 32;

/// Of groups that have no names to look up.
pub const NAMELESS: Naming = Naming { resolver: None, timeout: Duration::ZERO };

/// `host`, `host:port`, `[v6]:port` or `unix:path` as written in a `server` line or a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint<'a> {
    pub text: &'a str,
    pub host: &'a str,
    pub port: Option<u16>,
}

impl<'a> Endpoint<'a> {
    pub fn read(text: &'a str) -> Option<Endpoint<'a>> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty()).then_some(Endpoint { text, host: text, port: None });
        }
        let after_v6 = text.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match text[after_v6..].rfind(':') {
            Some(colon) => {
                let (host, port) = text.split_at(after_v6 + colon);
                let port = port[1..].parse().ok().filter(|port| *port != 0)?;
                (host, Some(port))
            }
            None => (text, None),
        };
        (!host.is_empty()).then_some(Endpoint { text, host, port })
    }

    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(80)
    }
}

/// The addresses of a server that was named at run time, as a `server` line would name it.
pub fn addresses_of(server: &str) -> Option<Vec<Address>> {
    // It may end up in a state file: nothing that means something there.
    if !server.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/[]".contains(&byte)) {
        return None;
    }
    let endpoint = Endpoint::read(server)?;
    if let Some(path) = endpoint.host.strip_prefix("unix:") {
        return Some(vec![Address::Unix(path.into())]);
    }
    let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
    let found = std::net::ToSocketAddrs::to_socket_addrs(&(host, endpoint.port_or_default())).ok();
    let addresses: Vec<Address> = found?.map(Address::Tcp).collect();
    (!addresses.is_empty()).then_some(addresses)
}

fn ip_of(endpoint: &Endpoint<'_>) -> Option<std::net::IpAddr> {
    endpoint.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Every address of the endpoint.
pub(super) fn resolve(
    endpoint: &Endpoint<'_>,
    node: &Node,
    world: &dyn World,
    what: &str,
) -> Result<Vec<Address>> {
    if let Some(path) = endpoint.host.strip_prefix("unix:") {
        return Ok(vec![Address::Unix(path.into())]);
    }
    if let Some(ip) = ip_of(endpoint) {
        return Ok(vec![Address::Tcp((ip, endpoint.port_or_default()).into())]);
    }
    let host = endpoint.host;
    let mut found = world.resolve(host, endpoint.port_or_default()).unwrap_or_default();
    found.dedup();
    if found.is_empty() {
        return Err(node.error(format!("host not found in {what} \"{}\"", endpoint.text)));
    }
    Ok(found.into_iter().map(Address::Tcp).collect())
}
