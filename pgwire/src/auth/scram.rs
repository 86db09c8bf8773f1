//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as Postgres speaks it: the user name is the startup message's, and channel
//! binding is not offered. The nonces come from the caller, which has the randomness.

mod client;
mod server;
mod verifier;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub use client::{Client, Secret};
pub use server::Server;
pub use verifier::Verifier;

/// The name in AuthenticationSASL.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Postgres' default, and what is made from plain passwords.
pub const DEFAULT_ITERATIONS: u32 = 4096;

/// The most rounds that a peer may ask of us: about a quarter of a second. Without a bound one login could stall
/// all others (CVE-2026-6669).
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// The longest message of the exchange: each holds some short attributes only.
pub const MAX_MESSAGE_LEN: usize = 4096;

/// Bytes of randomness in a nonce; it is sent as base64.
pub const NONCE_LEN: usize = 18;

pub(crate) type Key = [u8; 32];

/// What a successful exchange leaves behind. With them one can log in as the user wherever the same verifier is
/// stored: PgBouncer's SCRAM pass-through.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub client_key: Key,
    pub server_key: Key,
}

/// Keys are secrets.
impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(***)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    #[error("SCRAM message out of turn")]
    OutOfTurn,
    #[error("SCRAM nonce does not continue ours")]
    Nonce,
    #[error("SCRAM iteration count {0} is not between 1 and {MAX_ITERATIONS}")]
    Iterations(u32),
    #[error("SCRAM channel binding is not supported")]
    ChannelBinding,
    #[error("SCRAM authorization identity is not supported")]
    AuthorizationIdentity,
    /// The client does not know the password.
    #[error("SCRAM proof is wrong")]
    WrongProof,
    /// The server does not know the password's verifier: it is not the server we mean.
    #[error("SCRAM server signature is wrong")]
    WrongSignature,
    #[error("SCRAM server refused the login")]
    Refused,
}

/// Base64 of random bytes: printable and without a comma, as nonces have to be.
pub fn nonce(random: [u8; NONCE_LEN]) -> String {
    STANDARD.encode(random)
}

pub(crate) fn hmac(key: &[u8], message: &[u8]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

pub(crate) fn sha256(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

pub(crate) fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// The slow step: `iterations` rounds of PBKDF2 over the prepared password.
pub(crate) fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let mut salted = Key::default();
    pbkdf2::pbkdf2_hmac::<Sha256>(&prepared(password), salt, iterations, &mut salted);
    salted
}

/// SASLprep; a password that is not UTF-8 or holds what SASLprep forbids is taken as it is, like Postgres does.
fn prepared(password: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let text = std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
    match text {
        Some(prepared) if !prepared.is_empty() => prepared.into_owned().into_bytes().into(),
        _ => password.into(),
    }
}

pub(crate) fn client_key(salted_password: &Key) -> Key {
    hmac(salted_password, b"Client Key")
}

pub(crate) fn server_key(salted_password: &Key) -> Key {
    hmac(salted_password, b"Server Key")
}

/// Messages of the exchange are short texts.
pub(crate) fn text(message: &[u8]) -> Result<&str, Error> {
    if message.len() > MAX_MESSAGE_LEN {
        return Err(Error::Malformed("too long"));
    }
    std::str::from_utf8(message).map_err(|_| Error::Malformed("not UTF-8"))
}

/// Takes `letter=value` from the front of a comma-separated list.
pub(crate) fn attribute<'a>(rest: &mut &'a str, letter: char) -> Result<&'a str, Error> {
    let (item, after) = rest.split_once(',').unwrap_or((rest, ""));
    let mut chars = item.chars();
    if chars.next() != Some(letter) || chars.next() != Some('=') {
        return Err(Error::Malformed("an attribute is missing or out of order"));
    }
    *rest = after;
    Ok(chars.as_str())
}

pub(crate) fn decode(base64: &str) -> Result<Vec<u8>, Error> {
    STANDARD.decode(base64).map_err(|_| Error::Malformed("not base64"))
}

pub(crate) fn decode_key(base64: &str) -> Result<Key, Error> {
    decode(base64)?.try_into().map_err(|_| Error::Malformed("a key of another length"))
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Printable ASCII without a comma.
pub(crate) fn check_nonce(nonce: &str) -> Result<(), Error> {
    let fits = !nonce.is_empty() && nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte) && byte != b',');
    if fits { Ok(()) } else { Err(Error::Malformed("a nonce has other characters than printable ASCII")) }
}

#[cfg(test)]
mod tests;
