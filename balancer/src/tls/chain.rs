//! Does a chain of certificates lead to an authority that is trusted? OpenSSL's rules, as nginx applies them: webpki
//! refuses certificates of version 1 and authorities that show themselves, both of which configurations rely on.
//! What is not understood and says that it must be is refused.

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{
    CertificateRevocationList, FromDer, ParsedExtension, X509Certificate, X509Version,
};

/// Why a chain does not hold, in OpenSSL's words: `$ssl_client_verify` says them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChain {
    #[error("certificate cannot be read")]
    Encoding,
    #[error("certificate is not yet valid")]
    NotYetValid,
    #[error("certificate has expired")]
    Expired,
    #[error("self-signed certificate")]
    SelfSigned,
    #[error("self-signed certificate in certificate chain")]
    SelfSignedInChain,
    #[error("unable to verify the first certificate")]
    UnknownIssuer,
    #[error("unable to get local issuer certificate")]
    NoLocalIssuer,
    #[error("certificate chain too long")]
    TooLong,
    #[error("invalid CA certificate")]
    NotAnAuthority,
    #[error("path length constraint exceeded")]
    PathTooLong,
    #[error("certificate signature failure")]
    Signature,
    #[error("unsuitable certificate purpose")]
    Purpose,
    #[error("unhandled critical extension")]
    CriticalExtension,
    #[error("unable to get certificate CRL")]
    NoRevocationList,
    #[error("CRL has expired")]
    RevocationListExpired,
    #[error("certificate revoked")]
    Revoked,
}

impl BadChain {
    /// The authority is the only doubt: what `optional_no_ca` forgives, as nginx has it.
    pub fn is_about_authority(self) -> bool {
        matches!(
            self,
            BadChain::SelfSigned
                | BadChain::SelfSignedInChain
                | BadChain::UnknownIssuer
                | BadChain::NoLocalIssuer
        )
    }
}

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Client,
    Server,
}

/// Whom to trust, and how far.
#[derive(Debug, Default)]
pub struct Trust {
    pub authorities: Vec<CertificateDer<'static>>,
    pub revocations: Vec<CertificateRevocationListDer<'static>>,
    /// `ssl_verify_depth`: authorities between the certificate and the one at the chain's end.
    pub depth: usize,
}

impl Trust {
    /// `shown` begins with the peer's own certificate. `now` is in seconds of the Unix epoch.
    pub fn check(&self, shown: &[CertificateDer<'_>], purpose: Purpose, now: i64) -> Result<(), BadChain> {
        let read = |der| X509Certificate::from_der(der).map(|(_, read)| read).ok();
        let shown: Vec<X509Certificate<'_>> =
            shown.iter().map(|der| read(der)).collect::<Option<_>>().ok_or(BadChain::Encoding)?;
        let trusted: Vec<X509Certificate<'_>> = self.authorities.iter().filter_map(|der| read(der)).collect();
        let own = shown.first().ok_or(BadChain::Encoding)?;
        let path = find_path(&shown, &trusted)?;
        // The authority at the end does not count; the own certificate neither.
        if path.len() > self.depth + 2 {
            return Err(BadChain::TooLong);
        }
        check_purpose(own, purpose)?;
        for (below, certificate) in path.iter().enumerate() {
            check_extensions(certificate)?;
            check_time(certificate, now)?;
            if below > 0 {
                check_authority(certificate, below - 1)?;
            }
        }
        if !self.revocations.is_empty() {
            let lists = self
                .revocations
                .iter()
                .filter_map(|der| CertificateRevocationList::from_der(der).map(|(_, list)| list).ok());
            let lists: Vec<CertificateRevocationList<'_>> = lists.collect();
            path.iter().enumerate().try_for_each(|(i, certificate)| {
                let issuer = path.get(i + 1).unwrap_or(certificate);
                check_revocation(certificate, issuer, &lists, now)
            })?;
        }
        Ok(())
    }
}

/// From the peer's certificate to a self-signed one that is trusted, each signed by the next.
fn find_path<'a, 'x>(
    shown: &'a [X509Certificate<'x>],
    trusted: &'a [X509Certificate<'x>],
) -> Result<Vec<&'a X509Certificate<'x>>, BadChain> {
    let mut path = vec![&shown[0]];
    loop {
        let last = path[path.len() - 1];
        let is_trusted = trusted.iter().any(|authority| authority.as_raw() == last.as_raw());
        if is_self_signed(last) {
            return match path.len() {
                _ if is_trusted => Ok(path),
                1 => Err(BadChain::SelfSigned),
                _ => Err(BadChain::SelfSignedInChain),
            };
        }
        // Trusted ones first; each certificate once, so that two that sign each other are no loop.
        let issuer = trusted.iter().chain(&shown[1..]).find(|candidate| {
            candidate.subject().as_raw() == last.issuer().as_raw()
                && !path.iter().any(|known| known.as_raw() == candidate.as_raw())
                && last.verify_signature(Some(candidate.public_key())).is_ok()
        });
        match issuer {
            Some(issuer) => path.push(issuer),
            None if path.len() == 1 && shown.len() == 1 => return Err(BadChain::UnknownIssuer),
            None => return Err(BadChain::NoLocalIssuer),
        }
    }
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
        && certificate.verify_signature(None).is_ok()
}

