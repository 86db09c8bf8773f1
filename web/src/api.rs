//! One file per resource: take in, call, answer. No SQL, no Redis.

pub mod auth;
pub mod docs;
pub mod members;
pub mod messages;
pub mod sessions;
pub mod users;
