//! What can go wrong with one request: whose fault it is, what the client is told, and whether another server may be
//! asked.

use std::io;

use crate::logic::ending::Trouble;
use crate::logic::h1::{BadBody, BadResponse, Refusal};
use crate::logic::resolver::Failure as NoAddress;
use crate::logic::retry::Failure;
use crate::tls::connect::NoSession;
use crate::worker::room::NoRoom;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Downstream,
    Upstream,
    Us,
}

/// The words are nginx's where operators grep for them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("connect() failed ({0}) while connecting to upstream")]
    Connect(io::Error),
    #[error("{0} while SSL handshaking to upstream")]
    UpstreamTls(NoSession),
    #[error("upstream timed out while connecting to upstream")]
    ConnectTimeout,
    #[error("upstream timed out while sending request to upstream")]
    SendTimeout,
    #[error("upstream timed out while reading response header from upstream")]
    HeadTimeout,
    #[error("upstream timed out while reading upstream")]
    BodyTimeout,
    #[error("recv() failed ({0}) while reading response from upstream")]
    Read(io::Error),
    #[error("upstream prematurely closed connection while reading response header from upstream")]
    ClosedBeforeHead,
    #[error("upstream sent {0} while reading response header from upstream")]
    Head(#[from] BadResponse),
    #[error("upstream rejected request with error {0} while reading response header from upstream")]
    Rejected(u32),
    #[error("upstream failed ({0}) while proxying upgraded connection")]
    Tunnel(io::Error),
    #[error("upstream sent an invalid body: {0}")]
    UpstreamBody(BadBody),
    /// Descriptors or memory: no server is to blame, and the next one would fail alike.
    #[error("socket() failed ({0}) while connecting to upstream")]
    Exhausted(io::Error),
    #[error("{0} while connecting to upstream")]
    NoRoom(#[from] NoRoom),
    #[error("no live upstreams while connecting to upstream")]
    NoLiveUpstreams,
    #[error("{0} could not be resolved ({1})")]
    NotResolved(Box<str>, NoAddress),
    #[error("no resolver defined to resolve {0}")]
    NoResolver(Box<str>),
    #[error("a temporary file failed: {0}")]
    Spool(io::Error),
    #[error("a file failed while sending to client: {0}")]
    File(io::Error),
    /// What it took cannot be sent to a second location's.
    #[error(
        "the request's body was sent to an earlier upstream and is not kept whole (proxy_request_buffering on keeps it)"
    )]
    BodyGone,
    /// The client's words, as the configuration passes them on.
    #[error("HTTP/2 has no words for the request ({0}) while sending request to upstream")]
    Unsayable(io::Error),
    #[error("gzip of an answer failed: {0}")]
    Coding(io::Error),
    #[error("client closed connection")]
    ClientGone,
    #[error("client timed out")]
    ClientTimeout,
    #[error("client sent a request's head too slowly (client_header_min_rate)")]
    HeadTooSlow,
    #[error("client sent a request's body too slowly (client_body_min_rate)")]
    BodyTooSlow,
    #[error("client sent an invalid body: {0}")]
    ClientBody(BadBody),
    #[error("client intended to send too large body")]
    BodyTooLarge,
    #[error("client sent an invalid request: {0}")]
    Refused(#[from] Refusal),
}

impl Error {
    pub fn side(&self) -> Side {
        match self {
            Error::ClientGone
            | Error::ClientTimeout
            | Error::HeadTooSlow
            | Error::BodyTooSlow
            | Error::ClientBody(_)
            | Error::BodyTooLarge
            | Error::Refused(_) => Side::Downstream,
            Error::NoLiveUpstreams
            | Error::NotResolved(..)
            | Error::NoResolver(_)
            | Error::Exhausted(_)
            | Error::NoRoom(_)
            | Error::BodyGone
            | Error::Unsayable(_)
            | Error::Spool(_)
            | Error::File(_) => Side::Us,
            _ => Side::Upstream,
        }
    }

    /// For `$balancer_ending`.
    pub fn trouble(&self) -> Trouble {
        match self {
            Error::ClientGone => Trouble::ClientLeft,
            Error::ClientTimeout | Error::HeadTooSlow | Error::BodyTooSlow => Trouble::ClientLate,
            Error::ConnectTimeout | Error::SendTimeout | Error::HeadTimeout | Error::BodyTimeout => {
                Trouble::ServerLate
            }
            Error::ClientBody(_)
            | Error::BodyTooLarge
            | Error::Refused(_)
            | Error::BodyGone
            | Error::Unsayable(_) => Trouble::Refused,
            Error::Exhausted(_) | Error::NoRoom(_) | Error::Spool(_) | Error::File(_) | Error::Coding(_) => {
                Trouble::Lack
            }
            _ => Trouble::ServerFailed,
        }
    }

    /// As `proxy_next_upstream` counts it; `None` where asking another server makes no sense.
    pub fn retry(&self) -> Option<Failure> {
        match self {
            Error::ConnectTimeout | Error::SendTimeout | Error::HeadTimeout | Error::BodyTimeout => {
                Some(Failure::Timeout)
            }
            Error::Head(_) | Error::Rejected(_) => Some(Failure::InvalidHeader),
            Error::Connect(_) | Error::UpstreamTls(_) | Error::Read(_) | Error::ClosedBeforeHead => {
                Some(Failure::Error)
            }
            _ => None,
        }
    }

    /// 499 is nginx's mark for a client that left: it is logged, never sent.
    pub fn status(&self) -> u16 {
        match self {
            Error::ClientGone => 499,
            Error::ClientTimeout | Error::HeadTooSlow | Error::BodyTooSlow => 408,
            Error::ClientBody(_) | Error::Unsayable(_) => 400,
            Error::BodyTooLarge => 413,
            Error::Refused(refusal) => refusal.status(),
            Error::Exhausted(_) | Error::NoRoom(_) | Error::Spool(_) | Error::File(_) => 500,
            _ => self.retry().map_or(502, Failure::status),
        }
    }
}
