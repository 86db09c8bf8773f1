//! (being built)
pub mod logic;
pub mod settings;
