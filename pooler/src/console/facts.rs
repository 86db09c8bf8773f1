//! Gathers what SHOW and the metrics print.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::admin::facts::{
    Address, Buffers, ClientState, DatabaseRow, DnsHostRow, Facts, FdRow, Lists, MemRow, PeerPoolRow,
    PoolRow, Replication, ServerState, SocketRow, SocketState, State, UserRow,
};
use crate::cancel::{Counts, Lane};
use crate::client::Client;
use crate::clients::{ClientEntry, Doing, Endpoint};
use crate::house::House;
use crate::logic::ledger::Place;
use crate::logic::parameters::Parameters;
use crate::logic::replies::ENTRY_LEN;
use crate::logic::statements::Shared;
use crate::pool::{PoolInfo, PoolView, ServerView};
use crate::server::{Server, ServerInfo};
use crate::settings::{ADMIN_DATABASE, Database, LoadBalanceHosts, Peer, PoolMode, Secret, UserSettings};
use crate::worker::READ_LEN;

/// One look at everything; sockets only when somebody prints them.
pub fn gather(house: &House, with_sockets: bool) -> Facts {
    let settings = house.settings();
    let pools = house.pools.view();
    let clients = house.clients.all();
    let servers = house.pools.servers();
    let (stats, stats_elapsed) = house.stats.rows();
    let mut facts = Facts {
        pools: pools.iter().map(|p| pool_row(house, p)).collect(),
        stats,
        stats_elapsed,
        databases: databases(house, &clients),
        users: users(house, &clients),
        peers: settings.peers.values().cloned().collect(),
        peer_pools: house.cancels.peers().into_iter().map(peer_pool_row).collect(),
        dns_hosts: house.resolver.names().into_iter().map(dns_host_row).collect(),
        mem: memory(house, &pools, &clients, &servers),
        state: state(house),
        lists: lists(house, &pools, &clients, &servers),
        errors: house.stats.errors(),
        workers: house.spread.facts(),
        ..Facts::default()
    };
    facts.pools.push(admin_pool(&clients));
    if with_sockets {
        facts.sockets = clients.iter().map(|c| client_row(c)).collect();
        facts.sockets.extend(servers.iter().map(|s| server_row(s, &clients)));
        facts.fds = fds(house, &clients, &servers);
    }
    facts.settings = Some(settings);
    facts
}

fn pool_row(house: &House, view: &PoolView) -> PoolRow {
    let (info, counts) = (&view.info, &view.counts);
    let cancels = house.cancels.counts(Lane::Pool(info.key));
    let settings = house.settings();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    PoolRow {
        database: info.database.name.clone(),
        user: info.user.clone(),
        cl_active: count(counts.clients.saturating_sub(counts.waiting)),
        cl_waiting: count(counts.waiting),
        cl_active_cancel_req: count(cancels.sent),
        cl_waiting_cancel_req: count(cancels.waiting + cancels.dialing),
        sv_active: count(counts.lent),
        sv_active_cancel: count(cancels.sent),
        sv_being_canceled: count(counts.being_canceled),
        sv_idle: count(counts.idle),
        sv_used: count(counts.used),
        sv_tested: count(counts.testing),
        sv_login: count(counts.dialing + cancels.dialing),
        max_wait: counts.longest_wait,
        pool_mode: settings.pool_mode(&info.database, &info.user),
        load_balance_hosts: (info.database.hosts.len() > 1).then_some(info.database.load_balance_hosts),
    }
}

/// The console's own pool: statements, by its nature.
fn admin_pool(clients: &[Arc<ClientEntry>]) -> PoolRow {
    let is_console = |c: &&Arc<ClientEntry>| c.login.get().is_some_and(|l| l.pool.is_none());
    let active = clients.iter().filter(is_console).count();
    PoolRow {
        database: ADMIN_DATABASE.to_string(),
        user: ADMIN_DATABASE.to_string(),
        cl_active: u32::try_from(active).unwrap_or(u32::MAX),
        cl_waiting: 0,
        cl_active_cancel_req: 0,
        cl_waiting_cancel_req: 0,
        sv_active: 0,
        sv_active_cancel: 0,
        sv_being_canceled: 0,
        sv_idle: 0,
        sv_used: 0,
        sv_tested: 0,
        sv_login: 0,
        max_wait: Duration::ZERO,
        pool_mode: PoolMode::Statement,
        load_balance_hosts: None::<LoadBalanceHosts>,
    }
}

fn databases(house: &House, clients: &[Arc<ClientEntry>]) -> Vec<DatabaseRow> {
    let settings = house.settings();
    let mut all: Vec<_> = settings.databases.values().cloned().collect();
    for view in house.pools.view() {
        if view.info.database.auto && all.iter().all(|d| d.name != view.info.database.name) {
            all.push(view.info.database.clone());
        }
    }
    all.push(Arc::new(admin_database(settings.listen_port)));
    let row = |database: Arc<Database>| {
        let (servers, _) = house.pools.database_counts(&database.name);
        let of = |c: &&Arc<ClientEntry>| c.login.get().is_some_and(|l| l.database == database.name);
        DatabaseRow {
            connections: servers as u32,
            clients: clients.iter().filter(of).count() as u32,
            paused: house.pools.is_database_paused(&database.name),
            disabled: house.pools.is_disabled(&database.name),
            database,
        }
    };
    all.into_iter().map(row).collect()
}

