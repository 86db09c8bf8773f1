//! What runs, with which arguments, environment, address, health check and way of stopping. Starts nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::addresses::{Endpoint, Place, Route, Standby};
use super::url::DatabaseUrl;
use crate::settings::{Reader, Settings};

/// Ports below this need a privilege to listen on, unless the system says otherwise.
const PRIVILEGED_BELOW: u16 = 1024;
/// While the balancer is restarted nobody takes connections: requests in flight get this long. Sockets and streams,
/// which have no end of their own, come back to the new one.
const NOBODY_LISTENS_MAX: Duration = Duration::from_secs(5);

/// One long-running part of the stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Besides what every process knows of its machine: the settings that it reads.
    pub env: BTreeMap<String, String>,
    pub identity: Identity,
    pub address: Endpoint,
    pub probe: Probe,
    pub stop: Stop,
    pub succession: Succession,
}

/// How the program of another release comes to serve in the place of a running one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Succession {
    /// It starts when this one has ended.
    Afterwards,
    /// Started with this argument besides, it takes over the sockets and clients of the running one, which then ends.
    TakesOver(&'static str),
    /// On USR2 the running one starts it on its own sockets; it tells that it serves by its id in this file.
    Usr2 { pid_file: PathBuf },
}

/// Who a part runs as when root starts the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Unprivileged,
    /// Only for a port that needs it.
    Starter,
}

/// How to find out whether a part is healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    Http {
        port: u16,
        path: std::borrow::Cow<'static, str>,
    },
    /// A startup packet that is answered by a question for the password.
    Postgres {
        port: u16,
        user: String,
        database: String,
    },
    /// Its own word, and a query through each of its pools: on each way from the replicas to a database.
    Pooler {
        metrics_port: u16,
        port: u16,
        user: String,
        password: Password,
        databases: Vec<String>,
    },
    /// Any answer to PING, be it a demand for a password.
    Redis {
        port: u16,
    },
}

/// A password that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// How a part is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    pub first: StopSignal,
    /// After the patience is over; then it is killed.
    pub then: StopSignal,
    pub patience: Duration,
    /// The patience where its successor waits for its place.
    pub patience_when_replaced: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    Terminate,
    Interrupt,
    Quit,
}

/// Where the stack's files are, as its parts see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The programs of the release in use.
    pub programs: PathBuf,
    /// The same by a path that stays: a program that starts its own successor finds the newest there.
    pub current: PathBuf,
    /// Where parts write their process ids.
    pub run: PathBuf,
    pub conf: PathBuf,
    pub data: PathBuf,
    pub postgres_bin: PathBuf,
    pub redis_server: PathBuf,
}

/// The secrets by name, all of them present.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<&'static str, String>);

impl Secrets {
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("{name} is among the secrets that are kept or made"))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Everything that the plan depends on.
#[derive(Debug, Clone)]
pub struct Plan {
    pub settings: Settings,
    pub secrets: Secrets,
    pub files: Files,
}

/// Names of web replicas: `web-1`, `web-2`, …
pub fn replica_name(number: u32) -> String {
    format!("web-{number}")
}

impl Plan {
    /// Postgres itself, private or the operator's.
    pub fn primary(&self) -> Endpoint {
        match &self.settings.topology.primary {
            Place::Ours => Endpoint::local(self.settings.ports.postgres),
            Place::Theirs(place) => place.clone(),
        }
    }

    /// What the replicas dial: the pooler, or Postgres itself.
    pub fn database(&self) -> Endpoint {
        match self.settings.topology.route {
            Route::Pooled => Endpoint::local(self.settings.ports.pooler),
            Route::Direct => self.primary(),
        }
    }

    /// The standby behind the pooler's second pool.
    pub fn pooled_standby(&self) -> Option<Endpoint> {
        match &self.settings.topology.standby {
            Standby::Ours => Some(Endpoint::local(self.settings.ports.standby)),
            Standby::TheirsPooled(place) => Some(place.clone()),
            Standby::None | Standby::Theirs => None,
        }
    }

    pub fn standby_name(&self) -> String {
        format!("{}_standby", self.settings.database.name)
    }

