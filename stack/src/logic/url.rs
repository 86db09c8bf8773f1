//! The parts of a database URL that the stack must know: who, where, which database. Nothing is looked up.

use std::net::Ipv6Addr;

/// `postgresql://user:password@host:port/name?parameters`, decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    pub user: String,
    pub password: String,
    pub host: String,
    pub port: u16,
    pub name: String,
    /// What follows the question mark, as it was written.
    pub parameters: String,
}

/// Why a URL is none. The text itself is left out: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("it must begin with postgresql:// or postgres://")]
    Scheme,
    #[error("expected USER:PASSWORD@HOST:PORT/NAME after the scheme")]
    Authority,
    #[error("the port is no number from 1 to 65535")]
    Port,
    #[error("a % is not followed by two hexadecimal digits, or the bytes are not UTF-8")]
    Escape,
}

const POSTGRES_PORT: u16 = 5432;

impl DatabaseUrl {
    /// # Errors
    /// The text is no URL of a Postgres database.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        let rest = rest.ok_or(UrlError::Scheme)?;
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = host_and_port(place)?;
        let host = decoded(host)?;
        // Colons are for addresses of IPv6 alone: anything else would be read as another URL once it is written again.
        let address = host.split('%').next().unwrap_or_default();
        if host.contains(':') && (address.parse::<Ipv6Addr>().is_err() || host.contains(']')) {
            return Err(UrlError::Authority);
        }
        Ok(Self {
            user: decoded(user)?,
            password: decoded(password)?,
            host,
            port,
            name: decoded(name)?,
            parameters: parameters.to_owned(),
        })
    }

    /// The URL as text, with everything that needs it percent-encoded.
    pub fn to_text(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host.replace('%', "%25")),
            false => encoded(&self.host),
        };
        let question = if self.parameters.is_empty() { "" } else { "?" };
        format!(
            "postgresql://{}:{}@{host}:{}/{}{question}{}",
            encoded(&self.user),
            encoded(&self.password),
            self.port,
            encoded(&self.name),
            self.parameters
        )
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "postgresql://{}:…@{}:{}/{}", self.user, self.host, self.port, self.name)
    }
}

fn host_and_port(place: &str) -> Result<(&str, u16), UrlError> {
    let (host, port) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or(UrlError::Authority)?;
            (host, after.strip_prefix(':'))
        }
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(UrlError::Authority);
    }
    let port = port.map_or(Ok(POSTGRES_PORT), |text| text.parse().map_err(|_| UrlError::Port))?;
    if port == 0 { Err(UrlError::Port) } else { Ok((host, port)) }
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok()).ok_or(UrlError::Escape)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| UrlError::Escape)?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Escape)
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_urls_of_the_documents_are_read() {
        let url = DatabaseUrl::parse("postgresql://user:password@pgbouncer:6432/spywatcher?pgbouncer=true")
            .unwrap();
        assert_eq!((url.host.as_str(), url.port, url.name.as_str()), ("pgbouncer", 6432, "spywatcher"));
        assert_eq!(url.parameters, "pgbouncer=true");
        let url = DatabaseUrl::parse("postgres://u:p@[::1]/d").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 5432));
        assert_eq!(url.to_text(), "postgresql://u:p@[::1]:5432/d");
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        assert_eq!(DatabaseUrl::parse("mysql://u:p@h/d").unwrap_err(), UrlError::Scheme);
        assert_eq!(DatabaseUrl::parse("postgres://u:p@/d").unwrap_err(), UrlError::Authority);
        assert_eq!(DatabaseUrl::parse("postgres://u:p@h:x/d").unwrap_err(), UrlError::Port);
        assert_eq!(DatabaseUrl::parse("postgres://u:%zz@h/d").unwrap_err(), UrlError::Escape);
        assert_eq!(DatabaseUrl::parse("postgres://u:p@a:b:5432/d").unwrap_err(), UrlError::Authority);
        assert_eq!(DatabaseUrl::parse("postgres://u:p1\0::1]:5433/d").unwrap_err(), UrlError::Authority);
        let shown = format!("{:?}", DatabaseUrl::parse("postgres://u:hunter2@h/d").unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same(user in "[^\u{0}]{1,12}", password in "[^\u{0}]{0,12}", name in "[^\u{0}]{1,12}", port in 1u16..) {
            let url = DatabaseUrl { user, password, host: "db.example".to_owned(), port, name, parameters: String::new() };
            prop_assert_eq!(DatabaseUrl::parse(&url.to_text()), Ok(url));
        }

        #[test]
        fn any_text_is_refused_or_means_the_same_when_it_is_written(text in "(postgres://)?[ -~%@:/\\[\\]]{0,40}") {
            if let Ok(url) = DatabaseUrl::parse(&text) {
                prop_assert_eq!(DatabaseUrl::parse(&url.to_text()), Ok(url));
            }
        }
    }
}
