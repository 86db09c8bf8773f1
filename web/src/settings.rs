//! The settings of the web service as one value, checked across settings. The names are in settings/table.rs.

mod table;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use chassis::settings::{Errors, Values, read_all};

use crate::auth::KeyPair;
use crate::logic::database_url::{self, PoolerSigns, Target, UrlOptions};

pub use table::SETTINGS;

/// Everything an operator can set.
#[derive(Debug, Clone)]
pub struct Settings {
    pub service: Service,
    pub auth: Auth,
    pub database: Database,
    pub redis: Redis,
    /// The checked values themselves, for chat, streaming and the responder, which make their own of them.
    pub values: Values,
    /// Things that are allowed but probably not meant; said once at start.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Service {
    pub container: Arc<str>,
    pub listen: SocketAddr,
    pub ops_listen: SocketAddr,
    pub threads: usize,
    pub debug: bool,
    pub allowed_hosts: Vec<String>,
    pub cors_origins: Vec<String>,
    pub trust_forwarded: bool,
    pub log_format: chassis::logs::Format,
    pub log_level: String,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub request_timeout: Duration,
    pub monitoring_public: bool,
    /// `None`: messages are kept for ever.
    pub message_retention: Option<Duration>,
    pub metrics_log_interval: Duration,
}

#[derive(Debug, Clone)]
pub struct Auth {
    pub secret: Secret,
    /// Keys of the past: still accepted.
    pub previous: Vec<Secret>,
    pub key_pair: Option<KeyPair>,
    pub admins: Vec<String>,
    pub tries_max: u64,
    pub tries_address_max: u64,
    pub tries_window: Duration,
    pub refresh_lifetime: Duration,
}

#[derive(Debug, Clone)]
pub struct Database {
    pub primary: Target,
    /// Where migrations go: Postgres itself.
    pub direct: Target,
    pub reads: Reads,
    pub pool_min: u32,
    pub pool_max: u32,
    pub pool_timeout: Duration,
    pub connect_timeout: Duration,
    pub statement_timeout: Duration,
    pub conn_max_age: Duration,
    pub max_connections: u64,
    pub pooler: Option<Pooler>,
}

/// The read replicas, and what a read asks of them.
#[derive(Debug, Clone)]
pub struct Reads {
    pub targets: Vec<Target>,
    /// How long a read waits for a replica that is about to have what it must see.
    pub wait: Duration,
    /// A replica that lags longer gets no reads.
    pub lag_max: Duration,
}

/// What the pooler is believed to be set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooler {
    pub pool_mode: String,
    pub default_pool_size: u64,
    pub max_client_conn: u64,
}

#[derive(Debug, Clone)]
pub struct Redis {
    pub url: Secret,
    /// `host:port`, for people.
    pub address: String,
    /// Certificates, PEM, that the server's is checked against instead of the system's.
    pub ca: Option<Secret>,
    pub layout: RedisLayout,
}

/// Which of the servers of Redis is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisLayout {
    /// There is but one.
    Single,
    /// The one that the Sentinels name.
    Sentinels(Sentinels),
    /// The one that has the key, of a cluster; `host:port` of some of its nodes.
    Cluster(Vec<String>),
}

/// Who tells which Redis is the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// Of one of them; it says of all how to log in, and whether to speak TLS.
    pub url: Secret,
    /// `host:port` of each.
    pub places: Vec<String>,
    pub master: String,
}

/// Text that must reach no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; the caller must not show it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A key shorter than this can be guessed offline from one token.
const SECRET_KEY_LEN_MIN: usize = 32;
/// Where Sentinels listen that name no port.
const SENTINEL_PORT: u16 = 26379;

impl Settings {
    /// Reads the table through `lookup`; `host_name` names the replica when `CONTAINER_NAME` does not.
    ///
    /// # Errors
    /// Every problem found, each with the setting's name.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>, host_name: &str) -> Result<Self, Errors> {
        let (values, mut problems) = read_all(SETTINGS, lookup);
        let mut warnings = Vec::new();
        let service = keep(service(&values, host_name), &mut problems);
        let auth = keep(auth(&values), &mut problems);
        let database = keep(database(&values, &mut warnings), &mut problems);
        let redis = keep(redis(&values), &mut problems);
        match (service, auth, database, redis) {
            (Some(service), Some(auth), Some(database), Some(redis)) if problems.is_empty() => {
                Ok(Self { service, auth, database, redis, values, warnings })
            }
            _ => Err(Errors { problems }),
        }
    }
}

fn keep<T>(part: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    part.map_err(|problem| problems.push(problem)).ok()
}

