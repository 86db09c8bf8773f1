//! The handshake with an upstream.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::Tls;
use super::client::{Distrust, UpstreamTls};
use crate::wire::Wire;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum NoSession {
    #[error("SSL_do_handshake() failed ({0})")]
    Handshake(io::Error),
    #[error(transparent)]
    Distrusted(#[from] Distrust),
    #[error("upstream did not agree on HTTP/2")]
    NoHttp2,
}

/// With whom a session is: only a request that means the same may use its connection again.
#[derive(Debug, Clone)]
pub struct TlsPeer {
    pub tls: Arc<UpstreamTls>,
    pub name: Box<str>,
}

impl PartialEq for TlsPeer {
    fn eq(&self, other: &TlsPeer) -> bool {
        Arc::ptr_eq(&self.tls, &other.tls) && self.name == other.name
    }
}

pub async fn connect(wire: Wire, peer: &TlsPeer, http2: bool) -> Result<Wire, NoSession> {
    // What is no name is not sent; rustls still wants one to file sessions under, and sends no addresses.
    let name = ServerName::try_from(peer.name.to_string())
        .unwrap_or_else(|_| ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into()));
    let connector = TlsConnector::from(peer.tls.config(http2));
    let stream = connector.connect(name, wire).await.map_err(NoSession::Handshake)?;
    let connection = stream.get_ref().1;
    peer.tls.check(connection.peer_certificates().unwrap_or_default(), &peer.name)?;
    if http2 && connection.alpn_protocol() != Some(b"h2") {
        return Err(NoSession::NoHttp2);
    }
    Ok(Wire::Tls(Box::new(Tls::new(stream.into()))))
}
