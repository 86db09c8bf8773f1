//! How a directory server checks a password: where it is, and under which name the user is known there.

use crate::settings::Secret;

/// The options of an HBA line with the method `ldap`, or of auth_ldap_options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Tried in order.
    pub hosts: Vec<String>,
    pub port: u16,
    pub encryption: Encryption,
    pub lookup: Lookup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    None,
    /// TLS begins on the plain port.
    StartTls,
    /// ldaps.
    Tls,
}

/// How a user's name becomes an entry of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The name between these two.
    Between {
        prefix: String,
        suffix: String,
    },
    Search(Search),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    pub base: String,
    pub scope: Scope,
    /// With `$username` where the name goes.
    pub filter: String,
    /// Who searches; nobody in particular when the name is empty.
    pub bind_name: String,
    pub bind_password: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Base,
    OneLevel,
    Subtree,
}

impl Search {
    /// The filter for this user. None: the name could mean something in a filter, and is no name for that.
    pub fn filter_for(&self, user: &str) -> Option<String> {
        let is_plain = !user.contains(['*', '(', ')', '\\', '/', '\0']);
        is_plain.then(|| self.filter.replace("$username", user))
    }
}

impl Directory {
    pub fn urls(&self) -> impl Iterator<Item = String> + '_ {
        let scheme = if self.encryption == Encryption::Tls { "ldaps" } else { "ldap" };
        self.hosts.iter().map(move |host| format!("{scheme}://{host}:{}", self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_change_the_filter_is_refused() {
        let search = Search {
            base: String::new(),
            scope: Scope::Subtree,
            filter: "(|(uid=$username)(mail=$username))".to_string(),
            bind_name: String::new(),
            bind_password: Secret::default(),
        };
        assert_eq!(search.filter_for("bob").as_deref(), Some("(|(uid=bob)(mail=bob))"));
        for user in ["*", "bob)(uid=*", "a\\2a", "x/y", "a\0"] {
            assert_eq!(search.filter_for(user), None, "{user}");
        }
    }
}
