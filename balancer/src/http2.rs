//! HTTP/2 by the h2 crate. A stream is a [`Wire`](crate::wire::Wire) that carries one exchange as bytes of HTTP/1.1, so
//! the relay knows of no second protocol: what comes is written out as a head and chunks (`incoming`), what goes is
//! read back into frames (`outgoing`). Flow control, resets and trailers keep their meaning on the way.

pub mod asked;
mod incoming;
mod inlet;
mod outgoing;
pub mod served;
pub mod serving;

use std::io;

/// What the relay sees of a stream that was reset or whose connection ended.
pub fn gone(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

/// The peer refused the stream, or went away before it came to it (RFC 9113, section 8.7).
pub fn is_unprocessed(error: &io::Error) -> bool {
    inner(error).is_some_and(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Why the peer reset the stream, if it did.
pub fn reset_by_peer(error: &io::Error) -> Option<h2::Reason> {
    inner(error).filter(|error| error.is_remote() && error.is_reset())?.reason()
}

/// HTTP/2 has no words for a request: no server is to blame, and the next one would get it no better.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsayable(String);

pub fn is_unsayable(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(error) if error.is::<Unsayable>())
}

fn unsayable(why: impl Into<String>) -> io::Error {
    io::Error::other(Unsayable(why.into()))
}

fn inner(error: &io::Error) -> Option<&h2::Error> {
    error.get_ref()?.downcast_ref()
}
