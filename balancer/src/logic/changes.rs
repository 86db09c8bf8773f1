//! Changes of a group's servers at run time, as the API asks for them: a body of JSON → a patch → the next value of the
//! group, or the reason why not. Who publishes it: control/changes.rs.

use std::time::Duration;

use serde_json::Value;

use crate::conf::build::{
    ROUTE_LEN_MAX, allows_backup, allows_slow_start, is_server_time, is_weight, seconds,
};
use crate::conf::naming::NamedServer;
use crate::conf::upstream::{Address, Duty, Peer, Sid, Terms, Tier, Upstream};
use crate::logic::named::resolved;
use crate::logic::resolver::Target;

/// What is to be done to a group.
#[derive(Debug)]
pub enum Edit {
    /// A server as written, with the addresses that it has.
    Add {
        server: Box<str>,
        addresses: Vec<Address>,
        patch: Patch,
    },
    Change {
        id: u32,
        patch: Patch,
    },
    Remove {
        id: u32,
    },
    /// What name servers say of a server with `resolve`.
    Resolve {
        server: NamedServer,
        targets: Vec<Target>,
    },
}

/// What is to be different; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    pub server: Option<Box<str>>,
    weight: Option<u32>,
    max_conns: Option<u32>,
    max_fails: Option<u32>,
    fail_timeout: Option<Duration>,
    slow_start: Option<Duration>,
    route: Option<Box<str>>,
    tier: Option<Tier>,
    duty: Option<Duty>,
}

/// Why a change is refused, in NGINX Plus's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("upstream not found")]
    UpstreamNotFound,
    #[error("upstream is static")]
    UpstreamStatic,
    #[error("server with ID \"{0}\" does not exist")]
    ServerNotFound(u32),
    #[error("missing \"server\" argument")]
    NoServer,
    #[error("host not found in upstream \"{0}\"")]
    BadAddress(Box<str>),
    #[error("invalid value of \"{0}\"")]
    BadValue(Box<str>),
    #[error("unknown parameter \"{0}\"")]
    UnknownField(Box<str>),
    #[error("\"{0}\" cannot be changed")]
    Immutable(&'static str),
    #[error("balancing method does not support parameter \"{0}\"")]
    NotSupported(&'static str),
    #[error("invalid JSON")]
    Json,
    #[error("{0}")]
    StateFile(Box<str>),
}

impl Refusal {
    pub fn status(&self) -> u16 {
        match self {
            Refusal::UpstreamNotFound | Refusal::ServerNotFound(_) => 404,
            Refusal::Json => 415,
            Refusal::StateFile(_) => 500,
            _ => 400,
        }
    }

    pub fn code(&self) -> &'static str {
        match self {
            Refusal::UpstreamNotFound => "UpstreamNotFound",
            Refusal::UpstreamStatic => "UpstreamStatic",
            Refusal::ServerNotFound(_) => "UpstreamServerNotFound",
            Refusal::NoServer => "UpstreamConfFormatError",
            Refusal::BadAddress(_) => "UpstreamBadAddress",
            Refusal::BadValue(_) | Refusal::UnknownField(_) => "UpstreamConfFormatError",
            Refusal::Immutable(_) => "UpstreamServerImmutable",
            Refusal::NotSupported(_) => "UpstreamConfFormatError",
            Refusal::Json => "JsonError",
            Refusal::StateFile(_) => "InternalError",
        }
    }
}

/// Reads the body of a POST or PATCH.
pub fn patch_of(body: &[u8]) -> Result<Patch, Refusal> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return Err(Refusal::Json) };
    let mut patch = Patch::default();
    let mut flags = [None; 2];
    for (key, value) in &fields {
        let bad = || Refusal::BadValue(key.as_str().into());
        let number = || value.as_u64().and_then(|number| u32::try_from(number).ok()).ok_or_else(bad);
        let flag = || value.as_bool().ok_or_else(bad);
        let text = || value.as_str().ok_or_else(bad);
        let time = || {
            let time = match value {
                Value::Number(number) => number.as_u64().map(Duration::from_secs),
                value => value.as_str().and_then(seconds),
            };
            time.filter(is_server_time).ok_or_else(bad)
        };
        match key.as_str() {
            "server" => patch.server = Some(text()?.into()),
            "weight" => patch.weight = Some(number()?).filter(|weight| is_weight(*weight)),
            "max_conns" => patch.max_conns = Some(number()?),
            "max_fails" => patch.max_fails = Some(number()?),
            "fail_timeout" => patch.fail_timeout = Some(time()?),
            "slow_start" => patch.slow_start = Some(time()?),
            "route" => patch.route = Some(text()?.into()),
            "backup" => patch.tier = Some(if flag()? { Tier::Backup } else { Tier::Primary }),
            "down" => flags[0] = Some(flag()?),
            "drain" => flags[1] = Some(flag()?),
            _ => return Err(Refusal::UnknownField(key.as_str().into())),
        }
        let is_bad = key == "weight" && patch.weight.is_none()
            || patch.route.as_ref().is_some_and(|route| !is_route(route));
        if is_bad {
            return Err(bad());
        }
    }
    patch.duty = match flags {
        [Some(true), _] => Some(Duty::Down),
        [_, Some(true)] => Some(Duty::Drain),
        [None, None] => None,
        _ => Some(Duty::Up),
    };
    Ok(patch)
}

