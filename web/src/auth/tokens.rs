//! Signed tokens: JWT with a key id, so that the key can change without logging anyone out. HS256 under the secret key,
//! EdDSA where a key pair is given.

use std::fmt;
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
    /// The first one signs.
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    algorithm: Algorithm,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// An Ed25519 key pair that was found to fit together.
#[derive(Clone)]
pub struct KeyPair(Key);

/// A ticket that was signed, and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTicket {
    /// As it was when the ticket was asked for: it ends with the access token, not with the ticket.
    pub identity: Identity,
    /// By which it is used up.
    pub id: Uuid,
    /// When it is good for nothing any more, in seconds since 1970.
    pub ends_at: i64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    purpose: Purpose,
    /// Of a ticket, which is good once; access tokens have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<Uuid>,
    sub: Uuid,
    name: String,
    display: String,
    role: String,
    login: Uuid,
    iat: i64,
    exp: i64,
    /// Of a ticket that ends before the access token that it was asked for with: that one's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
}

impl Keys {
    pub fn new(settings: &settings::Auth) -> Self {
        let pair = settings.key_pair.iter().map(|pair| pair.0.clone());
        let secrets = std::iter::once(&settings.secret).chain(&settings.previous);
        Self { keys: pair.chain(secrets.map(|secret| Key::of_secret(secret.reveal()))).collect() }
    }

    pub fn sign(&self, purpose: Purpose, identity: &Identity) -> String {
        self.sign_claims(purpose, identity, None)
    }

    /// A ticket that is good until `ends_at`; what it opens may stay open for as long as `identity` lasts.
    pub fn sign_ticket(&self, identity: &Identity, ends_at: i64) -> String {
        self.sign_claims(Purpose::Ticket, identity, Some(ends_at.min(identity.expires_at)))
    }

    fn sign_claims(&self, purpose: Purpose, identity: &Identity, ends_at: Option<i64>) -> String {
        let key = &self.keys[0];
        let header = Header { kid: Some(key.id.clone()), ..Header::new(key.algorithm) };
        let claims = Claims {
            purpose,
            jti: (purpose == Purpose::Ticket).then(Uuid::new_v4),
            sub: identity.user_id,
            name: identity.username.clone(),
            display: identity.display_name.clone(),
            role: if identity.is_admin { "admin" } else { "user" }.to_owned(),
            login: identity.login_id,
            iat: super::now_s(),
            exp: ends_at.unwrap_or(identity.expires_at),
            until: ends_at.map(|_| identity.expires_at),
        };
        jsonwebtoken::encode(&header, &claims, &key.encoding)
            .expect("plain data under a key that was checked")
    }

    /// An admin's access token that belongs to no account.
    pub fn operator_token(&self, lifetime: Duration) -> String {
        let identity = Identity {
            user_id: Uuid::nil(),
            username: "operator".to_owned(),
            display_name: "Operator".to_owned(),
            expires_at: super::now_s() + super::seconds(lifetime),
            is_admin: true,
            // Of its own, so that logging out with one token does not end all.
            login_id: Uuid::now_v7(),
        };
        self.sign(Purpose::Access, &identity)
    }

    /// # Errors
    /// Not signed by us, for another purpose, or ended at `now_s`.
    pub fn check(&self, purpose: Purpose, token: &str, now_s: i64) -> Result<Identity, Error> {
        self.claims(purpose, token, now_s).map(Claims::into_identity)
    }

    /// Who a signed ticket belongs to, and by what it is used up.
    ///
    /// # Errors
    /// As of [`Keys::check`].
    pub fn check_ticket(&self, token: &str, now_s: i64) -> Result<SignedTicket, Error> {
        let claims = self.claims(Purpose::Ticket, token, now_s)?;
        let id = claims.jti.ok_or_else(|| Error::unauthorized("the ticket is not valid; get a new one"))?;
        Ok(SignedTicket { id, ends_at: claims.exp, identity: claims.into_identity() })
    }

    fn claims(&self, purpose: Purpose, token: &str, now_s: i64) -> Result<Claims, Error> {
        let refused = || Error::unauthorized("the token is not valid; log in again");
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused())?;
        let kid = header.kid.ok_or_else(refused)?;
        let key = self.keys.iter().find(|key| key.id == kid).ok_or_else(refused)?;
        let mut validation = Validation::new(key.algorithm);
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
        Ok(claims)
    }
}

impl Claims {
    fn into_identity(self) -> Identity {
        Identity {
            user_id: self.sub,
            username: self.name,
            display_name: self.display,
            expires_at: self.until.unwrap_or(self.exp),
            is_admin: self.role == "admin",
            login_id: self.login,
        }
    }
}

impl Key {
    fn of_secret(secret: &str) -> Self {
        Self {
            id: key_id(secret),
            algorithm: Algorithm::HS256,
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            decoding: DecodingKey::from_secret(secret.as_bytes()),
        }
    }
}

