//! The thinkers of the web tier: bytes, facts and `now` in, decisions out. No sockets, clocks, stores or logs.

pub mod message;
