//! The pooler against a real Postgres: one process of each, scripts over raw sockets and tokio-postgres.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic, as tests may")]

mod console;
mod copy;
mod derive;
mod drivers;
mod exporter;
mod extended;
mod fake;
mod hostile;
mod ldap;
mod life;
mod limits;
mod login;
mod operations;
mod parameters;
mod pipelines;
mod replication;
mod script;
mod seeds;
mod spread;
mod traps_auth;
mod traps_cancel;
mod traps_death;
mod traps_limits;
mod traps_pipelines;
mod traps_startup;
mod traps_state;
mod world;
