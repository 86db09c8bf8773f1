//! Dialing Postgres and logging in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime};

use pgwire::auth::{Stored, md5, scram};
use pgwire::backend::{self, Authentication, kind};
use pgwire::report::Received;
use pgwire::startup::{self, CancelKey, Replication};
use pgwire::{frontend, sqlstate};
use socket2::SockRef;
use tokio::net::{TcpSocket, UnixStream};

use crate::clients::random_u64;
use crate::house::House;
use crate::logic::ledger::{ServerKey, WorkerId};
use crate::logic::session::ServerState;
use crate::outbox::Outbox;
use crate::pool::{Credential, Failure, PoolInfo, ReplicationStart, Welcome};
use crate::server::{Address, Server, ServerInfo, Target};
use crate::settings::{Host, LoadBalanceHosts, Secret, Settings};
use crate::talk::{Message, Talk, TalkError};
use crate::wire::Wire;

/// What the login of one server taught.
#[derive(Default)]
struct Greeting {
    statuses: Vec<(String, String)>,
    key: Option<CancelKey>,
}

/// Connects and logs in within server_connect_timeout: for the pool, or for one replication client.
pub async fn dial(
    house: &Arc<House>,
    info: &Arc<PoolInfo>,
    replication: Option<&ReplicationStart>,
    key: ServerKey,
    worker: WorkerId,
) -> Result<Box<Server>, Failure> {
    let settings = house.settings();
    let limit = settings.server_connect_timeout;
    let dialing = Dialing { house, settings: &settings, info, replication, id: house.next_id() };
    let dialed = if limit.is_zero() {
        dialing.run(key, worker).await
    } else {
        let timed = tokio::time::timeout(limit, Box::pin(dialing.run(key, worker))).await;
        timed.unwrap_or_else(|_| Err(failure(sqlstate::CONNECTION_FAILURE, "connect timeout")))
    };
    if let Err(failed) = &dialed {
        dialing.log_failure(failed);
    }
    dialed
}

/// Connects for a cancel request: no login.
pub async fn connect_only(house: &House, target: &Target) -> std::io::Result<Wire> {
    let wire = connect_to(house, &target.address).await?;
    if !target.is_tls {
        return Ok(wire);
    }
    let mut talk = Talk::new(wire);
    crate::tls::start_towards_server(house, &mut talk, &target.tls_name)
        .await
        .map_err(std::io::Error::other)?;
    Ok(talk.into_parts().0)
}

/// Connects to another pooler to pass a cancel request on.
pub async fn connect_peer(house: &House, host: &Host, port: u16) -> std::io::Result<Wire> {
    let (address, name) = match host {
        Host::Unix(folder) => (Address::Unix(folder.join(format!(".s.PGSQL.{port}"))), ""),
        Host::Abstract(name) => (Address::Abstract(format!("{name}/.s.PGSQL.{port}")), ""),
        Host::Tcp(name) => {
            let found = house.resolve(name, port).await?;
            (Address::Tcp(found[0]), name.as_str())
        }
    };
    let wire = connect_to(house, &address).await?;
    if wire.is_unix() {
        return Ok(wire);
    }
    let mut talk = Talk::new(wire);
    crate::tls::start_towards_server(house, &mut talk, name).await.map_err(std::io::Error::other)?;
    Ok(talk.into_parts().0)
}

struct Dialing<'a> {
    house: &'a Arc<House>,
    settings: &'a Settings,
    info: &'a Arc<PoolInfo>,
    replication: Option<&'a ReplicationStart>,
    id: u64,
}

