//! rustls' questions about a client's certificate. The handshake proves only that the client has the key; what its
//! certificate is worth is asked afterwards (`session`), because nginx answers a bad one with a page, not an alert.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
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

/// Which version's rules a signature is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    V12,
    V13,
}

/// By the certificate's key alone: rustls' own way reads the certificate by webpki, which knows no version 1.
pub fn verify_signature(
    provider: &CryptoProvider,
    (version, message): (Tls, &[u8]),
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let (_, read) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let key = read.public_key();
    let algorithms = provider.signature_verification_algorithms;
    let fitting = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
    // TLS 1.3 binds a scheme to one curve, the first that is listed, and knows no PKCS #1 1.5 (RFC 8446, 4.2.3).
    let most = if version == Tls::V13 { 1 } else { usize::MAX };
    let is_old = matches!(
        signed.scheme,
        SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512
    );
    if version == Tls::V13 && is_old {
        return Err(CertificateError::BadSignature.into());
    }
    for algorithm in fitting.flat_map(|(_, algorithms)| algorithms.iter().take(most)) {
        if *algorithm.public_key_alg_id() != *algorithm_of(key.raw) {
            continue;
        }
        if algorithm.verify_signature(&key.subject_public_key.data, message, signed.signature()).is_ok() {
            return Ok(HandshakeSignatureValid::assertion());
        }
    }
    Err(CertificateError::BadSignature.into())
}

/// The inside of the AlgorithmIdentifier that a SubjectPublicKeyInfo begins with.
fn algorithm_of(spki: &[u8]) -> &[u8] {
    sequence_content(spki).and_then(sequence_content).unwrap_or_default()
}

/// The content of the DER sequence at the front.
fn sequence_content(der: &[u8]) -> Option<&[u8]> {
    let [0x30, len, rest @ ..] = der else { return None };
    let (len, rest) = match len {
        0..=0x7f => (usize::from(*len), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    rest.get(..len)
}
