//! From the settings of TLS and the files they name to rustls' configurations.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::suites;
use super::verifier::{self, Checks, ClientVerifier, ServerVerifier};
use crate::settings::{AuthType, Keys, SslMode};

/// The protocol's name in ALPN.
pub const ALPN: &[u8] = b"postgresql";

/// Configurations that were made together.
pub struct Made {
    pub clients: Option<Arc<ServerConfig>>,
    /// None: TLS is off, or no version that is spoken here is allowed.
    pub servers: Option<Arc<ClientConfig>>,
    pub servers_source: ServersSource,
}

/// All that the configuration towards servers depends on, to see whether it changed. Holds a private key: not shown.
#[derive(PartialEq, Eq)]
pub struct ServersSource {
    mode: SslMode,
    words: [String; 3],
    files: [Vec<u8>; 3],
}

impl ServersSource {
    pub fn mode(&self) -> SslMode {
        self.mode
    }
}

/// Reads all files and makes both sides.
pub fn make(keys: &Keys) -> Result<Made, String> {
    let clients = clients(keys)?;
    let (servers, servers_source) = servers(keys)?;
    Ok(Made { clients, servers, servers_source })
}

fn clients(keys: &Keys) -> Result<Option<Arc<ServerConfig>>, String> {
    let mode = keys.client_tls_sslmode;
    if keys.auth_type == AuthType::Cert && mode != SslMode::VerifyFull {
        return Err("auth_type=cert requires client_tls_sslmode=verify-full".to_string());
    }
    if mode == SslMode::Disable {
        return Ok(None);
    }
    if keys.client_tls_key_file.is_empty() || keys.client_tls_cert_file.is_empty() {
        return Err(
            "to allow TLS connections from clients, client_tls_key_file and client_tls_cert_file must be set"
                .to_string(),
        );
    }
    let must_verify = mode >= SslMode::VerifyCa;
    if must_verify && keys.client_tls_ca_file.is_empty() {
        return Err(format!("client_tls_sslmode {mode} requires client_tls_ca_file"));
    }
    let versions = suites::versions(&keys.client_tls_protocols)
        .map_err(|what| format!("invalid client_tls_protocols: {what}"))?;
    let curve = &keys.client_tls_ecdhcurve;
    let provider = suites::provider(&keys.client_tls_ciphers, keys.client_tls13_ciphers.as_deref(), curve)?;
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(|_| "client_tls_protocols and the ciphers leave nothing that is spoken here".to_string())?;
    let builder = if keys.client_tls_ca_file.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_verifier(client_verifier(keys, must_verify, provider)?)
    };
    let own = own_certificate("client_tls", &keys.client_tls_cert_file, &keys.client_tls_key_file)?;
    let mut config = builder.with_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Tickets let clients that reconnect skip the signature, which is most of a handshake's cost.
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(config)))
}

