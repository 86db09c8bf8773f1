//! Certificates, keys and revocation lists from PEM files, or from the text of a value (`data:…`).

use std::path::Path;
use std::sync::Arc;

use pkcs8::{EncryptedPrivateKeyInfo, SecretDocument};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Where PEM text comes from: a path, or `data:` with the text itself.
fn read(source: &str) -> Result<Vec<u8>, String> {
    match source.strip_prefix("data:") {
        Some(text) => Ok(text.as_bytes().to_vec()),
        None => {
            let path = Path::new(source);
            std::fs::read(path).map_err(|error| crate::conf::error::system("fopen", path, &error))
        }
    }
}

/// The text of a value does not belong into a log: it may be a key.
pub fn shown(source: &str) -> &str {
    if source.starts_with("data:") { "data:..." } else { source }
}

/// All certificates of a file, in its order: the own one first, then those that lead to the authority.
pub fn certificates(source: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |why: String| format!("cannot load certificate \"{}\": {why}", shown(source));
    let text = read(source).map_err(failed)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if found.is_empty() => Err(failed("no certificate in PEM form (no start line)".into())),
        Ok(found) => Ok(found),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// What one side shows: a chain with the key of its first certificate.
pub fn certified_key(
    certificate: &str,
    key: &str,
    password_file: Option<&str>,
) -> Result<CertifiedKey, String> {
    let chain = certificates(certificate)?;
    let failed = |why: String| format!("cannot load certificate key \"{}\": {why}", shown(key));
    let text = read(key).map_err(failed)?;
    let private = private_key(&text, password_file).map_err(failed)?;
    let signer = any_supported_type(&private).map_err(|error| failed(error.to_string()))?;
    let fits = signer.public_key().is_none_or(|public| {
        X509Certificate::from_der(&chain[0]).is_ok_and(|(_, own)| own.public_key().raw == &public[..])
    });
    if !fits {
        return Err(failed(format!("key values mismatch with \"{}\"", shown(certificate))));
    }
    Ok(CertifiedKey::new(chain, signer))
}

/// A key in the clear, or under one of the passwords of a file, a line each.
fn private_key(text: &[u8], password_file: Option<&str>) -> Result<PrivateKeyDer<'static>, String> {
    let sealed = std::str::from_utf8(text).ok().and_then(|text| SecretDocument::from_pem(text).ok());
    let Some((_, sealed)) = sealed.filter(|(label, _)| *label == "ENCRYPTED PRIVATE KEY") else {
        return PrivateKeyDer::from_pem_slice(text).map_err(|error| error.to_string());
    };
    let sealed = EncryptedPrivateKeyInfo::try_from(sealed.as_bytes()).map_err(|error| error.to_string())?;
    let path = password_file.ok_or("it has a password, and there is no password file")?;
    let passwords = read(path)?;
    let mut lines =
        passwords.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let opened = lines.find_map(|password| sealed.decrypt(password).ok()).ok_or("no password fits")?;
    Ok(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec()).into())
}

pub fn revocation_lists(source: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let failed = |why: String| format!("cannot load CRL \"{}\": {why}", shown(source));
    let text = read(source).map_err(failed)?;
    let found = CertificateRevocationListDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    found.map_err(|error| failed(error.to_string()))
}

/// `ssl_stapling_file`: the answer of the authority, DER.
pub fn ocsp_response(path: &str) -> Result<Arc<[u8]>, String> {
    std::fs::read(path)
        .map(Arc::from)
        .map_err(|error| crate::conf::error::system("open", Path::new(path), &error))
}
