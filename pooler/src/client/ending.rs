//! Orders from outside, the client's end, and its part in the statistics.

use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::Instant;

use pgwire::report::{Report, Severity};
use pgwire::{backend, sqlstate};

use super::{Client, Link};
use crate::clients::Order;
use crate::error::{End, Fault};
use crate::logic::ledger::CloseReason;
use crate::logic::session::Tally;

impl Client {
    pub(super) fn obey(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let end = match self.entry.take_order() {
            Order::None => return Ok(()),
            Order::NoticeWait => return self.notice_wait(cx),
            Order::Cancelled if !matches!(self.link, Link::Waiting(..)) => return Ok(()),
            Order::Cancelled => {
                let text = "canceling statement due to user request";
                End::pool(sqlstate::QUERY_CANCELED, text)
            }
            Order::LoginTimeout => End::client(sqlstate::CONNECTION_EXCEPTION, "client_login_timeout"),
            Order::QueryWaitTimeout if !matches!(self.link, Link::Waiting(..)) => return Ok(()),
            Order::QueryWaitTimeout => End::pool(sqlstate::PROTOCOL_VIOLATION, "query_wait_timeout"),
            Order::QueryTimeout if matches!(self.link, Link::Waiting(..)) => {
                End::pool(sqlstate::QUERY_CANCELED, "query_timeout")
            }
            Order::QueryTimeout => End::pool(sqlstate::QUERY_CANCELED, "query timeout"),
            // PgBouncer's code for both: drivers take 25P03 for an error of the statement and go on.
            Order::TransactionTimeout => End::pool(sqlstate::PROTOCOL_VIOLATION, "transaction timeout"),
            Order::IdleTransactionTimeout => {
                End::pool(sqlstate::PROTOCOL_VIOLATION, "idle transaction timeout")
            }
            Order::ClientIdleTimeout => End::pool(sqlstate::ADMIN_SHUTDOWN, "client_idle_timeout"),
            Order::Killed => End::pool(sqlstate::ADMIN_SHUTDOWN, "admin forced disconnect"),
            Order::DatabaseGone => End::pool(sqlstate::DATABASE_DROPPED, "database removed"),
            Order::Shutdown => End::shutdown(),
            Order::SuspendTimeout => End::pool(sqlstate::ADMIN_SHUTDOWN, "suspend_timeout"),
            Order::ServerObsolete if !self.may_leave_obsolete() => return Ok(()),
            Order::ServerObsolete => End::pool(sqlstate::ADMIN_SHUTDOWN, CloseReason::Obsolete.text()),
        };
        let reason = end.reason.clone();
        self.close_server(&reason);
        Err(end)
    }

    /// The server that the client holds now is to be closed, and either nothing would be lost by it, or the client would
    /// hold it for ever.
    fn may_leave_obsolete(&mut self) -> bool {
        let is_sending = self.session.is_sending_message();
        let Link::Held(lease) = &mut self.link else { return false };
        let is_ready = lease.server().is_clean() && !is_sending && !self.is_syncing;
        let key = lease.server().key;
        (is_ready || lease.is_dedicated()) && self.worker.house.pools.is_obsolete(key)
    }

    fn notice_wait(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if !matches!(self.link, Link::Waiting(..)) {
            return Ok(());
        }
        let mut out = Vec::new();
        let text = "No server connection available in postgres backend, client being queued";
        backend::notice(&mut out, &Report::new(Severity::Notice, sqlstate::SUCCESSFUL_COMPLETION, text));
        self.reply(cx, &out)
    }

    pub fn finish(mut self, end: &End) {
        self.worker.log_end(&self.entry, end);
        let message = end.message();
        if self.unsent.is_empty() {
            self.wire.try_farewell(&message);
        }
        let Link::Held(mut lease) = std::mem::replace(&mut self.link, Link::None) else { return };
        self.entry.link.store(0, Ordering::Relaxed);
        if lease.is_dedicated() {
            lease.close(CloseReason::DedicatedOver.text());
        } else if lease.server().is_clean()
            && !self.session.is_sending_message()
            && end.fault() != Fault::Server
        {
            self.worker.reset_then_give_back(lease);
        } else {
            lease.close("client disconnect while server was not ready");
        }
    }

    pub(super) fn count(&self, tally: &Tally, now: Option<Instant>) {
        let part = self.pool.stats.part(self.worker.id);
        part.queries.add(tally.queries.into());
        part.transactions.add(tally.transactions.into());
        part.client_parses.add(tally.client_parses.into());
        part.server_parses.add(tally.server_parses.into());
        part.prepared_hits.add(tally.prepared_hits.into());
        part.binds.add(tally.binds.into());
        let Some(now) = now else { return };
        if tally.queries > 0
            && let Some(started) = self.query_started
        {
            part.query.add(now.saturating_duration_since(started));
        }
        if tally.transactions > 0
            && let Some(started) = self.transaction_started
        {
            part.transaction.add(now.saturating_duration_since(started));
        }
    }
}
