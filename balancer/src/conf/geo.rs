//! `geo [$ADDRESS] $NAME { … }`: a variable whose value belongs to the network of an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::template::Template;
use super::variables::{Facts, HeaderName, Variable};
use crate::logic::networks::Networks;
use crate::logic::real_ip;

#[derive(Debug)]
pub struct Geo {
    /// Where the address comes from; `None`: it is the client's.
    pub source: Option<Template>,
    pub values: Networks<Box<[u8]>>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub proxies: Vec<IpNet>,
    pub recursive: bool,
}

/// Stands for what is no IP address, as in nginx.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

impl Geo {
    pub fn write(&self, facts: &dyn Facts, out: &mut Vec<u8>) {
        let address = self.address(facts).unwrap_or(NO_ADDRESS);
        out.extend_from_slice(self.values.find(address).map_or(&b""[..], |value| value));
    }

    fn address(&self, facts: &dyn Facts) -> Option<IpAddr> {
        let own = match &self.source {
            Some(source) => std::str::from_utf8(&source.to_bytes(facts)).ok()?.parse().ok(),
            None => {
                let mut bytes = Vec::new();
                facts.value(&Variable::BinaryRemoteAddr, &mut bytes);
                from_bytes(&bytes)
            }
        };
        let own = own.map(|ip: IpAddr| ip.to_canonical());
        if !own.is_some_and(|own| self.is_proxy(own)) {
            return own;
        }
        let mut forwarded = Vec::new();
        facts.value(&Variable::Http(HeaderName::new(b"x-forwarded-for")), &mut forwarded);
        let named = real_ip::client(&[&forwarded], self.recursive, |ip| self.is_proxy(ip));
        named.map(|(ip, _)| ip).or(own)
    }

    fn is_proxy(&self, ip: IpAddr) -> bool {
        self.proxies.iter().any(|net| net.contains(&ip))
    }
}

fn from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| IpAddr::from(Ipv6Addr::from(octets)))).ok()
}
