//! The connection to Redis. Redis may be away: every question has a short limit, and callers go on without it. Where
//! Sentinels tell who the master is, the connection follows it; in a cluster each question goes to the node that has its
//! key.

mod cluster;
mod parts;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use chassis::tasks::Tasks;
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, Cmd, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult, TlsCertificates, Value,
};

use crate::settings::{self, RedisLayout, Secret, Sentinels, is_tls};
use cluster::Cluster;

/// Redis answers in well under a millisecond; one that takes this long counts as away.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(750);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(750);
/// How often the Sentinels are asked who the master is.
const SENTINEL_PERIOD: Duration = Duration::from_secs(1);

/// A handle that reconnects by itself. Clones share one connection.
#[derive(Clone)]
pub struct RedisLink {
    shared: Arc<Shared>,
}

struct Shared {
    settings: settings::Redis,
    servers: Servers,
}

/// Who is asked.
enum Servers {
    One(Box<RwLock<Server>>),
    Cluster(Cluster),
}

/// The shared connection, for one question.
#[derive(Clone)]
pub enum Connection {
    One(ConnectionManager),
    Cluster(Cluster),
}

/// The server that is talked to now.
#[derive(Clone)]
struct Server {
    client: Client,
    manager: ConnectionManager,
    address: Arc<str>,
}

impl RedisLink {
    /// Makes the handle without connecting; must be called inside the runtime.
    ///
    /// # Errors
    /// The URL or the certificates are not understood; they are not repeated, as they may hold a password.
    pub fn new(settings: &settings::Redis) -> Result<Self, String> {
        let servers = Servers::new(settings).map_err(|_| {
            "REDIS_URL, REDIS_SENTINELS or REDIS_TLS_CA: not understood; write \
             redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DB], Sentinels as HOST[:PORT], and certificates as PEM"
                .to_owned()
        })?;
        Ok(Self { shared: Arc::new(Shared { settings: settings.clone(), servers }) })
    }

    /// For those who need connections of their own, such as subscribers. Ask again for each connection: in a cluster it
    /// is the next node's turn, and each node hears what is published on any.
    ///
    /// # Errors
    /// The cluster names a node by something that is no address.
    pub fn client(&self) -> RedisResult<Client> {
        match &self.shared.servers {
            Servers::One(server) => Ok(read(server).client),
            Servers::Cluster(cluster) => client_at(&self.shared.settings, &cluster.next_node()),
        }
    }

    /// The shared connection.
    pub fn connection(&self) -> Connection {
        match &self.shared.servers {
            Servers::One(server) => Connection::One(read(server).manager),
            Servers::Cluster(cluster) => Connection::Cluster(cluster.clone()),
        }
    }

    /// `host:port`, for people.
    pub fn address(&self) -> Arc<str> {
        match &self.shared.servers {
            Servers::One(server) => read(server).address,
            Servers::Cluster(_) => self.shared.settings.address.as_str().into(),
        }
    }

    /// Whether rooms and streams are on several servers, of which one may be away.
    pub fn is_cluster(&self) -> bool {
        matches!(self.shared.servers, Servers::Cluster(_))
    }

    /// Keeps up with the master that the Sentinels name, or with the nodes of a cluster; comes back at once where there
    /// are neither.
    pub async fn follow(&self, tasks: &Tasks) {
        match (&self.shared.servers, &self.shared.settings.layout) {
            (Servers::Cluster(cluster), _) => cluster.follow(tasks).await,
            (Servers::One(server), RedisLayout::Sentinels(sentinels)) => {
                self.follow_master(server, sentinels, tasks).await;
            }
            (Servers::One(_), RedisLayout::Single | RedisLayout::Cluster(_)) => {}
        }
    }

    async fn follow_master(&self, server: &RwLock<Server>, sentinels: &Sentinels, tasks: &Tasks) {
        let mut complaint: Option<String> = None;
        loop {
            match master(&self.shared.settings, sentinels).await {
                Ok(address) => {
                    complaint = None;
                    self.move_to(server, &address);
                }
                Err(cause) if complaint.as_ref() == Some(&cause) => {}
                Err(cause) => {
                    tracing::warn!(%cause, "no Sentinel names the master {}: {cause}", sentinels.master);
                    complaint = Some(cause);
                }
            }
            tokio::select! {
                () = tasks.drain_started() => return,
                () = tokio::time::sleep(SENTINEL_PERIOD) => {}
            }
        }
    }

    /// Sends a pipeline; the limit covers reconnecting too.
    pub async fn ask<T: FromRedisValue>(&self, pipeline: &Pipeline) -> RedisResult<T> {
        let mut connection = self.connection();
        in_time(pipeline.query_async(&mut connection)).await
    }

    /// How long a ping takes; of a cluster, until the last of its masters that are known so far has answered.
    pub async fn ping(&self) -> RedisResult<Duration> {
        let asked = tokio::time::Instant::now();
        match &self.shared.servers {
            Servers::One(_) => self.ask::<()>(redis::pipe().cmd("PING").ignore()).await?,
            Servers::Cluster(cluster) => in_time(cluster.ping()).await?,
        }
        Ok(asked.elapsed())
    }

