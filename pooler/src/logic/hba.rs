//! Which authentication a client must pass: the rules of an HBA file and the maps of an ident file, in order.

use std::net::IpAddr;

use ipnet::IpNet;

use super::ldap::Directory;

/// The rules and maps; the first rule that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub rules: Vec<Rule>,
    pub maps: Vec<MapEntry>,
}

/// One line of the HBA file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub line: usize,
    pub kind: ConnectionKind,
    pub databases: NameMatch,
    pub users: NameMatch,
    pub address: AddressMatch,
    pub method: Method,
    /// `map=NAME`, for cert and peer.
    pub map: Option<String>,
    /// For ldap: who checks the password.
    pub directory: Option<Directory>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMatch {
    pub all: bool,
    pub same_user: bool,
    pub replication: bool,
    pub names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressMatch {
    All,
    Net(IpNet),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Trust,
    Reject,
    Plain,
    Md5,
    Cert,
    Scram,
    Peer,
    Ldap,
}

/// One line of the ident file: the system's name and the Postgres user it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEntry {
    pub map: String,
    pub system_name: String,
    /// None is `all`.
    pub user: Option<String>,
}

/// What is known of a client when its method is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// None: a unix socket.
    pub address: Option<IpAddr>,
    pub tls: bool,
    pub database: &'a str,
    pub user: &'a str,
    pub replication: bool,
}

impl Rules {
    /// The first rule that fits.
    pub fn find(&self, facts: &Facts<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fits(facts))
    }

    /// Whether the map lets somebody who bears one of its system names be that Postgres user.
    pub fn mapped_by(&self, map: &str, user: &str, bears: impl Fn(&str) -> bool) -> bool {
        self.maps.iter().any(|entry| {
            entry.map == map
                && entry.user.as_deref().is_none_or(|name| name == user)
                && bears(&entry.system_name)
        })
    }
}

impl Rule {
    fn fits(&self, facts: &Facts<'_>) -> bool {
        let kind = match (self.kind, facts.address) {
            (ConnectionKind::Local, address) => address.is_none(),
            (_, None) => false,
            (ConnectionKind::Host, Some(_)) => true,
            (ConnectionKind::HostSsl, Some(_)) => facts.tls,
            (ConnectionKind::HostNoSsl, Some(_)) => !facts.tls,
        };
        kind && self.address.fits(facts.address)
            && self.databases.fits_database(facts)
            && self.users.fits_user(facts.user)
    }
}

impl AddressMatch {
    fn fits(&self, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (AddressMatch::All, _) => true,
            // A dual-stack listener sees IPv4 clients as ::ffff:a.b.c.d.
            (AddressMatch::Net(net), Some(address)) => net.contains(&address.to_canonical()),
            (AddressMatch::Net(_), None) => false,
        }
    }
}

impl NameMatch {
    /// `all` and names do not cover replication connections, which need their own word.
    fn fits_database(&self, facts: &Facts<'_>) -> bool {
        if facts.replication {
            return self.replication;
        }
        self.all
            || (self.same_user && facts.database == facts.user)
            || self.names.iter().any(|name| name == facts.database)
    }

    fn fits_user(&self, user: &str) -> bool {
        self.all || self.names.iter().any(|name| name == user)
    }
}
