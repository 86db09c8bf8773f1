//! A Redis Cluster: one connection that knows which node has which slot, and the nodes for those who need a connection of
//! their own. How a pipeline is cut is in parts.rs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use chassis::tasks::Tasks;
use futures_util::future::{join_all, try_join_all};
use redis::aio::ConnectionLike as _;
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr,
};
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisResult, Value};

use super::parts::{Goal, Part, parts, whole};
use super::{certificates, client_at, url_at};
use crate::settings;

/// Shorter than the limit of a question: while one node is dialled in vain, those of the others wait.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// Just below the limit of a question, so that it ends here and is counted.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(700);
/// How often a question is sent again that a node has passed on to another one, or could not take yet.
const RETRIES: u32 = 4;
const RETRY_WAIT_MIN_MS: u64 = 20;
const RETRY_WAIT_MAX_MS: u64 = 200;
/// How often the nodes are asked who they are.
const FOLLOW_PERIOD: Duration = Duration::from_secs(2);
/// A connection over which nothing was answered for this long is made anew. The library's own tries again without a pause
/// when all nodes are gone in the middle of a look for who has which slot.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const SLOT_COUNT: u16 = 16_384;

/// Clones share the connection.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    settings: settings::Redis,
    held: Mutex<Held>,
    nodes: Mutex<Nodes>,
    /// Publications of this process go to the master of a slot that it has drawn: they keep their order, and the
    /// processes share out the work.
    publications: Slot,
}

/// The connection; made when it is first needed.
#[derive(Default)]
struct Held {
    connection: Option<ClusterConnection>,
    silent_since: Option<Instant>,
}

struct Nodes {
    /// As they stand in the setting.
    given: Vec<String>,
    learnt: Topology,
    next: usize,
}

/// The nodes as they tell it, each `host:port`, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Topology {
    masters: Vec<String>,
    all: Vec<String>,
}

impl Cluster {
    pub fn new(settings: &settings::Redis, nodes: &[String]) -> RedisResult<Self> {
        // What is wrong with the URL or the certificates shows now, not with the first question.
        client(settings, nodes)?;
        let [low, high, first, ..] = random();
        let drawn = u16::from_le_bytes([low, high]) % SLOT_COUNT;
        let nodes = Nodes { given: nodes.to_vec(), learnt: Topology::default(), next: usize::from(first) };
        Ok(Self {
            shared: Arc::new(Shared {
                settings: settings.clone(),
                held: Mutex::default(),
                nodes: Mutex::new(nodes),
                publications: Slot::new(drawn).expect("the remainder is below the count"),
            }),
        })
    }

    pub async fn ask(&self, command: &Cmd) -> RedisResult<Value> {
        let answer = self.connection()?.req_packed_command(command).await;
        self.on_answer(&answer);
        answer
    }

    /// Each part of a pipeline goes to the node that can answer it, all at the same time; a transaction has but one part.
    pub async fn ask_all(&self, pipeline: &Pipeline, offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        if pipeline.is_transaction() {
            let answer = self.connection()?.req_packed_commands(pipeline, offset, count).await;
            self.on_answer(&answer);
            return answer;
        }
        // All are waited for: what concerns one slot is done though another one's master is away.
        let answers = join_all(parts(pipeline).into_iter().map(|part| self.ask_part(part))).await;
        let answered = answers.into_iter().collect::<RedisResult<Vec<_>>>()?;
        Ok(whole(answered))
    }

    async fn ask_part(&self, part: Part) -> RedisResult<(Part, Vec<Value>)> {
        let master_of = |slot| SingleNodeRoutingInfo::SpecificNode(Route::with_slot(slot, SlotAddr::Master));
        let route = match part.goal {
            Goal::Slot(slot) => master_of(slot),
            Goal::Publications => master_of(self.shared.publications),
            Goal::AnyNode => SingleNodeRoutingInfo::RandomPrimary,
        };
        let (pipeline, len) = (part.pipeline.clone(), part.pipeline.len());
        let answer = self.connection()?.route_pipeline(pipeline, 0, len, route).await;
        self.on_answer(&answer);
        Ok((part, answer?))
    }

    /// Whether each master answers. The connection passes over those that it could not reach when it last looked, and
    /// dials them when a question is theirs: they are dialled here too. Where no master has been learnt yet, those that
    /// the connection knows are enough. To ask it for a master by address would have it dial all nodes anew each time.
    pub async fn ping(&self) -> RedisResult<()> {
        let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let answer = self.connection()?.route_command(redis::cmd("PING"), masters).await;
        self.on_answer(&answer);
        let learnt = self.nodes().learnt.masters.clone();
        let passed_over = passed_over(learnt, answer?)?;
        try_join_all(passed_over.iter().map(|master| self.ping_alone(master))).await?;
        Ok(())
    }

