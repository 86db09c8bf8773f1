//! What the operator asked for, as one plain value. The names are in settings/table.rs.

mod readers;
mod table;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use chassis::settings::{Errors, Values, read_all};

use crate::logic::addresses::{Asked, Endpoint, Place, Topology, is_pooler_name};
use crate::logic::url::DatabaseUrl;

pub use readers::{Reader, Told, is_known, known_names};
pub use table::SETTINGS;

/// The port of the balancer when nobody names one: above 1024, so that a user may start the stack too.
const NATIVE_HTTP_PORT: u16 = 8080;

/// What `config.env`, the environment and the command line say together.
#[derive(Debug, Clone)]
pub struct Settings {
    pub ports: Ports,
    pub replicas: u32,
    pub start_timeout: Duration,
    pub stop_timeout: Duration,
    pub log_bytes_max: u64,
    pub user: Option<String>,
    pub postgres_bin: Option<PathBuf>,
    /// Users with a password that everybody knows are made at the start.
    pub demo_users: bool,
    pub database: Database,
    pub pooler: Pooler,
    pub topology: Topology,
    pub secrets: GivenSecrets,
    /// For the parts, each of which gets what it reads.
    pub told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub http: u16,
    pub web_base: u16,
    pub web_ops_base: u16,
    pub balancer_ops: u16,
    pub pooler: u16,
    pub pooler_metrics: u16,
    pub postgres: u16,
    pub standby: u16,
    pub redis: u16,
}

/// Which database, as whom; where it is stands in the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    pub user: String,
    /// The parameters of `DATABASE_URL`, when that was given.
    pub url_parameters: Option<String>,
    /// `DATABASE_URL_DIRECT` was given: migrations go where it says.
    pub direct_url_given: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooler {
    pub pool_mode: String,
    pub default_pool_size: u64,
    pub min_pool_size: u64,
    pub reserve_pool_size: u64,
    pub max_db_connections: u64,
    pub max_client_conn: u64,
}

/// Secrets that the operator gave; those that are missing are made, see secrets.rs.
#[derive(Clone, Default)]
pub struct GivenSecrets(pub BTreeMap<&'static str, String>);

impl std::fmt::Debug for GivenSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What `config.env` says, by name.
type Lines = BTreeMap<String, String>;

/// What the command line adds to the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Overrides {
    pub replicas: Option<u32>,
    /// Option 2 of the documents: no pooler.
    pub direct: bool,
    /// Option 3 of the documents: a private standby for reads.
    pub read_replica: bool,
}

/// What Postgres keeps of a name (manual, 4.1.1).
const NAME_LEN_MAX: usize = 63;

/// Placeholders that documents and examples put where a secret belongs: as good as nothing.
const PLACEHOLDERS: [&str; 6] =
    ["your_password", "password", "secret", "changeme", "change-me", "secure_password"];

/// The settings' secrets, by the name under which they are kept.
const SECRETS: [&str; 5] =
    ["DB_PASSWORD", "SECRET_KEY", "REDIS_PASSWORD", "PGBOUNCER_ADMIN_PASSWORD", "PGBOUNCER_STATS_PASSWORD"];

