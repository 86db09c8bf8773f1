//! The check of certificates by libpq's rules. webpki does the chain where it can; it refuses certificates of
//! X.509 version 1 and knows no common names, both of which libpq accepts.

use std::net::IpAddr;
use std::sync::Arc;

use chassis::certificates::{Tls, address_fits, dns_name_fits, verify_signature};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
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
        verify_signature(&self.provider, (Tls::V12, message), certificate, signed)
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
        verify_signature(&self.provider, (Tls::V13, message), certificate, signed)
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
        self.webpki.supported_verify_schemes()
    }
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
                    if dns_name_fits(pattern, host) {
                        return true;
                    }
                }
                (GeneralName::IPAddress(bytes), Some(address)) => {
                    has_names = true;
                    if address_fits(bytes, address) {
                        return true;
                    }
                }
                _ => {}
            }
        }
    }
    !has_names && common_name(own).is_some_and(|pattern| dns_name_fits(pattern, host))
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