impl Dialing<'_> {
    async fn run(&self, key: ServerKey, worker: WorkerId) -> Result<Box<Server>, Failure> {
        let host = self.host();
        let port = self.info.database.port;
        let (address, wire) = self.connect(&host, port).await?;
        let local = local_address(&wire, port);
        let mut talk = Talk::new(wire);
        let tls_name = match &host {
            Host::Tcp(name) => name.as_str(),
            _ => "",
        };
        if let Address::Tcp(_) = address {
            crate::tls::start_towards_server(self.house, &mut talk, tls_name)
                .await
                .map_err(|text| failure(sqlstate::CONNECTION_FAILURE, &text))?;
        }
        let greeting = self.log_in(&mut talk).await?;
        let welcome = self.learn(greeting.statuses);
        let tls = talk.wire.tls_text().unwrap_or_default();
        let (shown_host, shown_port) = (host_text(&address), port);
        let target = Target {
            tls_name: tls_name.to_string(),
            is_tls: !tls.is_empty(),
            address,
            key: greeting.key.unwrap_or(CancelKey { process_id: 0, secret: vec![0; 4] }),
        };
        let info = Arc::new(ServerInfo {
            id: self.id,
            ptr: self.ptr(),
            fd: talk.wire.fd(),
            name: self.name(&shown_host, shown_port),
            target,
            host: shown_host,
            port: shown_port,
            local,
            tls,
            connected_at: SystemTime::now(),
            connected: Instant::now(),
            prepared: AtomicU64::new(0),
            replication: self.replication.map_or(Replication::None, |start| start.replication),
            welcome: welcome.clone(),
        });
        let from = &info.local;
        tracing::info!("{} new connection to server (from {}:{})", info.name, from.0, from.1);
        let (wire, unread) = talk.into_parts();
        let limit = self.settings.max_prepared_statements as usize;
        let mut server = Box::new(Server {
            key,
            pool: self.info.key,
            worker,
            wire,
            state: ServerState::new(welcome.parameters.clone(), limit),
            unsent: Outbox::default(),
            unread,
            info,
        });
        // A physical replication connection knows no SQL.
        let takes_sql = server.info.replication != Replication::Physical;
        if let Some(sql) = self.info.database.connect_query.as_ref().filter(|_| takes_sql) {
            server.run_own(sql).await.map_err(|text| failure(sqlstate::CONNECTION_FAILURE, &text))?;
        }
        Ok(server)
    }

    /// The host to dial: the next of the list, or the same one until it fails.
    fn host(&self) -> Host {
        let hosts = &self.info.database.hosts;
        if hosts.is_empty() {
            return Host::Unix(self.settings.unix_socket_dir.clone().into());
        }
        let rotates = self.info.database.load_balance_hosts == LoadBalanceHosts::RoundRobin;
        hosts[self.info.next_host(hosts.len(), rotates)].clone()
    }

    async fn connect(&self, host: &Host, port: u16) -> Result<(Address, Wire), Failure> {
        let failed = |_| failure(sqlstate::CONNECTION_FAILURE, "connect failed");
        let address = match host {
            Host::Unix(folder) => Address::Unix(folder.join(format!(".s.PGSQL.{port}"))),
            Host::Abstract(name) => Address::Abstract(format!("{name}/.s.PGSQL.{port}")),
            Host::Tcp(name) => {
                let dns = |_| failure(sqlstate::CONNECTION_FAILURE, "server DNS lookup failed");
                let all = self.house.resolve(name, port).await.map_err(dns)?;
                return self
                    .connect_any(&all)
                    .await
                    .ok_or_else(|| failure(sqlstate::CONNECTION_FAILURE, "connect failed"));
            }
        };
        let wire = connect_to(self.house, &address).await.map_err(failed)?;
        Ok((address, wire))
    }

    async fn connect_any(&self, addresses: &[SocketAddr]) -> Option<(Address, Wire)> {
        for address in addresses {
            let address = Address::Tcp(*address);
            if let Ok(wire) = connect_to(self.house, &address).await {
                return Some((address, wire));
            }
        }
        None
    }

    async fn log_in(&self, talk: &mut Talk) -> Result<Greeting, Failure> {
        let database = &self.info.database;
        let mut parameters = vec![("user", self.info.user.as_str()), ("database", database.dbname.as_str())];
        parameters.extend(database.startup.iter().map(|(name, value)| (*name, value.as_str())));
        if let Some(start) = self.replication {
            parameters.push(("replication", start.replication.as_str()));
            parameters.extend(start.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        }
        let mut out = Vec::new();
        startup::startup(&mut out, 0, parameters);
        talk.send(&out).await.map_err(|e| crashed(&e.into()))?;
        self.authenticate(talk).await?;
        let mut greeting = Greeting::default();
        loop {
            let message = self.next(talk).await?;
            match message.kind {
                kind::PARAMETER_STATUS => {
                    let (name, value) = backend::parse_parameter_status(&message.body).map_err(malformed)?;
                    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                    greeting.statuses.push((text(name), text(value)));
                }
                kind::BACKEND_KEY_DATA => {
                    greeting.key = Some(backend::parse_backend_key_data(&message.body).map_err(malformed)?);
                }
                kind::READY_FOR_QUERY => return Ok(greeting),
                kind::NOTICE | kind::NEGOTIATE_PROTOCOL_VERSION => {}
                other => return Err(unexpected(other)),
            }
        }
    }

    async fn authenticate(&self, talk: &mut Talk) -> Result<(), Failure> {
        let mut exchange: Option<scram::Client> = None;
        loop {
            let message = self.next(talk).await?;
            if message.kind == kind::NEGOTIATE_PROTOCOL_VERSION || message.kind == kind::NOTICE {
                continue;
            }
            if message.kind != kind::AUTHENTICATION {
                return Err(unexpected(message.kind));
            }
            let mut out = Vec::new();
            match Authentication::parse(&message.body).map_err(malformed)? {
                Authentication::Ok if exchange.as_ref().is_none_or(scram::Client::is_done) => return Ok(()),
                Authentication::Ok => {
                    return Err(failure(sqlstate::PROTOCOL_VIOLATION, "server skipped its SCRAM proof"));
                }
                Authentication::CleartextPassword => frontend::password(&mut out, self.plain_password()?),
                Authentication::Md5Password { salt } => frontend::password(&mut out, self.md5_answer(salt)?),
                Authentication::Sasl { mechanisms } => {
                    if !backend::offers_mechanism(mechanisms, scram::MECHANISM) {
                        return Err(unsupported());
                    }
                    let mut client = scram::Client::new(self.scram_secret()?, scram::nonce(random_nonce()));
                    frontend::sasl_initial(&mut out, scram::MECHANISM, client.first().as_bytes());
                    exchange = Some(client);
                }
                Authentication::SaslContinue(data) => {
                    let client = exchange.take().ok_or_else(|| unexpected(b'R'))?;
                    let (client, answer) = scram_answer(self.house, client, data.to_vec()).await?;
                    frontend::sasl_response(&mut out, answer.as_bytes());
                    exchange = Some(client);
                }
                Authentication::SaslFinal(data) => {
                    let client = exchange.as_mut().ok_or_else(|| unexpected(b'R'))?;
                    client
                        .finish(data)
                        .map_err(|e| failure(sqlstate::INVALID_AUTHORIZATION, &e.to_string()))?;
                }
                Authentication::Unsupported(_) => return Err(unsupported()),
            }
            talk.send(&out).await.map_err(|e| crashed(&e.into()))?;
        }
    }

    /// The next message; an error from Postgres is the failure of this login.
    async fn next(&self, talk: &mut Talk) -> Result<Message, Failure> {
        let message = talk.next().await.map_err(|e| crashed(&e))?;
        if message.kind != kind::ERROR {
            return Ok(message);
        }
        let received = Received::parse(&message.body).map_err(malformed)?;
        let text = |field: Option<&[u8]>| String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
        let mut said = failure(&text(received.sqlstate), &text(received.message));
        // "Starting up" passes: whoever waits may go on waiting.
        said.is_refusal = said.sqlstate != sqlstate::CANNOT_CONNECT_NOW;
        tracing::warn!(
            "{} server login failed: {}",
            self.name(&self.host().to_string(), self.info.database.port),
            received.summary()
        );
        Err(said)
    }

    fn credential(&self) -> Option<Credential> {
        let database = &self.info.database;
        let listed = || self.settings.credentials.get(&self.info.user).cloned().map(Credential::Stored);
        if self.info.is_forced_user {
            return database.password.clone().map(Credential::Stored).or_else(listed);
        }
        // A listed plain password can do all; keys of a client's own login can do SCRAM where only a verifier is listed.
        match listed() {
            Some(Credential::Stored(secret)) if !is_verifier(&secret) => Some(Credential::Stored(secret)),
            other => self.info.credential().or(other),
        }
    }

    fn plain_password(&self) -> Result<String, Failure> {
        match self.credential() {
            Some(Credential::Stored(secret))
                if matches!(Stored::parse(secret.expose()), Stored::Plain(_)) =>
            {
                Ok(secret.expose().to_string())
            }
            _ => Err(no_password("a plain password")),
        }
    }

    fn md5_answer(&self, salt: [u8; 4]) -> Result<String, Failure> {
        let Some(Credential::Stored(secret)) = self.credential() else {
            return Err(no_password("a password or its md5"));
        };
        match Stored::parse(secret.expose()) {
            Stored::Plain(plain) => Ok(md5::answer(&md5::hash(&self.info.user, plain.as_bytes()), salt)),
            Stored::Md5(hash) => Ok(md5::answer(hash, salt)),
            Stored::Scram(_) => Err(no_password("a password or its md5")),
        }
    }

    fn scram_secret(&self) -> Result<scram::Secret, Failure> {
        match self.credential() {
            Some(Credential::ScramKeys(keys)) => Ok(scram::Secret::Keys(keys)),
            Some(Credential::Stored(secret)) => match Stored::parse(secret.expose()) {
                Stored::Plain(plain) => Ok(scram::Secret::Password(plain.to_string())),
                _ => Err(no_password("a plain password or the keys of a SCRAM login")),
            },
            None => Err(no_password("a password")),
        }
    }

    /// Remembers what clients are welcomed with.
    fn learn(&self, statuses: Vec<(String, String)>) -> Arc<Welcome> {
        if let Some(old) = self.info.welcome().filter(|old| old.statuses == statuses) {
            return old;
        }
        let welcome = Arc::new(Welcome::new(statuses, &self.house.extra));
        // A replication client's own parameters are nobody else's.
        if self.replication.is_none() {
            self.info.set_welcome(welcome.clone());
        }
        welcome
    }

    fn ptr(&self) -> u64 {
        ServerInfo::ptr_of(self.id)
    }

    fn name(&self, host: &str, port: u16) -> String {
        ServerInfo::name_of(self.ptr(), &self.info.database.name, &self.info.user, host, port)
    }

    fn log_failure(&self, failed: &Failure) {
        let host = self.info.database.host_text().unwrap_or_else(|| "unix".to_string());
        let name = self.name(&host, self.info.database.port);
        let reason = if self.replication.is_some() { "login failed" } else { failed.text.as_str() };
        tracing::info!("{name} closing because: {reason} (age=0s)");
    }
}

