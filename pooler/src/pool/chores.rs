//! The work that the ledger asks for: dials, checks, evictions, upkeep.

use std::sync::Arc;
use std::time::Instant;

use super::{Failure, PoolInfo, Pools, ReplicationStart, limits, rules};
use crate::clients::Order;
use crate::connect;
use crate::error::End;
use crate::house::House;
use crate::logic::ledger::{Chore, Place, PoolKey, ServerKey, WorkerId};
use crate::server::Server;
use crate::settings::ServerCheck;

impl Pools {
    /// Starts what this pool needs now, on this worker.
    pub(crate) fn run_chores(&self, house: &Arc<House>, pool: PoolKey, worker: WorkerId) {
        loop {
            let mut state = self.lock();
            let Some(chore) = state.ledger.next_chore(pool, Instant::now()) else { return };
            let info = state.info(pool);
            let replication = match chore {
                Chore::Dial { dedicated_to: Some(client), .. } => state.replications.get(&client).cloned(),
                _ => None,
            };
            let server = match chore {
                Chore::Dial { .. } => None,
                Chore::Check { server } | Chore::Close { server, .. } => Some(state.take_from_shelf(server)),
            };
            drop(state);
            match (chore, server) {
                (Chore::Dial { server, reserve, .. }, _) => {
                    if reserve {
                        tracing::info!(
                            "{}/{}: taking connection from reserve_pool",
                            info.database.name,
                            info.user
                        );
                    }
                    start_dial(house, info, server, worker, replication);
                }
                (Chore::Check { .. }, Some(server)) => start_check(house, server, worker),
                (Chore::Close { reason, .. }, Some(server)) => self.close(house, server, reason.text()),
                (_, None) => {}
            }
        }
    }

    /// Tries again after failures, though no client waits for it.
    pub(crate) fn retry_dial(&self, house: &Arc<House>, info: &PoolInfo, worker: WorkerId) {
        let mut state = self.lock();
        let Some(server) = state.ledger.retry_dial(info.key, Instant::now()) else { return };
        let info = state.info(info.key);
        drop(state);
        start_dial(house, info, server, worker, None);
    }

    /// Everything that waits for time to pass or room to appear.
    pub(crate) fn upkeep(&self, house: &Arc<House>) {
        let now = Instant::now();
        let mut state = self.lock();
        let mut closing = Vec::new();
        for (key, reason) in state.ledger.expired(now) {
            closing.push((state.take_from_shelf(key), reason.text().to_string()));
        }
        for slot in 0..state.shelf.len() {
            let Some(key) = state.shelf[slot].as_ref().map(|server| server.key) else { continue };
            if state.ledger.place_of(key) != Some(Place::Idle) {
                continue;
            }
            let news = state.shelf[slot].as_mut().map(|server| server.check_idle());
            if let Some(Err(reason)) = news {
                state.ledger.start_closing(key, now);
                closing.push((state.take_from_shelf(key), reason));
            }
        }
        let pools: Vec<PoolKey> = state.pools.iter().flatten().map(|p| p.key).collect();
        let fast_close = house.settings_cached(|s| s.server_fast_close);
        let obsolete = state.ledger.obsolete_lent(!fast_close);
        drop(state);
        for (client, worker) in obsolete {
            house.clients.give(worker, client, Order::ServerObsolete);
        }
        for (server, reason) in closing {
            self.close(house, server, &reason);
        }
        for pool in pools {
            self.run_chores(house, pool, 0);
        }
        self.retire_unused(house, now);
    }

    /// Pools that nobody has used for long, and those that a RELOAD replaced, are forgotten.
    fn retire_unused(&self, house: &House, now: Instant) {
        let settings = house.settings();
        let mut gone = Vec::new();
        let mut state = self.lock();
        for info in state.pools.clone().into_iter().flatten() {
            let name = (info.database.name.clone(), info.user.clone());
            let is_replaced = state.by_name.get(&name) != Some(&info.key);
            let keeps_minimum = info.is_forced_user && settings.min_pool_size(&info.database) > 0;
            let limits =
                [(settings.pool_idle_timeout, true), (settings.autodb_idle_timeout, info.database.auto)];
            let limit = limits.iter().filter(|(d, applies)| *applies && !d.is_zero()).map(|(d, _)| *d).min();
            let Some(unused) = state.ledger.unused_for(info.key, now) else { continue };
            let is_due = is_replaced || (!keeps_minimum && limit.is_some_and(|limit| unused > limit));
            if is_due && state.ledger.retire(info.key) {
                state.pools[info.key.0 as usize] = None;
                if !is_replaced {
                    state.by_name.remove(&name);
                    gone.push((name, unused));
                }
            }
        }
        drop(state);
        for ((database, user), unused) in gone {
            let age = unused.as_secs();
            tracing::info!(
                "cleaning up idle pool for user {user} on db {database} because: pool idle timeout (age={age}s)"
            );
        }
    }

