//! `upstream` blocks and the groups that `proxy_pass` makes by naming an address.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::World;
use super::names::Names;
use super::scope::Scope;
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::table::Context;
use crate::conf::upstream::{Address, Keepalive, Method, Origin, Peer, Upstream, UpstreamId};
use crate::conf::value;

/// All groups found so far.
#[derive(Default)]
pub(super) struct Groups {
    list: Vec<Arc<Upstream>>,
    names: HashMap<Box<str>, UpstreamId>,
}

impl Groups {
    pub fn into_parts(self) -> (Vec<Arc<Upstream>>, HashMap<Box<str>, UpstreamId>) {
        (self.list, self.names)
    }

    pub fn find(&self, name: &str) -> Option<UpstreamId> {
        self.names.get(name).copied()
    }

    pub fn add_block(&mut self, node: &Node, names: &Names<'_>, world: &dyn World) -> Result<()> {
        let name = node.arg(0);
        if self.names.contains_key(name) {
            return Err(node.error(format!("duplicate upstream \"{name}\"")));
        }
        let scope = Scope::alone(node, Context::UPSTREAM);
        let method = method(&scope, names)?;
        let mut peers = Vec::new();
        for server in scope.own("server") {
            peers.extend(server_peers(server, &method, world)?);
        }
        if peers.is_empty() {
            return Err(node.error("no servers are inside upstream"));
        }
        // Primaries first: the balance counts on it, and each tier keeps the order of the file.
        peers.sort_by_key(|peer| peer.backup);
        if peers[0].backup {
            return Err(node.error("no servers are inside upstream: all of them are backups"));
        }
        self.add(name, Origin::Block, method, peers, keepalive(&scope)?);
        Ok(())
    }

    /// The group for `host:port` of a URL, made when first named.
    pub fn implicit(&mut self, server: &Endpoint<'_>, node: &Node, world: &dyn World) -> Result<UpstreamId> {
        let name = server.text.to_owned();
        if let Some(id) = self.find(&name) {
            return Ok(id);
        }
        let addresses = resolve(server, node, world, "upstream")?;
        let peers = addresses.into_iter().map(|address| Peer {
            server: name.as_str().into(),
            name: address.to_string().into(),
            address,
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
        });
        let peers = peers.collect();
        let keepalive =
            keepalive(&Scope::alone(&Node { block: Vec::new(), ..node.clone() }, Context::UPSTREAM))?;
        Ok(self.add(&name, Origin::Implicit, Method::RoundRobin, peers, keepalive))
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one group")]
    fn add(
        &mut self,
        name: &str,
        origin: Origin,
        method: Method,
        peers: Vec<Peer>,
        keepalive: Keepalive,
    ) -> UpstreamId {
        let id = UpstreamId(self.list.len());
        self.list.push(Arc::new(Upstream { id, name: name.into(), origin, method, peers, keepalive }));
        self.names.insert(name.into(), id);
        id
    }
}

fn method(scope: &Scope<'_>, names: &Names<'_>) -> Result<Method> {
    let mut methods = scope.nodes.iter().filter(|node| METHODS.contains(&&node.name[..]));
    let Some(node) = methods.next() else { return Ok(Method::RoundRobin) };
    if let Some(second) = methods.next() {
        return Err(second.error("load balancing method redefined"));
    }
    match (&node.name[..], node.arg(0), node.arg(1)) {
        ("ip_hash", ..) => Ok(Method::IpHash),
        ("least_conn", ..) => Ok(Method::LeastConn),
        ("hash", key, "") => Ok(Method::Hash { key: names.template(key, node)? }),
        ("hash", key, "consistent") => Ok(Method::ConsistentHash { key: names.template(key, node)? }),
        ("random", "", _) => Ok(Method::Random),
        ("random", "two", "" | "least_conn") => Ok(Method::RandomTwo),
        ("random", "two", other) | ("random", other, _) | (_, _, other) => Err(node.invalid(other)),
    }
}

const METHODS: [&str; 4] = ["ip_hash", "least_conn", "hash", "random"];

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

fn server_peers(node: &Node, method: &Method, world: &dyn World) -> Result<Vec<Peer>> {
    let mut terms = Peer {
        server: node.arg(0).into(),
        name: "".into(),
        address: Address::Unix(PathBuf::new()),
        weight: 1,
        max_conns: 0,
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
        backup: false,
        down: false,
    };
    for word in node.args.iter().skip(1) {
        server_option(&mut terms, &word.text).ok_or_else(|| unknown_option(node, &word.text))?;
    }
    let allows_backup = matches!(method, Method::RoundRobin | Method::LeastConn);
    if terms.backup && !allows_backup {
        return Err(node.error("balancing method does not support parameter \"backup\""));
    }
    let endpoint = Endpoint::read(node.arg(0))
        .ok_or_else(|| node.error(format!("invalid port in upstream \"{}\"", node.arg(0))))?;
    let addresses = resolve(&endpoint, node, world, "upstream")?;
    let peer = |address: Address| Peer { name: address.to_string().into(), address, ..terms.clone() };
    Ok(addresses.into_iter().map(peer).collect())
}

fn server_option(peer: &mut Peer, text: &str) -> Option<()> {
    let number = |text: &str| value::count(text).and_then(|number| u32::try_from(number).ok());
    match text.split_once('=').unwrap_or((text, "")) {
        ("weight", weight) => peer.weight = number(weight).filter(|weight| *weight > 0)?,
        ("max_conns", count) => peer.max_conns = number(count)?,
        ("max_fails", count) => peer.max_fails = number(count)?,
        ("fail_timeout", time) => peer.fail_timeout = value::seconds(time)?,
        ("backup", "") => peer.backup = true,
        ("down", "") => peer.down = true,
        _ => return None,
    }
    Some(())
}

fn unknown_option(node: &Node, text: &str) -> crate::conf::error::Error {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    if ["resolve", "service", "route", "slow_start", "drain"].contains(&name) {
        return node.error(format!("parameter \"{text}\" is not supported yet"));
    }
    node.invalid(text)
}

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
    let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = host.parse::<std::net::IpAddr>() {
        return Ok(vec![Address::Tcp((ip, endpoint.port_or_default()).into())]);
    }
    let mut found = world.resolve(host, endpoint.port_or_default()).unwrap_or_default();
    found.dedup();
    if found.is_empty() {
        return Err(node.error(format!("host not found in {what} \"{}\"", endpoint.text)));
    }
    Ok(found.into_iter().map(Address::Tcp).collect())
}
