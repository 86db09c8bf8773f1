//! The web service: chat over HTTP, server-sent events and WebSockets, on any of many replicas.
//!
//! [`run`] is what `main` and the tests call; the way of a message is told in ARCHITECTURE.md.

pub mod api;
pub mod app;
pub mod auth;
pub mod chat;
pub mod cli;
pub mod error;
pub mod extract;
pub mod fleet;
pub mod layers;
pub mod limits;
pub mod logic;
pub mod metrics;
pub mod monitoring;
pub mod redis_link;
pub mod replicas;
pub mod responder;
pub mod router;
pub mod schema;
pub mod seed;
mod serve;
pub mod settings;
pub mod store;
pub mod stream;
pub mod ui;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chassis::listen::{self, Tcp};
use chassis::ops::{self, Ops};
use chassis::tasks::Tasks;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Handles, Life, Phase};
use crate::auth::Auth;
use crate::chat::{Chat, ChatSettings};
use crate::fleet::Fleet;
use crate::limits::Limits;
use crate::logic::database_url::Target;
use crate::logic::watermark::TokenKeys;
use crate::metrics::Metrics;
use crate::monitoring::checks::Looks;
use crate::monitoring::console::Console;
use crate::redis_link::RedisLink;
use crate::replicas::Databases;
use crate::settings::{Database, Settings};
use crate::store::{Db, Store};
use crate::stream::{StreamSettings, Streams};

/// Where the service listens; opened by the caller, so that tests can let the system choose ports.
pub struct Listeners {
    pub http: std::net::TcpListener,
    pub ops: std::net::TcpListener,
}

impl Listeners {
    /// # Errors
    /// An address is taken or not ours; the error names it.
    pub fn open(settings: &Settings) -> std::io::Result<Self> {
        let options = Tcp::default();
        Ok(Self {
            http: listen::tcp(settings.service.listen, options)?,
            ops: listen::tcp(settings.service.ops_listen, options)?,
        })
    }
}

/// Every replica does it: a second one in the same hour finds nothing left to do.
const PRUNE_PERIOD: Duration = Duration::from_secs(3600);
const ENDED_LOGINS_RETRY: Duration = Duration::from_secs(1);
/// A read that has no connection to its standby by then goes to the primary.
const STANDBY_WAIT_MAX: Duration = Duration::from_secs(1);
/// The time that background tasks get to end after everything else has.
const TASKS_END: Duration = Duration::from_secs(2);

/// What a running replica is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Close all sockets: their clients come back, here or to another replica.
    Farewell,
    /// Drain and end.
    End,
}

/// Serves until it is told to end, then drains: no new work, what is in flight ends, everything is closed.
///
/// # Errors
/// A part cannot be made from the settings. What may come later (the database, Redis) is waited for instead.
pub async fn run(
    settings: Settings,
    listeners: Listeners,
    mut next_order: impl AsyncFnMut() -> Order,
) -> anyhow::Result<()> {
    // Whoever installed another one before us keeps it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let app = assemble(settings)?;
    // Apart from the other tasks: requests in flight end before that on which they stand.
    let connections = Tasks::new();
    let stop = CancellationToken::new();
    let http = serve::serve(listeners.http, router::router(app.clone()), connections.clone(), stop.clone());
    connections.spawn("http listener", http);
    start_background(&app, listeners.ops);
    let service = &app.settings.service;
    tracing::info!(
        container = %service.container,
        "{} serves on {}, metrics on {}, database {:?}, Redis {}",
        service.container,
        service.listen,
        service.ops_listen,
        app.settings.database.primary,
        app.redis.address(),
    );
    let farewell = Arc::new(Notify::new());
    app.tasks.spawn("farewells", say_farewell(app.clone(), Arc::clone(&farewell)));
    while next_order().await == Order::Farewell {
        farewell.notify_one();
    }
    drain(&app, &connections, &stop).await;
    Ok(())
}

/// Makes every handle; nothing is dialled yet.
fn assemble(settings: Settings) -> anyhow::Result<App> {
    let metrics = Arc::new(Metrics::new());
    let served_by = Arc::clone(&settings.service.container);
    let application = format!("arena {served_by}");
    let open = |target: &Target, limits: &Database| {
        Db::open(target, limits, &application, metrics.pool_wait.clone())
    };
    let limits = &settings.database;
    let store = Store::new(open(&limits.primary, limits));
    // Who waits for a standby may as well ask the primary.
    let brief = Database { pool_timeout: limits.pool_timeout.min(STANDBY_WAIT_MAX), ..limits.clone() };
    let standbys = limits.reads.targets.iter().map(|target| open(target, &brief)).collect();
    let databases =
        Databases::new(&store, standbys, token_keys(&settings.auth), settings.database.reads.clone());
    let redis = RedisLink::new(&settings.redis).map_err(anyhow::Error::msg)?;
    let auth = Auth::new(&settings.auth, redis.clone());
    let tasks = Tasks::new();
    let chat = Chat::start(chat::Parts {
        store: store.clone(),
        databases: databases.clone(),
        redis: redis.clone(),
        auth: auth.clone(),
        tasks: tasks.clone(),
        served_by: Arc::clone(&served_by),
        settings: ChatSettings::new(&settings.values),
    });
    let streams = Streams::new(stream::Parts {
        store: store.clone(),
        databases: databases.clone(),
        redis: redis.clone(),
        responder: responder::from_settings(&settings.values).context("the responder")?,
        chat: chat.clone(),
        tasks: tasks.clone(),
        settings: StreamSettings::new(&settings.values),
    });
    metrics.register(|registry| chat.metrics(registry));
    let life = Arc::new(Life::new());
    let fleet = Fleet::new(redis.clone());
    let limits = Limits::new(&settings.values, &redis);
    let looks = Looks::new(databases.standbys().len());
    Ok(App::new(Handles {
        settings,
        served_by,
        store,
        databases,
        redis,
        auth,
        chat,
        streams,
        limits,
        fleet,
        console: Console::default(),
        looks,
        metrics,
        tasks,
        life,
    }))
}

