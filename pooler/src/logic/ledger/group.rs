//! What several pools share: the limits of one database or one user.

use super::{Ledger, PoolKey};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey(pub u32);

/// Connections of one database or one user over all its pools. A limit of 0 is no limit.
#[derive(Debug, Default, Clone, Copy)]
pub struct Group {
    pub server_limit: usize,
    pub servers: usize,
    pub clients: usize,
    pub paused: bool,
}

impl Group {
    pub fn is_full(&self) -> bool {
        self.server_limit > 0 && self.servers >= self.server_limit
    }
}

impl Ledger {
    pub fn add_database(&mut self, server_limit: usize) -> GroupKey {
        add(&mut self.databases, server_limit)
    }

    pub fn add_user(&mut self, server_limit: usize) -> GroupKey {
        add(&mut self.users, server_limit)
    }

    pub fn set_database_limit(&mut self, database: GroupKey, server_limit: usize) {
        self.databases[database.0 as usize].server_limit = server_limit;
    }

    pub fn set_user_limit(&mut self, user: GroupKey, server_limit: usize) {
        self.users[user.0 as usize].server_limit = server_limit;
    }

    pub fn database_group(&self, database: GroupKey) -> Group {
        self.databases[database.0 as usize]
    }

    pub fn user_group(&self, user: GroupKey) -> Group {
        self.users[user.0 as usize]
    }

    /// A client logged in to this pool.
    pub fn join(&mut self, pool: PoolKey) {
        self.count_client(pool, |n| n + 1);
    }

    /// A client of this pool is gone.
    pub fn leave(&mut self, pool: PoolKey) {
        self.count_client(pool, |n| n - 1);
    }

    fn count_client(&mut self, pool: PoolKey, change: impl Fn(usize) -> usize) {
        let p = self.pool_mut(pool);
        p.clients = change(p.clients);
        let (database, user) = (p.database, p.user);
        let database = &mut self.databases[database.0 as usize];
        database.clients = change(database.clients);
        let user = &mut self.users[user.0 as usize];
        user.clients = change(user.clients);
    }
}

fn add(groups: &mut Vec<Group>, server_limit: usize) -> GroupKey {
    groups.push(Group { server_limit, ..Group::default() });
    GroupKey(u32::try_from(groups.len() - 1).expect("groups are counted in u32"))
}
