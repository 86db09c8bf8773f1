//! The pooler against a real Postgres: one process of each, scripts over raw sockets and tokio-postgres.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, as tests may")]

mod console;
mod copy;
mod extended;
mod life;
mod limits;
mod login;
mod parameters;
mod pipelines;
mod replication;
mod script;
mod world;
