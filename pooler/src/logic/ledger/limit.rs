//! Which limit keeps a client out or makes it wait.

use super::{Ledger, PoolKey};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    MaxClientConn,
    MaxDbClientConnections,
    MaxUserClientConnections,
    PoolSize,
    MaxDbConnections,
    MaxUserConnections,
}

impl Limit {
    pub const ALL: [Limit; 6] = [
        Limit::MaxClientConn,
        Limit::MaxDbClientConnections,
        Limit::MaxUserClientConnections,
        Limit::PoolSize,
        Limit::MaxDbConnections,
        Limit::MaxUserConnections,
    ];

    /// The key of the configuration that sets it.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::MaxClientConn => "max_client_conn",
            Limit::MaxDbClientConnections => "max_db_client_connections",
            Limit::MaxUserClientConnections => "max_user_client_connections",
            Limit::PoolSize => "pool_size",
            Limit::MaxDbConnections => "max_db_connections",
            Limit::MaxUserConnections => "max_user_connections",
        }
    }
}

impl Ledger {
    /// What keeps this pool from another connection, if it is a limit.
    pub fn reached_limit(&self, pool: PoolKey) -> Option<Limit> {
        let p = self.pool(pool);
        if self.count(pool) >= p.limits.size {
            Some(Limit::PoolSize)
        } else if self.database_group(p.database).is_full() {
            Some(Limit::MaxDbConnections)
        } else if self.user_group(p.user).is_full() {
            Some(Limit::MaxUserConnections)
        } else {
            None
        }
    }
}
