//! `set_real_ip_from`, `real_ip_header`: behind a trusted proxy the client is whom that proxy names.

use std::net::{IpAddr, SocketAddr};

use super::Exchange;
use super::story::Client;
use crate::conf::location::{RealIpSource, Who};
use crate::logic::h1::hash;
use crate::logic::real_ip;

impl Exchange<'_> {
    /// Notes the client in the story, once per request.
    pub(super) fn find_client(&mut self) {
        let Some(terms) = &self.location.real_ip else { return };
        let is_trusted = |peer: Option<IpAddr>| {
            terms.trusted.iter().any(|who| match (who, peer) {
                (Who::All, _) | (Who::Unix, None) => true,
                (Who::Net(net), Some(ip)) => net.contains(&ip),
                _ => false,
            })
        };
        let peer = self.down.arrival.peer.map(|peer| peer.ip().to_canonical());
        if self.scratch.story.client.is_some() || !is_trusted(peer) {
            return;
        }
        let found = match &terms.source {
            RealIpSource::Header(name) => self.named_in(name, terms.recursive, |ip| is_trusted(Some(ip))),
            RealIpSource::ProxyProtocol => {
                let route = self.down.arrival.proxied.as_ref().and_then(|header| header.route.as_ref());
                route.map(|route| (route.source.ip().to_canonical(), Some(route.source.port())))
            }
        };
        if let Some((ip, port)) = found {
            let address = SocketAddr::new(ip, port.unwrap_or(0));
            self.scratch.story.client = Some(Client { address, text: ip.to_string().into_bytes() });
        }
    }

    fn named_in(
        &self,
        name: &[u8],
        recursive: bool,
        is_trusted: impl Fn(IpAddr) -> bool,
    ) -> Option<(IpAddr, Option<u16>)> {
        let head = self.scratch.inbound.unread();
        let fields = self.scratch.story.request.fields.all(head, hash(name), name);
        let values: Vec<&[u8]> = fields.map(|field| field.value.of(head)).collect();
        // Only X-Forwarded-For is a list of lines; of another header nginx looks at the first.
        let values = if name == b"x-forwarded-for" { &values[..] } else { &values[..values.len().min(1)] };
        real_ip::client(values, recursive, is_trusted)
    }

    /// Where the request comes from, as rules and hashes see it.
    pub(super) fn client_ip(&self) -> Option<IpAddr> {
        let found = self.scratch.story.client.as_ref().map(|client| client.address);
        found.or(self.down.arrival.peer).map(|address| address.ip().to_canonical())
    }
}
