//! HTTP/1.1 over bytes: what a head says and where a body ends. A head is offsets into the buffer it came in, so a
//! request costs no allocation; order and case of the fields stay. No sockets and no clock: see `downstream`, `relay`.

pub mod body;
pub mod fields;
pub mod lines;
pub mod request;
pub mod response;
pub mod target;
mod words;
pub mod write;

#[cfg(test)]
mod tests;

pub use body::{BadBody, BodyReader, Piece};
pub use fields::{Field, Fields, Known, Span, hash};
pub use request::{Limits, Method, Refusal, RequestHead};
pub use response::{BadResponse, ResponseHead};
pub use words::is_lower_of;

/// The versions that this codec speaks. Anything later in the 1.x line counts as 1.1 (RFC 9110, section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Version {
    Http09,
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Version {
    pub fn text(self) -> &'static str {
        match self {
            Version::Http09 => "HTTP/0.9",
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }
}

/// How the end of a body is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    UntilClose,
}
