//! A world for tests: one private Postgres per test process, and for each test its own database, its own Redis and
//! as many replicas of the web service as it asks for.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a world that cannot be made must fail the test")]

pub mod cluster;
pub mod http;
pub mod locks;
pub mod process;
pub mod programs;
pub mod redis;
pub mod switch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use web::Listeners;
use web::settings::Settings;

#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use http::{Answer, Client};
use programs::{Pooler, Postgres, Standby};
use redis::Redis;

pub const SECRET_KEY: &str = "a secret key of the tests, 32 characters or more";
pub const PASSWORD: &str = "correct horse battery";
const READY_MAX: Duration = Duration::from_secs(30);

/// One test's surroundings. Everything ends when it is dropped.
pub struct World {
    pub postgres: &'static Postgres,
    pub database: String,
    pub redis: Redis,
    replicas: std::sync::Mutex<Vec<SocketAddr>>,
}

/// One running replica of the web service, in this process.
pub struct Replica {
    pub name: String,
    pub addr: SocketAddr,
    pub ops_addr: SocketAddr,
    orders: mpsc::UnboundedSender<web::Order>,
    ended: JoinHandle<anyhow::Result<()>>,
}

/// A registered user.
#[derive(Debug, Clone)]
pub struct User {
    pub id: String,
    pub username: String,
    pub token: String,
    pub refresh_token: String,
}

static DATABASES: AtomicU32 = AtomicU32::new(1);

impl World {
    /// A migrated, empty database and an empty Redis.
    pub async fn start() -> Self {
        Self::without_schema().await.migrated().await
    }

    /// The same with a Postgres of its own, which may be crashed.
    pub async fn apart() -> Self {
        Self::on(Box::leak(Box::new(Postgres::start()))).await.migrated().await
    }

    /// Without tables.
    pub async fn without_schema() -> Self {
        Self::on(Postgres::shared()).await
    }

    async fn migrated(self) -> Self {
        web::schema::migrate(&self.settings("migrate", &[])).await.expect("the migrations apply");
        self
    }

    async fn on(postgres: &'static Postgres) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = format!("arena_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        postgres.create_database(&database).await;
        Self { postgres, database, redis: Redis::start().await, replicas: std::sync::Mutex::default() }
    }

    /// What a replica of this world is set to, with `more` on top.
    pub fn settings(&self, name: &str, more: &[(&str, &str)]) -> Settings {
        let map = self.environment(name, more);
        Settings::read(&|name| map.get(name).cloned(), "test").expect("the settings of the tests are sound")
    }

    /// The same as it stands in the environment of a process.
    pub fn environment(&self, name: &str, more: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut map: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |name: &str, value: &str| map.insert(name.to_owned(), value.to_owned());
        set("CONTAINER_NAME", name);
        set("LISTEN_ADDR", "127.0.0.1");
        set("PORT", "0");
        set("OPS_PORT", "0");
        set("SECRET_KEY", SECRET_KEY);
        set("DB_HOST", "127.0.0.1");
        set("DB_PORT", &self.postgres.port.to_string());
        set("DB_NAME", &self.database);
        set("DB_USER", programs::USER);
        set("DB_PASSWORD", programs::PASSWORD);
        if let Some(pooler) = Pooler::shared() {
            set("DB_PORT", &pooler.port.to_string());
            set("ACTUAL_DB_HOST", "127.0.0.1");
            set("ACTUAL_DB_PORT", &self.postgres.port.to_string());
        }
        set("REDIS_HOST", "127.0.0.1");
        set("REDIS_PORT", &self.redis.port.to_string());
        set("DRAIN_DELAY", "0");
        set("DRAIN_TIMEOUT", "5");
        for (name, value) in more {
            set(name, value);
        }
        map
    }

    /// A replica that goes to Postgres itself, whatever the other tests do, and believes `more`.
    pub async fn direct_replica(&self, name: &str, more: &[(&str, &str)]) -> Replica {
        let port = self.postgres.port.to_string();
        let direct = [("DB_PORT", port.as_str()), ("ACTUAL_DB_HOST", "")];
        self.replica_with(name, &[&direct, more].concat()).await
    }

    /// A replica that serves.
    pub async fn replica(&self, name: &str) -> Replica {
        self.replica_with(name, &[]).await
    }

