//! Everything the configuration files say, as one plain value. Reading them: settings/load.rs; the keys: settings/table.rs.

mod check;
mod connstr;
mod database;
mod entries;
mod hba_file;
mod ini;
pub mod ldap_options;
mod load;
mod problem;
mod table;
mod userlist;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use database::{Database, Host, Peer, UserSettings};
pub use entries::{DATABASE_KEYS, EntryKey, PEER_KEYS, USER_KEYS};
pub use problem::{Errors, Problem, SetError};
pub use table::{Changes, Key, Keys, TABLE};
pub use values::{AuthType, FileMode, LoadBalanceHosts, Millis, Names, PoolMode, Secret, SslMode};

use crate::logic::hba;

/// The name of the console's database, which no entry of `[databases]` may take.
pub const ADMIN_DATABASE: &str = "pgbouncer";

/// One state of the configuration. RELOAD and SET make a new one; a reader takes an `Arc` of it once per event.
///
/// The keys of `[pgbouncer]` are fields of `Keys`, reached directly: `settings.default_pool_size`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Grows by one with each RELOAD and SET.
    pub version: u64,
    pub keys: Keys,
    pub databases: BTreeMap<String, Arc<Database>>,
    /// The entry `*`: the pattern of databases that are not named.
    pub autodb: Option<Arc<Database>>,
    pub users: BTreeMap<String, UserSettings>,
    /// auth_file: what each user proves to know; a password, `md5…` or `SCRAM-SHA-256$…`.
    pub credentials: BTreeMap<String, Secret>,
    pub peers: BTreeMap<u16, Peer>,
    /// auth_hba_file and auth_ident_file, read when auth_type is hba.
    pub hba: Arc<hba::Rules>,
    /// What was worth a warning while reading, for the log.
    pub warnings: Vec<String>,
    /// The file that RELOAD reads again.
    path: PathBuf,
}

impl Deref for Settings {
    type Target = Keys;
    fn deref(&self) -> &Keys {
        &self.keys
    }
}

/// What a server is asked before it is lent again after `server_check_delay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerCheck<'a> {
    Off,
    /// An empty query: the cheapest round trip.
    Empty,
    Query(&'a str),
}