impl KeyPair {
    /// Reads a private and a public key, both PEM, in one text.
    ///
    /// # Errors
    /// What is missing, without the key.
    pub fn parse(pem: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "not an Ed25519 private key followed by its public key, both PEM; make them with: \
             openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout >> key.pem";
        let (private, public) = pem.split_at(pem.find("-----BEGIN PUBLIC KEY-----").ok_or(WANTED)?);
        let key = Key {
            id: key_id(public.trim()),
            algorithm: Algorithm::EdDSA,
            encoding: EncodingKey::from_ed_pem(private.trim().as_bytes()).map_err(|_| WANTED)?,
            decoding: DecodingKey::from_ed_pem(public.trim().as_bytes()).map_err(|_| WANTED)?,
        };
        let signed =
            jsonwebtoken::encode(&Header::new(key.algorithm), &"", &key.encoding).map_err(|_| WANTED)?;
        let (message, signature) = signed.rsplit_once('.').ok_or(WANTED)?;
        let fits = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, key.algorithm);
        if fits.unwrap_or(false) {
            Ok(Self(key))
        } else {
            Err("the public key does not belong to the private key")
        }
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.0.id)
    }
}

/// A piece of the key's hash: replicas agree on it without being told.
fn key_id(key: &str) -> String {
    let digest = Sha256::digest([b"arena key id ", key.as_bytes()].concat());
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    /// Made for this test alone.
    const PAIR: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIA0qAp0+oEjUMjtX0lg68+gG5LOH3C7hpPDiBCCvkadp
-----END PRIVATE KEY-----
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAF5tpik2tXwaPXKFfQeq0qU85rK0jDgkN7rBjDtThD+M=
-----END PUBLIC KEY-----
";

    fn keys(secret: &str, previous: Option<&str>) -> Keys {
        with_pair(secret, previous, None)
    }

    fn with_pair(secret: &str, previous: Option<&str>, key_pair: Option<KeyPair>) -> Keys {
        Keys::new(&settings::Auth {
            key_pair,
            secret: Secret::new(secret),
            previous: previous.map(Secret::new).into_iter().collect(),
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
    fn each_operator_token_is_a_login_of_its_own() {
        let keys = keys("first key", None);
        let login = |token: &str| keys.check(Purpose::Access, token, 0).unwrap().login_id;
        let [one, two] = [(); 2].map(|()| keys.operator_token(Duration::from_secs(60)));
        assert_ne!(login(&one), login(&two));
        assert_eq!(login(&one), login(&one));
    }

    #[test]
    fn a_signed_ticket_ends_soon_and_what_it_opens_ends_with_the_access_token() {
        let keys = keys("first key", None);
        let ticket = keys.sign_ticket(&alice(), 30);
        let read = keys.check_ticket(&ticket, 29).unwrap();
        assert_eq!((read.identity, read.ends_at), (alice(), 30));
        assert!(keys.check_ticket(&ticket, 30).is_err());
        assert!(keys.check(Purpose::Access, &ticket, 0).is_err());
        let late = keys.sign_ticket(&alice(), 2_000);
        assert!(keys.check_ticket(&late, 999).is_ok(), "no longer than the access token");
        assert!(keys.check_ticket(&late, 1_000).is_err());
    }

    #[test]
    fn after_a_change_of_the_key_old_tokens_are_still_accepted_until_it_is_forgotten() {
        let old = keys("first key", None).sign(Purpose::Access, &alice());
        assert!(keys("second key", Some("first key")).check(Purpose::Access, &old, 0).is_ok());
        assert!(keys("second key", None).check(Purpose::Access, &old, 0).is_err());
    }

    #[test]
    fn with_a_key_pair_tokens_are_signed_by_it_and_those_of_the_secret_key_are_still_accepted() {
        let pair = KeyPair::parse(PAIR).unwrap();
        assert!(!format!("{pair:?}").contains("MC4"));
        let keys_of_pair = with_pair("first key", None, Some(pair));
        let token = keys_of_pair.sign(Purpose::Access, &alice());
        assert_eq!(keys_of_pair.check(Purpose::Access, &token, 0).unwrap(), alice());
        let old = keys("first key", None);
        assert!(keys_of_pair.check(Purpose::Access, &old.sign(Purpose::Access, &alice()), 0).is_ok());
        assert!(old.check(Purpose::Access, &token, 0).is_err());
    }

    #[test]
    fn a_text_that_is_no_key_pair_is_refused_with_advice() {
        let private_only = &PAIR[..PAIR.find("-----BEGIN PUBLIC").unwrap()];
        for text in
            ["", "x", private_only, &PAIR.replace("F5tpik2t", "F5tpik3t"), &PAIR.replace("MC4C", "MC4D")]
        {
            assert!(KeyPair::parse(text).is_err(), "{text}");
        }
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