impl Settings {
    /// Reads the table; the environment (`outer`) wins over the lines of `config.env`.
    ///
    /// # Errors
    /// Everything that is wrong, each with the setting's name.
    pub fn read(
        file: &Lines,
        outer: &dyn Fn(&str) -> Option<String>,
        overrides: Overrides,
    ) -> Result<Self, Errors> {
        let (values, mut problems) = read_all(SETTINGS, &lookup(file, outer));
        let url = database_url(&values).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let database = database(&values, url.as_ref());
        problems.extend(unwritable_name("DB_NAME", &database.name));
        problems.extend(unwritable_name("DB_USER", &database.user));
        problems.extend(unreachable_ops(values.ip("BALANCER_OPS_ADDR")));
        let asked = asked(&values, url.as_ref(), overrides);
        let decided = Topology::decide(&asked).map_err(|problem| problems.push(problem)).ok();
        let Some(topology) = decided.filter(|_| problems.is_empty()) else { return Err(Errors { problems }) };
        let replicas = u32::try_from(values.count("STACK_REPLICAS")).expect("the table's limit is far below");
        Ok(Self {
            ports: ports(&values, asked.db_host_is_pooler().then_some(asked.db.port)),
            replicas: overrides.replicas.unwrap_or(replicas),
            start_timeout: values.duration("STACK_START_TIMEOUT"),
            stop_timeout: values.duration("STACK_STOP_TIMEOUT"),
            log_bytes_max: values.count("STACK_LOG_MEGABYTES") * 1024 * 1024,
            user: values.opt("STACK_USER").map(str::to_owned),
            postgres_bin: values.opt("STACK_POSTGRES_BIN").map(PathBuf::from),
            demo_users: match values.text("STACK_DEMO_USERS") {
                "on" => true,
                "off" => false,
                _ => topology.primary == Place::Ours && !database.direct_url_given,
            },
            database,
            pooler: pooler(&values),
            topology,
            secrets: given_secrets(&values, url),
            told: Told::read(file, outer),
        })
    }

    /// What only the operator can give and has not given.
    pub fn lacking(&self) -> Option<String> {
        let Place::Theirs(place) = &self.topology.primary else { return None };
        (!self.secrets.0.contains_key("DB_PASSWORD")).then(|| {
            format!(
                "DB_PASSWORD: not given, and the settings name your own Postgres at {place}; set it in config.env"
            )
        })
    }
}

/// The environment wins over the lines of `config.env`; an empty value counts as none in both.
fn lookup(file: &Lines, outer: &dyn Fn(&str) -> Option<String>) -> impl Fn(&str) -> Option<String> {
    move |name| {
        outer(name)
            .filter(|text| !text.is_empty())
            .or_else(|| file.get(name).filter(|text| !text.is_empty()).cloned())
    }
}

/// Whether the operator gave this secret; one that cannot be read is a problem of its own.
pub fn has_secret(name: &str, file: &Lines, outer: &dyn Fn(&str) -> Option<String>) -> bool {
    let (values, _) = read_all(SETTINGS, &lookup(file, outer));
    is_secret(values.text(name))
}

/// In containers each part reads the settings itself, and the pooler's knows no `DATABASE_URL`: one that goes through it
/// with another login or database than `DB_*` would be refused there.
pub fn unknown_to_the_pooler(file: &Lines, outer: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let (values, _) = read_all(SETTINGS, &lookup(file, outer));
    let Ok(Some(url)) = database_url(&values) else { return Vec::new() };
    if !is_pooler_name(&url.host) {
        return Vec::new();
    }
    [("DB_NAME", &url.name, "database"), ("DB_USER", &url.user, "user"), ("DB_PASSWORD", &url.password, "password")]
        .into_iter()
        .filter(|(setting, said, _)| !said.is_empty() && *said != values.text(setting))
        .map(|(setting, _, what)| {
            format!("{setting}: DATABASE_URL has another {what}; the pooler's container knows this one: give both the same")
        })
        .collect()
}

fn database_url(values: &Values) -> Result<Option<DatabaseUrl>, String> {
    let parsed = values.opt("DATABASE_URL").map(DatabaseUrl::parse).transpose();
    parsed.map_err(|cause| format!("DATABASE_URL: {cause}"))
}

fn asked(values: &Values, url: Option<&DatabaseUrl>, overrides: Overrides) -> Asked {
    let at = |host: &str, port: &str| Endpoint::new(values.text(host), values.port(port));
    Asked {
        db: url.map_or_else(|| at("DB_HOST", "DB_PORT"), |url| Endpoint::new(&url.host, url.port)),
        actual: at("ACTUAL_DB_HOST", "ACTUAL_DB_PORT"),
        redis: at("REDIS_HOST", "REDIS_PORT"),
        redis_url_given: values.given("REDIS_URL"),
        read_host: values.text("DB_READ_HOST").to_owned(),
        actual_read: at("ACTUAL_DB_READ_HOST", "ACTUAL_DB_READ_PORT"),
        direct: overrides.direct,
        read_replica: overrides.read_replica,
    }
}