    async fn ping_alone(&self, node: &str) -> RedisResult<()> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let client = client_at(&self.shared.settings, node)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("PING").exec_async(&mut connection).await
    }

    /// `host:port` of a node; another one each time, if there are several.
    pub fn next_node(&self) -> String {
        self.nodes().next()
    }

    /// Ends the connection; the next question makes a new one.
    pub fn hang_up(&self) {
        *self.held() = Held::default();
    }

    /// Keeps up with who belongs to the cluster. The connection looks for itself only when a node refuses a question,
    /// which one that was promoted does not: it is made anew when there is another master.
    pub async fn follow(&self, tasks: &Tasks) {
        loop {
            match self.ask(redis::cmd("CLUSTER").arg("SLOTS")).await.map(Topology::read) {
                Ok(seen) if seen.masters.is_empty() => tracing::debug!("the Redis Cluster has no slots yet"),
                Ok(seen) => self.on_seen(seen),
                Err(cause) => {
                    tracing::debug!(%cause, "no node of the Redis Cluster tells who belongs to it: {cause}");
                }
            }
            tokio::select! {
                () = tasks.drain_started() => return,
                () = tokio::time::sleep(FOLLOW_PERIOD) => {}
            }
        }
    }

    fn on_seen(&self, seen: Topology) {
        let masters = seen.masters.join(", ");
        let before = std::mem::replace(&mut self.nodes().learnt, seen.clone());
        if before.masters != seen.masters && !before.masters.is_empty() {
            tracing::info!("the masters of the Redis Cluster are now {masters}");
            self.hang_up();
        }
    }

    fn on_answer<T>(&self, answer: &RedisResult<T>) {
        let is_answered = match answer {
            Ok(_) => true,
            Err(cause) => matches!(cause.kind(), ErrorKind::Server(_)),
        };
        let mut held = self.held();
        if is_answered {
            held.silent_since = None;
        } else if held.silent_since.get_or_insert_with(Instant::now).elapsed() >= SILENCE_MAX {
            *held = Held::default();
        }
    }

    /// Dials those that were learnt too: the nodes of the setting may all be gone.
    fn connection(&self) -> RedisResult<ClusterConnection> {
        let mut held = self.held();
        if let Some(connection) = &held.connection {
            return Ok(connection.clone());
        }
        let client = client(&self.shared.settings, &self.nodes().all())?;
        // Without a limit here the builder's is forgotten, and what the library asks by itself may last for ever.
        let config =
            ClusterConfig::new().set_connection_timeout(CONNECT_TIMEOUT).set_response_timeout(ANSWER_TIMEOUT);
        let connection = client.get_pending_async_connection_with_config(config);
        held.connection = Some(connection.clone());
        Ok(connection)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.shared.held.lock().expect("nobody panics while holding it")
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.shared.nodes.lock().expect("nobody panics while holding it")
    }
}

impl Nodes {
    /// Those that were learnt, and those of the setting, which remain when the others have all moved on.
    fn all(&self) -> Vec<String> {
        let learnt = &self.learnt.all;
        let given = self.given.iter().filter(|node| !learnt.contains(node));
        learnt.iter().chain(given).cloned().collect()
    }

    fn next(&mut self) -> String {
        let mut all = self.all();
        let node = all.swap_remove(self.next % all.len());
        self.next = self.next.wrapping_add(1);
        node
    }
}

impl Topology {
    /// From the answer to CLUSTER SLOTS: first slot, last slot, master, replicas. A node without a name is passed over.
    fn read(answer: Value) -> Self {
        let rows: Vec<Vec<Value>> = redis::from_redis_value(answer).unwrap_or_default();
        let mut seen = Self::default();
        for row in rows {
            let mut places = row.into_iter().skip(2).map(place);
            let Some(master) = places.next() else { continue };
            seen.masters.extend(master.clone());
            seen.all.extend(master.into_iter().chain(places.flatten()));
        }
        for list in [&mut seen.masters, &mut seen.all] {
            list.sort();
            list.dedup();
        }
        seen
    }
}

fn client(settings: &settings::Redis, nodes: &[String]) -> RedisResult<ClusterClient> {
    let urls = nodes.iter().map(|node| url_at(settings.url.reveal(), node));
    let builder = ClusterClient::builder(urls)
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(ANSWER_TIMEOUT)
        .overall_response_timeout(Some(ANSWER_TIMEOUT))
        .retries(RETRIES)
        .min_retry_wait(RETRY_WAIT_MIN_MS)
        .max_retry_wait(RETRY_WAIT_MAX_MS);
    match certificates(settings) {
        None => builder.build(),
        Some(certificates) => builder.certs(certificates).build(),
    }
}

