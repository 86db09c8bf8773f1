//! Who may come in, and how often: what `satisfy`, `auth_*` and `limit_*` say of a location.

use std::path::PathBuf;
use std::time::Duration;

use super::rewrite::UserVariable;
use super::settings::ErrorLevel;
use super::template::Template;

/// The doors of one location; `allow` and `deny` stand in the location itself.
#[derive(Debug)]
pub struct Guard {
    pub satisfy: Satisfy,
    pub basic: Option<AuthBasic>,
    /// `auth_delay`: an answer of 401 waits that long, so that guessing takes time.
    pub auth_delay: Duration,
    pub request: Option<AuthRequest>,
    pub requests: RequestLimits,
    pub connections: ConnectionLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Satisfy {
    /// Every check must pass.
    All,
    /// One that passes is enough.
    Any,
}

/// `auth_basic` with `auth_basic_user_file`.
#[derive(Debug)]
pub struct AuthBasic {
    /// The realm; `off` asks for nothing.
    pub realm: Template,
    pub file: Template,
    /// Where a relative name begins.
    pub folder: PathBuf,
}

/// `auth_request`: another location says whether the request may come in.
#[derive(Debug)]
pub struct AuthRequest {
    pub uri: Template,
    /// `auth_request_set`: read from that location's answer.
    pub set: Box<[(Assigned, Template)]>,
}

/// Where `set` and `auth_request_set` put a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assigned {
    User(UserVariable),
    Args,
    LimitRate,
}

/// `limit_req_zone`.
#[derive(Debug)]
pub struct RequestZone {
    pub name: Box<str>,
    /// The key as written: a reload keeps the state only where it is the same.
    pub key_text: Box<str>,
    pub key: Template,
    pub len: usize,
    /// Thousandths of a request per second.
    pub rate: u64,
}

/// `limit_conn_zone`.
#[derive(Debug)]
pub struct ConnectionZone {
    pub name: Box<str>,
    pub key_text: Box<str>,
    pub key: Template,
    pub len: usize,
}

/// Which of the zones of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneId(pub usize);

/// `limit_req` lines and what goes with them.
#[derive(Debug)]
pub struct RequestLimits {
    pub limits: Box<[RequestLimit]>,
    pub refusal: Refusal,
}

#[derive(Debug)]
pub struct RequestLimit {
    pub zone: ZoneId,
    /// Both in thousandths of a request.
    pub burst: u64,
    /// Requests beyond the rate up to here are not delayed.
    pub delay_after: u64,
}

/// `limit_conn` lines and what goes with them.
#[derive(Debug)]
pub struct ConnectionLimits {
    pub limits: Box<[ConnectionLimit]>,
    pub refusal: Refusal,
}

#[derive(Debug)]
pub struct ConnectionLimit {
    pub zone: ZoneId,
    pub count_max: u32,
}

/// What happens to a request beyond a limit.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub level: ErrorLevel,
    /// Only counted and told, never refused or delayed.
    pub dry_run: bool,
}
