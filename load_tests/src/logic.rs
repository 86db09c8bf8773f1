//! The thinkers of the load generator: what to send, whether an answer is right, what the figures are. No I/O.

pub mod arrival;
pub mod content;
pub mod csv;
pub mod documents;
pub mod durations;
pub mod fault;
pub mod fleet;
pub mod frames;
pub mod keys;
pub mod member_log;
pub mod mix;
pub mod own_session;
pub mod plan;
pub mod pool_columns;
pub mod positions;
pub mod random;
pub mod report;
pub mod room;
pub mod schema;
pub mod shape;
pub mod sse;
pub mod stats;
pub mod table;
pub mod target;
pub mod tokens;
