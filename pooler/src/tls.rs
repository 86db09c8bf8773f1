//! TLS towards clients and servers: contexts from the settings, libpq's meaning of each sslmode.

mod contexts;
mod suites;
mod verifier;

use std::sync::{Arc, Mutex, PoisonError};

use pgwire::startup;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::house::House;
use crate::settings::{Keys, SslMode};
use crate::talk::Talk;
use crate::wire::Wire;

pub use contexts::ALPN;

/// The contexts in force; made anew when the settings of TLS change.
#[derive(Default)]
pub struct Contexts {
    current: Mutex<Arc<Current>>,
}

#[derive(Default)]
struct Current {
    clients: Option<Arc<ServerConfig>>,
    servers: Option<Arc<ClientConfig>>,
    /// What the servers' context was made from; None before the first.
    servers_source: Option<contexts::ServersSource>,
}

/// What a change of settings did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Connections to servers were made under other rules than those in force now: they should be replaced.
    pub servers_changed: bool,
}

impl Contexts {
    /// Reads the certificates and keys that the settings name. On an error the old contexts stay in force.
    pub fn apply(&self, keys: &Keys) -> Result<Applied, String> {
        let made = contexts::make(keys)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let before = current.servers_source.as_ref();
        let servers_changed = before.is_some_and(|before| *before != made.servers_source);
        *current = Arc::new(Current {
            clients: made.clients,
            servers: made.servers,
            servers_source: Some(made.servers_source),
        });
        Ok(Applied { servers_changed })
    }

    fn current(&self) -> Arc<Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a client that asks for TLS gets it.
    pub fn offers_clients(&self) -> bool {
        self.current().clients.is_some()
    }
}

/// Whether the settings of TLS and the files that they name can work.
pub fn check(keys: &Keys) -> Result<(), String> {
    contexts::make(keys).map(drop)
}

/// Asks a server for TLS as the `server_tls_sslmode` in force says: settings that cannot work are not in force.
/// Err: the connection cannot be used, with the reason.
pub async fn start_towards_server(house: &House, talk: &mut Talk, name: &str) -> Result<(), String> {
    let current = house.tls.current();
    // Never in clear for want of a context.
    let source = current.servers_source.as_ref().ok_or("TLS is not set up")?;
    let mode = source.mode();
    if mode == SslMode::Disable {
        return Ok(());
    }
    if !server_agrees(talk).await? {
        return if mode >= SslMode::Require { Err("server refused SSL".to_string()) } else { Ok(()) };
    }
    let config =
        current.servers.clone().ok_or("server_tls_protocols names no version of TLS that is spoken here")?;
    // Only verify-full looks at the name; elsewhere an impossible one does no harm.
    let name = match ServerName::try_from(name.to_string()) {
        Ok(name) => name,
        Err(_) if mode == SslMode::VerifyFull => {
            return Err(format!("certificate verify failed: no name in \"{name}\""));
        }
        Err(_) => ServerName::try_from("server.invalid").expect("a literal name is valid"),
    };
    let connection =
        ClientConnection::new(config, name).map_err(|error| format!("TLS startup failed: {error}"))?;
    let started = talk.wire.start_tls(Connection::Client(connection)).await;
    started.map_err(|error| match verification_failure(&error) {
        Some(what) => format!("TLS handshake failed: certificate verify failed: {what}"),
        None => format!("TLS handshake failed: {error}"),
    })
}

/// Sends SSLRequest and reads the one byte of its answer.
async fn server_agrees(talk: &mut Talk) -> Result<bool, String> {
    let mut request = Vec::new();
    startup::ssl_request(&mut request);
    talk.send(&request).await.map_err(|error| error.to_string())?;
    let mut answer = [0; 2];
    let len = talk.wire.read(&mut answer).await.map_err(|error| error.to_string())?;
    match (len, answer[0]) {
        (0, _) => Err("server closed the connection when asked for TLS".to_string()),
        // What comes in clear behind the answer was put there by somebody in between (CVE-2021-43767).
        (2, _) => Err("server sent data before TLS was started".to_string()),
        (_, b'S') => Ok(true),
        (_, b'N') => Ok(false),
        _ => Err("server gave an unknown answer to the request for TLS".to_string()),
    }
}

fn verification_failure(error: &std::io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(inner, rustls::Error::InvalidCertificate(_)).then(|| inner.to_string())
}

/// Speaks TLS with a client. `direct` holds what has come of its hello when it did not ask with SSLRequest; such a
/// client has to name Postgres in ALPN, so that it cannot be led here by another protocol.
pub async fn start_towards_client(
    house: &House,
    wire: &mut Wire,
    direct: Option<&[u8]>,
) -> Result<(), String> {
    let config = house.tls.current().clients.clone().ok_or("TLS is not offered")?;
    let startup_failed = |error: &dyn std::fmt::Display| format!("TLS handshake failed: {error}");
    let mut connection = ServerConnection::new(config).map_err(|error| startup_failed(&error))?;
    let mut hello = direct.unwrap_or_default();
    while !hello.is_empty() {
        connection.read_tls(&mut hello).map_err(|error| startup_failed(&error))?;
        connection.process_new_packets().map_err(|error| startup_failed(&error))?;
    }
    wire.start_tls(Connection::Server(connection)).await.map_err(|error| startup_failed(&error))?;
    let protocol = wire.tls().and_then(|tls| tls.alpn_protocol());
    if direct.is_some() && protocol != Some(ALPN) {
        return Err("direct TLS connection without the ALPN protocol \"postgresql\"".to_string());
    }
    Ok(())
}

/// Whether the client showed a certificate, which has been verified, that bears this name: in its alternative names, or
/// in its common name when it has none.
pub fn client_is_named(wire: &Wire, name: &str) -> bool {
    let certificates = wire.tls().and_then(|tls| tls.peer_certificates());
    certificates.and_then(|chain| chain.first()).is_some_and(|own| verifier::bears_name(own, name))
}

/// Whether the client showed a certificate at all.
pub fn client_has_certificate(wire: &Wire) -> bool {
    wire.tls().and_then(|tls| tls.peer_certificates()).is_some_and(|chain| !chain.is_empty())
}

#[cfg(test)]
mod tests;