fn service(values: &Values, host_name: &str) -> Result<Service, String> {
    let address: IpAddr = values.text("LISTEN_ADDR").parse().map_err(|_| {
        format!("LISTEN_ADDR: \"{}\" is no IP address, such as 0.0.0.0 or ::", values.text("LISTEN_ADDR"))
    })?;
    Ok(Service {
        container: values.opt("CONTAINER_NAME").unwrap_or(host_name).into(),
        listen: SocketAddr::new(address, values.port("PORT")),
        ops_listen: SocketAddr::new(address, values.port("OPS_PORT")),
        threads: usize::try_from(values.count("WEB_THREADS")).unwrap_or(0),
        debug: values.flag("DEBUG"),
        allowed_hosts: values.list("ALLOWED_HOSTS"),
        cors_origins: values.list("CORS_ALLOWED_ORIGINS"),
        trust_forwarded: values.flag("TRUST_FORWARDED"),
        log_format: values.text("LOG_FORMAT").parse()?,
        log_level: values.text("LOG_LEVEL").to_owned(),
        drain_delay: values.duration("DRAIN_DELAY"),
        drain_timeout: values.duration("DRAIN_TIMEOUT"),
        request_timeout: values.duration("REQUEST_TIMEOUT"),
        monitoring_public: values.flag("MONITORING_PUBLIC"),
        message_retention: Some(values.count("MESSAGE_RETENTION_DAYS"))
            .filter(|&days| days > 0)
            .map(|days| Duration::from_secs(days * 24 * 3600)),
        metrics_log_interval: values.duration("METRICS_LOG_INTERVAL"),
    })
}

fn auth(values: &Values) -> Result<Auth, String> {
    let secret = values.opt("SECRET_KEY").ok_or(
        "SECRET_KEY: required and not given; set it to at least 32 random characters, the same on all replicas, \
         for example the output of: openssl rand -hex 32",
    )?;
    if secret.len() < SECRET_KEY_LEN_MIN {
        return Err(format!(
            "SECRET_KEY: too short ({} characters); use at least {SECRET_KEY_LEN_MIN}, for example the output of: \
             openssl rand -hex 32",
            secret.len()
        ));
    }
    Ok(Auth {
        secret: Secret::new(secret),
        previous: previous_keys(values)?,
        key_pair: values
            .opt("JWT_KEY")
            .map(KeyPair::parse)
            .transpose()
            .map_err(|wanted| format!("JWT_KEY: {wanted}"))?,
        admins: values.list("ADMIN_USERNAMES").iter().map(|name| name.to_lowercase()).collect(),
        tries_max: values.count("LOGIN_TRIES_MAX"),
        tries_address_max: values.count("LOGIN_TRIES_ADDRESS_MAX"),
        tries_window: values.duration("LOGIN_WINDOW"),
        refresh_lifetime: values.duration("REFRESH_LIFETIME"),
    })
}

/// What they sign is believed as much as what `SECRET_KEY` signs: none may be easier to guess.
fn previous_keys(values: &Values) -> Result<Vec<Secret>, String> {
    let fallbacks = values.text("SECRET_KEY_FALLBACKS").split(',').map(str::trim);
    let previous = values.opt("SECRET_KEY_PREVIOUS").map(|key| ("SECRET_KEY_PREVIOUS", key));
    let given = previous.into_iter().chain(fallbacks.map(|key| ("SECRET_KEY_FALLBACKS", key)));
    let given: Vec<_> = given.filter(|(_, key)| !key.is_empty()).collect();
    if let Some((name, key)) = given.iter().find(|(_, key)| key.len() < SECRET_KEY_LEN_MIN) {
        return Err(format!(
            "{name}: a key of it is too short ({} characters; at least {SECRET_KEY_LEN_MIN}); in SECRET_KEY_FALLBACKS a \
             comma ends a key, so a key that holds one can only stand in SECRET_KEY_PREVIOUS",
            key.len()
        ));
    }
    Ok(given.into_iter().map(|(_, key)| Secret::new(key)).collect())
}

