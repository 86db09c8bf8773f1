//! The thinkers: bytes, facts and `now` in, decisions out. No I/O, no clock, no log.

pub mod cancel_key;
pub mod hba;
pub mod ldap;
pub mod ledger;
pub mod moving;
pub mod parameters;
pub mod replies;
pub mod session;
pub mod spread;
pub mod statements;