async fn connect_to(house: &House, address: &Address) -> std::io::Result<Wire> {
    match address {
        Address::Tcp(address) => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Before it connects: a peer that was promised a large window waits for room that a smaller buffer never
            // has, and sends a piece per timeout.
            house.tune_socket(&SockRef::from(&socket));
            Ok(Wire::tcp(socket.connect(*address).await?))
        }
        Address::Unix(path) => Ok(Wire::unix(UnixStream::connect(path).await?)),
        Address::Abstract(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes())?;
            let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
            stream.set_nonblocking(true)?;
            Ok(Wire::unix(UnixStream::from_std(stream)?))
        }
    }
}

/// Off the worker: deriving a key takes a millisecond and more, and others wait for this thread.
async fn scram_answer(
    house: &House,
    mut client: scram::Client,
    challenge: Vec<u8>,
) -> Result<(scram::Client, String), Failure> {
    let answering = move || {
        let answer = client.answer(&challenge);
        (client, answer)
    };
    let panicked = || failure(sqlstate::INTERNAL_ERROR, "the answer to the server could not be made");
    let (client, answer) = house.derivations.run(answering).await.ok_or_else(panicked)?;
    let answer = answer.map_err(|e| failure(sqlstate::INVALID_AUTHORIZATION, &e.to_string()))?;
    Ok((client, answer))
}