/// It ends up in a file of directives and in cookies: no more than names are made of.
fn is_route(text: &str) -> bool {
    text.len() <= ROUTE_LEN_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
}

/// The group as it will be. `ids` are those of its present servers.
pub fn apply(upstream: &Upstream, ids: &[u32], edit: Edit) -> Result<Upstream, Refusal> {
    let mut next = upstream.clone();
    match edit {
        Edit::Add { server, addresses, patch } => {
            let mut terms = Terms::new(&server);
            change(&mut terms, &patch, upstream)?;
            terms.tier = patch.tier.unwrap_or(Tier::Primary);
            if terms.tier == Tier::Backup && !allows_backup(&upstream.method) {
                return Err(Refusal::NotSupported("backup"));
            }
            next.peers.extend(addresses.into_iter().map(|address| Peer::at(address, terms.clone())));
            next.peers.sort_by_key(|peer| peer.terms.tier);
        }
        Edit::Change { id, patch } => {
            let server = &peer_of(upstream, ids, id)?.terms;
            if patch.tier.is_some_and(|tier| tier != server.tier) {
                return Err(Refusal::Immutable("backup"));
            }
            if patch.server.as_ref().is_some_and(|other| *other != server.server) {
                return Err(Refusal::Immutable("server"));
            }
            for peer in next.peers.iter_mut().filter(|peer| peer.terms.server == server.server) {
                change(&mut peer.terms, &patch, upstream)?;
                let (address, terms) = (peer.address.clone(), peer.terms.clone());
                *peer = Peer { line: peer.line, ..Peer::at(address, terms) };
            }
        }
        Edit::Remove { id } => {
            let server = peer_of(upstream, ids, id)?;
            let is_of = |peer: &Peer| match server.line {
                Some(line) => peer.line == Some(line),
                None => peer.line.is_none() && peer.terms.server == server.terms.server,
            };
            next.peers.retain(|peer| !is_of(peer));
            next.named.retain(|named| Some(named.line) != server.line);
        }
        Edit::Resolve { server, targets } => {
            next = resolved(upstream, &server, &targets).ok_or(Refusal::ServerNotFound(server.line))?;
        }
    }
    Ok(next)
}

fn peer_of<'u>(upstream: &'u Upstream, ids: &[u32], id: u32) -> Result<&'u Peer, Refusal> {
    let place = ids.iter().position(|known| *known == id);
    place.and_then(|place| upstream.peers.get(place)).ok_or(Refusal::ServerNotFound(id))
}

fn change(terms: &mut Terms, patch: &Patch, upstream: &Upstream) -> Result<(), Refusal> {
    if patch.slow_start.is_some_and(|time| !time.is_zero()) && !allows_slow_start(&upstream.method) {
        return Err(Refusal::NotSupported("slow_start"));
    }
    terms.weight = patch.weight.unwrap_or(terms.weight);
    terms.max_conns = patch.max_conns.unwrap_or(terms.max_conns);
    terms.max_fails = patch.max_fails.unwrap_or(terms.max_fails);
    terms.fail_timeout = patch.fail_timeout.unwrap_or(terms.fail_timeout);
    terms.slow_start = patch.slow_start.unwrap_or(terms.slow_start);
    terms.duty = patch.duty.unwrap_or(terms.duty);
    match patch.route.as_deref() {
        None => {}
        // The name's own hash again: `Peer::at` fills it in.
        Some("") => terms.sid = Sid::OfName("".into()),
        Some(route) => terms.sid = Sid::Route(route.into()),
    }
    Ok(())
}

/// The `server` lines that a `state` file keeps.
pub fn state_text(upstream: &Upstream) -> String {
    let mut text = String::new();
    let mut written: Vec<&str> = Vec::new();
    for peer in upstream.peers.iter().filter(|peer| peer.line.is_none()) {
        if !written.contains(&&*peer.terms.server) {
            written.push(&peer.terms.server);
            text.push_str(&server_line(&peer.terms, ""));
        }
    }
    for server in &upstream.named {
        let service = server.service.iter().map(|service| format!(" service={service}"));
        text.push_str(&server_line(&server.terms, &format!(" resolve{}", service.collect::<String>())));
    }
    text
}

fn server_line(terms: &Terms, naming: &str) -> String {
    let usual = Terms::new("");
    let mut line = format!("server {}{naming}", terms.server);
    let numbers = [
        ("weight", terms.weight, usual.weight),
        ("max_conns", terms.max_conns, usual.max_conns),
        ("max_fails", terms.max_fails, usual.max_fails),
    ];
    for (name, value, _) in numbers.into_iter().filter(|(_, value, usual)| value != usual) {
        line.push_str(&format!(" {name}={value}"));
    }
    for (name, time, usual) in [
        ("fail_timeout", terms.fail_timeout, usual.fail_timeout),
        ("slow_start", terms.slow_start, usual.slow_start),
    ] {
        if time != usual {
            line.push_str(&format!(" {name}={}s", time.as_secs()));
        }
    }
    if !terms.sid.route().is_empty() {
        line.push_str(&format!(" route={}", terms.sid.route()));
    }
    if terms.tier == Tier::Backup {
        line.push_str(" backup");
    }
    line.push_str(match terms.duty {
        Duty::Up => "",
        Duty::Drain => " drain",
        Duty::Down => " down",
    });
    line.push_str(";\n");
    line
}

#[cfg(test)]
mod tests;