    /// The address that a browser on this machine uses.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.settings.ports.http)
    }

    /// The database without the pooler, for migrations.
    pub fn direct_url(&self) -> String {
        let primary = self.primary();
        let database = &self.settings.database;
        let url = DatabaseUrl {
            user: database.user.clone(),
            password: self.secrets.get("DB_PASSWORD").to_owned(),
            host: primary.host,
            port: primary.port,
            name: database.name.clone(),
            parameters: String::new(),
        };
        url.to_text()
    }

    pub fn redis(&self) -> Option<Part> {
        let port = self.settings.ports.redis;
        (self.settings.topology.redis == Place::Ours).then(|| Part {
            args: vec![text_of(&self.files.conf.join("redis.conf"))],
            probe: Probe::Redis { port },
            ..self.part("redis", self.files.redis_server.clone(), Endpoint::local(port))
        })
    }

    pub fn postgres(&self) -> Option<Part> {
        let ours = self.settings.topology.primary == Place::Ours;
        ours.then(|| self.cluster("postgres", self.settings.ports.postgres))
    }

    pub fn standby(&self) -> Option<Part> {
        let ours = self.settings.topology.standby == Standby::Ours;
        ours.then(|| self.cluster("standby", self.settings.ports.standby))
    }

    /// A Postgres cluster on loopback. No unix socket: its path could be too long for one.
    fn cluster(&self, name: &str, port: u16) -> Part {
        let data = text_of(&self.files.data.join(name));
        let config = format!("config_file={}", text_of(&self.files.conf.join("postgresql.conf")));
        let args = ["-D", &data, "-p", &port.to_string(), "-c", &config, "-c", "listen_addresses=127.0.0.1"];
        let args = args.into_iter().chain(["-c", "unix_socket_directories="]).map(str::to_owned).collect();
        let database = &self.settings.database;
        Part {
            args,
            probe: Probe::Postgres { port, user: database.user.clone(), database: "postgres".to_owned() },
            // SIGINT is Postgres' fast shutdown, SIGQUIT its immediate one.
            stop: self.stop(StopSignal::Interrupt, StopSignal::Quit),
            ..self.part(name, self.files.postgres_bin.join("postgres"), Endpoint::local(port))
        }
    }

    pub fn pooler(&self) -> Option<Part> {
        let ports = self.settings.ports;
        (self.settings.topology.route == Route::Pooled).then(|| Part {
            args: vec![text_of(&self.files.conf.join("pgbouncer.ini"))],
            probe: self.pooler_probe(),
            // SIGINT waits for transactions and not, as SIGTERM does, for clients to go away.
            stop: self.stop(StopSignal::Interrupt, StopSignal::Quit),
            succession: Succession::TakesOver("-R"),
            ..self.part("pooler", self.files.programs.join("pooler"), Endpoint::local(ports.pooler))
        })
    }

    fn pooler_probe(&self) -> Probe {
        let database = &self.settings.database;
        let standby = self.pooled_standby().map(|_| self.standby_name());
        Probe::Pooler {
            metrics_port: self.settings.ports.pooler_metrics,
            port: self.settings.ports.pooler,
            user: database.user.clone(),
            password: Password(self.secrets.get("DB_PASSWORD").to_owned()),
            databases: std::iter::once(database.name.clone()).chain(standby).collect(),
        }
    }

    pub fn balancer(&self) -> Part {
        let ports = self.settings.ports;
        let conf = text_of(&self.files.conf.join("nginx.conf"));
        let args = ["-c", &conf, "-g", "daemon off;"].map(str::to_owned).to_vec();
        let needs_root = ports.http < PRIVILEGED_BELOW;
        let mut env = self.settings.told.of(Reader::Balancer);
        env.insert("BALANCER_OPS_PORT".to_owned(), ports.balancer_ops.to_string());
        Part {
            args,
            env,
            identity: if needs_root { Identity::Starter } else { Identity::Unprivileged },
            probe: Probe::Http { port: ports.balancer_ops, path: "/health/ready".into() },
            // SIGQUIT drains, SIGTERM ends at once: nginx's meanings.
            stop: Stop {
                patience_when_replaced: NOBODY_LISTENS_MAX,
                ..self.stop(StopSignal::Quit, StopSignal::Terminate)
            },
            succession: Succession::Usr2 { pid_file: self.balancer_pid_file() },
            ..self.part("balancer", self.files.current.join("balancer"), Endpoint::local(ports.http))
        }
    }

    /// Written by the balancer that serves.
    pub fn balancer_pid_file(&self) -> PathBuf {
        self.files.run.join("balancer.pid")
    }

    pub fn replicas(&self, count: u32) -> Vec<Part> {
        (1..=count).map(|number| self.replica(number)).collect()
    }

    pub fn replica(&self, number: u32) -> Part {
        let name = replica_name(number);
        let address = self.replica_address(number);
        let mut env = self.web_env();
        env.extend([
            ("CONTAINER_NAME".to_owned(), name.clone()),
            ("LISTEN_ADDR".to_owned(), address.host.clone()),
            ("PORT".to_owned(), address.port.to_string()),
            ("OPS_PORT".to_owned(), port_of(self.settings.ports.web_ops_base, number).to_string()),
        ]);
        Part {
            args: vec!["serve".to_owned()],
            env,
            probe: Probe::Http { port: address.port, path: "/health".into() },
            ..self.part(&name, self.files.programs.join("web"), address)
        }
    }

    pub fn replica_address(&self, number: u32) -> Endpoint {
        Endpoint::local(port_of(self.settings.ports.web_base, number))
    }

    /// What every run of the web program gets: replicas, `web migrate`, `web seed`.
    pub fn web_env(&self) -> BTreeMap<String, String> {
        let (database, primary) = (self.database(), self.primary());
        let known = &self.settings.database;
        let password = self.secrets.get("DB_PASSWORD");
        let pooled = self.settings.topology.route == Route::Pooled;
        let mut env = self.settings.told.of(Reader::Web);
        let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
        set("DB_HOST", &database.host);
        set("DB_PORT", &database.port.to_string());
        set("DB_NAME", &known.name);
        set("DB_USER", &known.user);
        set("DB_PASSWORD", password);
        set("ACTUAL_DB_HOST", &primary.host);
        set("ACTUAL_DB_PORT", &primary.port.to_string());
        set("DATABASE_URL", &self.rewritten_url(&database));
        set("DATABASE_POOLER", if pooled { "on" } else { "off" });
        if !known.direct_url_given {
            set("DATABASE_URL_DIRECT", &self.direct_url());
        }
        set("SECRET_KEY", self.secrets.get("SECRET_KEY"));
        if self.settings.topology.redis == Place::Ours {
            set("REDIS_HOST", "127.0.0.1");
            set("REDIS_PORT", &self.settings.ports.redis.to_string());
            set("REDIS_PASSWORD", self.secrets.get("REDIS_PASSWORD"));
        }
        env.extend(self.read_env());
        env
    }

    /// `DATABASE_URL` with our addresses and the operator's parameters; empty, which counts as unset, when none was given.
    fn rewritten_url(&self, database: &Endpoint) -> String {
        let known = &self.settings.database;
        let Some(parameters) = &known.url_parameters else { return String::new() };
        let url = DatabaseUrl {
            user: known.user.clone(),
            password: self.secrets.get("DB_PASSWORD").to_owned(),
            host: database.host.clone(),
            port: database.port,
            name: known.name.clone(),
            parameters: parameters.clone(),
        };
        url.to_text()
    }

    /// Reads by our own standby: through the pooler's pool of it, or straight to it where no pooler runs.
    fn read_env(&self) -> Vec<(String, String)> {
        let Some(standby) = self.pooled_standby() else { return Vec::new() };
        let (place, name) = match self.settings.topology.route {
            Route::Pooled => (self.database(), self.standby_name()),
            Route::Direct => (standby, self.settings.database.name.clone()),
        };
        let pairs =
            [("DB_READ_HOST", place.host), ("DB_READ_PORT", place.port.to_string()), ("DB_READ_NAME", name)];
        pairs.map(|(key, value)| (key.to_owned(), value)).to_vec()
    }

    /// The placeholders of `deploy/pgbouncer.ini`.
    pub fn pooler_value(&self, name: &str) -> Option<String> {
        let settings = &self.settings;
        let (primary, standby) = (self.primary(), self.pooled_standby());
        let value = match name {
            "POOLER_LISTEN_ADDR" | "POOLER_METRICS_ADDR" => "127.0.0.1".to_owned(),
            "DB_PORT" => settings.ports.pooler.to_string(),
            "POOLER_METRICS_PORT" => settings.ports.pooler_metrics.to_string(),
            "DB_NAME" => settings.database.name.clone(),
            "DB_USER" => settings.database.user.clone(),
            "ACTUAL_DB_HOST" => primary.host,
            "ACTUAL_DB_PORT" => primary.port.to_string(),
            "ACTUAL_DB_READ_HOST" => standby?.host,
            "ACTUAL_DB_READ_PORT" => standby?.port.to_string(),
            "USERLIST" => text_of(&self.files.conf.join("userlist.txt")),
            _ => return pooler_figure(&settings.pooler, name),
        };
        Some(value)
    }

    fn part(&self, name: &str, program: PathBuf, address: Endpoint) -> Part {
        Part {
            name: name.to_owned(),
            program,
            args: Vec::new(),
            env: BTreeMap::new(),
            identity: Identity::Unprivileged,
            probe: Probe::Http { port: address.port, path: "/health".into() },
            address,
            stop: self.stop(StopSignal::Terminate, StopSignal::Quit),
            succession: Succession::Afterwards,
        }
    }

    fn stop(&self, first: StopSignal, then: StopSignal) -> Stop {
        let patience = self.settings.stop_timeout;
        Stop { first, then, patience, patience_when_replaced: patience }
    }
}

/// The pooler's figures by the names of their settings.
pub fn pooler_figure(pooler: &crate::settings::Pooler, name: &str) -> Option<String> {
    let value = match name {
        "POOLER_POOL_MODE" => return Some(pooler.pool_mode.clone()),
        "POOLER_DEFAULT_POOL_SIZE" => pooler.default_pool_size,
        "POOLER_MIN_POOL_SIZE" => pooler.min_pool_size,
        "POOLER_RESERVE_POOL_SIZE" => pooler.reserve_pool_size,
        "POOLER_MAX_DB_CONNECTIONS" => pooler.max_db_connections,
        "POOLER_MAX_CLIENT_CONN" => pooler.max_client_conn,
        _ => return None,
    };
    Some(value.to_string())
}

/// The port of the replica with this number, counted from 1; the range is checked before anything starts.
pub(super) fn port_of(base: u16, number: u32) -> u16 {
    u16::try_from(u32::from(base) + number - 1).unwrap_or(u16::MAX)
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
