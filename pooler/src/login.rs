//! From an accepted socket to a client that is logged in: TLS answer, startup message, authentication, greeting.

mod authenticate;
mod lookup;
mod replication;
mod startup;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pgwire::startup::{Packet, Replication, Startup};
use pgwire::{backend, sqlstate};

use crate::admin::{Console, Rights};
use crate::clients::{ClientEntry, Login, Order};
use crate::error::End;
use crate::house::Phase;
use crate::logic::ledger::Limit;
use crate::logic::session::{Mode, Rules, Session};
use crate::pool::{Borrowed, Borrower, Lease, PoolInfo, Welcome};
use crate::settings::{ADMIN_DATABASE, Database, Settings, SslMode};
use crate::talk::{Talk, TalkError};
use crate::worker::Worker;

/// A longer name is nobody's database, `*` or not: what Postgres keeps of a name (manual, 4.1.1).
const DATABASE_NAME_LEN_MAX: usize = 63;

/// Who came in.
pub enum LoggedIn {
    Client {
        pool: Arc<PoolInfo>,
        session: Box<Session>,
        /// A replication client has its server from the start.
        lease: Option<Lease>,
    },
    Console(Console),
}

/// Logs in, unless an order (the deadline, a shutdown) comes first.
pub async fn log_in_in_time(
    worker: &Rc<Worker>,
    talk: &mut Talk,
    entry: &Arc<ClientEntry>,
) -> Result<LoggedIn, End> {
    let login = LoginAttempt { worker, entry };
    tokio::select! {
        result = login.run(talk) => result,
        end = ordered(entry) => Err(end),
    }
}

/// What a session may do under these settings. The mode of a session never changes.
pub fn rules(settings: &Settings, pool: &PoolInfo, mode: Mode) -> Rules {
    let _ = pool;
    Rules {
        mode,
        follows_statements: mode != Mode::Session && settings.max_prepared_statements > 0,
        message_len_max: settings.max_packet_size as usize,
        allows_simple_queries: !settings.disable_pqexec,
    }
}

struct LoginAttempt<'a> {
    worker: &'a Rc<Worker>,
    entry: &'a Arc<ClientEntry>,
}

