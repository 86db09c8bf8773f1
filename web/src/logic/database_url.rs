//! What a `postgresql://` URL says, and whether an address is a pooler. No connection is made here: see replicas.rs.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;

/// One database that can be dialled.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub name: String,
    pub user: String,
    pub password: String,
    pub options: UrlOptions,
}

/// The parameters of a URL that the documents use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UrlOptions {
    pub connection_limit: Option<u32>,
    pub pool_timeout: Option<Duration>,
    pub connect_timeout: Option<Duration>,
    pub schema: Option<String>,
    pub sslmode: Option<String>,
    pub pgbouncer: bool,
}

impl Target {
    /// `host:port`, as shown to people.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether both name the same database at the same place by the same user.
    pub fn agrees_with(&self, other: &Self) -> bool {
        (&self.host, self.port, &self.name, &self.user) == (&other.host, other.port, &other.name, &other.user)
    }
}

/// Without the password.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.name)
    }
}

/// Reads a URL. Parts that it leaves out are taken from `fallback`.
///
/// # Errors
/// What is wrong, without repeating the URL: it may hold a password.
pub fn parse(url: &str, fallback: &Target) -> Result<Target, String> {
    let rest = url
        .strip_prefix("postgresql://")
        .or_else(|| url.strip_prefix("postgres://"))
        .ok_or("the URL must begin with postgresql:// or postgres://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = split_place(place, fallback.port)?;
    let or = |text: &str, other: &str, part: &str| match text {
        "" => Ok(other.to_owned()),
        _ => decoded(text, part),
    };
    Ok(Target {
        host: or(host, &fallback.host, "host")?,
        port,
        name: or(name, &fallback.name, "database name")?,
        user: or(user, &fallback.user, "user")?,
        password: or(password, &fallback.password, "password")?,
        options: url_options(query)?,
    })
}

/// Splits `host[:port]`, `[v6]:port` included.
///
/// # Errors
/// The port is no number from 1 to 65535.
pub fn split_place(place: &str, default_port: u16) -> Result<(&str, u16), String> {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    match port {
        None => Ok((host, default_port)),
        Some(port) => match port.parse() {
            Ok(number) if number > 0 => Ok((host, number)),
            _ => Err(format!("\"{port}\" is no port (1 to 65535)")),
        },
    }
}

/// What tells a pooler from Postgres itself when nobody says it outright.
#[derive(Debug, Clone, Copy)]
pub struct PoolerSigns<'a> {
    pub target: &'a Target,
    /// Where Postgres itself is, when that was given.
    pub actual: Option<(&'a str, u16)>,
}

/// Whether the target is a pooler: it says so, it is on the pooler's port, or Postgres itself is elsewhere.
pub fn is_pooler(signs: PoolerSigns<'_>) -> bool {
    const POOLER_PORT: u16 = 6432;
    let elsewhere = signs
        .actual
        .is_some_and(|(host, port)| (host, port) != (signs.target.host.as_str(), signs.target.port));
    signs.target.options.pgbouncer || signs.target.port == POOLER_PORT || elsewhere
}

fn url_options(query: &str) -> Result<UrlOptions, String> {
    let mut options = UrlOptions::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value, key)?;
        match key {
            "connection_limit" => options.connection_limit = Some(count(key, &value)?),
            "pool_timeout" => options.pool_timeout = Some(seconds(key, &value)?),
            "connect_timeout" => options.connect_timeout = Some(seconds(key, &value)?),
            "schema" => options.schema = Some(schema_name(&value)?),
            "sslmode" => options.sslmode = Some(value),
            "pgbouncer" => options.pgbouncer = value == "true" || value == "1",
            _ => {
                return Err(format!(
                    "the parameter \"{key}\" is unknown; known are connection_limit, pool_timeout, \
                     connect_timeout, schema, sslmode and pgbouncer"
                ));
            }
        }
    }
    Ok(options)
}

/// A schema goes into a startup option, where blanks and backslashes would have a meaning.
fn schema_name(value: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !value.is_empty() && value.chars().all(plain) {
        Ok(value.to_owned())
    } else {
        Err("schema: only letters, digits and _ are allowed".to_owned())
    }
}

fn count(key: &str, value: &str) -> Result<u32, String> {
    match value.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("{key}: \"{value}\" is no whole number from 1")),
    }
}

fn seconds(key: &str, value: &str) -> Result<Duration, String> {
    let parsed = value.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    parsed.ok_or_else(|| format!("{key}: \"{value}\" is no number of seconds"))
}

fn decoded(text: &str, part: &str) -> Result<String, String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| format!("the {part} is not UTF-8 after percent-decoding"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fallback() -> Target {
        Target {
            host: "pgbouncer".into(),
            port: 6432,
            name: "arena_db".into(),
            user: "arena_user".into(),
            password: "pw".into(),
            options: UrlOptions::default(),
        }
    }

    #[test]
    fn a_full_url_says_everything() {
        let url = "postgresql://us%40er:p%2Fw@db.internal:7000/chat?pgbouncer=true&connection_limit=3\
                   &pool_timeout=20&connect_timeout=10&schema=public&sslmode=disable";
        let target = parse(url, &fallback()).unwrap();
        assert_eq!(format!("{target:?}"), "us@er@db.internal:7000/chat");
        assert_eq!(target.password, "p/w");
        assert_eq!(target.options.connection_limit, Some(3));
        assert_eq!(target.options.pool_timeout, Some(Duration::from_secs(20)));
        assert_eq!(target.options.schema.as_deref(), Some("public"));
        assert!(target.options.pgbouncer);
    }

    #[test]
    fn what_a_url_leaves_out_comes_from_the_fallback() {
        let target = parse("postgres://db", &fallback()).unwrap();
        assert_eq!(format!("{target:?}"), "arena_user@db:6432/arena_db");
    }

    #[test]
    fn errors_never_repeat_the_password() {
        for url in ["mysql://u:geheim@h/d", "postgres://u:geheim@h:x/d", "postgres://u:geheim@h/d?what=1"] {
            let error = parse(url, &fallback()).unwrap_err();
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn a_pooler_is_told_by_port_parameter_or_by_postgres_being_elsewhere() {
        let at = |port, pgbouncer| Target {
            port,
            options: UrlOptions { pgbouncer, ..UrlOptions::default() },
            ..fallback()
        };
        let asked = |target: &Target, actual| is_pooler(PoolerSigns { target, actual });
        assert!(asked(&at(6432, false), None));
        assert!(asked(&at(5432, true), None));
        assert!(asked(&at(7777, false), Some(("postgres", 5432))));
        assert!(!asked(&at(5432, false), None));
        assert!(!asked(&at(5432, false), Some(("pgbouncer", 5432))));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_without_panic(url in ".{0,80}") {
            let _ = parse(&url, &fallback());
            let _ = parse(&format!("postgres://{url}"), &fallback());
        }

        #[test]
        fn hosts_and_ports_survive(host in "[a-z][a-z0-9.-]{0,20}", port in 1u16..) {
            let place = format!("{host}:{port}");
            prop_assert_eq!(split_place(&place, 1).unwrap(), (host.as_str(), port));
        }
    }
}