impl Settings {
    /// A database by name; one made from `*` when it is not listed.
    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        self.databases.get(name).cloned().or_else(|| self.auto_database(name))
    }

    /// PgBouncer's estimate of the files that are open at most: every client, each user's pool of each database, and ten.
    pub fn files_expected(&self) -> u64 {
        let names = self.credentials.keys().chain(self.users.keys());
        let users = names.collect::<BTreeSet<_>>().len() as u64;
        let pools = self.databases.values().map(|database| {
            let size = u64::from(database.pool_size.unwrap_or(self.default_pool_size));
            if database.user.is_some() { size } else { size * users }
        });
        u64::from(self.max_client_conn) + 10 + pools.sum::<u64>()
    }

    /// What `*` gives for this name.
    pub fn auto_database(&self, name: &str) -> Option<Arc<Database>> {
        self.autodb.as_ref().map(|pattern| Arc::new(pattern.named(name)))
    }

    fn user(&self, user: &str) -> Option<&UserSettings> {
        self.users.get(user)
    }

    /// A replication connection is in session mode whatever this says.
    pub fn pool_mode(&self, db: &Database, user: &str) -> PoolMode {
        self.user(user).and_then(|u| u.pool_mode).or(db.pool_mode).unwrap_or(self.keys.pool_mode)
    }

    pub fn pool_size(&self, db: &Database, user: &str) -> u32 {
        self.user(user).and_then(|u| u.pool_size).or(db.pool_size).unwrap_or(self.default_pool_size)
    }

    pub fn min_pool_size(&self, db: &Database) -> u32 {
        db.min_pool_size.unwrap_or(self.keys.min_pool_size)
    }

    pub fn reserve_pool_size(&self, db: &Database, user: &str) -> u32 {
        let own = self.user(user).and_then(|u| u.reserve_pool_size).or(db.reserve_pool_size);
        own.unwrap_or(self.keys.reserve_pool_size)
    }

    /// 0 = no limit; a 0 in the database's entry means the global value.
    pub fn max_db_connections(&self, db: &Database) -> u32 {
        db.max_db_connections.filter(|n| *n > 0).unwrap_or(self.keys.max_db_connections)
    }

    pub fn max_db_client_connections(&self, db: &Database) -> u32 {
        db.max_db_client_connections.filter(|n| *n > 0).unwrap_or(self.keys.max_db_client_connections)
    }

    pub fn max_user_connections(&self, user: &str) -> u32 {
        let own = self.user(user).and_then(|u| u.max_user_connections).filter(|n| *n > 0);
        own.unwrap_or(self.keys.max_user_connections)
    }

    pub fn max_user_client_connections(&self, user: &str) -> u32 {
        let own = self.user(user).and_then(|u| u.max_user_client_connections).filter(|n| *n > 0);
        own.unwrap_or(self.keys.max_user_client_connections)
    }

    pub fn server_lifetime(&self, db: &Database) -> Duration {
        db.server_lifetime.filter(|d| !d.is_zero()).unwrap_or(self.keys.server_lifetime)
    }

    /// The user's value wins over the database's, even when it is 0 (off).
    pub fn query_wait_timeout(&self, db: &Database, user: &str) -> Duration {
        let own = self.user(user).and_then(|u| u.query_wait_timeout).or(db.query_wait_timeout);
        own.unwrap_or(self.keys.query_wait_timeout)
    }

    pub fn query_timeout(&self, user: &str) -> Duration {
        self.user_time(user, |u| u.query_timeout, self.keys.query_timeout)
    }

    pub fn idle_transaction_timeout(&self, user: &str) -> Duration {
        self.user_time(user, |u| u.idle_transaction_timeout, self.keys.idle_transaction_timeout)
    }

    pub fn transaction_timeout(&self, user: &str) -> Duration {
        self.user_time(user, |u| u.transaction_timeout, self.keys.transaction_timeout)
    }

    pub fn client_idle_timeout(&self, user: &str) -> Duration {
        self.user_time(user, |u| u.client_idle_timeout, self.keys.client_idle_timeout)
    }

    /// A user's 0 means the global value for these, as in PgBouncer.
    fn user_time(
        &self,
        user: &str,
        own: impl Fn(&UserSettings) -> Option<Duration>,
        all: Duration,
    ) -> Duration {
        self.user(user).and_then(own).filter(|d| !d.is_zero()).unwrap_or(all)
    }

    /// All limits on what a client may take its time for, of any user and database.
    pub fn client_deadlines(&self) -> impl Iterator<Item = Duration> + '_ {
        let all = [
            self.keys.client_login_timeout,
            self.keys.client_idle_timeout,
            self.keys.idle_transaction_timeout,
            self.keys.query_timeout,
            self.keys.query_wait_notify,
            self.keys.query_wait_timeout,
            self.keys.transaction_timeout,
        ];
        let of_users = self.users.values().flat_map(|user| {
            let limits = [user.client_idle_timeout, user.idle_transaction_timeout, user.query_timeout];
            limits.into_iter().chain([user.query_wait_timeout, user.transaction_timeout]).flatten()
        });
        let databases = self.databases.values().chain(self.autodb.as_ref());
        all.into_iter().chain(of_users).chain(databases.filter_map(|database| database.query_wait_timeout))
    }

    /// Some clients may not be idle for ever.
    pub fn closes_idle_clients(&self) -> bool {
        let own = self.users.values().filter_map(|user| user.client_idle_timeout);
        own.chain([self.keys.client_idle_timeout]).any(|limit| !limit.is_zero())
    }

    /// The query that looks up a user's password.
    pub fn auth_query<'a>(&'a self, db: &'a Database) -> &'a str {
        db.auth_query.as_deref().unwrap_or(&self.keys.auth_query)
    }

    /// The user who runs the auth_query; without one there is no lookup.
    pub fn auth_user<'a>(&'a self, db: &'a Database) -> Option<&'a str> {
        db.auth_user.as_deref().or(self.keys.auth_user.as_deref())
    }

    /// The database in which the auth_query runs, when it is not the client's own.
    pub fn auth_dbname<'a>(&'a self, db: &'a Database) -> Option<&'a str> {
        db.auth_dbname.as_deref().or(self.keys.auth_dbname.as_deref())
    }

    pub fn server_check(&self) -> ServerCheck<'_> {
        match self.server_check_query.as_str() {
            "" => ServerCheck::Off,
            "<empty>" => ServerCheck::Empty,
            query => ServerCheck::Query(query),
        }
    }

    pub fn is_admin(&self, user: &str) -> bool {
        self.admin_users.contains(user)
    }

    pub fn is_stats(&self, user: &str) -> bool {
        self.stats_users.contains(user)
    }
}
