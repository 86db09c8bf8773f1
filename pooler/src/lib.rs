//! (being built)
pub mod admin;
pub mod logic;
pub mod settings;
