//! What both proxies ask of certificates in the same way: whether a handshake was signed with a certificate's key, and
//! whether a name in one means this host. Whom to trust, and where a name has to stand, is for each of them: see their
//! `tls` folders.

use std::net::IpAddr;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Which version's rules a signature is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    V12,
    V13,
}

/// By the certificate's key alone: rustls' own way reads the certificate by webpki, which knows no version 1.
///
/// # Errors
/// The certificate cannot be read, or its key has not signed this message.
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

/// The same name without case; a `*` stands for one whole label, the first, and not below a top domain (RFC 6125,
/// section 6.4.3).
pub fn dns_name_fits(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(domain), Some((label, rest))) = (pattern.strip_prefix("*."), host.split_once('.')) else {
        return false;
    };
    !label.is_empty() && rest.contains('.') && domain.eq_ignore_ascii_case(rest)
}

/// An address as certificates have it: its bytes.
pub fn address_fits(bytes: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => bytes == address.octets(),
        IpAddr::V6(address) => bytes == address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(dns_name_fits("db.example.org", "DB.example.org"));
        assert!(dns_name_fits("*.example.org", "db.example.org"));
        assert!(!dns_name_fits("*.example.org", "a.db.example.org"));
        assert!(!dns_name_fits("*.example.org", "example.org"));
        assert!(!dns_name_fits("*.org", "example.org"), "a whole top domain");
        assert!(!dns_name_fits("*.example.org", ".example.org"));
        assert!(!dns_name_fits("a*.example.org", "ab.example.org"));
    }

    #[test]
    fn addresses_are_compared_by_their_bytes() {
        assert!(address_fits(&[127, 0, 0, 1], "127.0.0.1".parse().unwrap()));
        assert!(!address_fits(&[127, 0, 0, 1], "127.0.0.2".parse().unwrap()));
        assert!(!address_fits(&[127, 0, 0], "127.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn the_algorithm_of_any_bytes_is_a_part_of_them(bytes: Vec<u8>) {
            prop_assert!(algorithm_of(&bytes).len() <= bytes.len());
        }

        /// A pattern without a star is a name, one with a star is a name but for its first label.
        #[test]
        fn a_name_fits_itself_and_the_pattern_of_its_domain(label in "[a-z]{1,5}", domain in "[a-z]{1,5}[.][a-z]{2,3}") {
            let host = format!("{label}.{domain}");
            prop_assert!(dns_name_fits(&host, &host.to_uppercase()));
            let pattern = format!("*.{domain}");
            prop_assert!(dns_name_fits(&pattern, &host));
            prop_assert!(!dns_name_fits(&pattern, &domain));
        }
    }
}
