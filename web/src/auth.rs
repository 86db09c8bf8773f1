//! Who is asking: access tokens, refresh tokens, tickets for WebSockets. Passwords are in auth/passwords.rs.

mod login_limit;
mod passwords;
mod revoked;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::FromRequestParts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::request::Parts;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::app::App;
use crate::error::Error;
use crate::redis_link::RedisLink;
use crate::settings;
use crate::store::Store;
use crate::store::users::User;

pub use login_limit::LoginLimit;
pub use passwords::Passwords;
pub use revoked::{CHANNEL as ENDED_LOGINS_CHANNEL, KEEP as ENDED_LOGINS_KEEP, Revoked};
pub use tokens::{KeyPair, Keys, Purpose};

/// How long an access token is valid.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(900);
/// How long a ticket for a WebSocket is valid.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(30);

/// Somebody whose token was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user_id: Uuid,
    pub username: String,
    pub display_name: String,
    /// When the token ends, in seconds since 1970.
    pub expires_at: i64,
    pub is_admin: bool,
    /// The login that the token belongs to.
    pub login_id: Uuid,
}

/// Makes and checks everything that proves who somebody is; clones share it.
#[derive(Clone)]
pub struct Auth {
    shared: Arc<Shared>,
}

struct Shared {
    keys: Keys,
    passwords: Passwords,
    limit: LoginLimit,
    revoked: Revoked,
    redis: RedisLink,
}

/// A refresh token: shown once to its owner, stored only as its hash.
pub struct RefreshToken {
    pub text: String,
    pub hash: [u8; 32],
}

impl Auth {
    pub fn new(settings: &settings::Auth, redis: RedisLink) -> Self {
        Self {
            shared: Arc::new(Shared {
                keys: Keys::new(settings),
                passwords: Passwords::new(),
                limit: LoginLimit::new(settings, redis.clone()),
                revoked: Revoked::new(redis.clone()),
                redis,
            }),
        }
    }

    pub fn passwords(&self) -> &Passwords {
        &self.shared.passwords
    }

    pub fn limit(&self) -> &LoginLimit {
        &self.shared.limit
    }

    pub fn revoked(&self) -> &Revoked {
        &self.shared.revoked
    }

    /// An access token of `user` in the login `login_id`.
    pub fn issue(&self, user: &User, login_id: Uuid) -> String {
        let identity = Identity {
            user_id: user.id,
            username: user.username.clone(),
            display_name: user.display_name.clone(),
            expires_at: now_s() + seconds(ACCESS_LIFETIME),
            is_admin: user.role == "admin",
            login_id,
        };
        self.shared.keys.sign(Purpose::Access, &identity)
    }

    /// Checks an access token.
    ///
    /// # Errors
    /// It is not one of ours, has ended, or its login was ended.
    pub fn access(&self, token: &str) -> Result<Identity, Error> {
        let identity = self.shared.keys.check(Purpose::Access, token, now_s())?;
        self.still_logged_in(identity)
    }

    /// A single-use ticket for `?token=`. Redis remembers it; while Redis is away it is a signed token that ends after
    /// the same time, and Postgres remembers that it was used.
    pub async fn ticket(&self, identity: &Identity) -> String {
        let ticket = URL_SAFE_NO_PAD.encode(random());
        let value = self.shared.keys.sign(Purpose::Ticket, identity);
        let mut pipeline = redis::pipe();
        pipeline.set_ex(ticket_key(&ticket), &value, TICKET_LIFETIME.as_secs()).ignore();
        match self.shared.redis.ask::<()>(&pipeline).await {
            Ok(()) => ticket,
            Err(cause) => {
                tracing::warn!(%cause, "Redis is away: a ticket is a signed token: {cause}");
                self.shared.keys.sign_ticket(identity, now_s() + seconds(TICKET_LIFETIME))
            }
        }
    }

    /// Checks what came with `?token=`: a ticket, which is used up, or an access token.
    ///
    /// # Errors
    /// It is neither, has ended or was used before.
    pub async fn socket_token(&self, store: &Store, token: &str) -> Result<Identity, Error> {
        if let Ok(identity) = self.access(token) {
            return Ok(identity);
        }
        // A ticket of ours has no dots; a signed one of the time without Redis has two.
        if token.contains('.') {
            let ticket = self.shared.keys.check_ticket(token, now_s())?;
            let is_first = store.logins().use_ticket(ticket.id, ticket.ends_at).await?;
            return if is_first { self.still_logged_in(ticket.identity) } else { Err(used()) };
        }
        let mut pipeline = redis::pipe();
        pipeline.get_del(ticket_key(token));
        let (value,): (Option<String>,) = self.shared.redis.ask(&pipeline).await.map_err(|_| {
            Error::unavailable(
                "this ticket cannot be checked now; get a new ticket, or connect with the access token",
            )
        })?;
        let value = value.ok_or_else(used)?;
        self.still_logged_in(self.shared.keys.check(Purpose::Ticket, &value, now_s())?)
    }

    fn still_logged_in(&self, identity: Identity) -> Result<Identity, Error> {
        match self.shared.revoked.contains(identity.login_id) {
            true => Err(Error::unauthorized("this login was ended; log in again")),
            false => Ok(identity),
        }
    }
}

fn used() -> Error {
    Error::unauthorized("the ticket is unknown, used or older than 30 s; get a new one")
}

impl RefreshToken {
    pub fn new() -> Self {
        let text = URL_SAFE_NO_PAD.encode(random());
        let hash = Self::hash_of(&text);
        Self { text, hash }
    }

    pub fn hash_of(text: &str) -> [u8; 32] {
        Sha256::digest(text.as_bytes()).into()
    }
}

impl Default for RefreshToken {
    fn default() -> Self {
        Self::new()
    }
}

/// The key holds the ticket's hash: who can list Redis' keys can still not use them.
fn ticket_key(ticket: &str) -> String {
    format!("arena:ticket:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(ticket.as_bytes())))
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// Seconds since 1970.
pub fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, seconds)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl FromRequestParts<App> for Identity {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        if let Some(checked) = parts.extensions.get::<Self>() {
            return Ok(checked.clone());
        }
        let token = bearer(parts).ok_or_else(|| {
            Error::unauthorized("no access token; send Authorization: Bearer TOKEN, from /api/auth/login")
        })?;
        app.auth.access(token)
    }
}

/// Somebody who may see the monitoring endpoints: an admin, or anybody with `MONITORING_PUBLIC`.
pub struct Operator;

impl FromRequestParts<App> for Operator {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        if app.settings.service.monitoring_public {
            return Ok(Self);
        }
        Admin::from_request_parts(parts, app).await.map(|_| Self)
    }
}

/// An admin, whatever the settings say.
pub struct Admin(pub Identity);

impl FromRequestParts<App> for Admin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        let identity = Identity::from_request_parts(parts, app).await?;
        match identity.is_admin {
            true => Ok(Self(identity)),
            false => Err(Error::forbidden("for admins only; see ADMIN_USERNAMES")),
        }
    }
}