    pub async fn replica_with(&self, name: &str, more: &[(&str, &str)]) -> Replica {
        let replica = self.replica_that_starts(name, more);
        replica.wait_until_ready().await;
        replica
    }

    /// A replica that feels at once that a client does not read.
    pub async fn replica_with_small_buffers(&self, name: &str, more: &[(&str, &str)]) -> Replica {
        let (settings, listeners) = self.open(name, more);
        // The sockets that it accepts have it too.
        SockRef::from(&listeners.http).set_send_buffer_size(8 * 1024).unwrap();
        let replica = self.start_at(name, settings, listeners);
        replica.wait_until_ready().await;
        replica
    }

    /// A replica that may not be ready yet, or never.
    pub fn replica_that_starts(&self, name: &str, more: &[(&str, &str)]) -> Replica {
        let (settings, listeners) = self.open(name, more);
        self.start_at(name, settings, listeners)
    }

    fn open(&self, name: &str, more: &[(&str, &str)]) -> (Settings, Listeners) {
        let settings = self.settings(name, more);
        let listeners = Listeners::open(&settings).expect("the system has free ports");
        (settings, listeners)
    }

    fn start_at(&self, name: &str, settings: Settings, listeners: Listeners) -> Replica {
        let addr = listeners.http.local_addr().expect("a listener has an address");
        let ops_addr = listeners.ops.local_addr().expect("a listener has an address");
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let next_order = async move || ordered.recv().await.unwrap_or(web::Order::End);
        let run = web::run(settings, listeners, next_order);
        self.replicas.lock().unwrap().push(addr);
        Replica { name: name.to_owned(), addr, ops_addr, orders, ended: tokio::spawn(run) }
    }

    /// Registers a user at the newest replica.
    pub async fn user(&self, username: &str) -> User {
        let addr = *self.replicas.lock().unwrap().last().expect("start a replica first");
        let body = json!({"username": username, "password": PASSWORD});
        let answer = Client::new(addr).post("/api/auth/register", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        User::of(&answer.json)
    }

    pub async fn redis_kill(&mut self) {
        self.redis.kill().await;
    }

    /// Starts Redis again on the same port, empty.
    pub async fn redis_restart(&mut self) {
        self.redis.restart().await;
    }

    /// A standby of this process' Postgres.
    pub async fn standby(&self) -> Standby {
        self.postgres.standby().await
    }
}

/// A session of the user's own; gives its id.
pub async fn session(replica: &Replica, user: &User) -> String {
    let made = replica.client_of(user).post("/api/sessions", &json!({"title": "room"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.at("/id").as_str().unwrap().to_owned()
}

impl User {
    /// From the answer of a login or a registration.
    pub fn of(logged_in: &Value) -> Self {
        let text = |pointer: &str| logged_in.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
        Self {
            id: text("/user/id"),
            username: text("/user/username"),
            token: text("/access_token"),
            refresh_token: text("/refresh_token"),
        }
    }
}

impl Replica {
    /// A client without a token.
    pub fn client(&self) -> Client {
        Client::new(self.addr)
    }

    /// A client that sends this user's token.
    pub fn client_of(&self, user: &User) -> Client {
        Client::new(self.addr).with_token(&user.token)
    }

    pub async fn wait_until_ready(&self) {
        let client = self.client();
        programs::until("the replica is ready", READY_MAX, async || {
            assert!(!self.ended.is_finished(), "{} has ended instead of serving", self.name);
            matches!(client.try_get("/health").await, Some(answer) if answer.status == 200)
        })
        .await;
    }

    /// Asks the replica to drain, and gives a handle on its end.
    pub fn begin_stop(&self) {
        self.order(web::Order::End);
    }

    pub fn order(&self, order: web::Order) {
        let _ = self.orders.send(order);
    }

    /// Drains the replica and waits for its end.
    pub async fn stop(self) {
        self.begin_stop();
        self.ended().await;
    }

    pub async fn ended(self) {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.ended).await;
        ended
            .expect("a replica drains in time")
            .expect("a replica does not panic")
            .expect("a replica ends well");
    }

    /// Ends the replica at once, as kill -9 would: nothing is drained.
    pub fn kill(self) {
        self.ended.abort();
    }
}