fn database(values: &Values, warnings: &mut Vec<String>) -> Result<Database, String> {
    let by_parts = Target {
        host: values.text("DB_HOST").to_owned(),
        port: values.port("DB_PORT"),
        name: values.text("DB_NAME").to_owned(),
        user: values.text("DB_USER").to_owned(),
        password: values.text("DB_PASSWORD").to_owned(),
        options: UrlOptions::default(),
    };
    let primary = match values.opt("DATABASE_URL") {
        Some(url) => database_url::parse(url, &by_parts).map_err(|e| format!("DATABASE_URL: {e}"))?,
        None => by_parts.clone(),
    };
    let parts_given = ["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER"].iter().any(|name| values.given(name));
    if values.given("DATABASE_URL") && parts_given && !primary.agrees_with(&by_parts) {
        warnings.push(format!(
            "DATABASE_URL ({primary:?}) and DB_HOST, DB_PORT, DB_NAME, DB_USER ({by_parts:?}) say different things; \
             DATABASE_URL wins"
        ));
    }
    let actual = values.opt("ACTUAL_DB_HOST").map(|host| (host, values.port("ACTUAL_DB_PORT")));
    let pooled = match values.text("DATABASE_POOLER") {
        "on" => true,
        "off" => false,
        _ => database_url::is_pooler(PoolerSigns { target: &primary, actual }),
    };
    let options = &primary.options;
    let (pool_min, pool_max) = (values.count("DATABASE_POOL_MIN"), values.count("DATABASE_POOL_MAX"));
    if values.given("DATABASE_POOL_MIN") && pool_min > pool_max {
        return Err(format!("DATABASE_POOL_MIN: {pool_min} is more than DATABASE_POOL_MAX, {pool_max}"));
    }
    let pool_max = options.connection_limit.unwrap_or_else(|| small(pool_max));
    Ok(Database {
        direct: direct(values, &primary, actual)?,
        reads: Reads {
            targets: read_targets(values, &primary)?,
            wait: values.duration("DB_READ_WAIT"),
            lag_max: values.duration("DB_READ_LAG_MAX"),
        },
        pool_min: small(pool_min).min(pool_max),
        pool_max,
        pool_timeout: options.pool_timeout.unwrap_or_else(|| values.duration("DATABASE_POOL_TIMEOUT")),
        connect_timeout: options
            .connect_timeout
            .unwrap_or_else(|| values.duration("DATABASE_CONNECT_TIMEOUT")),
        statement_timeout: values.duration("DATABASE_STATEMENT_TIMEOUT"),
        conn_max_age: values.duration("CONN_MAX_AGE"),
        max_connections: values.count("DATABASE_MAX_CONNECTIONS"),
        pooler: pooled.then(|| Pooler {
            pool_mode: values.text("POOLER_POOL_MODE").to_owned(),
            default_pool_size: values.count("POOLER_DEFAULT_POOL_SIZE"),
            max_client_conn: values.count("POOLER_MAX_CLIENT_CONN"),
        }),
        primary,
    })
}

/// Migrations take session locks, which a transaction pooler would leak: they go to Postgres itself.
fn direct(values: &Values, primary: &Target, actual: Option<(&str, u16)>) -> Result<Target, String> {
    for name in ["DATABASE_URL_DIRECT", "DATABASE_DIRECT_PRIMARY"] {
        if let Some(url) = values.opt(name) {
            let place = Target { port: 5432, ..primary.clone() };
            return database_url::parse(url, &place).map_err(|e| format!("{name}: {e}"));
        }
    }
    Ok(match actual {
        Some((host, port)) => Target { host: host.to_owned(), port, ..primary.clone() },
        None => primary.clone(),
    })
}

fn read_targets(values: &Values, primary: &Target) -> Result<Vec<Target>, String> {
    let place = Target {
        port: values.port("DB_READ_PORT"),
        name: values.opt("DB_READ_NAME").unwrap_or(&primary.name).to_owned(),
        user: values.opt("DB_READ_USER").unwrap_or(&primary.user).to_owned(),
        password: values.opt("DB_READ_PASSWORD").unwrap_or(&primary.password).to_owned(),
        ..primary.clone()
    };
    if let Some(url) = values.opt("DATABASE_READ_URL") {
        return Ok(vec![database_url::parse(url, &place).map_err(|e| format!("DATABASE_READ_URL: {e}"))?]);
    }
    let numbered = (1..=8).map(|n| format!("DB_READ_HOST_{n}"));
    let mut found = Vec::new();
    for name in std::iter::once("DB_READ_HOST".to_owned()).chain(numbered) {
        let Some(text) = values.opt(&name) else { continue };
        let (host, port) = database_url::split_place(text, place.port).map_err(|e| format!("{name}: {e}"))?;
        found.push(Target { host: host.to_owned(), port, ..place.clone() });
    }
    Ok(found)
}

fn redis(values: &Values) -> Result<Redis, String> {
    let (url, address) = redis_place(values);
    let layout = redis_layout(values, &url)?;
    let address = match &layout {
        RedisLayout::Cluster(nodes) => nodes.join(", "),
        RedisLayout::Single | RedisLayout::Sentinels(_) => address,
    };
    let database = redis_database(&url);
    if matches!(layout, RedisLayout::Cluster(_)) && !matches!(database, "" | "0") {
        let name = if values.given("REDIS_URL") { "REDIS_URL" } else { "REDIS_DB" };
        // Anything but a number may be a password that went astray.
        let is_number = database.bytes().all(|byte| byte.is_ascii_digit());
        let wanted = if is_number { format!("database {database}") } else { "another database".to_owned() };
        return Err(format!(
            "{name}: asks for {wanted}, but a Redis Cluster (REDIS_CLUSTER) has only database 0"
        ));
    }
    let ca = values.opt("REDIS_TLS_CA").map(Secret::new);
    let asks_by_tls = matches!(&layout, RedisLayout::Sentinels(sentinels) if is_tls(sentinels.url.reveal()));
    if ca.is_some() && !is_tls(&url) && !asks_by_tls {
        return Err("REDIS_TLS_CA: given, but nothing of Redis is spoken to with TLS; set REDIS_TLS, or begin REDIS_URL \
                    with rediss://"
            .to_owned());
    }
    Ok(Redis { url: Secret::new(url), address, ca, layout })
}

