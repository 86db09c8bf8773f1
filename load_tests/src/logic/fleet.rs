//! The running stack as `stack status --json` tells it, and the passwords of a libpq password file.

use serde::Deserialize;
use serde_json::{Map, Value};

/// Where everything is, and which process it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Fleet {
    /// The balancer.
    pub url: Option<String>,
    pub supervisor_pid: Option<u32>,
    pub replicas: Vec<Replica>,
    pub pooler: Option<Address>,
    pub database: Option<Database>,
    pub pgpass_file: Option<String>,
    pub services: Vec<Service>,
}

/// A part as the supervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Service {
    pub name: String,
    pub pid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Replica {
    pub name: String,
    /// Its own address, past the balancer.
    pub url: String,
    pub pid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Database {
    pub host: String,
    pub port: u16,
    pub name: String,
    pub user: String,
}

impl Fleet {
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |error: String| format!("not what `stack status --json` prints: {error}");
        // Read as an object first: a struct of defaults would also take an empty array.
        let fields: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        serde_json::from_value(fields.into()).map_err(|error| bad(error.to_string()))
    }
}

/// Reads `HOST:PORT` or `[V6]:PORT`.
pub fn parse_address(text: &str) -> Result<Address, String> {
    let bad = || format!("`{text}` is no address: write HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(bad());
    }
    Ok(Address { host: host.to_owned(), port: port.parse().map_err(|_| bad())? })
}

/// Reads `web-1=127.0.0.1:8001` or `web-1=http://127.0.0.1:8001`.
pub fn parse_replica(text: &str) -> Result<Replica, String> {
    let (name, url) =
        text.split_once('=').ok_or_else(|| format!("`{text}` is no replica: write web-1=HOST:PORT"))?;
    let target: crate::logic::target::Target = url.parse()?;
    Ok(Replica { name: name.to_owned(), url: target.to_string(), pid: None })
}

/// The password that libpq would take from a password file: the first line that matches.
pub fn password(pgpass: &str, address: &Address, database: &str, user: &str) -> Option<String> {
    let port = address.port.to_string();
    let wanted = [address.host.as_str(), &port, database, user];
    pgpass.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line)?;
        let matches = fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        matches.then(|| fields[4].clone())
    })
}

/// Five fields parted by colons; a backslash takes the next character as it is.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut found = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => found.last_mut()?.extend(chars.next()),
            ':' if found.len() < 5 => found.push(String::new()),
            other => found.last_mut()?.push(other),
        }
    }
    found.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_status_is_read_whatever_else_it_holds() {
        let text = r#"{"url": "http://127.0.0.1:8080", "dir": "x", "supervisor_pid": 7, "docker": false,
            "replicas": [{"name": "web-1", "url": "http://127.0.0.1:8001", "pid": 8, "state": "healthy"}],
            "pooler": {"host": "127.0.0.1", "port": 6432, "metrics": "…"}, "pgpass_file": "p"}"#;
        let fleet = Fleet::parse(text).expect("a status");
        assert_eq!((fleet.supervisor_pid, fleet.replicas[0].pid, fleet.database), (Some(7), Some(8), None));
        assert!(Fleet::parse("[]").is_err());
    }

    #[test]
    fn passwords_are_found_as_libpq_finds_them() {
        let file = "# comment\nother:6432:*:arena:no\n*:6432:*:arena:a\\:b\\\\c:d\n*:*:*:*:last\n";
        let at = |host: &str, port| Address { host: host.into(), port };
        assert_eq!(password(file, &at("127.0.0.1", 6432), "pgbouncer", "arena").as_deref(), Some("a:b\\c:d"));
        assert_eq!(password(file, &at("127.0.0.1", 5432), "x", "y").as_deref(), Some("last"));
        assert_eq!(password("", &at("h", 1), "x", "y"), None);
    }

    #[test]
    fn addresses_and_replicas_are_read() {
        assert_eq!(parse_address("[::1]:6432"), Ok(Address { host: "::1".into(), port: 6432 }));
        assert!(
            parse_address("6432").is_err() && parse_address(":1").is_err() && parse_address("h:x").is_err()
        );
        assert_eq!(parse_replica("web-1=127.0.0.1:8001").map(|r| r.url), Ok("http://127.0.0.1:8001".into()));
        assert!(parse_replica("127.0.0.1:8001").is_err());
    }

    proptest! {
        #[test]
        fn a_password_of_any_signs_is_found(secret in "[^\n\r]{1,20}") {
            let escaped = secret.replace('\\', "\\\\").replace(':', "\\:");
            let address = Address { host: "h".into(), port: 1 };
            let line = format!("h:1:d:u:{escaped}");
            let found = password(&line, &address, "d", "u");
            prop_assert_eq!(found.as_deref(), Some(secret.as_str()));
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = Fleet::parse(&text);
            let _ = parse_address(&text);
            let _ = password(&text, &Address { host: "h".into(), port: 1 }, "d", "u");
        }
    }
}
