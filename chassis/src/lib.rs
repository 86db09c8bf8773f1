//! What every service stands on: settings, logs, listeners, tasks and drain, metrics, the ops port, signals.
//!
//! The chassis knows tokio and knows no service. Anything used by fewer than three services lives elsewhere, but for the
//! check of certificates, as two of them that differ in a detail would be a hole in one, and the calls on sockets that
//! both proxies count in µs.

pub mod certificates;
pub mod health;
pub mod listen;
pub mod logs;
pub mod metrics;
pub mod ops;
pub mod settings;
pub mod signals;
pub mod sockets;
pub mod tasks;