fn redis_layout(values: &Values, url: &str) -> Result<RedisLayout, String> {
    let (places, nodes) = (values.list("REDIS_SENTINELS"), values.list("REDIS_CLUSTER"));
    for node in &nodes {
        database_url::split_place(node, 6379).map_err(|e| format!("REDIS_CLUSTER: {e}"))?;
    }
    match (places.is_empty(), nodes.is_empty()) {
        (true, true) => Ok(RedisLayout::Single),
        (false, true) => sentinels(values, &places, url).map(RedisLayout::Sentinels),
        (true, false) => Ok(RedisLayout::Cluster(nodes)),
        (false, false) => {
            Err("REDIS_SENTINELS and REDIS_CLUSTER: both are given; a Redis is either behind Sentinels \
                               or a cluster, leave one of them empty"
                .to_owned())
        }
    }
}

fn sentinels(values: &Values, places: &[String], redis_url: &str) -> Result<Sentinels, String> {
    let places: Vec<String> = places.iter().map(|place| sentinel_place(place)).collect::<Result<_, _>>()?;
    let is_tls = match values.text("REDIS_SENTINEL_TLS") {
        "on" => true,
        "off" => false,
        _ => is_tls(redis_url),
    };
    let login = redis_login(values, "REDIS_SENTINEL_USER", "REDIS_SENTINEL_PASSWORD");
    let url = Secret::new(format!("{}://{login}{}", redis_scheme(is_tls), places[0]));
    Ok(Sentinels { url, places, master: values.text("REDIS_SENTINEL_MASTER").to_owned() })
}

/// `host:port` of a Sentinel. What is more than that is not repeated: it may hold a password.
fn sentinel_place(place: &str) -> Result<String, String> {
    if place.contains(['@', '/']) {
        return Err("REDIS_SENTINELS: write each as HOST:PORT; user, password and TLS are told by REDIS_SENTINEL_USER, \
                    REDIS_SENTINEL_PASSWORD and REDIS_SENTINEL_TLS"
            .to_owned());
    }
    let (host, port) =
        database_url::split_place(place, SENTINEL_PORT).map_err(|e| format!("REDIS_SENTINELS: {e}"))?;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Whether the servers of this URL are spoken to with TLS.
pub fn is_tls(url: &str) -> bool {
    let scheme = url.split("://").next().unwrap_or_default();
    ["rediss", "valkeys"].iter().any(|secured| scheme.eq_ignore_ascii_case(secured))
}

fn redis_scheme(is_tls: bool) -> &'static str {
    if is_tls { "rediss" } else { "redis" }
}

/// `user:password@` as these settings say, or nothing.
fn redis_login(values: &Values, user: &str, password: &str) -> String {
    let encode = |name| {
        percent_encoding::utf8_percent_encode(values.text(name), percent_encoding::NON_ALPHANUMERIC)
            .to_string()
    };
    match (values.opt(user), values.opt(password)) {
        (None, None) => String::new(),
        _ => format!("{}:{}@", encode(user), encode(password)),
    }
}

/// The URL, and `host:port` of it.
fn redis_place(values: &Values) -> (String, String) {
    if let Some(url) = values.opt("REDIS_URL") {
        let address = behind_login(url).split(['/', '?']).next().unwrap_or_default().to_owned();
        return (url.to_owned(), address);
    }
    let address = format!("{}:{}", values.text("REDIS_HOST"), values.port("REDIS_PORT"));
    let login = redis_login(values, "REDIS_USER", "REDIS_PASSWORD");
    let scheme = redis_scheme(values.flag("REDIS_TLS"));
    (format!("{scheme}://{login}{address}/{}", values.count("REDIS_DB")), address)
}

/// The number of the database in the URL, or whatever stands in its place.
fn redis_database(url: &str) -> &str {
    let place = behind_login(url).split('?').next().unwrap_or_default();
    place.split_once('/').map_or("", |(_, database)| database)
}

/// What follows the user and the password, which may hold any character but the last `@`.
fn behind_login(url: &str) -> &str {
    let behind = url.rsplit_once('@').map_or(url, |(_, behind)| behind);
    behind.split_once("://").map_or(behind, |(_, behind)| behind)
}

/// The table's limits keep such counts far below the type's.
fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