fn client_verifier(
    keys: &Keys,
    must_verify: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<ClientVerifier>, String> {
    let path = &keys.client_tls_ca_file;
    let anchors = certificates("client_tls_ca_file", path)?;
    let roots = Arc::new(roots("client_tls_ca_file", path)?);
    let webpki = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let webpki = if must_verify { webpki } else { webpki.allow_unauthenticated() };
    let webpki = webpki.build().map_err(|error| format!("client_tls_ca_file {path}: {error}"))?;
    Ok(Arc::new(ClientVerifier::new(webpki, anchors, provider)))
}

fn servers(keys: &Keys) -> Result<(Option<Arc<ClientConfig>>, ServersSource), String> {
    let mode = keys.server_tls_sslmode;
    let mut source = ServersSource {
        mode,
        words: [
            keys.server_tls_protocols.clone(),
            keys.server_tls_ciphers.clone(),
            keys.server_tls13_ciphers.clone().unwrap_or_default(),
        ],
        files: Default::default(),
    };
    if mode == SslMode::Disable {
        return Ok((None, source));
    }
    let named = [
        ("server_tls_ca_file", &keys.server_tls_ca_file),
        ("server_tls_cert_file", &keys.server_tls_cert_file),
        ("server_tls_key_file", &keys.server_tls_key_file),
    ];
    for (slot, (key, path)) in source.files.iter_mut().zip(named) {
        if !path.is_empty() {
            *slot = read(key, path)?;
        }
    }
    let versions = suites::versions(&keys.server_tls_protocols)
        .map_err(|what| format!("invalid server_tls_protocols: {what}"))?;
    if versions.is_empty() {
        tracing::warn!("server_tls_protocols {}: TLS below 1.2 is not spoken", keys.server_tls_protocols);
        return Ok((None, source));
    }
    let provider = suites::provider(&keys.server_tls_ciphers, keys.server_tls13_ciphers.as_deref(), "auto")?;
    let provider = Arc::new(provider);
    let verifier = ServerVerifier::new(checks(keys)?, provider.clone());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|_| "server_tls_protocols and the ciphers leave nothing that is spoken here".to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = if keys.server_tls_cert_file.is_empty() {
        builder.with_no_client_auth()
    } else {
        let own = own_certificate("server_tls", &keys.server_tls_cert_file, &keys.server_tls_key_file)?;
        builder.with_client_cert_resolver(own)
    };
    Ok((Some(Arc::new(config)), source))
}

/// What is asked of a server's certificate. As with libpq, less than verify-ca asks nothing.
fn checks(keys: &Keys) -> Result<Checks, String> {
    let mode = keys.server_tls_sslmode;
    if mode < SslMode::VerifyCa {
        return Ok(Checks::Nothing);
    }
    let name = mode == SslMode::VerifyFull;
    if keys.server_tls_ca_file.is_empty() {
        // Without an authority no server can prove itself: safe, and the next key to be set may be the file.
        tracing::warn!("server_tls_sslmode {mode} without server_tls_ca_file: no server will be trusted");
        return Ok(Checks::Chain { roots: Arc::new(RootCertStore::empty()), anchors: Vec::new(), name });
    }
    let anchors = certificates("server_tls_ca_file", &keys.server_tls_ca_file)?;
    let roots = Arc::new(roots("server_tls_ca_file", &keys.server_tls_ca_file)?);
    Ok(Checks::Chain { roots, anchors, name })
}

fn read(key: &str, path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(Path::new(path)).map_err(|error| format!("{key} {path}: {}", os_text(&error)))
}

/// `No such file or directory`, without the number behind it.
fn os_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}

fn certificates(key: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(key, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{key} {path}: holds no certificate in PEM form"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{key} {path}: {error}")),
    }
}

/// What this side shows. rustls' own way takes no certificate of version 1, as libpq's side does.
fn own_certificate(side: &str, certificate: &str, key: &str) -> Result<Arc<SingleCertAndKey>, String> {
    let (certificate_key, key_key) = (format!("{side}_cert_file"), format!("{side}_key_file"));
    let chain = certificates(&certificate_key, certificate)?;
    let private = private_key(&key_key, key)?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&private)
        .map_err(|error| format!("{key_key} {key}: {error}"))?;
    let fits = signer.public_key().is_none_or(|public| verifier::has_public_key(&chain[0], &public));
    if !fits {
        return Err(format!("{key_key} {key} does not belong to {certificate_key} {certificate}"));
    }
    Ok(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, signer))))
}

fn private_key(key: &str, path: &str) -> Result<PrivateKeyDer<'static>, String> {
    if path.is_empty() {
        return Err(format!("{key} must be set when there is a certificate"));
    }
    let bytes = read(key, path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| format!("{key} {path}: {error}"))
}

fn roots(key: &str, path: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, path)? {
        roots.add(certificate).map_err(|error| format!("{key} {path}: {error}"))?;
    }
    Ok(roots)
}
