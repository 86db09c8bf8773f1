//! What every service stands on: settings, logs, listeners, tasks and drain, metrics, the ops port, signals.
//!
//! The chassis knows tokio and knows no service. Anything used by fewer than three services lives elsewhere.

pub mod listen;
pub mod logs;
pub mod metrics;
pub mod ops;
pub mod settings;
pub mod signals;
pub mod tasks;
