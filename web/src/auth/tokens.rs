//! Signed tokens: JWT with HS256 and a key id, so that the key can change without logging anyone out.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Identity;
use crate::error::Error;
use crate::settings;

/// What a token is good for; one is never taken for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    Access,
    Ticket,
}

/// The key that signs and the keys that are accepted.
pub struct Keys {
    current: Key,
    previous: Option<Key>,
}

struct Key {
    id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    purpose: Purpose,
    sub: Uuid,
    name: String,
    display: String,
    role: String,
    login: Uuid,
    iat: i64,
    exp: i64,
}

impl Keys {
    pub fn new(settings: &settings::Auth) -> Self {
        Self {
            current: Key::new(settings.secret.reveal()),
            previous: settings.previous.as_ref().map(|secret| Key::new(secret.reveal())),
        }
    }

    pub fn sign(&self, purpose: Purpose, identity: &Identity) -> String {
        let header = Header { kid: Some(self.current.id.clone()), ..Header::new(Algorithm::HS256) };
        let claims = Claims {
            purpose,
            sub: identity.user_id,
            name: identity.username.clone(),
            display: identity.display_name.clone(),
            role: if identity.is_admin { "admin" } else { "user" }.to_owned(),
            login: identity.login_id,
            iat: super::now_s(),
            exp: identity.expires_at,
        };
        jsonwebtoken::encode(&header, &claims, &self.current.encoding).expect("plain data under an HMAC key")
    }

    /// An admin's access token that belongs to no account.
    pub fn operator_token(&self, lifetime: Duration) -> String {
        let identity = Identity {
            user_id: Uuid::nil(),
            username: "operator".to_owned(),
            display_name: "Operator".to_owned(),
            expires_at: super::now_s() + super::seconds(lifetime),
            is_admin: true,
            login_id: Uuid::nil(),
        };
        self.sign(Purpose::Access, &identity)
    }

    /// # Errors
    /// Not signed by us, for another purpose, or ended at `now_s`.
    pub fn check(&self, purpose: Purpose, token: &str, now_s: i64) -> Result<Identity, Error> {
        let refused = || Error::unauthorized("the token is not valid; log in again");
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused())?;
        let kid = header.kid.ok_or_else(refused)?;
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id == kid)
            .ok_or_else(refused)?;
        let mut validation = Validation::new(Algorithm::HS256);
        // The time is checked below, against the caller's clock and without leeway.
        validation.validate_exp = false;
        let claims: Claims =
            jsonwebtoken::decode(token, &key.decoding, &validation).map_err(|_| refused())?.claims;
        if claims.purpose != purpose {
            return Err(refused());
        }
        if claims.exp <= now_s {
            return Err(Error::unauthorized("the token has ended; refresh it"));
        }
        Ok(Identity {
            user_id: claims.sub,
            username: claims.name,
            display_name: claims.display,
            expires_at: claims.exp,
            is_admin: claims.role == "admin",
            login_id: claims.login,
        })
    }
}

impl Key {
    /// The id is a piece of the key's hash: replicas agree on it without being told.
    fn new(secret: &str) -> Self {
        let digest = Sha256::digest([b"arena key id ", secret.as_bytes()].concat());
        Self {
            id: digest[..4].iter().map(|byte| format!("{byte:02x}")).collect(),
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            decoding: DecodingKey::from_secret(secret.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    fn keys(secret: &str, previous: Option<&str>) -> Keys {
        Keys::new(&settings::Auth {
            secret: Secret::new(secret),
            previous: previous.map(Secret::new),
            admins: Vec::new(),
            tries_max: 1,
            tries_address_max: 1,
            tries_window: Duration::from_secs(1),
            refresh_lifetime: Duration::from_secs(1),
        })
    }

    fn alice() -> Identity {
        Identity {
            user_id: Uuid::from_u128(1),
            username: "alice".into(),
            display_name: "Alice".into(),
            expires_at: 1_000,
            is_admin: false,
            login_id: Uuid::from_u128(2),
        }
    }

    #[test]
    fn a_token_is_good_for_its_purpose_until_its_end() {
        let keys = keys("first key", None);
        let token = keys.sign(Purpose::Access, &alice());
        assert_eq!(keys.check(Purpose::Access, &token, 999).unwrap(), alice());
        assert!(keys.check(Purpose::Ticket, &token, 999).is_err());
        assert!(keys.check(Purpose::Access, &token, 1_000).is_err());
    }

    #[test]
    fn after_a_change_of_the_key_old_tokens_are_still_accepted_until_it_is_forgotten() {
        let old = keys("first key", None).sign(Purpose::Access, &alice());
        assert!(keys("second key", Some("first key")).check(Purpose::Access, &old, 0).is_ok());
        assert!(keys("second key", None).check(Purpose::Access, &old, 0).is_err());
    }

    #[test]
    fn a_changed_token_is_refused() {
        let keys = keys("first key", None);
        let token = keys.sign(Purpose::Access, &alice());
        for index in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            let same = changed == token;
            // The last character of a part may hold unused bits; decoding refuses or ignores those.
            let read = keys.check(Purpose::Access, &changed, 0);
            assert!(same || read.is_err() || read.unwrap() == alice(), "{index}");
        }
        assert!(keys.check(Purpose::Access, "", 0).is_err());
        assert!(keys.check(Purpose::Access, "a.b.c", 0).is_err());
    }
}
