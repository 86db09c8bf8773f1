//! Asking a directory server whether a password is the user's. A connection per login: it is bound as that user.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, ResultEntry, SearchOptions};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::logic::ldap::{Directory, Encryption, Lookup, Scope, Search};

/// For connecting and StartTLS, in which ldap3 does not notice that a server hangs up. A lost packet costs a second, and
/// clients often wait no longer than three.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);

/// Where libldap looks when LDAPCONF names no file.
const CONF_FILES: [&str; 2] = ["/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf"];

/// Ok: the directory takes this password for this user. `settings` come from `settings()`.
pub async fn check(
    directory: &Directory,
    settings: &LdapConnSettings,
    user: &str,
    password: &str,
) -> Result<(), String> {
    // A bind without a password is anonymous, and always succeeds.
    if password.is_empty() {
        return Err("empty password".to_string());
    }
    let name = match &directory.lookup {
        Lookup::Between { prefix, suffix } => format!("{prefix}{user}{suffix}"),
        Lookup::Search(search) => {
            let filter = search.filter_for(user).ok_or("invalid character in user name")?;
            let finding = async |ldap: &mut Ldap| find(ldap, search, &filter).await;
            connected(directory, settings, finding).await?
        }
    };
    connected(directory, settings, async |ldap: &mut Ldap| bind(ldap, &name, password).await).await
}

/// Runs this on a connection to the first host that answers.
async fn connected<T>(
    directory: &Directory,
    settings: &LdapConnSettings,
    work: impl AsyncFnOnce(&mut Ldap) -> Result<T, String>,
) -> Result<T, String> {
    let mut last = "no server".to_string();
    for url in directory.urls() {
        let (connection, mut ldap) = match LdapConnAsync::with_settings(settings.clone(), &url).await {
            Ok(connected) => connected,
            Err(error) => {
                last = format!("{url}: {error}");
                continue;
            }
        };
        return tokio::select! {
            biased;
            ended = connection.drive() => Err(format!("{url}: {}", ended.err().unwrap_or(LdapError::EndOfStream))),
            done = work(&mut ldap) => done,
        };
    }
    Err(last)
}

async fn bind(ldap: &mut Ldap, name: &str, password: &str) -> Result<(), String> {
    let bound = ldap.simple_bind(name, password).await.and_then(ldap3::LdapResult::success);
    bound.map(drop).map_err(|error| format!("bind as \"{name}\" failed: {error}"))
}

/// The one entry that fits.
async fn find(ldap: &mut Ldap, search: &Search, filter: &str) -> Result<String, String> {
    bind(ldap, &search.bind_name, search.bind_password.expose()).await?;
    let scope = match search.scope {
        Scope::Base => ldap3::Scope::Base,
        Scope::OneLevel => ldap3::Scope::OneLevel,
        Scope::Subtree => ldap3::Scope::Subtree,
    };
    // Two are one too many: more need not come. No attributes are wanted.
    ldap.with_search_options(SearchOptions::new().sizelimit(2));
    let found = ldap.search(&search.base, scope, filter, vec!["1.1"]).await;
    let (entries, _) = found
        .and_then(ldap3::SearchResult::success)
        .map_err(|error| format!("search for \"{filter}\" failed: {error}"))?;
    let count = entries.len();
    let mut entries = entries.into_iter().filter(|entry| !entry.is_ref() && !entry.is_intermediate());
    match (entries.next().and_then(name_of), entries.next()) {
        (Some(name), None) => Ok(name),
        _ => Err(format!("search for \"{filter}\" gives {count} entries, not 1")),
    }
}

/// `SearchEntry::construct` panics on what a faulty server may send.
fn name_of(entry: ResultEntry) -> Option<String> {
    let parts = entry.0.expect_constructed()?;
    String::from_utf8(parts.into_iter().next()?.expect_primitive()?).ok()
}

/// How to connect. Reads files: not for a worker's thread.
pub fn settings(directory: &Directory, conf: Option<&Path>) -> Result<LdapConnSettings, String> {
    let settings = LdapConnSettings::new().set_conn_timeout(CONNECT_TIMEOUT);
    if directory.encryption == Encryption::None {
        return Ok(settings);
    }
    let settings = settings.set_starttls(directory.encryption == Encryption::StartTls);
    let text = match conf {
        Some(path) => std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?,
        None => CONF_FILES.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default(),
    };
    if matches!(option(&text, "TLS_REQCERT"), Some("never" | "allow")) {
        return Ok(settings.set_no_tls_verify(true));
    }
    let mut roots = RootCertStore::empty();
    match option(&text, "TLS_CACERT") {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path).map_err(|e| format!("{path}: {e}"))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|e| format!("{path}: {e}"))?;
                roots.add(certificate).map_err(|e| format!("{path}: {e}"))?;
            }
        }
        // The authorities of the system, those that can be read.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(settings.set_config(Arc::new(config)))
}

/// An option of libldap's file; names have no case, the last one counts.
fn option<'a>(conf: &'a str, name: &str) -> Option<&'a str> {
    let lines = conf.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut pairs = lines.filter_map(|line| line.split_once(char::is_whitespace));
    pairs.rfind(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libldaps_file_says_whom_to_trust() {
        let conf = "# TLS_REQCERT never\nBASE dc=x\ntls_cacert /etc/first\nTLS_CACERT\t/etc/ca.pem \n";
        assert_eq!(option(conf, "TLS_CACERT"), Some("/etc/ca.pem"));
        assert_eq!(option(conf, "TLS_REQCERT"), None);
    }
}
