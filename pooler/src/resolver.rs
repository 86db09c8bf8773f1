//! Addresses of server names, kept for dns_max_ttl; a name that is not found is not asked for again before
//! dns_nxdomain_ttl. The system's resolver is asked, which tells no times to live of its own.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// All names that were asked for.
#[derive(Debug, Default)]
pub struct Resolver {
    names: Mutex<HashMap<String, Found>>,
    pending: AtomicU32,
}

/// How long answers are kept.
#[derive(Debug, Clone, Copy)]
pub struct Ttl {
    pub found: Duration,
    pub not_found: Duration,
}

/// One name, for the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub name: String,
    /// How long it will be believed.
    pub ttl: Duration,
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone)]
struct Found {
    /// None: there is no such name.
    addresses: Vec<IpAddr>,
    until: Instant,
}

impl Resolver {
    /// The addresses of a name, or of an address written as text.
    pub async fn resolve(&self, name: &str, port: u16, ttl: Ttl) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let addresses = match self.known(name, Instant::now()) {
            Some(addresses) => addresses,
            None => self.ask(name, ttl).await,
        };
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such host"));
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// What is believed now, by name.
    pub fn names(&self) -> Vec<Name> {
        let now = Instant::now();
        let row = |(name, found): (&String, &Found)| Name {
            name: name.clone(),
            ttl: found.until.saturating_duration_since(now),
            addresses: found.addresses.clone(),
        };
        let mut names: Vec<Name> = self.lock().iter().map(row).collect();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        names
    }

    /// Names that are being asked for.
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    fn known(&self, name: &str, now: Instant) -> Option<Vec<IpAddr>> {
        self.lock().get(name).filter(|found| found.until > now).map(|found| found.addresses.clone())
    }

    async fn ask(&self, name: &str, ttl: Ttl) -> Vec<IpAddr> {
        self.pending.fetch_add(1, Ordering::Relaxed);
        let _asking = Asking(self);
        let answer = tokio::net::lookup_host((name, 0)).await;
        let mut addresses: Vec<IpAddr> = answer.map(|all| all.map(|a| a.ip()).collect()).unwrap_or_default();
        addresses.dedup();
        let ttl = if addresses.is_empty() { ttl.not_found } else { ttl.found };
        let found = Found { addresses: addresses.clone(), until: Instant::now() + ttl };
        self.lock().insert(name.to_string(), found);
        addresses
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Found>> {
        self.names.lock().expect("no code panics while it holds the names of servers")
    }
}

/// A lookup may be given up half-way.
struct Asking<'a>(&'a Resolver);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Ttl = Ttl { found: Duration::from_secs(60), not_found: Duration::from_secs(60) };
    const NONE: Ttl = Ttl { found: Duration::ZERO, not_found: Duration::ZERO };

    #[tokio::test]
    async fn an_address_is_not_asked_for() {
        let resolver = Resolver::default();
        assert_eq!(resolver.resolve("::1", 5, LONG).await.unwrap(), ["[::1]:5".parse().unwrap()]);
        assert_eq!(resolver.names(), []);
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_its_time() {
        let resolver = Resolver::default();
        let first = resolver.resolve("localhost", 5, LONG).await.unwrap();
        assert!(first.iter().all(|address| address.ip().is_loopback()), "{first:?}");
        let names = resolver.names();
        assert_eq!((names.len(), names[0].name.as_str()), (1, "localhost"));
        assert!(names[0].ttl > Duration::from_secs(50), "{names:?}");
        assert_eq!(resolver.known("localhost", Instant::now()), Some(names[0].addresses.clone()));
        assert_eq!(resolver.known("localhost", Instant::now() + LONG.found), None, "too old");
        resolver.resolve("localhost", 5, NONE).await.unwrap();
        assert!(resolver.names()[0].ttl > Duration::from_secs(50), "it was not asked again");
        assert_eq!(resolver.pending(), 0);
    }

    #[tokio::test]
    async fn a_name_that_is_not_found_is_remembered_too() {
        let resolver = Resolver::default();
        assert!(resolver.resolve("no-such-host.invalid", 5, LONG).await.is_err());
        assert_eq!(resolver.known("no-such-host.invalid", Instant::now()), Some(vec![]));
        assert_eq!(resolver.names()[0].addresses, [] as [IpAddr; 0]);
    }
}
