//! The thinkers: bytes, facts and `now` in, decisions out. No sockets, no tasks, no clock, no log.

pub mod agents;
pub mod changes;
pub mod check;
pub mod choose;
pub mod codings;
pub mod cookies;
pub mod escape;
pub mod h1;
pub mod health;
pub mod limits;
pub mod memory;
pub mod messages;
pub mod murmur;
pub mod networks;
pub mod passwords;
pub mod proxy_protocol;
pub mod queue;
pub mod rate;
pub mod real_ip;
pub mod retry;
pub mod selection;
pub mod sticky;
pub mod times;
pub mod upstreams;
