//! The thinkers of the web tier: bytes, facts and `now` in, decisions out. No sockets, clocks, stores or logs.

pub mod accounts;
pub mod builtin_answer;
pub mod database_url;
pub mod docs_page;
pub mod envelope;
pub mod explain;
pub mod farewells;
pub mod frames;
pub mod keepalive;
pub mod lead;
pub mod lineage;
pub mod message;
pub mod outbox;
pub mod pace;
pub mod pages;
pub mod pool_advice;
pub mod rate;
pub mod retry;
pub mod rooms;
pub mod sse_in;
pub mod stall;
pub mod tide;
pub mod tokens_out;
pub mod watermark;
pub mod wire;