impl LoginAttempt<'_> {
    async fn run(&self, talk: &mut Talk) -> Result<LoggedIn, End> {
        let startup = self.first_packets(talk).await?;
        let settings = self.worker.house.settings();
        let user = startup.get("user").filter(|user| !user.is_empty());
        let user = user.ok_or_else(|| refuse("no username supplied"))?.to_string();
        let database = startup.database().unwrap_or(&user).to_string();
        let replication = replication::asked(&startup)?;
        let tls = self.entry.tls.get().map_or("no", String::as_str);
        if settings.log_connections {
            tracing::info!(
                "{} login attempt: db={database} user={user} tls={tls} replication={}",
                self.entry.name_as(&database, &user),
                replication.as_str()
            );
        }
        if startup.must_negotiate(0) {
            let declined: Vec<&str> = startup.extensions.iter().map(|(name, _)| name.as_str()).collect();
            let mut out = Vec::new();
            backend::negotiate_protocol_version(&mut out, 0, &declined);
            send(talk, &out).await?;
        }
        if database == ADMIN_DATABASE {
            return self.log_in_operator(talk, &settings, user).await;
        }
        self.check_client_limit(&settings, &database)?;
        let mut wanted = startup::wanted(&startup, &settings, &self.worker.house.extra)?;
        if settings.application_name_add_host {
            wanted.add_host(self.entry.peer);
        }
        self.log_in_client(talk, &settings, Asked { user, database, wanted, replication }).await
    }

    /// Answers encryption requests until the startup message comes.
    async fn first_packets(&self, talk: &mut Talk) -> Result<Startup, End> {
        if talk.peek_byte().await.map_err(talk_end)? == 0x16 {
            self.start_tls(talk, true).await?;
        }
        loop {
            let mut out = Vec::new();
            match talk.next_packet().await.map_err(talk_end)? {
                Packet::SslRequest if self.entry.tls.get().is_some() => {
                    return Err(refuse("SSL req inside SSL"));
                }
                Packet::SslRequest if !talk.wire.is_unix() && self.worker.house.tls.offers_clients() => {
                    // Bytes sent ahead in clear would be taken for encrypted ones.
                    if talk.has_unread() {
                        return Err(End::quiet("unencrypted data after SSL request"));
                    }
                    send(talk, b"S").await?;
                    self.start_tls(talk, false).await?;
                    continue;
                }
                Packet::SslRequest | Packet::GssEncRequest => out.push(b'N'),
                Packet::Cancel(key) => {
                    let outcome = crate::cancel::forward(&self.worker.house, self.entry, &key).await;
                    return Err(End::quiet(outcome));
                }
                Packet::Startup(_) if self.lacks_tls(talk) => return Err(refuse("SSL required")),
                Packet::Startup(startup) => return Ok(startup),
            }
            if talk.has_unread() {
                return Err(End::quiet("unencrypted data after SSL request"));
            }
            send(talk, &out).await?;
        }
    }

    /// A client in clear over TCP, where the settings ask for TLS.
    fn lacks_tls(&self, talk: &Talk) -> bool {
        let mode = self.worker.house.settings_cached(|s| s.client_tls_sslmode);
        mode >= SslMode::Require && self.entry.tls.get().is_none() && !talk.wire.is_unix()
    }

    async fn start_tls(&self, talk: &mut Talk, direct: bool) -> Result<(), End> {
        let hello = direct.then(|| talk.take_unread());
        let started =
            crate::tls::start_towards_client(&self.worker.house, &mut talk.wire, hello.as_deref()).await;
        started.map_err(|text| End::quiet(format!("TLS handshake failed: {text}")))?;
        if let Some(text) = talk.wire.tls_text() {
            let _ = self.entry.tls.set(text);
        }
        Ok(())
    }

    async fn log_in_client(
        &self,
        talk: &mut Talk,
        settings: &Arc<Settings>,
        asked: Asked,
    ) -> Result<LoggedIn, End> {
        let house = &self.worker.house;
        let is_name = asked.database.len() <= DATABASE_NAME_LEN_MAX;
        let database = is_name.then(|| settings.database(&asked.database)).flatten();
        let proof = self.authenticate(talk, settings, &asked, database.as_ref()).await?;
        let Some(database) = database else {
            let text = format!("no such database: {}", asked.database);
            return Err(End::client(sqlstate::INVALID_DATABASE, text));
        };
        if house.pools.is_disabled(&database.name) {
            let text = format!("database \"{}\" is disabled", database.name);
            return Err(End::client(sqlstate::CANNOT_CONNECT_NOW, text));
        }
        let pool = self.enter(settings, &database, &asked)?;
        if let Some(credential) = proof {
            pool.set_credential(credential);
        }
        let (lease, welcome) = match asked.replication {
            Replication::None => (None, self.welcome(&pool).await?),
            _ => {
                let lease = self.dedicated(&pool, &asked).await?;
                let welcome = lease.info().welcome.clone();
                (Some(lease), welcome)
            }
        };
        let parameters = match lease {
            None => asked.wanted.over(&welcome.parameters),
            // Its startup message has set them, and a physical one takes no SET.
            Some(_) => welcome.parameters.clone(),
        };
        self.greet(talk, &welcome, &parameters).await?;
        let part = pool.stats.part(self.worker.id);
        part.client_logins.add(1);
        part.login.add(self.entry.connected.elapsed());
        let mode = match asked.replication {
            Replication::None => crate::worker::mode(settings.pool_mode(&database, &asked.user)),
            _ => Mode::Session,
        };
        let rules = rules(settings, &pool, mode);
        let session = Box::new(Session::new(self.entry.id, rules, parameters, house.extra.clone()));
        Ok(LoggedIn::Client { pool, session, lease })
    }

    /// Takes a place within the limits of database and user.
    fn enter(
        &self,
        settings: &Settings,
        database: &Arc<Database>,
        asked: &Asked,
    ) -> Result<Arc<PoolInfo>, End> {
        let house = &self.worker.house;
        // Counted and taken in one step, whichever workers let clients in.
        let _admission = house.clients.admission();
        self.check_phase()?;
        self.check_room(settings, database, &asked.user)?;
        let pool_user = database.user.clone().unwrap_or_else(|| asked.user.clone());
        let is_known = house.pools.has_database(&database.name);
        let pool = house.pools.pool(house, database, &pool_user);
        if database.auto && !is_known {
            tracing::info!("registered new auto-database: {}", database.name);
        }
        let login = Login {
            database: database.name.clone(),
            user: asked.user.clone(),
            pool: Some(pool.clone()),
            application_name: asked.wanted.get("application_name").unwrap_or_default().to_string(),
            replication: asked.replication,
        };
        let _ = self.entry.login.set(login);
        Ok(pool)
    }

    /// Before anything is spent on who it is: a proof costs a key's derivation, or a query.
    fn check_client_limit(&self, settings: &Settings, database: &str) -> Result<(), End> {
        let house = &self.worker.house;
        if settings.max_client_conn == 0 || house.clients.len() <= settings.max_client_conn as usize {
            return Ok(());
        }
        // A name that nobody has configured gets no statistics of its own.
        if settings.databases.contains_key(database) {
            house.stats.database(database).part(self.worker.id).count_limit(Limit::MaxClientConn);
        }
        Err(End::pool(sqlstate::TOO_MANY_CONNECTIONS, "no more connections allowed (max_client_conn)"))
    }

    /// Who was accepted just before another process took over goes there once logged in; who had connected before the
    /// shutdown that waits for clients is one of them. Over the unix socket one still connects, but only to the console.
    fn check_phase(&self) -> Result<(), End> {
        let is_tcp = self.entry.local.is_tcp();
        match self.worker.house.phase() {
            Phase::Running | Phase::Moving => Ok(()),
            Phase::WaitForClients if is_tcp => Ok(()),
            Phase::WaitForClients | Phase::WaitForServers | Phase::Ending => {
                Err(End::pool(sqlstate::CANNOT_CONNECT_NOW, "pooler is shutting down"))
            }
        }
    }

    fn check_room(&self, settings: &Settings, database: &Database, user: &str) -> Result<(), End> {
        let house = &self.worker.house;
        let full = |limit: Limit, text: &str| {
            house.stats.database(&database.name).part(self.worker.id).count_limit(limit);
            Err(End::pool(sqlstate::TOO_MANY_CONNECTIONS, text))
        };
        let database_limit = settings.max_db_client_connections(database) as usize;
        if database_limit > 0 && house.clients.count_of(|l| l.database == database.name) >= database_limit {
            let text = "client connections exceeded (max_db_client_connections)";
            return full(Limit::MaxDbClientConnections, text);
        }
        let user_limit = settings.max_user_client_connections(user) as usize;
        if user_limit > 0 && house.clients.count_of(|l| l.user == user) >= user_limit {
            let text = "client connections exceeded (max_user_client_connections)";
            return full(Limit::MaxUserClientConnections, text);
        }
        Ok(())
    }

    /// What a server of this pool says at login; the first client of a pool waits for one.
    async fn welcome(&self, pool: &Arc<PoolInfo>) -> Result<Arc<Welcome>, End> {
        if let Some(welcome) = pool.welcome() {
            return Ok(welcome);
        }
        let house = &self.worker.house;
        let (now, entry) = (Instant::now(), self.entry);
        let by = Borrower { client: entry.id, worker: self.worker.id, now, is_patient: true };
        let lease = match house.pools.borrow(house, pool, by)? {
            Borrowed::Now(lease) => lease,
            Borrowed::Later(mut waiting) => {
                entry.set_doing(crate::clients::Doing::Waiting, now);
                std::future::poll_fn(|cx| waiting.poll(cx)).await?
            }
        };
        lease.give_back_unused();
        pool.welcome().ok_or_else(|| End::server_gone("server login failed"))
    }

    async fn greet(
        &self,
        talk: &mut Talk,
        welcome: &Welcome,
        parameters: &crate::logic::parameters::Parameters,
    ) -> Result<(), End> {
        let mut out = Vec::new();
        backend::authentication_ok(&mut out);
        for (name, value) in &welcome.statuses {
            backend::parameter_status(&mut out, name, parameters.get(name).unwrap_or(value));
        }
        backend::backend_key_data(&mut out, &self.entry.key.to_cancel_key());
        let notice = self.worker.house.settings_cached(|s| s.login_notify_message.clone());
        if !notice.is_empty() {
            use pgwire::report::{Report, Severity};
            backend::notice(
                &mut out,
                &Report::new(Severity::Notice, sqlstate::SUCCESSFUL_COMPLETION, &notice),
            );
        }
        backend::ready_for_query(&mut out, backend::TransactionStatus::Idle);
        send(talk, &out).await
    }

    async fn log_in_operator(
        &self,
        talk: &mut Talk,
        settings: &Arc<Settings>,
        user: String,
    ) -> Result<LoggedIn, End> {
        let rights =
            if self.is_ourselves(talk, &user) || settings.is_admin(&user) || self.any_is_admin(settings) {
                Some(Rights::Admin)
            } else {
                settings.is_stats(&user).then_some(Rights::Stats)
            };
        let Some(rights) = rights else {
            return Err(End::client(sqlstate::INVALID_AUTHORIZATION, "not allowed"));
        };
        if !self.is_ourselves(talk, &user) {
            let asked = Asked {
                user: user.clone(),
                database: ADMIN_DATABASE.to_string(),
                wanted: startup::Wanted::default(),
                replication: Replication::None,
            };
            self.authenticate(talk, settings, &asked, None).await?;
        }
        // Who only looks may not crowd out those who act.
        if rights == Rights::Stats {
            self.check_room(settings, &Database::new(ADMIN_DATABASE), &user)?;
        }
        let login = Login {
            database: ADMIN_DATABASE.to_string(),
            user,
            pool: None,
            application_name: String::new(),
            replication: Replication::None,
        };
        let _ = self.entry.login.set(login);
        let console = Console::new(rights);
        let mut out = Vec::new();
        backend::authentication_ok(&mut out);
        out.extend(console.welcome(&self.entry.key.to_cancel_key()));
        send(talk, &out).await?;
        self.entry.prepared.store(0, Ordering::Relaxed);
        Ok(LoggedIn::Console(console))
    }

    /// With auth_type any everybody may use the console, as in PgBouncer.
    fn any_is_admin(&self, settings: &Settings) -> bool {
        settings.auth_type == crate::settings::AuthType::Any
    }

    /// The user `pgbouncer` over the unix socket, from a process of our own user: needs no password.
    fn is_ourselves(&self, talk: &Talk, user: &str) -> bool {
        let cred = talk.wire.unix_stream().and_then(|s| s.peer_cred().ok());
        user == ADMIN_DATABASE && cred.is_some_and(|c| c.uid() == nix::unistd::geteuid().as_raw())
    }
}

