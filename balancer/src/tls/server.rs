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
use super::sessions::{Context, SessionCache, SessionZone};
use super::tickets::Tickets;
use super::verifier::AnyCertificate;
use crate::conf::ssl::{Ssl, Verify};

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
    /// `zone` is what `ssl_session_cache` names.
    pub fn new(ssl: &Ssl, zone: Option<Arc<SessionZone>>) -> Result<ServerTls, String> {
        let trust = trust(ssl)?;
        let config = match ssl.certificates.is_empty() {
            true => None,
            false => Some(configs(ssl, &trust, zone)?),
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

fn configs(ssl: &Ssl, trust: &Trust, zone: Option<Arc<SessionZone>>) -> Result<Configs, String> {
    let provider = ciphers::provider(&ssl.ciphers, &ssl.curves)
        .ok_or_else(|| format!("no cipher of \"ssl_ciphers {}\" is spoken here", ssl.ciphers))?;
    let provider = Arc::new(provider);
    let versions = ciphers::versions(ssl.protocols.iter().map(|word| &word[..])).unwrap_or_default();
    let keys = keys(ssl)?;
    let context = context(ssl, &keys, trust);
    let mut config = builder(ssl, keys, provider, &versions)?;
    config.ignore_client_order = ssl.prefer_server_ciphers;
    config.session_storage = match &zone {
        None => Arc::new(NoServerSessionStorage {}),
        Some(zone) => Arc::new(SessionCache::new(zone.clone(), context, ssl.session_timeout)),
    };
    if ssl.session_tickets {
        config.ticketer = Arc::new(tickets(ssl, context, zone)?);
    }
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    let mut http2 = config.clone();
    http2.alpn_protocols.insert(0, b"h2".to_vec());
    Ok(Configs { http1: Arc::new(config), http2: Arc::new(http2) })
}

/// As nginx's context of session ids: a session is resumed where the same certificates are shown and clients are asked for
/// the same. Of files nothing but what they hold counts: others that have it may open the tickets.
fn context(ssl: &Ssl, keys: &[Arc<CertifiedKey>], trust: &Trust) -> Context {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut add = |part: &[u8]| {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    keys.iter().filter_map(|key| key.cert.first()).for_each(|certificate| add(certificate));
    add(format!("{:?}", ssl.verify).as_bytes());
    if ssl.verify != Verify::Off {
        trust.authorities.iter().for_each(|authority| add(authority));
    }
    let mut context = [0; 32];
    context.copy_from_slice(digest.finish().as_ref());
    context
}

fn builder(
    ssl: &Ssl,
    keys: Vec<Arc<CertifiedKey>>,
    provider: Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, String> {
    let keys = Keys { all: keys };
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

/// Keys of files, else those of the zone, else some of its own.
fn tickets(ssl: &Ssl, context: Context, zone: Option<Arc<SessionZone>>) -> Result<Tickets, String> {
    if ssl.session_ticket_keys.is_empty() {
        let zone = match zone {
            Some(zone) => zone,
            None => Arc::new(SessionZone::new("", 0)?),
        };
        return Ok(Tickets::drawn(zone, context, ssl.session_timeout));
    }
    let mut keys = Vec::new();
    for path in &ssl.session_ticket_keys {
        let found = std::fs::read(path)
            .map_err(|error| crate::conf::error::system("open", std::path::Path::new(path), &error))?;
        keys.push(found);
    }
    Tickets::given(&keys, context, ssl.session_timeout).map_err(|why| format!("ssl_session_ticket_key {why}"))
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
