//! Taking a server and letting go of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pgwire::frame::HEAD_LEN;
use tracing::Level;

use super::{Client, Link};
use crate::clients::Doing;
use crate::error::End;
use crate::logic::parameters::Parameters;
use crate::logic::session::Mode;
use crate::pool::{Borrowed, Borrower, Lease};
use crate::server::Server;

impl Client {
    pub(super) fn borrow(&mut self) -> Result<(), End> {
        self.refresh_rules();
        let now = Instant::now();
        let house = &self.worker.house;
        let by = Borrower { client: self.entry.id, worker: self.worker.id, now, is_patient: false };
        match house.pools.borrow(house, &self.pool, by)? {
            Borrowed::Now(lease) => self.link_to(lease, now),
            Borrowed::Later(waiting) => {
                self.entry.set_doing(Doing::Waiting, now);
                self.link = Link::Waiting(waiting, now);
            }
        }
        Ok(())
    }

    pub(super) fn link_to(&mut self, mut lease: Lease, now: Instant) {
        self.entry.link.store(lease.info().ptr, Ordering::Relaxed);
        self.entry.set_doing(Doing::Syncing, now);
        self.entry.start_transaction(now);
        self.entry.forget_notice();
        self.stats(|part| part.server_assignments.add(1));
        self.transaction_started = Some(now);
        self.query_started = Some(now);
        lease.server().state.statements.set_limit(self.worker.statement_limit());
        self.link = Link::Held(lease);
        self.is_new_lease = true;
    }

    /// The rule of the house: a server goes back only when nothing is owed, unsent or half read, on either side.
    pub(super) fn release_if_free(&mut self) {
        let Link::Held(lease) = &mut self.link else { return };
        let server = lease.server();
        if server.state.is_spent() {
            return self.close_server("unclean server");
        }
        if self.session.rules().mode == Mode::Session
            || self.is_syncing
            || self.session.is_sending_message()
            || !server.is_clean()
        {
            return;
        }
        server.note_prepared();
        self.entry.prepared.store(self.session.statements.len() as u64, Ordering::Relaxed);
        self.entry.link.store(0, Ordering::Relaxed);
        self.transaction_started = None;
        self.query_started = None;
        self.retry_unread = !self.unread.is_empty();
        let Link::Held(lease) = std::mem::replace(&mut self.link, Link::None) else { return };
        if self.worker.resets_always() {
            self.worker.reset_then_give_back(lease);
        } else {
            lease.give_back();
        }
    }

    pub(super) fn close_server(&mut self, reason: &str) {
        if let Link::Held(lease) = std::mem::replace(&mut self.link, Link::None) {
            self.entry.link.store(0, Ordering::Relaxed);
            lease.close(reason);
        }
    }

    pub(super) fn on_server_gone(&mut self) -> End {
        let Link::Held(lease) = &mut self.link else { return End::server_gone("server conn crashed?") };
        let said = lease.server().state.said_goodbye;
        self.close_server("server conn crashed?");
        if said {
            End::server_said_goodbye("server conn crashed?")
        } else {
            End::server_gone("server conn crashed?")
        }
    }

    pub(super) fn refresh_rules(&mut self) {
        let house = &self.worker.house;
        let version = house.settings_version();
        if version != self.settings_version {
            self.settings_version = version;
            let rules = crate::login::rules(&house.settings(), &self.pool, self.session.rules().mode);
            self.session.set_rules(rules);
        }
    }

    /// The client's parameters while a server takes them for the first time, if anybody reads in the log what becomes of
    /// them.
    pub(super) fn parameters_to_log(&self) -> Option<Arc<Parameters>> {
        let is_told = self.is_syncing && tracing::enabled!(Level::DEBUG);
        is_told.then(|| self.session.parameters.clone())
    }

    /// The server has taken values that the client had asked for, and spells them in its own way.
    pub(super) fn log_canonical(&self, asked: Option<Arc<Parameters>>) {
        let (Some(asked), now) = (asked, &self.session.parameters) else { return };
        if Arc::ptr_eq(&asked, now) {
            return;
        }
        for (name, old) in asked.iter() {
            if let Some(new) = now.get(name).filter(|new| *new != old) {
                let client = self.entry.name();
                tracing::debug!(
                    "{client} varcache_set_canonical: setting {name} to its canonical version {old} -> {new}"
                );
            }
        }
    }
}

/// What a server is told before it serves a client with other parameters: nothing, or one query.
pub(super) fn log_applied(server: &Server, query: &[u8]) {
    if let Some((0, sql)) = query.get(HEAD_LEN..).and_then(<[u8]>::split_last) {
        tracing::debug!("{} varcache_apply: {}", server.info.name, String::from_utf8_lossy(sql));
    }
}
