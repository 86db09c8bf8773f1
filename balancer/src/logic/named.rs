//! Servers of upstreams that are known by a name: the peers that they have, by what name servers said.

use crate::conf::build::allows_backup;
use crate::conf::naming::NamedServer;
use crate::conf::upstream::{Address, Peer, Tier, Upstream};
use crate::logic::resolver::Target;

/// The group with these peers in place of those that the server had. What stays keeps its place; what is new comes last.
/// `None`: there is no such server any more. Its line alone does not say so: after a reload that may be another's.
pub fn resolved(upstream: &Upstream, asked: &NamedServer, targets: &[Target]) -> Option<Upstream> {
    let line = asked.line;
    let server = upstream.named.iter().find(|server| {
        (server.line, &server.host, &server.service, server.port)
            == (line, &asked.host, &asked.service, asked.port)
    })?;
    let has_backups = allows_backup(&upstream.method);
    let wanted = targets.iter().filter(|target| has_backups || !target.is_backup);
    let mut wanted: Vec<Peer> = wanted.map(|target| peer(server, target)).collect();
    let mut next = upstream.clone();
    next.peers.retain(|known| {
        let place = wanted.iter().position(|wanted| is_same(known, wanted));
        known.line != Some(line) || place.is_some_and(|place| is_taken(&mut wanted, place))
    });
    next.peers.append(&mut wanted);
    next.peers.sort_by_key(|peer| peer.terms.tier);
    Some(next)
}

fn is_taken(wanted: &mut Vec<Peer>, place: usize) -> bool {
    wanted.remove(place);
    true
}

/// What the API has changed of a peer, its duty for one, does not make it another.
fn is_same(known: &Peer, wanted: &Peer) -> bool {
    known.address == wanted.address
        && known.line == wanted.line
        && known.terms.server == wanted.terms.server
        && known.terms.tier == wanted.terms.tier
}

fn peer(server: &NamedServer, target: &Target) -> Peer {
    let mut terms = server.terms.clone();
    if server.service.is_some() {
        terms.server = target.name.clone();
        if terms.weight == 1 {
            terms.weight = target.weight;
        }
        if target.is_backup {
            terms.tier = Tier::Backup;
        }
    }
    Peer { line: Some(server.line), ..Peer::at(Address::Tcp(target.address), terms) }
}

/// A configuration that has just been read, with the peers that the same names had in the one before: requests need not
/// wait until name servers have answered again.
pub fn inherited(upstream: &Upstream, before: &Upstream) -> Upstream {
    let mut next = upstream.clone();
    for server in &upstream.named {
        let same = |known: &&NamedServer| known.host == server.host && known.service == server.service;
        let Some(known) = before.named.iter().find(same) else { continue };
        let peers = before.peers.iter().filter(|peer| peer.line == Some(known.line));
        let targets: Vec<Target> = peers.filter_map(|peer| target(server, known, peer)).collect();
        if let Some(resolved) = resolved(&next, server, &targets) {
            next = resolved;
        }
    }
    next
}

fn target(server: &NamedServer, known: &NamedServer, peer: &Peer) -> Option<Target> {
    let Address::Tcp(mut address) = peer.address else { return None };
    if server.service.is_none() {
        address.set_port(server.port);
    }
    Some(Target {
        address,
        name: peer.terms.server.clone(),
        weight: peer.terms.weight,
        is_backup: peer.terms.tier == Tier::Backup && known.terms.tier == Tier::Primary,
    })
}

#[cfg(test)]
mod tests;
