//! `listen` lines → sockets, and which server blocks meet on each.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::World;
use super::scope::Scope;
use super::servers::{Built, ServerName};
use super::upstreams::{Endpoint, resolve};
use crate::conf::blocks::Node;
use crate::conf::error::{Error, Result};
use crate::conf::listen::{Listen, Names, SocketKeepalive, SocketOptions};
use crate::conf::upstream::Address;
use crate::conf::value;

/// One `listen` line, for one address.
#[derive(Debug, Clone)]
pub(super) struct ListenLine<'a> {
    pub address: Address,
    pub options: SocketOptions,
    /// Whether the line sets options of the socket, which only one line per address may.
    pub sets_options: bool,
    pub default_server: bool,
    pub is_tls: bool,
    pub is_http2: bool,
    pub is_proxied: bool,
    pub node: &'a Node,
}

/// nginx's backlog on Linux.
const BACKLOG_DEFAULT: u32 = 511;

pub(super) fn listen_lines<'a>(
    scope: &Scope<'a>,
    server: &'a Node,
    world: &dyn World,
) -> Result<Vec<ListenLine<'a>>> {
    let mut lines: Vec<ListenLine<'a>> = Vec::new();
    let mut known = HashSet::new();
    for node in scope.own("listen") {
        for line in listen_line(node, world)? {
            if !known.insert(line.address.clone()) {
                return Err(node.error(format!("a duplicate listen {}", line.address)));
            }
            lines.push(line);
        }
    }
    if lines.is_empty() {
        // As nginx: 80 for root, who may bind it, 8000 otherwise.
        let port = if nix::unistd::geteuid().is_root() { 80 } else { 8000 };
        lines.push(blank_line(Address::Tcp((Ipv4Addr::UNSPECIFIED, port).into()), server));
    }
    Ok(lines)
}

fn blank_line(address: Address, node: &Node) -> ListenLine<'_> {
    let options = SocketOptions {
        backlog: BACKLOG_DEFAULT,
        reuseport: false,
        ipv6only: true,
        rcvbuf: None,
        sndbuf: None,
        so_keepalive: None,
        deferred: false,
        fastopen: None,
    };
    ListenLine {
        address,
        options,
        sets_options: false,
        default_server: false,
        is_tls: false,
        is_http2: false,
        is_proxied: false,
        node,
    }
}

fn listen_line<'a>(node: &'a Node, world: &dyn World) -> Result<Vec<ListenLine<'a>>> {
    let addresses = listen_addresses(node, world)?;
    let mut line = blank_line(Address::Unix("".into()), node);
    for word in node.args.iter().skip(1) {
        listen_option(&mut line, &word.text)?;
    }
    Ok(addresses.into_iter().map(|address| ListenLine { address, ..line.clone() }).collect())
}

fn listen_addresses(node: &Node, world: &dyn World) -> Result<Vec<Address>> {
    let text = node.arg(0);
    if let Some(port) = value::count(text) {
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        let port = port
            .ok_or_else(|| node.error(format!("invalid port in \"{text}\" of the \"listen\" directive")))?;
        return Ok(vec![Address::Tcp((Ipv4Addr::UNSPECIFIED, port).into())]);
    }
    let (host, ports) = split_ports(text, node)?;
    let mut addresses = Vec::new();
    for port in ports {
        let text = if host == "*" { "0.0.0.0" } else { host };
        let endpoint = Endpoint { text, host: text, port: Some(port) };
        addresses.extend(resolve(&endpoint, node, world, "host of the \"listen\" directive")?);
    }
    Ok(addresses)
}

/// `host:8000` and `host:8000-8005`; no port is 80.
fn split_ports<'a>(text: &'a str, node: &Node) -> Result<(&'a str, std::ops::RangeInclusive<u16>)> {
    if text.starts_with("unix:") {
        return Ok((text, 80..=80));
    }
    let after_v6 = text.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = text[after_v6..].rfind(':') else { return Ok((text, 80..=80)) };
    let (host, port) = (&text[..after_v6 + colon], &text[after_v6 + colon + 1..]);
    let (first, last) = port.split_once('-').unwrap_or((port, port));
    let parsed = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    match parsed.filter(|(first, last)| *first > 0 && first <= last && !host.is_empty()) {
        Some((first, last)) => Ok((host, first..=last)),
        None => Err(node.error(format!("invalid port in \"{text}\" of the \"listen\" directive"))),
    }
}

