//! The connection to Redis. Redis may be away: every question has a short limit, and callers go on without it. Where
//! Sentinels tell who the master is, the connection follows it.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use chassis::tasks::Tasks;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, Pipeline, RedisError, RedisResult, TlsCertificates};

use crate::settings::{self, Sentinels};

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
    server: RwLock<Server>,
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
        let server = Server::open(settings, &settings.address).map_err(|_| {
            "REDIS_URL or REDIS_TLS_CA: not understood; write redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DB], and \
             certificates as PEM"
                .to_owned()
        })?;
        Ok(Self { shared: Arc::new(Shared { settings: settings.clone(), server: RwLock::new(server) }) })
    }

    /// For those who need connections of their own, such as subscribers. Ask again for each connection.
    pub fn client(&self) -> Client {
        self.server().client
    }

    /// The shared connection.
    pub fn connection(&self) -> ConnectionManager {
        self.server().manager
    }

    /// `host:port`, for people.
    pub fn address(&self) -> Arc<str> {
        self.server().address
    }

    /// Keeps up with the master that the Sentinels name; comes back at once where there are none.
    pub async fn follow(&self, tasks: &Tasks) {
        let Some(sentinels) = &self.shared.settings.sentinels else { return };
        loop {
            match master(sentinels).await {
                Some(address) => self.move_to(&address),
                None => tracing::debug!("no Sentinel names the master {}", sentinels.master),
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
        match tokio::time::timeout(ANSWER_TIMEOUT, pipeline.query_async(&mut connection)).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// How long a ping takes.
    pub async fn ping(&self) -> RedisResult<Duration> {
        let asked = tokio::time::Instant::now();
        let () = self.ask(redis::pipe().cmd("PING").ignore()).await?;
        Ok(asked.elapsed())
    }

    /// Takes leave.
    pub async fn quit(&self) {
        if let Err(cause) = self.ask::<()>(redis::pipe().cmd("QUIT").ignore()).await {
            tracing::debug!(%cause, "Redis was away at the end: {cause}");
        }
    }

    fn move_to(&self, address: &str) {
        if &*self.address() == address {
            return;
        }
        match Server::open(&self.shared.settings, address) {
            Ok(server) => {
                tracing::info!("the Sentinels name {address} as the master of Redis");
                *self.shared.server.write().expect("nobody panics while holding it") = server;
            }
            Err(cause) => {
                tracing::warn!(%cause, "the Sentinels name {address}, which is no address: {cause}");
            }
        }
    }

    fn server(&self) -> Server {
        self.shared.server.read().expect("nobody panics while holding it").clone()
    }
}

impl Server {
    fn open(settings: &settings::Redis, address: &str) -> Result<Self, RedisError> {
        let url = url_at(settings.url.reveal(), address);
        let client = match &settings.ca {
            None => Client::open(url)?,
            Some(ca) => {
                let root_cert = Some(ca.reveal().as_bytes().to_vec());
                Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert })?
            }
        };
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

/// The URL with another place in it.
fn url_at(url: &str, address: &str) -> String {
    let place = url.find("://").map_or(0, |at| at + 3);
    let place = url.rfind('@').map_or(place, |at| at + 1);
    let rest = url[place..].find(['/', '?']).map_or("", |end| &url[place + end..]);
    format!("{}{address}{rest}", &url[..place])
}

/// The first answer of any Sentinel counts: they agree, or the next look sees that they do.
async fn master(sentinels: &Sentinels) -> Option<String> {
    for place in &sentinels.places {
        let asked = async {
            let client = Client::open(format!("redis://{place}")).ok()?;
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            let mut question = redis::cmd("SENTINEL");
            question.arg("get-master-addr-by-name").arg(&sentinels.master);
            let found: Option<(String, String)> = question.query_async(&mut connection).await.ok()?;
            found.map(|(host, port)| format!("{host}:{port}"))
        };
        if let Ok(Some(address)) = tokio::time::timeout(CONNECT_TIMEOUT, asked).await {
            return Some(address);
        }
    }
    None
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
