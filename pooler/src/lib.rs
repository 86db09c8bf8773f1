//! (being built)
pub mod admin;
pub mod cli;
pub mod log;
pub mod logic;
pub mod metrics;
pub mod settings;
