//! rustls' questions about a client's certificate. The handshake proves only that the client has the key; what its
//! certificate is worth is asked afterwards (`session`), because nginx answers a bad one with a page, not an alert.

use std::sync::Arc;

use chassis::certificates::{Tls, verify_signature};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Takes any certificate whose key the client has.
#[derive(Debug)]
pub struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    /// The authorities that a client is told of, so that it can choose.
    hints: Vec<DistinguishedName>,
}

impl AnyCertificate {
    pub fn new(provider: Arc<CryptoProvider>, authorities: &[CertificateDer<'_>]) -> AnyCertificate {
        let subject = |der: &CertificateDer<'_>| {
            let (_, read) = X509Certificate::from_der(der).ok()?;
            Some(DistinguishedName::from(read.subject().as_raw().to_vec()))
        };
        let mut hints: Vec<DistinguishedName> = Vec::new();
        for hint in authorities.iter().filter_map(subject) {
            if !hints.iter().any(|known| known.as_ref() == hint.as_ref()) {
                hints.push(hint);
            }
        }
        AnyCertificate { provider, hints }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
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