    /// Room has appeared somewhere: only pools whose clients wait matter.
    pub(crate) fn feed_hungry(&self, house: &Arc<House>) {
        let hungry: Vec<PoolKey> = self.lock().ledger.hungry().collect();
        for pool in hungry {
            self.run_chores(house, pool, 0);
        }
    }

    /// New settings are in force.
    pub(crate) fn apply_settings(&self, house: &House) {
        let settings = house.settings();
        let mut state = self.lock();
        state.ledger.set_rules(rules(&settings));
        for info in state.pools.clone().into_iter().flatten() {
            let database = settings.database(&info.database.name).unwrap_or_else(|| info.database.clone());
            state.ledger.set_limits(info.key, limits(&settings, &database, &info.user));
            let group = state.databases[&info.database.name];
            state.ledger.set_database_limit(group, settings.max_db_connections(&database) as usize);
            let group = state.users[&info.user];
            state.ledger.set_user_limit(group, settings.max_user_connections(&info.user) as usize);
        }
    }

    /// Pools that keep connections though nobody has asked for them yet: those with a user of their own and a minimum.
    pub(crate) fn open_minimum(&self, house: &House) {
        let settings = house.settings();
        for database in settings.databases.values() {
            if let Some(user) = database.user.as_ref().filter(|_| settings.min_pool_size(database) > 0) {
                self.pool(house, database, user);
            }
        }
    }

    fn dial_failed(&self, house: &House, info: &PoolInfo, server: ServerKey, failure: Failure) {
        let mut state = self.lock();
        if let Some(client) = state.ledger.dial_failed(server, Instant::now()) {
            let sender = state.waiting.remove(&client);
            state.replications.remove(&client);
            drop(state);
            if let Some(sender) = sender {
                let _ = sender.send(Err(End::replication_refused(&failure)));
            }
            return house.keeper_wake.notify_one();
        }
        info.set_failure(failure.clone());
        // Who waits for a server that cannot be reached goes on waiting; a refusal would only be repeated.
        let refused = failure.is_refusal && state.ledger.is_hopeless(info.key);
        let clients = if refused { state.ledger.take_waiters(info.key) } else { Vec::new() };
        let senders: Vec<_> = clients.iter().filter_map(|c| state.waiting.remove(c)).collect();
        drop(state);
        for sender in senders {
            let _ = sender.send(Err(End::login_failed(&failure)));
        }
        house.keeper_wake.notify_one();
    }
}

fn start_dial(
    house: &Arc<House>,
    info: Arc<PoolInfo>,
    key: ServerKey,
    worker: WorkerId,
    replication: Option<Arc<ReplicationStart>>,
) {
    let h = house.clone();
    house.tasks.spawn_local("dial", async move {
        match connect::dial(&h, &info, replication.as_deref(), key, worker).await {
            Ok(server) => {
                let mut state = h.pools.lock();
                let slot = key.0 as usize;
                if state.infos.len() <= slot {
                    state.infos.resize_with(slot + 1, || None);
                }
                state.infos[slot] = Some(server.info.clone());
                drop(state);
                h.pools.settle(&h, server, true);
            }
            Err(failure) => h.pools.dial_failed(&h, &info, key, failure),
        }
    });
}

fn start_check(house: &Arc<House>, server: Box<Server>, worker: WorkerId) {
    let h = house.clone();
    house.tasks.spawn_local("check", async move {
        let key = server.key;
        let mut server = match server.into_worker(worker) {
            Ok(server) => server,
            Err(_) => return h.pools.forget(&h, key),
        };
        let settings = h.settings();
        let sql = match settings.server_check() {
            ServerCheck::Query(sql) => sql.to_string(),
            ServerCheck::Empty | ServerCheck::Off => String::new(),
        };
        let limit = settings.server_connect_timeout;
        let checked = tokio::time::timeout(limit, server.run_own(&sql)).await;
        match checked {
            Ok(Ok(())) => h.pools.settle(&h, server, true),
            Ok(Err(reason)) => h.pools.close(&h, server, &reason),
            Err(_) => h.pools.close(&h, server, "test query timeout"),
        }
    });
}