fn listen_option(line: &mut ListenLine<'_>, text: &str) -> Result<()> {
    let node = line.node;
    let number = |text: &str| value::count(text).and_then(|number| u32::try_from(number).ok());
    let bytes = |text: &str| value::size(text).map(|size| size as usize);
    let mut sets = true;
    let understood = match text.split_once('=').unwrap_or((text, "")) {
        ("default_server" | "default", "") => {
            line.default_server = true;
            sets = false;
            true
        }
        ("bind", "") => true,
        ("ssl", "") => {
            line.is_tls = true;
            sets = false;
            true
        }
        ("proxy_protocol", "") => {
            line.is_proxied = true;
            sets = false;
            true
        }
        ("http2", "") => {
            line.is_http2 = true;
            sets = false;
            true
        }
        ("reuseport", "") => {
            line.options.reuseport = true;
            true
        }
        ("backlog", count) => {
            number(count).filter(|count| *count > 0).map(|n| line.options.backlog = n).is_some()
        }
        ("rcvbuf", size) => bytes(size).map(|size| line.options.rcvbuf = Some(size)).is_some(),
        ("sndbuf", size) => bytes(size).map(|size| line.options.sndbuf = Some(size)).is_some(),
        ("ipv6only", on) => value::flag(on).map(|on| line.options.ipv6only = on).is_some(),
        ("so_keepalive", terms) => {
            keepalive(terms).map(|terms| line.options.so_keepalive = Some(terms)).is_some()
        }
        ("deferred", "") => {
            line.options.deferred = true;
            true
        }
        ("fastopen", len) => {
            let len = number(len).and_then(|len| i32::try_from(len).ok());
            len.map(|len| line.options.fastopen = Some(len)).is_some()
        }
        ("quic" | "setfib" | "accept_filter" | "multipath", _) => {
            return Err(node.error(format!("parameter \"{text}\" of \"listen\" is not supported yet")));
        }
        _ => false,
    };
    line.sets_options |= sets;
    if understood { Ok(()) } else { Err(node.invalid(text)) }
}

/// `on`, `off` or `IDLE:INTERVAL:COUNT`, any of which may be left out, but not all.
fn keepalive(text: &str) -> Option<SocketKeepalive> {
    let none = SocketKeepalive::On { idle: None, interval: None, count: None };
    match text {
        "on" => return Some(none),
        "off" => return Some(SocketKeepalive::Off),
        _ => {}
    }
    let mut parts = text.splitn(3, ':').map(|part| Some(part).filter(|part| !part.is_empty()));
    let mut next = || parts.next().flatten();
    let time = |part: Option<&str>| part.map(|part| value::seconds(part).ok_or(())).transpose();
    let (idle, interval, count) = (time(next()).ok()?, time(next()).ok()?, next());
    let count = count.map(str::parse::<u32>).transpose().ok()?;
    let is_some = |time: &Duration| !time.is_zero();
    let (idle, interval) = (idle.filter(is_some), interval.filter(is_some));
    let terms = SocketKeepalive::On { idle, interval, count: count.filter(|count| *count > 0) };
    (terms != none).then_some(terms)
}

/// The server blocks of one address, in the order of the file.
struct Meeting<'a, 'b> {
    line: ListenLine<'a>,
    servers: Vec<(&'b Built<'a>, bool)>,
}

