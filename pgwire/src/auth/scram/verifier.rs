//! What a server stores for a user: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.

use std::fmt;

use super::{
    Error, Key, MAX_ITERATIONS, MECHANISM, client_key, decode, decode_key, encode, hmac, salted_password,
    server_key, sha256,
};
use crate::auth::same;

/// Checks a password without holding it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl Verifier {
    /// None when the text has another form. Any count of rounds is taken: it is the operator's own, and checking a
    /// proof needs none of them.
    pub fn parse(text: &str) -> Option<Verifier> {
        let rest = text.strip_prefix(MECHANISM)?.strip_prefix('$')?;
        let (parameters, keys) = rest.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations.parse().ok().filter(|n| *n > 0)?;
        let salt = decode(salt).ok().filter(|salt| !salt.is_empty())?;
        let keys = (decode_key(stored_key).ok()?, decode_key(server_key).ok()?);
        Some(Verifier { iterations, salt, stored_key: keys.0, server_key: keys.1 })
    }

    /// Made from a password that is known. Slow: `iterations` rounds.
    pub fn make(password: &str, salt: &[u8], iterations: u32) -> Verifier {
        let salted = salted_password(password.as_bytes(), salt, iterations);
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&client_key(&salted)),
            server_key: server_key(&salted),
        }
    }

    /// For a user who does not exist: an exchange with it looks like any other and always fails. The salt depends on
    /// the user and a secret of this process, so that asking twice gives the same.
    pub fn mock(user: &str, process_secret: &[u8], iterations: u32) -> Verifier {
        let seed = hmac(process_secret, user.as_bytes());
        Verifier {
            iterations,
            salt: seed[..16].to_vec(),
            // No client key has this hash: it would have to be a preimage of it.
            stored_key: hmac(process_secret, &seed),
            server_key: sha256(&seed),
        }
    }

    /// Whether the password is the right one. Slow. One with more rounds than `MAX_ITERATIONS` is not checked: roles may
    /// choose their own verifiers, and a lookup would bring them here.
    pub fn accepts(&self, password: &[u8]) -> bool {
        if self.iterations > MAX_ITERATIONS {
            return false;
        }
        let salted = salted_password(password, &self.salt, self.iterations);
        same(&sha256(&client_key(&salted)), &self.stored_key)
    }

    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// The keys of this password, to log in elsewhere with; an error when it is not the right one. Slow.
    pub fn keys(&self, password: &str) -> Result<super::Keys, Error> {
        let salted = salted_password(password.as_bytes(), &self.salt, self.iterations);
        let client_key = client_key(&salted);
        if !same(&sha256(&client_key), &self.stored_key) {
            return Err(Error::WrongProof);
        }
        Ok(super::Keys { client_key, server_key: self.server_key })
    }
}

/// The form in which it is stored.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (salt, stored, server) = (encode(&self.salt), encode(&self.stored_key), encode(&self.server_key));
        write!(f, "{MECHANISM}${}:{salt}${stored}:{server}", self.iterations)
    }
}

/// Not shown: whoever has it can guess passwords in peace.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} rounds)", self.iterations)
    }
}
