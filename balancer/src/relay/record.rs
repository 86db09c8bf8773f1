//! The end of a request: its lines in the logs and its place in the metrics.

use std::sync::atomic::Ordering::Relaxed;

use super::Exchange;
use super::story::Asked;
use crate::error::{Error, Side};
use crate::logic::upstreams::Lease;

impl Exchange<'_> {
    pub(super) fn record(&mut self) {
        let story = &self.scratch.story;
        self.running.metrics.requests.fetch_add(1, Relaxed);
        if story.attempts.len() > 1 {
            self.running.metrics.retries.fetch_add(story.attempts.len() as u64 - 1, Relaxed);
        }
        for attempt in &story.attempts {
            let Asked::Peer { group, index } = attempt.to else { continue };
            let status = Some(attempt.status).filter(|status| *status > 0);
            let took = attempt.ended.unwrap_or_else(|| self.now.saturating_duration_since(attempt.started));
            self.generation.peers[group.0][index].record(status, took);
        }
        self.worker.journal().write(&self.location.logs, &self.facts());
    }
}

/// One line for one failure, here where it is handled. What is a client's doing is of no concern to the operator.
pub fn log(x: &Exchange<'_>, error: &Error, lease: Option<&Lease<'_>>) {
    let head = x.scratch.inbound.unread();
    let story = &x.scratch.story;
    let client = String::from_utf8_lossy(&x.down.peer_text);
    let server = &x.server.name;
    let line = story.request.line_span.of(head).escape_ascii();
    let host = &x.scratch.story.host.escape_ascii();
    match (error.side(), lease) {
        (Side::Downstream, _) => {
            tracing::info!(
                "{error}, client: {client}, server: {server}, request: \"{line}\", host: \"{host}\""
            );
        }
        (_, Some(lease)) => {
            let upstream = &lease.peer().name;
            tracing::error!(
                "{error}, client: {client}, server: {server}, request: \"{line}\", upstream: \"http://{upstream}\", \
                 host: \"{host}\""
            );
        }
        (_, None) => {
            tracing::error!(
                "{error}, client: {client}, server: {server}, request: \"{line}\", host: \"{host}\""
            );
        }
    }
}
