//! `resolver` and `resolver_timeout` → [`Naming`].

use std::sync::Arc;
use std::time::Duration;

use super::World;
use super::scope::Scope;
use super::upstreams::{Endpoint, resolve};
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::naming::{Naming, ResolverId, ResolverTerms};
use crate::conf::upstream::Address;
use crate::conf::value;

const PORT: u16 = 53;

/// Every resolver that is named; the same words are the same resolver.
#[derive(Default)]
pub(super) struct Resolvers {
    pub list: Vec<Arc<ResolverTerms>>,
}

impl Resolvers {
    /// What holds in the innermost of these scopes that says anything.
    pub fn naming(&mut self, scopes: &[&Scope<'_>], world: &dyn World) -> Result<Naming> {
        let given = |name: &str| scopes.iter().find_map(|scope| scope.given(name));
        let resolver = given("resolver").map(|node| self.resolver(node, world)).transpose()?;
        let timeout = given("resolver_timeout").and_then(|node| value::millis(node.arg(0)));
        Ok(Naming { resolver, timeout: timeout.unwrap_or(TIMEOUT) })
    }

    fn resolver(&mut self, node: &Node, world: &dyn World) -> Result<ResolverId> {
        let terms = terms(node, world)?;
        let known = self.list.iter().position(|known| **known == terms);
        Ok(ResolverId(known.unwrap_or_else(|| {
            self.list.push(Arc::new(terms));
            self.list.len() - 1
        })))
    }
}

/// nginx's.
const TIMEOUT: Duration = Duration::from_secs(30);

fn terms(node: &Node, world: &dyn World) -> Result<ResolverTerms> {
    let mut servers = Vec::new();
    let mut terms =
        ResolverTerms { servers: [].into(), valid: None, ipv4: true, ipv6: true, status_zone: None };
    for word in &node.args {
        let bad = || node.error(format!("invalid parameter: {}", word.text));
        match word.text.split_once('=') {
            Some(("valid", time)) => terms.valid = Some(value::seconds(time).ok_or_else(bad)?),
            Some(("ipv4", text)) => terms.ipv4 = value::flag(text).ok_or_else(bad)?,
            Some(("ipv6", text)) => terms.ipv6 = value::flag(text).ok_or_else(bad)?,
            Some(("status_zone", name)) if !name.is_empty() => terms.status_zone = Some(name.into()),
            _ => {
                let endpoint = Endpoint::read(&word.text);
                let endpoint = endpoint
                    .ok_or_else(|| node.error(format!("invalid port in resolver \"{}\"", word.text)))?;
                let endpoint = Endpoint { port: endpoint.port.or(Some(PORT)), ..endpoint };
                for address in resolve(&endpoint, node, world, "resolver")? {
                    match address {
                        Address::Tcp(address) => servers.push(address),
                        Address::Unix(_) => return Err(bad()),
                    }
                }
            }
        }
    }
    if !terms.ipv4 && !terms.ipv6 {
        return Err(node.error("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
    }
    if servers.is_empty() {
        return Err(node.error("no name servers defined"));
    }
    Ok(ResolverTerms { servers: servers.into(), ..terms })
}