/// The console's own database, as SHOW DATABASES lists it.
fn admin_database(port: u16) -> Database {
    let mut database = Database::new(ADMIN_DATABASE);
    database.port = port;
    database.user = Some(ADMIN_DATABASE.to_string());
    database.pool_size = Some(2);
    database.pool_mode = Some(PoolMode::Statement);
    database
}

/// Every user that is named anywhere, and those who are here.
fn users(house: &House, clients: &[Arc<ClientEntry>]) -> Vec<UserRow> {
    let settings = house.settings();
    let mut names: BTreeSet<String> = settings.credentials.keys().cloned().collect();
    names.extend(settings.users.keys().cloned());
    names.extend(settings.keys.auth_user.clone());
    names.extend(house.pools.view().iter().map(|v| v.info.user.clone()));
    names.insert(ADMIN_DATABASE.to_string());
    let mut here = BTreeMap::<&str, u32>::new();
    for login in clients.iter().filter_map(|client| client.login.get()) {
        *here.entry(&login.user).or_default() += 1;
    }
    names.extend(here.keys().map(|name| (*name).to_string()));
    let row = |name: String| {
        let (servers, _) = house.pools.user_counts(&name);
        let clients = here.get(name.as_str()).copied().unwrap_or(0);
        UserRow { connections: servers as u32, clients, name }
    };
    names.into_iter().map(row).collect()
}

fn lists(house: &House, pools: &[PoolView], clients: &[Arc<ClientEntry>], servers: &[ServerView]) -> Lists {
    let settings = house.settings();
    let logging_in = clients.iter().filter(|c| c.login.get().is_none()).count();
    let idle = servers.iter().filter(|s| s.place == Place::Idle).count();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Lists {
        databases: count(settings.databases.len() + 1),
        users: count(users(house, clients).len()),
        peers: count(settings.peers.len()),
        peer_pools: count(house.cancels.peers().len()),
        dns_names: count(house.resolver.names().len()),
        dns_queries: house.resolver.pending(),
        dns_pending: house.resolver.pending(),
        pools: count(pools.len() + 1),
        used_clients: count(clients.len() - logging_in),
        login_clients: count(logging_in),
        free_servers: count(idle),
        used_servers: count(servers.len() - idle),
        ..Lists::default()
    }
}

fn state(house: &House) -> State {
    match (house.is_suspended(), house.pools.is_all_paused()) {
        (true, _) => State::Suspended,
        (false, true) => State::Paused,
        (false, false) => State::Active,
    }
}

fn peer_pool_row((peer_id, counts): (u16, Counts)) -> PeerPoolRow {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    PeerPoolRow {
        peer_id,
        cl_active_cancel_req: count(counts.sent),
        cl_waiting_cancel_req: count(counts.waiting + counts.dialing),
        sv_active_cancel: count(counts.sent),
        sv_login: count(counts.dialing),
    }
}

fn dns_host_row(name: crate::resolver::Name) -> DnsHostRow {
    DnsHostRow {
        hostname: name.name,
        ttl_s: name.ttl.as_secs(),
        addresses: name.addresses.iter().map(ToString::to_string).collect(),
    }
}

/// PgBouncer's kinds of objects and what they are here. Nothing is kept free: memory that is not used is given back.
fn memory(
    house: &House,
    pools: &[PoolView],
    clients: &[Arc<ClientEntry>],
    servers: &[ServerView],
) -> Vec<MemRow> {
    let settings = house.settings();
    let row = |name, size: usize, used: usize| MemRow {
        name,
        size_bytes: u32::try_from(size).unwrap_or(u32::MAX),
        used: u32::try_from(used).unwrap_or(u32::MAX),
        free: 0,
    };
    let busy = clients.iter().filter(|client| client.doing() == Doing::Busy).count();
    let databases = settings.databases.len() + pools.iter().filter(|p| p.info.database.auto).count();
    vec![
        row("user_cache", size_of::<UserSettings>(), settings.users.len()),
        row("credentials_cache", size_of::<Secret>(), settings.credentials.len()),
        row("db_cache", size_of::<Database>(), databases),
        row("peer_cache", size_of::<Peer>(), settings.peers.len()),
        row("peer_pool_cache", size_of::<Counts>(), house.cancels.peers().len()),
        row("pool_cache", size_of::<PoolInfo>(), pools.len()),
        row("outstanding_request_cache", ENTRY_LEN, busy),
        row("server_cache", size_of::<Server>() + size_of::<ServerInfo>(), servers.len()),
        row("client_cache", size_of::<ClientEntry>() + size_of::<Client>(), clients.len()),
        row("iobuf_cache", READ_LEN, house.workers),
        row("var_list_cache", size_of::<Arc<Parameters>>(), clients.len() + servers.len()),
        row("server_prepared_statement_cache", size_of::<Shared>(), house.statement_count()),
    ]
}