pub fn random_nonce() -> [u8; scram::NONCE_LEN] {
    let mut nonce = [0; scram::NONCE_LEN];
    for chunk in nonce.chunks_mut(8) {
        let random = random_u64().to_ne_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
    nonce
}

fn is_verifier(secret: &Secret) -> bool {
    matches!(Stored::parse(secret.expose()), Stored::Scram(_))
}

fn local_address(wire: &Wire, port: u16) -> (String, u16) {
    match wire.tcp_stream().and_then(|s| s.local_addr().ok()) {
        Some(address) => (address.ip().to_string(), address.port()),
        None => ("unix".to_string(), port),
    }
}

fn host_text(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.ip().to_string(),
        Address::Unix(_) | Address::Abstract(_) => "unix".to_string(),
    }
}

fn failure(sqlstate: &str, text: &str) -> Failure {
    Failure { sqlstate: sqlstate.to_string(), text: text.to_string(), at: Instant::now(), is_refusal: false }
}

fn crashed(error: &TalkError) -> Failure {
    tracing::debug!("login to a server failed: {error}");
    failure(sqlstate::CONNECTION_FAILURE, "server conn crashed?")
}

fn malformed(error: pgwire::Malformed) -> Failure {
    failure(sqlstate::PROTOCOL_VIOLATION, &format!("server sent a malformed message: {error}"))
}

fn unexpected(kind: u8) -> Failure {
    failure(sqlstate::PROTOCOL_VIOLATION, &format!("server sent message 0x{kind:02x} during login"))
}

fn unsupported() -> Failure {
    let text = "server asks for an authentication method that is not supported";
    Failure { is_refusal: true, ..failure(sqlstate::FEATURE_NOT_SUPPORTED, text) }
}

fn no_password(needed: &str) -> Failure {
    tracing::warn!("cannot log in to the server: {needed} is needed in auth_file or [databases]");
    Failure {
        is_refusal: true,
        ..failure(sqlstate::INVALID_PASSWORD, "server login failed: wrong password type")
    }
}
