//! What an operator sees of a panic. One test: its hook and its log are the process's.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use balancer::conf::settings::{ErrorLevel, ErrorLog, ErrorTarget};
use balancer::error_log::{ErrorLogs, Targets};
use balancer::metrics::Metrics;
use balancer::panics;

#[test]
fn a_panic_is_in_the_error_log_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("error.log");
    let log = ErrorLog { target: ErrorTarget::File(path.clone()), level: ErrorLevel::Alert };
    let logs = ErrorLogs::default();
    logs.replace(Targets::open(&[log], &[]).unwrap());
    logs.install();
    let metrics = Arc::new(Metrics::default());
    panics::tell(metrics.clone());
    let doomed = std::thread::Builder::new().name("worker-7".into());
    let index = metrics.panics.load(Relaxed) as usize + 3;
    assert!(doomed.spawn(move || ["a"; 3][index]).unwrap().join().is_err());
    tracing::error!("less than an alert");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains("[alert]") && text.lines().count() == 1, "{text}");
    assert!(text.contains("thread worker-7 panicked at balancer/tests/panics.rs:"), "{text}");
    assert!(text.ends_with(": index out of bounds: the len is 3 but the index is 3\n"), "{text}");
    assert_eq!(metrics.panics.load(Relaxed), 1);
}
