//! Metrics as text in the OpenMetrics format, which Prometheus scrapes.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry's metrics as OpenMetrics text.
pub fn render(registry: &Registry) -> String {
    let mut out = String::with_capacity(8 * 1024);
    encode(&mut out, registry).expect("writing to a String cannot fail");
    out
}
