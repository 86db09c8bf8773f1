//! The client's side of the exchange: first message, proof, and the check that the server knows the verifier.

use super::{
    Error, Key, Keys, MAX_ITERATIONS, attribute, check_nonce, client_key, decode, encode, hmac,
    salted_password, server_key, sha256, text, xor,
};
use crate::auth::same;

/// What the client knows.
#[derive(Clone)]
pub enum Secret {
    Password(String),
    /// Keys of an earlier exchange: pass-through.
    Keys(Keys),
}

/// The exchange as seen from the client.
pub struct Client {
    secret: Secret,
    nonce: String,
    phase: Phase,
}

enum Phase {
    Start,
    SentFirst,
    SentFinal { server_signature: Key },
    Done,
}

/// "n": the client does not do channel binding; then no authorization identity.
const GS2_HEADER: &str = "n,,";

impl Client {
    /// `nonce` from `super::nonce` over fresh randomness.
    pub fn new(secret: Secret, nonce: String) -> Client {
        Client { secret, nonce, phase: Phase::Start }
    }

    /// The data of SASLInitialResponse. The name is empty: the server takes the startup message's.
    pub fn first(&mut self) -> String {
        self.phase = Phase::SentFirst;
        format!("{GS2_HEADER}{}", self.first_bare())
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// Answers AuthenticationSASLContinue with the data of SASLResponse. Slow with a password: the server's count of
    /// rounds, up to `MAX_ITERATIONS`.
    pub fn answer(&mut self, server_first: &[u8]) -> Result<String, Error> {
        if !matches!(self.phase, Phase::SentFirst) {
            return Err(Error::OutOfTurn);
        }
        let server_first = text(server_first)?;
        let challenge = Challenge::parse(server_first, &self.nonce)?;
        let keys = self.keys(&challenge);
        let without_proof = format!("c={},r={}", encode(GS2_HEADER.as_bytes()), challenge.nonce);
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare());
        let signature = hmac(&sha256(&keys.client_key), auth_message.as_bytes());
        let proof = encode(&xor(&keys.client_key, &signature));
        let server_signature = hmac(&keys.server_key, auth_message.as_bytes());
        self.phase = Phase::SentFinal { server_signature };
        Ok(format!("{without_proof},p={proof}"))
    }

    fn keys(&self, challenge: &Challenge<'_>) -> Keys {
        match &self.secret {
            Secret::Keys(keys) => keys.clone(),
            Secret::Password(password) => {
                let salted = salted_password(password.as_bytes(), &challenge.salt, challenge.iterations);
                Keys { client_key: client_key(&salted), server_key: server_key(&salted) }
            }
        }
    }

    /// Checks AuthenticationSASLFinal: a server that cannot sign does not know us.
    pub fn finish(&mut self, server_final: &[u8]) -> Result<(), Error> {
        let Phase::SentFinal { server_signature } = self.phase else {
            return Err(Error::OutOfTurn);
        };
        let mut rest = text(server_final)?;
        if rest.starts_with("e=") {
            return Err(Error::Refused);
        }
        let signature = decode(attribute(&mut rest, 'v')?)?;
        if !same(&signature, &server_signature) {
            return Err(Error::WrongSignature);
        }
        self.phase = Phase::Done;
        Ok(())
    }

    /// True only after `finish`: AuthenticationOk before that is a server that skipped its proof.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }
}

struct Challenge<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> Challenge<'a> {
    fn parse(server_first: &'a str, our_nonce: &str) -> Result<Self, Error> {
        let mut rest = server_first;
        let nonce = attribute(&mut rest, 'r')?;
        let salt = decode(attribute(&mut rest, 's')?)?;
        let count = attribute(&mut rest, 'i')?;
        let iterations: u32 = count.parse().map_err(|_| Error::Malformed("the iteration count"))?;
        check_nonce(nonce)?;
        // The server has to add something of its own, else an old exchange could be replayed.
        if !nonce.starts_with(our_nonce) || nonce.len() == our_nonce.len() {
            return Err(Error::Nonce);
        }
        if !(1..=MAX_ITERATIONS).contains(&iterations) {
            return Err(Error::Iterations(iterations));
        }
        if salt.is_empty() {
            return Err(Error::Malformed("the salt is empty"));
        }
        Ok(Challenge { nonce, salt, iterations })
    }
}
