//! Where services are, once the names in SRV records have addresses: priorities and weights (RFC 2782) → servers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Failure;
use crate::logic::dns::Service;

/// A service and what its name is, or why that is not known.
pub type Located = (Service, Result<Arc<[IpAddr]>, Failure>);

/// One server of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// Whose address it is.
    pub name: Box<str>,
    pub weight: u32,
    /// Not of the best priority.
    pub is_backup: bool,
}

/// The servers, best priority first. One name without addresses does not spoil the others; none with any is a failure,
/// and "no such name" only if a name server said so.
pub fn targets(mut services: Vec<Located>) -> Result<Vec<Target>, Failure> {
    services.sort_by_key(|(service, _)| service.priority);
    let mut targets: Vec<Target> = Vec::new();
    let mut best = None;
    for (service, found) in &services {
        for ip in found.iter().flat_map(|found| found.iter()) {
            let best = *best.get_or_insert(service.priority);
            targets.push(Target {
                address: (*ip, service.port).into(),
                name: service.name.as_str().into(),
                weight: service.weight.into(),
                is_backup: service.priority != best,
            });
        }
    }
    if !targets.is_empty() {
        return Ok(targets);
    }
    let failures = || services.iter().filter_map(|(_, found)| found.as_ref().err().copied());
    let unknown = failures().find(|failure| *failure == Failure::NO_SUCH_NAME);
    Err(unknown.or_else(|| failures().next()).unwrap_or(Failure::NO_SUCH_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, name: &str) -> Service {
        Service { priority, weight: 5, port: 80, name: name.into() }
    }

    #[test]
    fn the_best_priority_that_has_addresses_is_not_a_backup() {
        let found = |ip: [u8; 4]| Ok(Arc::from([IpAddr::from(ip)]));
        let located = vec![
            (service(3, "c"), found([10, 0, 0, 3])),
            (service(1, "a"), Err(Failure::Code(2))),
            (service(2, "b"), found([10, 0, 0, 2])),
        ];
        let named: Vec<_> =
            targets(located).unwrap().into_iter().map(|target| (target.name, target.is_backup)).collect();
        assert_eq!(named, [("b".into(), false), ("c".into(), true)]);
    }

    #[test]
    fn a_service_is_gone_only_if_a_name_server_said_so() {
        let failed = |code| (service(1, "a"), Err(Failure::Code(code)));
        assert_eq!(targets(vec![failed(2), failed(3)]), Err(Failure::NO_SUCH_NAME));
        assert_eq!(targets(vec![failed(2), failed(2)]), Err(Failure::Code(2)));
    }
}