fn ports(values: &Values, pooler: Option<u16>) -> Ports {
    Ports {
        http: values.opt("HTTP_PORT").map_or(NATIVE_HTTP_PORT, |_| values.port("HTTP_PORT")),
        web_base: values.port("WEB_PORT_BASE"),
        web_ops_base: values.port("WEB_OPS_PORT_BASE"),
        balancer_ops: values.port("BALANCER_OPS_PORT"),
        pooler: pooler.unwrap_or_else(|| values.port("DB_PORT")),
        pooler_metrics: values.port("POOLER_METRICS_PORT"),
        postgres: values.port("STACK_POSTGRES_PORT"),
        standby: values.port("STACK_STANDBY_PORT"),
        redis: values.port("STACK_REDIS_PORT"),
    }
}

fn database(values: &Values, url: Option<&DatabaseUrl>) -> Database {
    let or_setting = |part: Option<&String>, name: &str| {
        part.filter(|text| !text.is_empty()).map_or_else(|| values.text(name).to_owned(), Clone::clone)
    };
    Database {
        name: or_setting(url.map(|url| &url.name), "DB_NAME"),
        user: or_setting(url.map(|url| &url.user), "DB_USER"),
        url_parameters: url.map(|url| url.parameters.clone()),
        direct_url_given: values.given("DATABASE_URL_DIRECT"),
    }
}

/// Names of databases and users stand in pgbouncer.ini, in URLs and in the arguments of Postgres' programs.
fn unwritable_name(setting: &str, name: &str) -> Option<String> {
    let is_fine = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
    (!name.chars().all(is_fine) || name.starts_with('-') || name.len() > NAME_LEN_MAX).then(|| {
        format!(
            "{setting}: {name:?} is no name that every part can take; use at most {NAME_LEN_MAX} letters, digits \
             and any of _ - . @, the first no -"
        )
    })
}

/// The stack asks the balancer for its health on this machine.
fn unreachable_ops(address: IpAddr) -> Option<String> {
    let is_fine = address == Ipv4Addr::LOCALHOST || address == Ipv4Addr::UNSPECIFIED;
    (!is_fine).then(|| {
        format!(
            "BALANCER_OPS_ADDR: the stack asks for health at 127.0.0.1, not at {address}: use that or 0.0.0.0"
        )
    })
}

fn pooler(values: &Values) -> Pooler {
    Pooler {
        pool_mode: values.text("POOLER_POOL_MODE").to_owned(),
        default_pool_size: values.count("POOLER_DEFAULT_POOL_SIZE"),
        min_pool_size: values.count("POOLER_MIN_POOL_SIZE"),
        reserve_pool_size: values.count("POOLER_RESERVE_POOL_SIZE"),
        max_db_connections: values.count("POOLER_MAX_DB_CONNECTIONS"),
        max_client_conn: values.count("POOLER_MAX_CLIENT_CONN"),
    }
}

fn given_secrets(values: &Values, url: Option<DatabaseUrl>) -> GivenSecrets {
    let mut given = BTreeMap::new();
    for name in SECRETS {
        let text = values.text(name);
        if is_secret(text) {
            given.insert(name, text.to_owned());
        }
    }
    if let Some(url) = url.filter(|url| !url.password.is_empty()) {
        given.insert("DB_PASSWORD", url.password);
    }
    GivenSecrets(given)
}

fn is_secret(text: &str) -> bool {
    !text.is_empty() && !PLACEHOLDERS.contains(&text.to_lowercase().as_str())
}

#[cfg(test)]
mod tests;
