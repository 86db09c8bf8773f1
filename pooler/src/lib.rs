//! A Postgres connection pooler that reads pgbouncer.ini, uses all cores and mixes up no replies.

pub mod admin;
pub mod cancel;
pub mod cli;
pub mod client;
pub mod clients;
pub mod connect;
pub mod console;
pub mod derive;
pub mod error;
pub mod house;
pub mod keeper;
pub mod ldap;
pub mod listeners;
pub mod log;
pub mod logic;
pub mod login;
pub mod metrics;
pub mod moving;
pub mod outbox;
pub mod pool;
pub mod resolver;
mod run;
pub mod server;
pub mod settings;
pub mod spread;
pub mod stats;
pub mod suspend;
pub mod systemd;
pub mod talk;
pub mod tls;
pub mod wire;
pub mod worker;

pub use run::run;
