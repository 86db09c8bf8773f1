//! Servers that leave with their client for another process, and those that come with one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgwire::startup::{CancelKey, Replication};

use super::{Lease, PoolInfo, Pools, Welcome};
use crate::house::House;
use crate::logic::ledger::WorkerId;
use crate::logic::moving::{MovedAddress, MovedServer};
use crate::logic::session::ServerState;
use crate::outbox::Outbox;
use crate::server::{Address, Server, ServerInfo, Target};
use crate::wire::Wire;

impl Lease {
    /// Another process could go on with it.
    pub fn is_movable(&mut self) -> bool {
        let is_dedicated = self.is_dedicated();
        let server = self.server();
        let is_settled = server.state.is_at_rest() && server.unsent.is_empty() && server.unread.is_empty();
        is_settled && !is_dedicated && server.wire.tls().is_none()
    }

    /// The server leaves this process.
    pub fn take_away(mut self) -> (MovedServer, io::Result<OwnedFd>) {
        let server = self.server.take().expect("a lease holds its server until it is given back");
        self.house.pools.forget(&self.house, server.key);
        let (info, target) = (&server.info, &server.info.target);
        let since = info.connected_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut moved = MovedServer {
            address: match &target.address {
                Address::Tcp(address) => MovedAddress::Tcp(*address),
                Address::Unix(path) => MovedAddress::Unix(path.display().to_string()),
                Address::Abstract(name) => MovedAddress::Abstract(name.clone()),
            },
            process_id: target.key.process_id,
            secret: target.key.secret.clone(),
            host: info.host.clone(),
            port: info.port,
            local: info.local.clone(),
            connected_at: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            statuses: info.welcome.statuses.clone(),
            ..MovedServer::default()
        };
        server.state.write_to(&mut moved);
        (moved, server.wire.into_fd())
    }
}

/// Who brings a server along.
#[derive(Clone, Copy)]
pub struct Bringer<'a> {
    pub pool: &'a PoolInfo,
    pub client: u64,
    pub worker: WorkerId,
}

impl Pools {
    /// Takes in a server that came with its client. It may be one more than the pool's size allows: to refuse it would
    /// break a transaction. None: it makes no sense.
    pub fn adopt(
        &self,
        house: &Arc<House>,
        by: Bringer<'_>,
        moved: MovedServer,
        wire: Wire,
    ) -> Option<Lease> {
        let limit = house.settings_cached(|s| s.max_prepared_statements as usize);
        let state = ServerState::from_moved(&moved, limit)?;
        let mut pools = self.lock();
        let Bringer { pool, client, worker } = by;
        let key = pools.ledger.adopt(pool.key, client, worker, Instant::now());
        let info = Arc::new(info(house, pool, moved, &wire));
        let slot = key.0 as usize;
        if pools.infos.len() <= slot {
            pools.infos.resize_with(slot + 1, || None);
        }
        pools.infos[slot] = Some(info.clone());
        drop(pools);
        let pool = pool.key;
        let (unsent, unread) = (Outbox::default(), Vec::new());
        Some(Lease::new(house, Box::new(Server { key, pool, worker, wire, state, unsent, unread, info })))
    }
}

fn info(house: &House, pool: &PoolInfo, moved: MovedServer, wire: &Wire) -> ServerInfo {
    let id = house.next_id();
    let ptr = ServerInfo::ptr_of(id);
    let (host, port) = (moved.host, moved.port);
    let address = match moved.address {
        MovedAddress::Tcp(address) => Address::Tcp(address),
        MovedAddress::Unix(path) => Address::Unix(path.into()),
        MovedAddress::Abstract(name) => Address::Abstract(name),
    };
    // The first server of this pool that we see, perhaps: it is what the next client is welcomed with.
    let welcome = pool.welcome().unwrap_or_else(|| Arc::new(Welcome::new(moved.statuses, &house.extra)));
    pool.set_welcome(welcome.clone());
    let key = CancelKey { process_id: moved.process_id, secret: moved.secret };
    let connected_at = UNIX_EPOCH + Duration::from_micros(moved.connected_at);
    let age = SystemTime::now().duration_since(connected_at).unwrap_or_default();
    ServerInfo {
        id,
        ptr,
        fd: wire.fd(),
        name: ServerInfo::name_of(ptr, &pool.database.name, &pool.user, &host, port),
        target: Target { address, key, is_tls: false, tls_name: String::new() },
        host,
        port,
        local: moved.local,
        tls: String::new(),
        connected_at,
        connected: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
        prepared: AtomicU64::new(0),
        replication: Replication::None,
        welcome,
    }
}