fn token_keys(auth: &settings::Auth) -> TokenKeys {
    let secrets = std::iter::once(&auth.secret).chain(&auth.previous);
    TokenKeys::new(secrets.map(|secret| secret.reveal().as_bytes().to_vec()).collect())
}

fn start_background(app: &App, ops_listener: std::net::TcpListener) {
    let (rendered, asked) = (app.clone(), app.clone());
    let ops = Ops {
        metrics: Arc::new(move || {
            monitoring::gauges(&rendered);
            rendered.metrics.render()
        }),
        ready: Arc::new(move || asked.life.is_serving()),
    };
    let tasks = &app.tasks;
    tasks.spawn("ops port", ops::serve(ops_listener, ops, tasks.clone()));
    tasks.spawn("start", begin_serving(app.clone()));
    let linked = app.clone();
    tasks.spawn("Redis master watch", async move { linked.redis.follow(&linked.tasks).await });
    tasks.spawn("heartbeat", fleet::beat(app.clone()));
    tasks.spawn("totals", monitoring::totals::keep_counting(app.clone()));
    tasks.spawn("pool metrics log", monitoring::log_block::keep_logging(app.clone()));
    let following = app.clone();
    tasks.spawn("ended logins", async move { following.auth.revoked().follow(&following.tasks).await });
    app.databases.watch(tasks);
}

/// Waits for the database and its schema, then lets traffic come.
async fn begin_serving(app: App) {
    for warning in &app.settings.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(cause) = app.redis.ping().await {
        tracing::warn!(%cause, "Redis at {} does not answer; chat is stored and read without it", app.redis.address());
    }
    if !schema::wait(&app.store, &app.tasks).await {
        return;
    }
    loop {
        // Before the first request: Redis may have forgotten them, and nobody else may be left who knows.
        match app.store.logins().ended_within(auth::ENDED_LOGINS_KEEP).await {
            Ok(ended) => break app.auth.revoked().remember(&ended),
            Err(cause) => tracing::warn!(%cause, "ended logins cannot be read yet: {cause}"),
        }
        tokio::select! {
            () = app.tasks.drain_started() => return,
            () = tokio::time::sleep(ENDED_LOGINS_RETRY) => {}
        }
    }
    match app.store.users().make_admins(&app.settings.auth.admins).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "{count} users of ADMIN_USERNAMES are admins now"),
        Err(cause) => tracing::warn!(%cause, "ADMIN_USERNAMES could not be applied: {cause}"),
    }
    app.life.advance(Phase::Serving);
    tracing::info!("{} is ready", app.served_by);
    app.tasks.spawn("prune", prune(app.clone()));
    let reading = app.clone();
    app.tasks.spawn("ended logins of the database", async move {
        reading.auth.revoked().follow_database(&reading.store, &reading.tasks).await;
    });
}

/// Sends all sockets away whenever it is told to, until the drain does it for good.
async fn say_farewell(app: App, told: Arc<Notify>) {
    let each = async {
        loop {
            told.notified().await;
            app.chat.farewell(app.settings.service.drain_timeout).await;
        }
    };
    tokio::select! {
        () = each => {}
        () = app.tasks.drain_started() => {}
    }
}

/// Forgets logins that ended long ago, and messages beyond their retention: at once, as no replica may live for an hour,
/// and then now and then.
async fn prune(app: App) {
    loop {
        prune_once(&app).await;
        tokio::select! {
            () = app.tasks.drain_started() => return,
            () = tokio::time::sleep(PRUNE_PERIOD) => {}
        }
    }
}

async fn prune_once(app: &App) {
    match app.store.logins().prune().await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "{count} logins that ended long ago were forgotten"),
        Err(cause) => tracing::warn!(%cause, "old logins stay for another hour: {cause}"),
    }
    let Some(retention) = app.settings.service.message_retention else { return };
    match app.store.messages().prune(OffsetDateTime::now_utc() - retention).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "{count} messages older than {retention:?} were removed"),
        Err(cause) => tracing::warn!(%cause, "old messages stay for another hour: {cause}"),
    }
}

/// First no new work, then the end of the old, then of what it stood on.
async fn drain(app: &App, connections: &Tasks, stop: &CancellationToken) {
    let service = &app.settings.service;
    app.life.advance(Phase::Draining);
    tracing::info!("{} drains: health says so, connections end with their next answer", app.served_by);
    fleet::tell(app).await;
    tokio::time::sleep(service.drain_delay).await;
    stop.cancel();
    let (_, _, cut) = tokio::join!(
        app.chat.drain(service.drain_timeout),
        app.streams.drain(service.drain_timeout),
        connections.drain(service.drain_timeout),
    );
    if cut > 0 {
        tracing::warn!(cut, "{cut} connections did not end within DRAIN_TIMEOUT and were cut");
    }
    let left = app.tasks.drain(TASKS_END).await;
    if left > 0 {
        tracing::warn!(left, "{left} background tasks did not end in time");
    }
    app.fleet.leave(&app.served_by).await;
    app.databases.close().await;
    app.redis.quit().await;
    tracing::info!("{} has drained", app.served_by);
}