    /// Takes leave.
    pub async fn quit(&self) {
        if let Servers::Cluster(cluster) = &self.shared.servers {
            return cluster.hang_up();
        }
        if let Err(cause) = self.ask::<()>(redis::pipe().cmd("QUIT").ignore()).await {
            tracing::debug!(%cause, "Redis was away at the end: {cause}");
        }
    }

    fn move_to(&self, current: &RwLock<Server>, address: &str) {
        if &*self.address() == address {
            return;
        }
        match Server::open(&self.shared.settings, address) {
            Ok(server) => {
                tracing::info!("the Sentinels name {address} as the master of Redis");
                *current.write().expect("nobody panics while holding it") = server;
            }
            Err(cause) => {
                tracing::warn!(%cause, "the Sentinels name {address}, which is no address: {cause}");
            }
        }
    }
}

impl Servers {
    fn new(settings: &settings::Redis) -> RedisResult<Self> {
        match &settings.layout {
            RedisLayout::Cluster(nodes) => return Cluster::new(settings, nodes).map(Self::Cluster),
            RedisLayout::Sentinels(sentinels) => {
                // What is wrong with them shows now, not with the first question.
                for place in &sentinels.places {
                    client_of(&sentinels.url, settings, place)?;
                }
            }
            RedisLayout::Single => {}
        }
        Ok(Self::One(Box::new(RwLock::new(Server::open(settings, &settings.address)?))))
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(manager) => manager.req_packed_command(command),
            Self::Cluster(cluster) => Box::pin(cluster.ask(command)),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(manager) => manager.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => Box::pin(cluster.ask_all(pipeline, offset, count)),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(manager) => manager.get_db(),
            Self::Cluster(_) => 0,
        }
    }
}

impl Server {
    fn open(settings: &settings::Redis, address: &str) -> Result<Self, RedisError> {
        let client = client_at(settings, address)?;
        // One try per question: whoever asks while Redis is away learns it at once, and the next question tries again.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { client, manager, address: address.into() })
    }
}

fn read(server: &RwLock<Server>) -> Server {
    server.read().expect("nobody panics while holding it").clone()
}

async fn in_time<T>(question: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    match tokio::time::timeout(ANSWER_TIMEOUT, question).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

fn client_at(settings: &settings::Redis, address: &str) -> RedisResult<Client> {
    client_of(&settings.url, settings, address)
}

/// A client of the server at `address`, which is spoken to as `url` says.
fn client_of(url: &Secret, settings: &settings::Redis, address: &str) -> RedisResult<Client> {
    let url = url_at(url.reveal(), address);
    match certificates(settings).filter(|_| is_tls(&url)) {
        None => Client::open(url),
        Some(certificates) => Client::build_with_tls(url, certificates),
    }
}

fn certificates(settings: &settings::Redis) -> Option<TlsCertificates> {
    let root_cert = Some(settings.ca.as_ref()?.reveal().as_bytes().to_vec());
    Some(TlsCertificates { client_tls: None, root_cert })
}

/// The URL with another place in it.
fn url_at(url: &str, address: &str) -> String {
    let place = url.find("://").map_or(0, |at| at + 3);
    let place = url.rfind('@').map_or(place, |at| at + 1);
    let rest = url[place..].find(['/', '?']).map_or("", |end| &url[place + end..]);
    format!("{}{address}{rest}", &url[..place])
}

/// The first answer of any Sentinel counts: they agree, or the next look sees that they do.
///
/// # Errors
/// What keeps each of them from answering.
async fn master(settings: &settings::Redis, sentinels: &Sentinels) -> Result<String, String> {
    let mut causes = Vec::new();
    for place in &sentinels.places {
        let asked = ask_sentinel(settings, sentinels, place);
        match tokio::time::timeout(CONNECT_TIMEOUT, asked).await {
            Ok(Ok(Some(address))) => return Ok(address),
            Ok(Ok(None)) => causes.push(format!("{place} knows no master of this name")),
            Ok(Err(cause)) => causes.push(format!("{place}: {cause}")),
            Err(_) => causes.push(format!("{place} does not answer in time")),
        }
    }
    Err(causes.join("; "))
}

async fn ask_sentinel(
    settings: &settings::Redis,
    sentinels: &Sentinels,
    place: &str,
) -> RedisResult<Option<String>> {
    let client = client_of(&sentinels.url, settings, place)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut question = redis::cmd("SENTINEL");
    question.arg("get-master-addr-by-name").arg(&sentinels.master);
    let found: Option<(String, String)> = question.query_async(&mut connection).await?;
    Ok(found.map(|(host, port)| format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_place_of_a_url_is_changed() {
        for (url, wanted) in [
            ("redis://redis:6379/0", "redis://10.0.0.7:6380/0"),
            ("rediss://u:p%40w@redis:6379/3", "rediss://u:p%40w@10.0.0.7:6380/3"),
            ("redis://redis", "redis://10.0.0.7:6380"),
            ("redis://redis?protocol=resp3", "redis://10.0.0.7:6380?protocol=resp3"),
        ] {
            assert_eq!(url_at(url, "10.0.0.7:6380"), wanted);
        }
    }
}