/// Sockets for all servers. By tables: a range of ports is thousands of addresses.
pub(super) fn listens(servers: &[Built<'_>]) -> Result<Vec<Arc<Listen>>> {
    let mut meetings: Vec<Meeting<'_, '_>> = Vec::new();
    let mut places: HashMap<&Address, usize> = HashMap::new();
    for built in servers {
        for line in &built.listens {
            match places.get(&line.address) {
                Some(place) => join(&mut meetings[*place], built, line)?,
                None => {
                    places.insert(&line.address, meetings.len());
                    let servers = vec![(built, line.default_server)];
                    meetings.push(Meeting { line: line.clone(), servers });
                }
            }
        }
    }
    let hosts: Vec<Option<usize>> = meetings.iter().map(|meeting| wildcard_of(meeting, &places)).collect();
    let mut guests: HashMap<usize, Vec<&Meeting<'_, '_>>> = HashMap::new();
    for (guest, host) in meetings.iter().zip(&hosts) {
        if let Some(host) = host {
            guests.entry(*host).or_default().push(guest);
        }
    }
    let mut sockets = Vec::new();
    for (place, meeting) in meetings.iter().enumerate().filter(|(place, _)| hosts[*place].is_none()) {
        let mut by_local = Vec::new();
        for guest in guests.remove(&place).unwrap_or_default() {
            let Address::Tcp(address) = guest.line.address else { continue };
            by_local.push((address.ip(), Arc::new(names(guest)?)));
        }
        sockets.push(Arc::new(Listen {
            address: meeting.line.address.clone(),
            options: meeting.line.options.clone(),
            by_local,
            names: Arc::new(names(meeting)?),
        }));
    }
    Ok(sockets)
}

fn join<'a, 'b>(meeting: &mut Meeting<'a, 'b>, built: &'b Built<'a>, line: &ListenLine<'a>) -> Result<()> {
    let address = &line.address;
    if line.sets_options {
        if meeting.line.sets_options && meeting.line.options != line.options {
            return Err(line.node.error(format!("duplicate listen options for {address}")));
        }
        meeting.line.options = line.options.clone();
        meeting.line.sets_options = true;
    }
    if line.default_server && meeting.servers.iter().any(|(_, default)| *default) {
        return Err(line.node.error(format!("a duplicate default server for {address}")));
    }
    meeting.line.is_tls |= line.is_tls;
    meeting.line.is_http2 |= line.is_http2;
    meeting.line.is_proxied |= line.is_proxied;
    meeting.servers.push((built, line.default_server));
    Ok(())
}

/// The place of the meeting on the wildcard address of the same port and family, whose socket takes this one's
/// connections too.
fn wildcard_of(meeting: &Meeting<'_, '_>, places: &HashMap<&Address, usize>) -> Option<usize> {
    let Address::Tcp(own) = meeting.line.address else { return None };
    if own.ip().is_unspecified() || meeting.line.sets_options {
        return None;
    }
    let all: IpAddr = if own.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    places.get(&Address::Tcp(SocketAddr::new(all, own.port()))).copied()
}

/// Which names lead to which server. A name given twice belongs to the first server that has it, as in nginx.
fn names(meeting: &Meeting<'_, '_>) -> Result<Names> {
    let default = meeting.servers.iter().find(|(_, default)| *default).unwrap_or(&meeting.servers[0]);
    if meeting.line.is_tls && !default.0.server.tls.is_ready() {
        let what = format!(
            "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive in {}",
            meeting.line.node.place
        );
        return Err(Error::whole(what));
    }
    let mut names = Names {
        is_tls: meeting.line.is_tls,
        is_http2: meeting.line.is_http2,
        is_proxied: meeting.line.is_proxied,
        default: default.0.server.clone(),
        exact: HashMap::new(),
        suffixes: Vec::new(),
        prefixes: Vec::new(),
        patterns: Vec::new(),
        is_single: false,
    };
    for (built, _) in &meeting.servers {
        for name in &built.names {
            let server = built.server.clone();
            let bytes = |text: &String| -> Box<[u8]> { text.as_bytes().into() };
            match name {
                ServerName::Exact(text) => {
                    names.exact.entry(bytes(text)).or_insert(server);
                }
                ServerName::Suffix(text) => names.suffixes.push((bytes(text), server)),
                ServerName::Prefix(text) => names.prefixes.push((bytes(text), server)),
                ServerName::Pattern(pattern) => names.patterns.push((pattern.clone(), server)),
            }
        }
    }
    names.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    names.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    names.is_single = names.lead_to_default_only();
    Ok(names)
}
