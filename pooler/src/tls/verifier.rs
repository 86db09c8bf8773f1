//! The check of certificates by libpq's rules. webpki does the chain where it can; it refuses certificates of
//! X.509 version 1 and knows no common names, both of which libpq accepts.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Version};

/// What is asked of a certificate.
#[derive(Debug)]
pub enum Checks {
    /// TLS only hides the traffic from those who listen.
    Nothing,
    Chain {
        roots: Arc<RootCertStore>,
        /// The same authorities whole, for what webpki does not do.
        anchors: Vec<CertificateDer<'static>>,
        /// The name has to fit as well.
        name: bool,
    },
}

#[derive(Debug)]
pub struct ServerVerifier {
    checks: Checks,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    pub fn new(checks: Checks, provider: Arc<CryptoProvider>) -> Self {
        ServerVerifier { checks, provider }
    }

    /// Without checks there is nobody to prove: whoever is in between has replaced the certificate as well.
    fn checks_nothing(&self) -> bool {
        matches!(self.checks, Checks::Nothing)
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Checks::Chain { roots, anchors, name } = &self.checks else {
            return Ok(ServerCertVerified::assertion());
        };
        let own = parse(end_entity)?;
        if own.version() == X509Version::V1 {
            signed_by_anchor(&own, anchors, now)?;
        } else {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let parsed = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        }
        if *name && !names_fit(&own, &server_name.to_str()) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.checks_nothing() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
            .or_else(|_| verify_v1_handshake(&self.provider, message, certificate, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.checks_nothing() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
            .or_else(|_| verify_v1_handshake(&self.provider, message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The check of a client's certificate, where it shows one.
#[derive(Debug)]
pub struct ClientVerifier {
    webpki: Arc<dyn ClientCertVerifier>,
    anchors: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ClientVerifier {
    /// `webpki` knows whether a certificate is mandatory.
    pub fn new(
        webpki: Arc<dyn ClientCertVerifier>,
        anchors: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        ClientVerifier { webpki, anchors, provider }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.webpki.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.webpki.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let own = parse(end_entity)?;
        if own.version() != X509Version::V1 {
            return self.webpki.verify_client_cert(end_entity, intermediates, now);
        }
        signed_by_anchor(&own, &self.anchors, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let checked = self.webpki.verify_tls12_signature(message, certificate, signed);
        checked.or_else(|_| verify_v1_handshake(&self.provider, message, certificate, signed))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let checked = self.webpki.verify_tls13_signature(message, certificate, signed);
        checked.or_else(|_| verify_v1_handshake(&self.provider, message, certificate, signed))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// webpki cannot read the key of a certificate of version 1; of all others its word stands.
fn verify_v1_handshake(
    provider: &CryptoProvider,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let own = parse(certificate)?;
    if own.version() != X509Version::V1 {
        return Err(CertificateError::BadSignature.into());
    }
    let key = own.public_key();
    let algorithms = provider.signature_verification_algorithms;
    let fitting = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
    for algorithm in fitting.flat_map(|(_, algorithms)| algorithms.iter()) {
        if algorithm.verify_signature(&key.subject_public_key.data, message, signed.signature()).is_ok() {
            return Ok(HandshakeSignatureValid::assertion());
        }
    }
    Err(CertificateError::BadSignature.into())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(der).map(|(_, own)| own).map_err(|_| CertificateError::BadEncoding.into())
}

/// A certificate of version 1 cannot say who may sign others, so only an authority of ours itself may have signed it.
fn signed_by_anchor(
    own: &X509Certificate<'_>,
    anchors: &[CertificateDer<'static>],
    now: UnixTime,
) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < own.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > own.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let signed = anchors.iter().filter_map(|der| parse(der).ok()).any(|anchor| {
        anchor.subject().as_raw() == own.issuer().as_raw()
            && own.verify_signature(Some(anchor.public_key())).is_ok()
    });
    if signed { Ok(()) } else { Err(CertificateError::UnknownIssuer.into()) }
}

/// libpq's rule: the alternative names decide when there are any of the kind that is asked for, else the common name.
fn names_fit(own: &X509Certificate<'_>, host: &str) -> bool {
    let address = host.parse::<IpAddr>().ok();
    let mut has_names = false;
    if let Ok(Some(extension)) = own.subject_alternative_name() {
        for name in &extension.value.general_names {
            match (name, address) {
                (GeneralName::DNSName(pattern), _) => {
                    has_names = true;
                    if dns_fits(pattern, host) {
                        return true;
                    }
                }
                (GeneralName::IPAddress(bytes), Some(address)) => {
                    has_names = true;
                    if same_address(bytes, address) {
                        return true;
                    }
                }
                _ => {}
            }
        }
    }
    !has_names && common_name(own).is_some_and(|pattern| dns_fits(pattern, host))
}

fn same_address(bytes: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => bytes == address.octets(),
        IpAddr::V6(address) => bytes == address.octets(),
    }
}

/// The same name without case, or `*.` for exactly one label in front.
fn dns_fits(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(domain), Some((label, rest))) = (pattern.strip_prefix("*."), host.split_once('.')) else {
        return false;
    };
    !label.is_empty() && rest.contains('.') && domain.eq_ignore_ascii_case(rest)
}

/// A name with a zero byte inside is somebody's trick and no name.
fn common_name<'a>(own: &'a X509Certificate<'_>) -> Option<&'a str> {
    let name = own.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.contains('\0')).then_some(name)
}

/// Whether a certificate bears a name exactly: for clients, whose names are users.
pub fn bears_name(der: &CertificateDer<'_>, name: &str) -> bool {
    parse(der).is_ok_and(|own| names_fit(&own, name))
}

/// Whether a certificate is about this key.
pub fn has_public_key(der: &CertificateDer<'_>, key: &SubjectPublicKeyInfoDer<'_>) -> bool {
    parse(der).is_ok_and(|own| own.public_key().raw == key.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(dns_fits("db.example.org", "DB.example.org"));
        assert!(dns_fits("*.example.org", "db.example.org"));
        assert!(!dns_fits("*.example.org", "a.db.example.org"));
        assert!(!dns_fits("*.example.org", "example.org"));
        assert!(!dns_fits("*.org", "example.org"), "a whole top domain");
        assert!(!dns_fits("*.example.org", ".example.org"));
    }

    #[test]
    fn addresses_are_compared_by_their_bytes() {
        assert!(same_address(&[127, 0, 0, 1], "127.0.0.1".parse().unwrap()));
        assert!(!same_address(&[127, 0, 0, 1], "127.0.0.2".parse().unwrap()));
        assert!(!same_address(&[127, 0, 0], "127.0.0.1".parse().unwrap()));
    }
}
