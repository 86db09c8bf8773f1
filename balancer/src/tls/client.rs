//! What we show and ask in handshakes with upstreams: `proxy_ssl_*` of a location made into rustls' configuration.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use chassis::certificates::{Tls, address_fits, dns_name_fits, verify_signature};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::chain::{BadChain, Purpose, Trust};
use super::{certificates, ciphers};
use crate::conf::ssl::UpstreamSsl;
use crate::conf::template::Template;

/// Sessions kept for resumption, per location; a group has a handful of servers.
const SESSIONS_MAX: usize = 256;

/// One location's side of handshakes.
#[derive(Debug)]
pub struct UpstreamTls {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    /// `proxy_ssl_name`: whom the certificate must name, and whom the handshake names if it names anybody.
    pub name: Template,
    trust: Option<Trust>,
}

/// Why an upstream is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    #[error("upstream SSL certificate verify error: ({0})")]
    Chain(BadChain),
    #[error("upstream SSL certificate does not match \"{0}\"")]
    Name(String),
}

impl UpstreamTls {
    pub fn new(ssl: &UpstreamSsl, name: Template) -> Result<UpstreamTls, String> {
        let provider = ciphers::provider(&ssl.ciphers, "auto")
            .ok_or_else(|| format!("no cipher of \"{}\" is spoken here", ssl.ciphers))?;
        let provider = Arc::new(provider);
        let versions = ciphers::versions(ssl.protocols.iter().map(|word| &word[..])).unwrap_or_default();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(|_| {
                "\"proxy_ssl_protocols\" names none that is spoken here: TLSv1.2, TLSv1.3".to_owned()
            })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Later { provider }));
        let mut config = match &ssl.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let shown = certificates::certified_key(certificate, key, ssl.password_file.as_deref())?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
            }
        };
        config.enable_sni = ssl.sends_name;
        config.resumption = match ssl.reuses_sessions {
            true => Resumption::in_memory_sessions(SESSIONS_MAX),
            false => Resumption::disabled(),
        };
        let mut http2 = config.clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        let trust = ssl.verifies.then(|| trust(ssl)).transpose()?;
        Ok(UpstreamTls { http1: Arc::new(config), http2: Arc::new(http2), name, trust })
    }

    pub fn config(&self, http2: bool) -> Arc<ClientConfig> {
        if http2 { self.http2.clone() } else { self.http1.clone() }
    }

    /// `proxy_ssl_verify`: is it whom we mean? Asked when the handshake is done and before a byte is sent.
    pub fn check(&self, shown: &[CertificateDer<'_>], name: &str) -> Result<(), Distrust> {
        let Some(trust) = &self.trust else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        trust.check(shown, Purpose::Server, now).map_err(Distrust::Chain)?;
        let fits = shown.first().and_then(|der| X509Certificate::from_der(der).ok());
        match fits.is_some_and(|(_, own)| is_named(&own, name)) {
            true => Ok(()),
            false => Err(Distrust::Name(name.to_owned())),
        }
    }
}

fn trust(ssl: &UpstreamSsl) -> Result<Trust, String> {
    let authorities = ssl.trusted_certificate.as_deref().map(certificates::certificates).transpose()?;
    let revocations = ssl.crl.as_deref().map(certificates::revocation_lists).transpose()?;
    Ok(Trust {
        authorities: authorities.unwrap_or_default(),
        revocations: revocations.unwrap_or_default(),
        depth: ssl.verify_depth,
    })
}

/// OpenSSL's rule: the alternative names decide where there are any, else the common name.
fn is_named(own: &X509Certificate<'_>, name: &str) -> bool {
    let address = name.parse::<IpAddr>().ok();
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut has_names = false;
    if let Ok(Some(names)) = own.subject_alternative_name() {
        for known in &names.value.general_names {
            match (known, address) {
                (GeneralName::DNSName(pattern), None) => {
                    has_names = true;
                    if dns_name_fits(pattern, name) {
                        return true;
                    }
                }
                (GeneralName::DNSName(_), Some(_)) => has_names = true,
                (GeneralName::IPAddress(bytes), Some(address)) if address_fits(bytes, address) => {
                    return true;
                }
                _ => {}
            }
        }
    }
    !has_names
        && own
            .subject()
            .iter_common_name()
            .any(|common| common.as_str().is_ok_and(|text| dns_name_fits(text, name)))
}

/// The handshake proves that the upstream has its certificate's key; [`UpstreamTls::check`] asks the rest.
#[derive(Debug)]
struct Later {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Later {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, (Tls::V12, message), certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(&self.provider, (Tls::V13, message), certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