fn check_time(certificate: &X509Certificate<'_>, now: i64) -> Result<(), BadChain> {
    match certificate.validity() {
        validity if now < validity.not_before.timestamp() => Err(BadChain::NotYetValid),
        validity if now > validity.not_after.timestamp() => Err(BadChain::Expired),
        _ => Ok(()),
    }
}

/// `below`: authorities between this one and the peer's certificate.
fn check_authority(certificate: &X509Certificate<'_>, below: usize) -> Result<(), BadChain> {
    if certificate.version() == X509Version::V1 {
        // It cannot say what it is for; only a trusted one can have come this far as the end of the path.
        return if is_self_signed(certificate) { Ok(()) } else { Err(BadChain::NotAnAuthority) };
    }
    let constraints = certificate.basic_constraints().map_err(|_| BadChain::Encoding)?;
    let constraints = constraints.filter(|found| found.value.ca).ok_or(BadChain::NotAnAuthority)?;
    if constraints.value.path_len_constraint.is_some_and(|most| below as u64 > u64::from(most)) {
        return Err(BadChain::PathTooLong);
    }
    let usage = certificate.key_usage().map_err(|_| BadChain::Encoding)?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(BadChain::NotAnAuthority);
    }
    Ok(())
}

fn check_purpose(certificate: &X509Certificate<'_>, purpose: Purpose) -> Result<(), BadChain> {
    let usage = certificate.extended_key_usage().map_err(|_| BadChain::Encoding)?;
    let fits = usage.is_none_or(|usage| match purpose {
        Purpose::Client => usage.value.any || usage.value.client_auth,
        Purpose::Server => usage.value.any || usage.value.server_auth,
    });
    if fits { Ok(()) } else { Err(BadChain::Purpose) }
}

fn check_extensions(certificate: &X509Certificate<'_>) -> Result<(), BadChain> {
    let is_known = |parsed: &ParsedExtension<'_>| {
        matches!(
            parsed,
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
        )
    };
    let unknown = certificate
        .extensions()
        .iter()
        .any(|extension| extension.critical && !is_known(extension.parsed_extension()));
    if unknown { Err(BadChain::CriticalExtension) } else { Ok(()) }
}

fn check_revocation(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    lists: &[CertificateRevocationList<'_>],
    now: i64,
) -> Result<(), BadChain> {
    let list = lists
        .iter()
        .filter(|list| list.issuer().as_raw() == certificate.issuer().as_raw())
        .filter(|list| list.verify_signature(issuer.public_key()).is_ok())
        .max_by_key(|list| list.last_update().timestamp())
        .ok_or(BadChain::NoRevocationList)?;
    if list.next_update().is_some_and(|next| now > next.timestamp()) {
        return Err(BadChain::RevocationListExpired);
    }
    let is_revoked =
        list.iter_revoked_certificates().any(|entry| entry.raw_serial() == certificate.raw_serial());
    if is_revoked { Err(BadChain::Revoked) } else { Ok(()) }
}
