//! The Postgres wire protocol, version 3, and its authentication, as written in the manual's chapter
//! "Frontend/Backend Protocol". Bytes in, values out: no I/O, no clock, no randomness, no log.

pub mod auth;
pub mod backend;
pub mod build;
pub mod frame;
pub mod frontend;
pub mod options;
pub mod read;
pub mod report;
pub mod sqlstate;
pub mod startup;

pub use frame::{Head, HeadError};
pub use read::Malformed;
