use rustls::{ClientConfig, ServerConfig};

use super::contexts::make;
use super::*;
use crate::settings::Key;

fn file(name: &str) -> String {
    format!("{}/tests/certs/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn keys(pairs: &[(&str, &str)]) -> Keys {
    let mut keys = Keys::default();
    for (name, value) in pairs {
        let is_file = name.ends_with("_file");
        let value = if is_file { file(value) } else { (*value).to_string() };
        Key::find(name).unwrap().set(&mut keys, &value).unwrap();
    }
    keys
}

/// The pooler's side towards clients, with this certificate, played as a Postgres server.
fn server(name: &str) -> Arc<ServerConfig> {
    let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
    let pairs = [
        ("client_tls_sslmode", "require"),
        ("client_tls_cert_file", &certificate),
        ("client_tls_key_file", &key),
    ];
    make(&keys(&pairs)).unwrap().clients.unwrap()
}

fn client(mode: &str, ca: &str, protocols: &str) -> Arc<ClientConfig> {
    let pairs =
        [("server_tls_sslmode", mode), ("server_tls_ca_file", ca), ("server_tls_protocols", protocols)];
    make(&keys(&pairs)).unwrap().servers.unwrap()
}

/// Runs a handshake in memory.
fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<ServerConnection, rustls::Error> {
    let name = ServerName::try_from(name.to_string()).unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(server)
}

fn fits(mode: &str, ca: &str, certificate: &str, name: &str) -> bool {
    let results = ["tlsv1.2", "tlsv1.3"]
        .map(|protocol| shake(client(mode, ca, protocol), server(certificate), name).is_ok());
    assert_eq!(results[0], results[1], "both versions of TLS agree");
    results[0]
}

#[test]
fn the_name_is_looked_for_where_libpq_looks() {
    let full = |certificate: &str, name: &str| fits("verify-full", "ca.crt", certificate, name);
    assert!(
        full("names", "db.example.org") && full("names", "a.pool.example.org") && full("names", "127.0.0.1")
    );
    assert!(!full("names", "wrong.example.org"), "the common name does not count beside others");
    assert!(!full("names", "127.0.0.2"));
    assert!(full("common_name", "db.example.org") && !full("common_name", "other.example.org"));
    assert!(full("version_1", "db.example.org") && !full("version_1", "other.example.org"));
}

#[test]
fn verify_ca_looks_at_the_chain_only_and_require_at_nothing() {
    for certificate in ["names", "common_name", "version_1"] {
        assert!(fits("verify-ca", "ca.crt", certificate, "other.example.org"), "{certificate}");
        assert!(!fits("verify-ca", "other_ca.crt", certificate, "db.example.org"), "{certificate}");
        assert!(fits("require", "other_ca.crt", certificate, "x.example.org"), "{certificate}");
    }
}

#[test]
fn without_an_authority_no_server_is_trusted() {
    let client = make(&keys(&[("server_tls_sslmode", "verify-full")])).unwrap().servers.unwrap();
    assert!(shake(client, server("names"), "db.example.org").is_err());
}

#[test]
fn a_client_certificate_gives_its_name() {
    let server_keys = keys(&[
        ("client_tls_sslmode", "verify-full"),
        ("client_tls_ca_file", "ca.crt"),
        ("client_tls_cert_file", "names.crt"),
        ("client_tls_key_file", "names.key"),
    ]);
    let server = make(&server_keys).unwrap().clients.unwrap();
    for (file, user) in [("client", "bob"), ("version_1", "db.example.org")] {
        let with = keys(&[
            ("server_tls_sslmode", "require"),
            ("server_tls_cert_file", &format!("{file}.crt")),
            ("server_tls_key_file", &format!("{file}.key")),
        ]);
        let shaken = shake(make(&with).unwrap().servers.unwrap(), server.clone(), "x.example.org").unwrap();
        let certificate = &shaken.peer_certificates().unwrap()[0];
        assert!(verifier::bears_name(certificate, user) && !verifier::bears_name(certificate, "alice"));
    }
    let without = client("require", "ca.crt", "tlsv1.2");
    assert!(shake(without, server, "x.example.org").is_err(), "verify-full asks for a certificate");
}

#[test]
fn settings_that_cannot_work_say_why() {
    let error = |pairs: &[(&str, &str)]| make(&keys(pairs)).err().unwrap();
    let missing = error(&[
        ("client_tls_sslmode", "require"),
        ("client_tls_cert_file", "gone.crt"),
        ("client_tls_key_file", "names.key"),
    ]);
    assert!(missing.ends_with("gone.crt: No such file or directory"), "{missing}");
    assert!(error(&[("client_tls_sslmode", "require")]).contains("client_tls_cert_file must be set"));
    assert!(error(&[("server_tls_protocols", "sslv3")]).contains("unknown version"));
    assert!(error(&[("auth_type", "cert")]).contains("verify-full"));
    let other_key = error(&[
        ("client_tls_sslmode", "require"),
        ("client_tls_cert_file", "names.crt"),
        ("client_tls_key_file", "client.key"),
    ]);
    assert!(other_key.contains("client_tls_key_file"), "{other_key}");
}

#[test]
fn only_a_real_change_replaces_server_connections() {
    let contexts = Contexts::default();
    let apply = |pairs: &[(&str, &str)]| contexts.apply(&keys(pairs)).unwrap().servers_changed;
    assert!(!apply(&[]), "the start is no change");
    assert!(!apply(&[("default_pool_size", "3")]));
    assert!(apply(&[("server_tls_sslmode", "allow")]));
    assert!(apply(&[("server_tls_sslmode", "allow"), ("server_tls_protocols", "tlsv1.0")]));
    assert!(contexts.apply(&keys(&[("server_tls_protocols", "sslv3")])).is_err());
    assert!(
        !apply(&[("server_tls_sslmode", "allow"), ("server_tls_protocols", "tlsv1.0")]),
        "the old ones stayed"
    );
}
