//! The handshake with a client: which server block it means, and what came of it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use rustls::server::{Acceptor, ClientHello};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::Tls;
use super::ciphers;
use super::server::ServerTls;
use super::session::{Offered, Session};
use crate::conf::listen::Names;
use crate::deadline::Deadline;
use crate::wire::Wire;

/// `unrecognized_name` as a fatal alert: what `ssl_reject_handshake` answers.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// `internal_error`: nginx's OpenSSL has no certificate to show.
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("peer closed connection in SSL handshake")]
    Closed,
    #[error("client timed out while SSL handshaking")]
    TimedOut,
    #[error("SSL handshake rejected while SSL handshaking")]
    Rejected,
    #[error("no \"ssl_certificate\" is defined in server listening on SSL port while SSL handshaking")]
    NoCertificate,
    #[error("SSL_do_handshake() failed ({0}) while SSL handshaking")]
    Failed(io::Error),
}

/// Does a client that may speak either begin a handshake? `None`: it left.
pub async fn begins(wire: &mut Wire, deadline: &mut Deadline) -> Option<bool> {
    let mut first = [0];
    let peeked = poll_fn(|cx| match wire.poll_peek(cx, &mut first) {
        Poll::Ready(peeked) => Poll::Ready(peeked.ok()),
        Poll::Pending => deadline.poll(cx).map(|()| None),
    })
    .await;
    // A handshake record; 0x80 would begin one of SSLv2, which TLS libraries answer with an alert.
    peeked.filter(|len| *len > 0).map(|_| matches!(first[0], 0x16 | 0x80))
}

/// Shakes hands as the server block that the client names, all of it before the deadline.
pub async fn accept(
    wire: Wire,
    names: &Names,
    deadline: &mut Deadline,
) -> Result<(Wire, Rc<Session>), Refused> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), wire);
    let start = within(hello, deadline).await?;
    let offered = offered(&start.client_hello());
    let name = offered.server_name.as_deref().unwrap_or_default();
    let server = names.find(name.as_bytes());
    let wants_http2 = names.is_http2 || server.http2.is_on;
    if server.tls.rejects {
        return Err(refuse(start, Refused::Rejected));
    }
    let tls = names.tls_for(offered.server_name.as_deref());
    let Some(config) = tls.config(wants_http2) else {
        return Err(refuse(start, Refused::NoCertificate));
    };
    let stream = within(start.into_stream(config), deadline).await?;
    let session = Rc::new(session(&stream, offered, tls.clone()));
    Ok((Wire::Tls(Box::new(Tls::new(stream.into()))), session))
}

fn session(stream: &TlsStream<Wire>, offered: Offered, tls: Arc<ServerTls>) -> Session {
    Session::new(stream.get_ref().1, offered, tls)
}

async fn within<T>(step: impl Future<Output = io::Result<T>>, deadline: &mut Deadline) -> Result<T, Refused> {
    let mut step = pin!(step);
    poll_fn(|cx| match step.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Refused::Closed,
            _ => Refused::Failed(error),
        })),
        Poll::Pending => deadline.poll(cx).map(|()| Err(Refused::TimedOut)),
    })
    .await
}

/// Says no in the clear: there are no keys yet to say it with.
fn refuse(start: StartHandshake<Wire>, why: Refused) -> Refused {
    let alert = if matches!(why, Refused::Rejected) { UNRECOGNIZED_NAME } else { INTERNAL_ERROR };
    let mut wire = start.io;
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    // Seven bytes into an empty send buffer: they fit, or the client is gone.
    let _ = wire.poll_write(&mut context, &alert);
    why
}

fn offered(hello: &ClientHello<'_>) -> Offered {
    let named = |text: Vec<String>| text.join(":");
    let ciphers = hello.cipher_suites().iter().map(|suite| match ciphers::name(*suite) {
        name if name.is_empty() => format!("0x{:04x}", u16::from(*suite)),
        name => name,
    });
    let curves =
        hello.named_groups().unwrap_or_default().iter().map(|group| match ciphers::curve_name(*group) {
            "" => format!("0x{:04x}", u16::from(*group)),
            name => name.to_owned(),
        });
    Offered {
        server_name: hello.server_name().map(|name| name.to_ascii_lowercase().into()),
        ciphers: named(ciphers.collect()),
        curves: named(curves.collect()),
    }
}
