//! The server's side of the exchange: challenge, check of the proof, signature.

use super::{Error, Keys, Verifier, attribute, check_nonce, decode_key, encode, hmac, sha256, text, xor};
use crate::auth::same;

/// The exchange as seen from the server.
pub struct Server {
    verifier: Verifier,
    nonce: String,
    phase: Phase,
}

enum Phase {
    Start,
    Challenged { first_bare: String, server_first: String, gs2_header: String, whole_nonce: String },
    Done,
}

impl Server {
    /// `nonce` from `super::nonce` over fresh randomness; an unknown user gets `Verifier::mock`.
    pub fn new(verifier: Verifier, nonce: String) -> Server {
        Server { verifier, nonce, phase: Phase::Start }
    }

    /// Answers the data of SASLInitialResponse with that of AuthenticationSASLContinue.
    pub fn challenge(&mut self, client_first: &[u8]) -> Result<String, Error> {
        if !matches!(self.phase, Phase::Start) {
            return Err(Error::OutOfTurn);
        }
        let (gs2_header, bare) = split_gs2_header(text(client_first)?)?;
        let mut rest = bare;
        if rest.starts_with("m=") {
            return Err(Error::Malformed("a mandatory extension"));
        }
        // The name is passed over: the startup message's counts, in Postgres as well.
        attribute(&mut rest, 'n')?;
        let client_nonce = attribute(&mut rest, 'r')?;
        check_nonce(client_nonce)?;
        let whole_nonce = format!("{client_nonce}{}", self.nonce);
        let salt = encode(&self.verifier.salt);
        let server_first = format!("r={whole_nonce},s={salt},i={}", self.verifier.iterations);
        self.phase = Phase::Challenged {
            first_bare: bare.to_string(),
            server_first: server_first.clone(),
            gs2_header: gs2_header.to_string(),
            whole_nonce,
        };
        Ok(server_first)
    }

    /// Checks the data of SASLResponse. Gives that of AuthenticationSASLFinal, and the keys for pass-through.
    pub fn verify(&mut self, client_final: &[u8]) -> Result<(String, Keys), Error> {
        let phase = std::mem::replace(&mut self.phase, Phase::Done);
        let Phase::Challenged { first_bare, server_first, gs2_header, whole_nonce } = phase else {
            return Err(Error::OutOfTurn);
        };
        let client_final = text(client_final)?;
        let (without_proof, proof) =
            client_final.rsplit_once(",p=").ok_or(Error::Malformed("the proof is missing"))?;
        let mut rest = without_proof;
        if attribute(&mut rest, 'c')? != encode(gs2_header.as_bytes()) {
            return Err(Error::ChannelBinding);
        }
        if attribute(&mut rest, 'r')? != whole_nonce {
            return Err(Error::Nonce);
        }
        let auth_message = format!("{first_bare},{server_first},{without_proof}");
        let signature = hmac(&self.verifier.stored_key, auth_message.as_bytes());
        let client_key = xor(&decode_key(proof)?, &signature);
        if !same(&sha256(&client_key), &self.verifier.stored_key) {
            return Err(Error::WrongProof);
        }
        let server_signature = hmac(&self.verifier.server_key, auth_message.as_bytes());
        let keys = Keys { client_key, server_key: self.verifier.server_key };
        Ok((format!("v={}", encode(&server_signature)), keys))
    }
}

/// The header says whether the client binds the exchange to TLS: `n` no, `y` it could but believes that we cannot
/// (true: we do not offer it), `p=` it does.
fn split_gs2_header(client_first: &str) -> Result<(&str, &str), Error> {
    let (flag, rest) = client_first.split_once(',').ok_or(Error::Malformed("no header"))?;
    match flag {
        "n" | "y" => {}
        _ if flag.starts_with("p=") => return Err(Error::ChannelBinding),
        _ => return Err(Error::Malformed("the channel binding flag")),
    }
    let (identity, bare) = rest.split_once(',').ok_or(Error::Malformed("no header"))?;
    if !identity.is_empty() {
        return Err(Error::AuthorizationIdentity);
    }
    Ok((&client_first[..client_first.len() - bare.len()], bare))
}