/// Every socket of the process. Cancel keys and passwords are not shown.
fn fds(house: &House, clients: &[Arc<ClientEntry>], servers: &[ServerView]) -> Vec<FdRow> {
    let doors = house.doors.facts().into_iter().map(|(fd, bound)| FdRow {
        fd,
        task: "pooler",
        user: None,
        database: None,
        address: match bound {
            Some(bound) => Address { host: bound.ip().to_string(), port: bound.port() },
            None => Address { host: "unix".to_string(), port: house.settings().listen_port },
        },
        link_fd: 0,
    });
    let clients = clients.iter().filter_map(|client| {
        let login = client.login.get()?;
        let link = client.link.load(std::sync::atomic::Ordering::Relaxed);
        Some(FdRow {
            fd: client.fd,
            task: "client",
            user: Some(login.user.clone()),
            database: Some(login.database.clone()),
            address: address(client.peer),
            link_fd: servers.iter().find(|s| link > 0 && s.info.ptr == link).map_or(0, |s| s.info.fd),
        })
    });
    let servers = servers.iter().map(|server| FdRow {
        fd: server.info.fd,
        task: "server",
        user: Some(server.pool.user.clone()),
        database: Some(server.pool.database.name.clone()),
        address: Address { host: server.info.host.clone(), port: server.info.port },
        link_fd: 0,
    });
    doors.chain(clients).chain(servers).collect()
}

fn client_row(entry: &ClientEntry) -> SocketRow {
    let login = entry.login.get();
    let now = Instant::now();
    let state = match entry.doing() {
        Doing::LoggingIn => ClientState::Login,
        Doing::CancelWaiting => ClientState::WaitingCancelReq,
        Doing::Cancelling => ClientState::ActiveCancelReq,
        Doing::Waiting => ClientState::Waiting,
        Doing::Idle | Doing::Syncing | Doing::Busy | Doing::IdleInTransaction => ClientState::Active,
    };
    let link = entry.link.load(std::sync::atomic::Ordering::Relaxed);
    SocketRow {
        state: SocketState::Client(state),
        user: login.map(|l| l.user.clone()),
        database: login.map(|l| l.database.clone()),
        replication: login.map_or(Replication::None, |l| l.replication),
        address: address(entry.peer),
        local_address: address(entry.local),
        connect_time: entry.connected_at,
        request_time: entry.requested_at(),
        wait: if entry.doing() == Doing::Waiting { entry.doing_for(now) } else { Duration::ZERO },
        close_needed: false,
        ptr: entry.ptr,
        link: (link > 0).then_some(link),
        remote_pid: 0,
        tls: entry.tls.get().cloned().unwrap_or_default(),
        application_name: login.map(|l| l.application_name.clone()).unwrap_or_default(),
        prepared_statements: entry.prepared.load(std::sync::atomic::Ordering::Relaxed) as u32,
        id: entry.id,
        buffers: Buffers::default(),
    }
}

fn address(end: Endpoint) -> Address {
    Address { host: end.host(), port: end.port() }
}

fn server_row(view: &ServerView, clients: &[Arc<ClientEntry>]) -> SocketRow {
    let info = &view.info;
    let (state, client) = match view.place {
        Place::Dialing => (ServerState::New, None),
        Place::Closing => (ServerState::Idle, None),
        Place::Idle if view.is_used => (ServerState::Used, None),
        Place::Idle => (ServerState::Idle, None),
        Place::Testing => (ServerState::Tested, None),
        Place::Parked => (ServerState::BeingCanceled, None),
        Place::Lent(client) => (ServerState::Active, Some(client)),
    };
    let holder = client.and_then(|id| clients.iter().find(|c| c.id == id));
    SocketRow {
        state: SocketState::Server(state),
        user: Some(view.pool.user.clone()),
        database: Some(view.pool.database.name.clone()),
        replication: info.replication,
        address: Address { host: info.host.clone(), port: info.port },
        local_address: Address { host: info.local.0.clone(), port: info.local.1 },
        connect_time: info.connected_at,
        request_time: SystemTime::now() - view.since.elapsed(),
        wait: Duration::ZERO,
        close_needed: view.close_needed,
        ptr: info.ptr,
        link: holder.map(|c| c.ptr),
        remote_pid: info.target.key.process_id,
        tls: info.tls.clone(),
        application_name: holder
            .and_then(|c| c.login.get())
            .map(|l| l.application_name.clone())
            .unwrap_or_default(),
        prepared_statements: info.prepared.load(std::sync::atomic::Ordering::Relaxed) as u32,
        id: info.id,
        buffers: Buffers::default(),
    }
}