/// Who wants in, where to, and with which settings.
struct Asked {
    user: String,
    database: String,
    wanted: startup::Wanted,
    replication: Replication,
}

async fn ordered(entry: &ClientEntry) -> End {
    let order = std::future::poll_fn(|cx| {
        entry.listen_for_orders(cx.waker());
        match entry.take_order() {
            // A client that is not logged in yet is sent no notices, and holds no server.
            Order::None | Order::NoticeWait | Order::ServerObsolete => std::task::Poll::Pending,
            order => std::task::Poll::Ready(order),
        }
    })
    .await;
    match order {
        Order::QueryTimeout => End::pool(sqlstate::QUERY_CANCELED, "query_timeout"),
        Order::Shutdown => End::shutdown(),
        Order::QueryWaitTimeout => End::pool(sqlstate::PROTOCOL_VIOLATION, "query_wait_timeout"),
        Order::LoginTimeout => End::client(sqlstate::CONNECTION_EXCEPTION, "client_login_timeout"),
        Order::DatabaseGone => End::pool(sqlstate::DATABASE_DROPPED, "database removed"),
        _ => End::pool(sqlstate::ADMIN_SHUTDOWN, "admin forced disconnect"),
    }
}

async fn send(talk: &mut Talk, bytes: &[u8]) -> Result<(), End> {
    talk.send(bytes).await.map_err(|e| End::broken_socket(&e))
}

fn talk_end(error: TalkError) -> End {
    match error {
        TalkError::Io(error) => End::broken_socket(&error),
        TalkError::Protocol(text) => refuse(&text),
    }
}

fn refuse(text: &str) -> End {
    End::client(sqlstate::PROTOCOL_VIOLATION, text)
}
