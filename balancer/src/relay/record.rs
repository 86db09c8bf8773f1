//! The end of a request: its lines in the logs and its place in the metrics.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use tracing::{debug, error, info, trace, warn};

use super::Exchange;
use super::story::Asked;
use crate::conf::settings::ErrorLevel;
use crate::error::{Error, Side};
use crate::logic::h1::Known;
use crate::logic::redact;
use crate::logic::upstreams::Lease;
use crate::metrics::{Metrics, Told, ZoneMetrics};

impl Exchange<'_> {
    pub(super) fn record(&mut self) {
        self.scratch.story.is_recorded = true;
        let story = &self.scratch.story;
        self.running.metrics.requests.fetch_add(1, Relaxed);
        let retries = story.attempts.windows(2).filter(|pair| pair[0].pass == pair[1].pass).count();
        self.running.metrics.retries.fetch_add(retries as u64, Relaxed);
        for attempt in &story.attempts {
            let Asked::Peer { group, index } = attempt.to else { continue };
            let status = attempt.outcome.answered();
            let took = attempt.ended.unwrap_or_else(|| self.now.saturating_duration_since(attempt.started));
            self.generation.peers[group.0][index].record(&Told {
                status,
                header: attempt.head.filter(|_| status.is_some()),
                total: took,
                sent_len: attempt.sent_len,
                received_len: attempt.received_len,
            });
        }
        let received_len = story.request.len as u64 + story.request_body_len;
        let zones = [self.server.zone, self.location.zone];
        for zone in zones.into_iter().flatten() {
            self.generation.zones[zone].record(story.status, received_len, story.sent_len);
        }
        self.worker.journal().write(&self.location.logs, &self.facts());
    }
}

/// A request that is being served; dropped, it no longer is.
pub(super) struct Processing<'a> {
    metrics: &'a Metrics,
    zone: Option<&'a ZoneMetrics>,
}

impl<'a> Processing<'a> {
    pub fn begin(metrics: &'a Metrics, zone: Option<&'a ZoneMetrics>) -> Processing<'a> {
        metrics.requests_active.fetch_add(1, Relaxed);
        if let Some(zone) = zone {
            zone.processing.fetch_add(1, Relaxed);
        }
        Processing { metrics, zone }
    }
}

impl Drop for Processing<'_> {
    fn drop(&mut self) {
        self.metrics.requests_active.fetch_sub(1, Relaxed);
        if let Some(zone) = self.zone {
            zone.processing.fetch_sub(1, Relaxed);
        }
    }
}

/// One line for one failure, here where it is handled. What is a client's doing is of little concern to the operator.
pub fn log(x: &Exchange<'_>, error: &Error, lease: Option<&Lease<'_>>) {
    let level = match error {
        Error::Exhausted(_) | Error::NoRoom(_) => ErrorLevel::Alert,
        error if error.side() == Side::Downstream => ErrorLevel::Info,
        _ => ErrorLevel::Error,
    };
    x.scratch.story.trouble.set(Some(error.trouble()));
    x.tell(level, lease, format_args!("{error}"));
}

impl Exchange<'_> {
    /// A line for the error log that holds here, with what identifies the request.
    pub(super) fn say(&self, level: ErrorLevel, what: fmt::Arguments<'_>) {
        self.tell(level, None, what);
    }

    pub(super) fn tell(&self, level: ErrorLevel, lease: Option<&Lease<'_>>, what: fmt::Arguments<'_>) {
        let story = &self.scratch.story;
        let log = self.location.error_log.0;
        let client = String::from_utf8_lossy(&self.down.arrival.peer_text);
        let server = &*self.server.name;
        let line = story.request.line_span.of(self.scratch.inbound.unread());
        let request = format!("\"{}\"", redact::request_line(line).escape_ascii());
        let host = story.request.fields.known(Known::Host).next();
        let host =
            host.map(|field| format!("\"{}\"", field.value.of(self.scratch.inbound.unread()).escape_ascii()));
        let host = host.as_deref();
        let connection = self.down.arrival.serial;
        let upstream = lease.map(|lease| format!("\"{}://{}\"", self.upstream_scheme(), lease.peer().name));
        let upstream = upstream.as_deref();
        let (alert, crit) = (level == ErrorLevel::Alert, level == ErrorLevel::Crit);
        match level {
            ErrorLevel::Warn => warn!(log, connection, %client, server, request, upstream, host, "{what}"),
            ErrorLevel::Notice => info!(log, connection, %client, server, request, upstream, host, "{what}"),
            ErrorLevel::Info => debug!(log, connection, %client, server, request, upstream, host, "{what}"),
            ErrorLevel::Debug => trace!(log, connection, %client, server, request, upstream, host, "{what}"),
            _ => error!(log, alert, crit, connection, %client, server, request, upstream, host, "{what}"),
        }
    }
}
