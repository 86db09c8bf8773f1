//! What a handshake has established, kept for the life of the connection: what `$ssl_*` tell and what a request is
//! checked against.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::chain::{BadChain, Purpose};
use super::server::ServerTls;
use super::{ciphers, names};
use crate::conf::ssl::Verify;

#[derive(Debug)]
pub struct Session {
    pub protocol: &'static str,
    pub cipher: String,
    pub curve: &'static str,
    pub is_reused: bool,
    /// As the client named it.
    pub server_name: Option<Box<str>>,
    pub alpn: Option<Box<[u8]>>,
    /// The suites and curves that the client offered, by OpenSSL's names.
    pub offered_ciphers: String,
    pub offered_curves: String,
    /// The block whose certificate was shown.
    pub tls: Arc<ServerTls>,
    pub client: ClientCertificate,
    /// What the chain is worth to the block that took the place of `tls` in a reload.
    again: RefCell<Option<(Arc<ServerTls>, ClientCertificate)>>,
}

/// What the client showed of itself.
#[derive(Debug)]
pub enum ClientCertificate {
    None,
    Good(Vec<CertificateDer<'static>>),
    Bad(Vec<CertificateDer<'static>>, BadChain),
}

/// What a ClientHello says, kept past the handshake.
#[derive(Debug, Default)]
pub struct Offered {
    pub server_name: Option<Box<str>>,
    pub ciphers: String,
    pub curves: String,
}

impl Session {
    pub fn new(connection: &ServerConnection, offered: Offered, tls: Arc<ServerTls>) -> Session {
        let shown = connection.peer_certificates().unwrap_or_default();
        let client = check_client(shown, &tls);
        let group = connection.negotiated_key_exchange_group().map(SupportedKxGroup::name);
        Session {
            protocol: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            cipher: connection
                .negotiated_cipher_suite()
                .map_or_else(String::new, |suite| ciphers::name(suite.suite())),
            curve: group.map_or("", ciphers::curve_name),
            is_reused: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            server_name: offered.server_name,
            alpn: connection.alpn_protocol().map(Box::from),
            offered_ciphers: offered.ciphers,
            offered_curves: offered.curves,
            tls,
            client,
            again: RefCell::new(None),
        }
    }

    /// `$ssl_client_verify`.
    pub fn verified(&self) -> String {
        match &self.client {
            ClientCertificate::None => "NONE".to_owned(),
            ClientCertificate::Good(_) => "SUCCESS".to_owned(),
            ClientCertificate::Bad(_, why) => format!("FAILED:{why}"),
        }
    }

    /// nginx's status for a client that did not prove itself to a server which wants that.
    pub fn refusal(&self, verify: Verify) -> Option<u16> {
        refusal(&self.client, verify)
    }

    /// The same from a block of a later generation, by what that one trusts.
    pub fn refusal_again(&self, tls: &Arc<ServerTls>) -> Option<u16> {
        let mut again = self.again.borrow_mut();
        let (_, client) = match again.take() {
            Some(checked) if Arc::ptr_eq(&checked.0, tls) => again.insert(checked),
            _ => {
                let shown = match &self.client {
                    ClientCertificate::None => &[][..],
                    ClientCertificate::Good(shown) | ClientCertificate::Bad(shown, _) => shown,
                };
                again.insert((tls.clone(), check_client(shown, tls)))
            }
        };
        // The variables still tell what the handshake found: no more may pass by them than is true now.
        let is_lost =
            matches!((&self.client, &*client), (ClientCertificate::Good(_), ClientCertificate::Bad(..)));
        refusal(client, tls.verify).or(is_lost.then_some(421))
    }

    pub fn is_verified_by(&self, tls: &ServerTls) -> bool {
        std::ptr::eq(&*self.tls, tls)
    }

    pub fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        match &self.client {
            ClientCertificate::None => None,
            ClientCertificate::Good(shown) | ClientCertificate::Bad(shown, _) => shown.first(),
        }
    }

    /// What one of the `$ssl_client_*` variables says of the certificate.
    pub fn of_client<T>(&self, tell: impl Fn(&X509Certificate<'_>) -> T) -> Option<T> {
        let (_, read) = X509Certificate::from_der(self.client_certificate()?).ok()?;
        Some(tell(&read))
    }

    pub fn client_pem(&self) -> Option<String> {
        self.client_certificate().map(|der| pem(der))
    }

    pub fn client_fingerprint(&self) -> Option<Vec<u8>> {
        self.client_certificate().map(|der| digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref().to_vec())
    }
}

/// nginx's status for what a client showed.
fn refusal(client: &ClientCertificate, verify: Verify) -> Option<u16> {
    match (client, verify) {
        (_, Verify::Off) => None,
        (ClientCertificate::None, Verify::On) => Some(496),
        (ClientCertificate::Bad(_, why), Verify::OptionalNoCa) if why.is_about_authority() => None,
        (ClientCertificate::Bad(..), _) => Some(495),
        _ => None,
    }
}

fn check_client(shown: &[CertificateDer<'_>], tls: &ServerTls) -> ClientCertificate {
    if shown.is_empty() {
        return ClientCertificate::None;
    }
    let owned = shown.iter().map(|der| der.clone().into_owned()).collect();
    match tls.trust.check(shown, Purpose::Client, unix_time()) {
        Ok(()) => ClientCertificate::Good(owned),
        Err(why) => ClientCertificate::Bad(owned, why),
    }
}

fn unix_time() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

pub fn subject(certificate: &X509Certificate<'_>) -> String {
    names::rfc2253(certificate.subject())
}

pub fn issuer(certificate: &X509Certificate<'_>) -> String {
    names::rfc2253(certificate.issuer())
}

pub fn subject_legacy(certificate: &X509Certificate<'_>) -> String {
    names::oneline(certificate.subject())
}

pub fn issuer_legacy(certificate: &X509Certificate<'_>) -> String {
    names::oneline(certificate.issuer())
}

/// Hexadecimal, capital letters.
pub fn serial(certificate: &X509Certificate<'_>) -> String {
    let digits: String = certificate.raw_serial().iter().map(|byte| format!("{byte:02X}")).collect();
    match digits.strip_prefix("00") {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => digits,
    }
}

/// `Nov 21 14:00:00 2026 GMT`.
pub fn valid_from(certificate: &X509Certificate<'_>) -> String {
    openssl_time(certificate.validity().not_before.timestamp())
}

pub fn valid_to(certificate: &X509Certificate<'_>) -> String {
    openssl_time(certificate.validity().not_after.timestamp())
}

/// Whole days until the certificate ends.
pub fn days_left(certificate: &X509Certificate<'_>) -> u64 {
    let seconds = certificate.validity().not_after.timestamp().saturating_sub(unix_time());
    u64::try_from(seconds / (24 * 3600)).unwrap_or(0)
}

fn openssl_time(seconds: i64) -> String {
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp(seconds) else { return String::new() };
    let month = &at.month().to_string()[..3];
    format!(
        "{month} {:>2} {:02}:{:02}:{:02} {} GMT",
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.year()
    )
}

/// PEM with the final line break, as OpenSSL writes it.
fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = &text[..];
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openssl_writes_them() {
        assert_eq!(openssl_time(0), "Jan  1 00:00:00 1970 GMT");
        assert_eq!(openssl_time(1_795_271_445), "Nov 21 14:30:45 2026 GMT");
    }
}
