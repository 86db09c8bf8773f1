//! The pooler against a real Postgres: one process of each, scripts over raw sockets and tokio-postgres.

mod copy;
mod extended;
mod life;
mod limits;
mod login;
mod parameters;
mod pipelines;
mod script;
mod world;
