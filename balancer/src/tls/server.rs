//! What a server block shows and asks in a handshake: its `ssl_*` settings made into rustls' configuration when
//! nginx.conf is read, so that a file that is missing or wrong is said then.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::certificates::{self, certified_key, ocsp_response, revocation_lists};
use super::chain::Trust;
use super::ciphers;
use super::tickets::{SessionCache, Tickets};
use super::verifier::AnyCertificate;
use crate::conf::ssl::{self, Ssl, Verify};

/// Ready for handshakes. Held by the generation of the configuration that it belongs to: connections keep theirs.
#[derive(Debug)]
pub struct ServerTls {
    pub verify: Verify,
    pub trust: Trust,
    pub rejects: bool,
    /// `None`: no certificate is given here, which only matters to a connection that comes to this block.
    config: Option<Configs>,
}

#[derive(Debug)]
struct Configs {
    http1: Arc<ServerConfig>,
    /// The same with HTTP/2 in ALPN.
    http2: Arc<ServerConfig>,
}

impl ServerTls {
    pub fn new(ssl: &Ssl) -> Result<ServerTls, String> {
        let trust = trust(ssl)?;
        let config = match ssl.certificates.is_empty() {
            true => None,
            false => Some(configs(ssl)?),
        };
        Ok(ServerTls { verify: ssl.verify, trust, rejects: ssl.reject_handshake, config })
    }

    /// There is something to answer a handshake with.
    pub fn is_ready(&self) -> bool {
        self.config.is_some() || self.rejects
    }

    pub fn config(&self, http2: bool) -> Option<Arc<ServerConfig>> {
        let configs = self.config.as_ref()?;
        Some(if http2 { configs.http2.clone() } else { configs.http1.clone() })
    }
}

fn trust(ssl: &Ssl) -> Result<Trust, String> {
    let mut authorities = Vec::new();
    for path in ssl.client_certificate.iter().chain(&ssl.trusted_certificate) {
        authorities.extend(certificates::certificates(path)?);
    }
    let revocations = ssl.crl.as_deref().map(revocation_lists).transpose()?.unwrap_or_default();
    Ok(Trust { authorities, revocations, depth: ssl.verify_depth })
}

fn configs(ssl: &Ssl) -> Result<Configs, String> {
    let provider = ciphers::provider(&ssl.ciphers, &ssl.curves)
        .ok_or_else(|| format!("no cipher of \"ssl_ciphers {}\" is spoken here", ssl.ciphers))?;
    let provider = Arc::new(provider);
    let versions = ciphers::versions(ssl.protocols.iter().map(|word| &word[..])).unwrap_or_default();
    let mut config = builder(ssl, provider, &versions)?;
    config.ignore_client_order = ssl.prefer_server_ciphers;
    config.session_storage = match ssl.session_cache {
        ssl::SessionCache::None => Arc::new(NoServerSessionStorage {}),
        ssl::SessionCache::Kept(size) => Arc::new(SessionCache::new(size, ssl.session_timeout)),
    };
    if ssl.session_tickets {
        config.ticketer = Arc::new(tickets(ssl)?);
    }
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    let mut http2 = config.clone();
    http2.alpn_protocols.insert(0, b"h2".to_vec());
    Ok(Configs { http1: Arc::new(config), http2: Arc::new(http2) })
}

fn builder(
    ssl: &Ssl,
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, String> {
    let keys = Keys { all: keys(ssl)? };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|_| "\"ssl_protocols\" names none that is spoken here: TLSv1.2, TLSv1.3".to_owned())?;
    if ssl.verify == Verify::Off {
        return Ok(builder.with_no_client_auth().with_cert_resolver(Arc::new(keys)));
    }
    // Only the first file's authorities are told to clients.
    let told = ssl.client_certificate.as_deref().map(certificates::certificates).transpose()?;
    let verifier = AnyCertificate::new(provider, &told.unwrap_or_default());
    Ok(builder.with_client_cert_verifier(Arc::new(verifier)).with_cert_resolver(Arc::new(keys)))
}

fn keys(ssl: &Ssl) -> Result<Vec<Arc<CertifiedKey>>, String> {
    let ocsp = ssl.stapling_file.as_deref().map(ocsp_response).transpose()?;
    let mut keys = Vec::new();
    for (certificate, key) in &ssl.certificates {
        let mut certified = certified_key(certificate, key, ssl.password_file.as_deref())?;
        certified.ocsp = ocsp.as_ref().map(|ocsp| ocsp.to_vec());
        keys.push(Arc::new(certified));
    }
    Ok(keys)
}

fn tickets(ssl: &Ssl) -> Result<Tickets, String> {
    if ssl.session_ticket_keys.is_empty() {
        return Tickets::random(ssl.session_timeout);
    }
    let mut keys = Vec::new();
    for path in &ssl.session_ticket_keys {
        let found = std::fs::read(path)
            .map_err(|error| crate::conf::error::system("open", std::path::Path::new(path), &error))?;
        keys.push(found);
    }
    Tickets::from_keys(&keys, ssl.session_timeout).map_err(|why| format!("ssl_session_ticket_key {why}"))
}

/// One key per kind of signature, as with several `ssl_certificate` lines: the first that the client can check.
#[derive(Debug)]
struct Keys {
    all: Vec<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        // OpenSSL prefers ECDSA: its handshakes cost a server a fraction of RSA's.
        let is_rsa = |key: &Arc<CertifiedKey>| key.key.algorithm() == rustls::SignatureAlgorithm::RSA;
        let fitting = self.all.iter().filter(fits).min_by_key(|key| is_rsa(key));
        fitting.or(self.all.first()).cloned()
    }
}
