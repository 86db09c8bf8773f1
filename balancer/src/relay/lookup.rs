//! Where a `proxy_pass` with variables leads: to a group, to an address, or to a name that is looked up.

use std::future::{Future as _, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;
use std::time::Instant;

use super::answer::Answer;
use super::{Exchange, Found, Step};
use crate::buffer::BUFFER_LEN;
use crate::conf::naming::Naming;
use crate::conf::proxy::Version as ProxyVersion;
use crate::conf::template::Template;
use crate::conf::upstream::Address;
use crate::error::Error;
use crate::logic::h1::target::split_port;
use crate::logic::upstreams::Group;

impl<'a> Exchange<'a> {
    /// A group by name, else an address, else what name servers know.
    pub(super) async fn dynamic_target(&mut self, url: &Template, naming: Naming) -> Result<Found<'a>, Step> {
        let refused = |status| Step::Answer(Answer::page(status));
        let url = url.to_bytes(&self.facts());
        let (rest, usual_port) = self.scheme_of(&url).ok_or_else(|| refused(500))?;
        self.scratch.story.dynamic_is_tls = usual_port == 443;
        let (host, uri) = split_url(rest);
        let host = std::str::from_utf8(host).map_err(|_| refused(500))?;
        self.scratch.story.dynamic_uri = uri;
        self.scratch.story.dynamic_host = Some(host.as_bytes().to_vec());
        if let Some(upstream) = self.running.settings.http.upstream_named(host) {
            return Ok(Found::Shared(self.running.upstreams.group(upstream.id), upstream.id));
        }
        if let Some(path) = host.strip_prefix("unix:") {
            return Ok(Found::Own(Box::new(Group::own(host, [Address::Unix(path.into())]))));
        }
        let (name, port) = name_and_port(host, usual_port).ok_or_else(|| refused(500))?;
        let addresses = match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => match self.look_up(name, naming).await {
                Ok(found) => found,
                Err(error) => return Err(self.not_upstreams_fault(&error)),
            },
        };
        let addresses = addresses.into_iter().map(|ip| Address::Tcp(SocketAddr::new(ip, port)));
        Ok(Found::Own(Box::new(Group::own(host, addresses))))
    }

    /// What follows the scheme of a URL, and the port that the scheme means.
    fn scheme_of<'t>(&self, url: &'t [u8]) -> Option<(&'t [u8], u16)> {
        let after = |scheme: &str| {
            let (start, rest) = url.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
        };
        match (after("http://"), after("https://")) {
            (Some(rest), _) => Some((rest, 80)),
            (_, Some(rest)) => Some((rest, 443)),
            // `grpc_pass`, where the scheme may be left out.
            _ if self.location.proxy.version == ProxyVersion::Http2 => match after("grpcs://") {
                Some(rest) => Some((rest, 443)),
                None => Some((after("grpc://").unwrap_or(url), 80)),
            },
            _ => None,
        }
    }

    async fn look_up(&mut self, name: &str, naming: Naming) -> Result<Vec<IpAddr>, Error> {
        let resolver = naming.resolver.map(|id| &self.running.resolvers[id.0]);
        let resolver = resolver.ok_or_else(|| Error::NoResolver(name.into()))?;
        let mut asking = Box::pin(resolver.addresses(name, naming.timeout));
        let is_watched = self.scratch.upload.is_read() && !self.location.proxy.ignore_client_abort;
        let Exchange { down, scratch, .. } = self;
        let found = poll_fn(|cx| {
            if let Poll::Ready(found) = asking.as_mut().poll(cx) {
                return Poll::Ready(found.map_err(|failure| Error::NotResolved(name.into(), failure)));
            }
            if is_watched && down.poll_gone(cx, &mut scratch.inbound, BUFFER_LEN) {
                return Poll::Ready(Err(Error::ClientGone));
            }
            Poll::Pending
        })
        .await;
        self.now = Instant::now();
        Ok(found?.0)
    }
}

/// `None`: what stands behind the colon is no port.
fn name_and_port(host: &str, usual: u16) -> Option<(&str, u16)> {
    let (name, port) = split_port(host.as_bytes());
    let name = &host[..name.len()];
    let port = match port {
        None => usual,
        Some(port) => std::str::from_utf8(port).ok()?.parse().ok().filter(|port| *port != 0)?,
    };
    (!name.is_empty()).then_some((name, port))
}

/// Host (or `unix:/path`) and what follows it.
fn split_url(rest: &[u8]) -> (&[u8], Option<Vec<u8>>) {
    let (host, uri) = match rest.strip_prefix(b"unix:") {
        Some(path) => {
            let end = memchr::memchr(b':', path).map_or(rest.len(), |at| b"unix:".len() + at);
            (&rest[..end], rest.get(end + 1..).unwrap_or_default())
        }
        None => rest.split_at(memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len())),
    };
    let uri = match uri.first() {
        None => None,
        Some(b'?') => Some([b"/", uri].concat()),
        Some(_) => Some(uri.to_vec()),
    };
    (host, uri)
}