/// The masters that are not among those that answered; the answer of each is told by its address.
fn passed_over(mut masters: Vec<String>, answer: Value) -> RedisResult<Vec<String>> {
    let answers: HashMap<String, String> = redis::from_redis_value(answer)?;
    // The library writes IPv6 without brackets.
    masters.retain(|master| !answers.contains_key(&master.replace(['[', ']'], "")));
    Ok(masters)
}

fn place(node: Value) -> Option<String> {
    let mut parts = redis::from_redis_value::<Vec<Value>>(node).ok()?.into_iter();
    let host: Option<String> = redis::from_redis_value(parts.next()?).ok()?;
    let port: u16 = redis::from_redis_value(parts.next()?).ok()?;
    let host = host.filter(|host| !host.is_empty() && host != "?")?;
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

fn random() -> [u8; 4] {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn row(nodes: &[(Value, i64)]) -> Value {
        let nodes = nodes.iter().map(|(host, port)| {
            Value::Array(vec![host.clone(), Value::Int(*port), text("id"), Value::Array(vec![])])
        });
        Value::Array([Value::Int(0), Value::Int(1)].into_iter().chain(nodes).collect())
    }

    /// Takes everything well but the question who has which slot, which it never answers. Counts how often that comes.
    async fn mute_node() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(len @ 1..) = socket.read(&mut bytes).await {
                        let read = String::from_utf8_lossy(&bytes[..len]);
                        if read.contains("SLOTS") {
                            counter.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        let answers = "+OK\r\n".repeat(read.matches('*').count());
                        socket.write_all(answers.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        (place, asked)
    }

    #[tokio::test]
    async fn what_the_library_asks_by_itself_has_a_limit() {
        let (place, asked) = mute_node().await;
        let nodes = vec![place.clone()];
        let layout = settings::RedisLayout::Cluster(nodes.clone());
        let url = settings::Secret::new("redis://any");
        let cluster =
            Cluster::new(&settings::Redis { url, address: place, ca: None, layout }, &nodes).unwrap();
        // Together they take less than SILENCE_MAX: the connection is still the first one.
        for _ in 0..3 {
            assert!(cluster.ask(&redis::cmd("PING")).await.is_err());
        }
        assert!(asked.load(Ordering::Relaxed) >= 2, "the first look was given up and another one begun");
    }

    #[test]
    fn masters_and_replicas_are_read_each_once_and_the_nameless_are_passed_over() {
        let answer = Value::Array(vec![
            row(&[(text("b"), 2), (text("a"), 1), (text("?"), 3)]),
            row(&[(text("b"), 2), (Value::Nil, 4)]),
            row(&[(text("::1"), 5), (text(""), 6)]),
        ]);
        let seen = Topology::read(answer);
        assert_eq!(seen.masters, ["[::1]:5", "b:2"]);
        assert_eq!(seen.all, ["[::1]:5", "a:1", "b:2"]);
        assert_eq!(Topology::read(Value::Nil), Topology::default());
    }

    #[test]
    fn a_master_that_did_not_answer_is_passed_over_and_one_that_refuses_is_an_error() {
        let pong = |place: &str| (text(place), Value::SimpleString("PONG".into()));
        let masters = ["[::1]:5", "a:1", "b:2"].map(str::to_owned).to_vec();
        let answer = Value::Map(vec![pong("b:2"), pong("::1:5"), pong("c:3")]);
        assert_eq!(passed_over(masters.clone(), answer).unwrap(), ["a:1"]);
        assert!(passed_over(vec![], Value::Map(vec![pong("a:1")])).unwrap().is_empty());
        let refusal = redis::parse_redis_value(b"-NOAUTH log in first\r\n").unwrap();
        assert!(passed_over(masters, Value::Map(vec![(text("a:1"), refusal)])).is_err());
    }

    #[test]
    fn nodes_take_turns_those_of_the_setting_too() {
        let learnt = Topology { masters: vec![], all: vec!["a:1".into(), "b:2".into()] };
        let mut nodes = Nodes { given: vec!["b:2".into(), "c:3".into()], learnt, next: 0 };
        let turns: Vec<String> = (0..4).map(|_| nodes.next()).collect();
        assert_eq!(turns, ["a:1", "b:2", "c:3", "a:1"]);
    }
}
