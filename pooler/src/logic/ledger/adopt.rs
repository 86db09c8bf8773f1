//! A server that comes with its client from another process.

use std::time::Instant;

use super::{ClientId, Ledger, Place, PoolKey, ServerKey, WorkerId};

impl Ledger {
    /// Lent from the start. Counts like any other, and may be one too many for a while.
    pub fn adopt(&mut self, pool: PoolKey, client: ClientId, worker: WorkerId, now: Instant) -> ServerKey {
        let dial_under_way = self.pool(pool).dedicated_dial;
        let server = self.start_dial(pool, None, now);
        self.place(server, Place::Lent(client), now);
        self.pool_mut(pool).dedicated_dial = dial_under_way;
        self.book_mut(server).worker = worker;
        server
    }
}
