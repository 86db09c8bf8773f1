//! What operators do to pools: pause, resume, reconnect, disable.

use std::sync::Arc;
use std::time::Duration;

use super::{Pools, State};
use crate::house::House;
use crate::logic::ledger::{CloseReason, GroupKey, ServerKey};
use crate::settings::Database;

/// How often a waiting PAUSE or WAIT_CLOSE looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Pools {
    /// Stops lending everywhere, beside what is paused by its name.
    pub fn pause_all(&self, house: &House) {
        let idle = self.lock().ledger.pause(None);
        self.close_idle(house, idle, CloseReason::Paused);
    }

    /// Stops lending in one database, also before anybody has asked for it.
    pub fn pause(&self, house: &House, database: &Database) {
        let limit = house.settings().max_db_connections(database) as usize;
        let mut state = self.lock();
        let group = state.enter_database(&database.name, limit);
        let idle = state.ledger.pause(Some(group));
        drop(state);
        self.close_idle(house, idle, CloseReason::Paused);
    }

    /// Stops lending in all databases that have pools, each by its name.
    pub fn pause_each(&self, house: &House) {
        let mut state = self.lock();
        let groups: Vec<GroupKey> = state.databases.values().copied().collect();
        let idle: Vec<ServerKey> =
            groups.into_iter().flat_map(|group| state.ledger.pause(Some(group))).collect();
        drop(state);
        self.close_idle(house, idle, CloseReason::Paused);
    }

    /// False: it was not paused.
    pub fn resume_all(&self, house: &Arc<House>) -> bool {
        let mut state = self.lock();
        if !state.ledger.is_all_paused() {
            return false;
        }
        state.ledger.resume(None);
        drop(state);
        self.feed_hungry(house);
        true
    }

    /// False: it was not paused.
    pub fn resume(&self, house: &Arc<House>, database: &str) -> bool {
        let mut state = self.lock();
        let paused = state.group(Some(database)).filter(|group| state.ledger.is_database_paused(*group));
        let Some(group) = paused else { return false };
        state.ledger.resume(Some(group));
        drop(state);
        self.feed_hungry(house);
        true
    }

    /// Marks servers to be closed as soon as nobody uses them.
    pub fn reconnect(&self, house: &House, database: Option<&str>) {
        let mut state = self.lock();
        let pools: Vec<bool> = state
            .pools
            .iter()
            .map(|p| p.as_ref().is_some_and(|p| database.is_none_or(|name| p.database.name == name)))
            .collect();
        let idle = state.ledger.make_obsolete(|pool| pools[pool.0 as usize]);
        state.pools.iter().flatten().filter(|p| pools[p.key.0 as usize]).for_each(|p| p.forget_welcome());
        drop(state);
        self.close_idle(house, idle, CloseReason::Obsolete);
    }

    /// Closes all that is idle now.
    pub fn close_unused(&self, house: &House) {
        let state = self.lock();
        let idle = state.ledger.all_idle();
        drop(state);
        self.close_idle(house, idle, CloseReason::Moved);
    }

    /// After a RELOAD: servers whose database now means something else are closed, pools of databases that are gone
    /// lose their clients.
    pub fn drop_changed_databases(&self, house: &House) {
        let settings = house.settings();
        let mut state = self.lock();
        let mut changed = vec![false; state.pools.len()];
        for info in state.pools.clone().into_iter().flatten() {
            let new = settings.database(&info.database.name);
            let is_changed = new.is_none_or(|new| info.database.needs_new_servers(&new));
            changed[info.key.0 as usize] = is_changed;
            if is_changed {
                // Clients that log in from now on get a pool with the new entry.
                state.by_name.remove(&(info.database.name.clone(), info.user.clone()));
            }
        }
        let idle = state.ledger.make_obsolete(|pool| changed[pool.0 as usize]);
        drop(state);
        self.close_idle(house, idle, CloseReason::Obsolete);
    }

    pub async fn wait_quiet(&self, database: Option<&str>) {
        loop {
            {
                let state = self.lock();
                let group = state.group(database);
                let is_quiet = (database.is_some() && group.is_none()) || state.ledger.is_quiet(group);
                if is_quiet {
                    return;
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub async fn wait_closed(&self, database: Option<&str>) {
        loop {
            {
                let state = self.lock();
                let group = state.group(database);
                let is_closed = (database.is_some() && group.is_none()) || !state.ledger.has_obsolete(group);
                if is_closed {
                    return;
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Marked to be closed as soon as nobody uses it.
    pub fn is_obsolete(&self, server: ServerKey) -> bool {
        self.lock().ledger.is_obsolete(server)
    }

    pub fn is_all_paused(&self) -> bool {
        self.lock().ledger.is_all_paused()
    }

    pub fn has_paused_database(&self) -> bool {
        self.lock().ledger.has_paused_database()
    }

    pub fn is_database_paused(&self, database: &str) -> bool {
        let state = self.lock();
        state.group(Some(database)).is_some_and(|group| state.ledger.is_database_paused(group))
    }

    pub fn is_disabled(&self, database: &str) -> bool {
        self.lock().disabled.contains(database)
    }

    pub fn set_disabled(&self, database: &str, disabled: bool) {
        let mut state = self.lock();
        if disabled {
            state.disabled.insert(database.to_string());
        } else {
            state.disabled.remove(database);
        }
    }

    fn close_idle(&self, house: &House, servers: Vec<ServerKey>, reason: CloseReason) {
        for key in servers {
            let server = self.lock().take_if_idle(key);
            if let Some(server) = server {
                self.close(house, server, reason.text());
            }
        }
    }
}

impl State {
    /// The group of a database's pools; made when it is not there.
    pub(super) fn enter_database(&mut self, name: &str, limit: usize) -> GroupKey {
        let State { databases, ledger, .. } = self;
        *databases.entry(name.to_string()).or_insert_with(|| ledger.add_database(limit))
    }

    fn group(&self, database: Option<&str>) -> Option<GroupKey> {
        self.databases.get(database?).copied()
    }

    fn take_if_idle(&mut self, key: ServerKey) -> Option<Box<crate::server::Server>> {
        use crate::logic::ledger::Place;
        if self.ledger.place_of(key) != Some(Place::Idle) {
            return None;
        }
        let server = self.shelf.get_mut(key.0 as usize)?.take()?;
        // No longer to be lent, whoever asks before it is closed.
        self.ledger.start_closing(key, std::time::Instant::now());
        Some(server)
    }
}
