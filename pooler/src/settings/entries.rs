//! From a connection string to an entry of `[databases]`, `[users]` or `[peers]`.

use std::time::Duration;

use super::ADMIN_DATABASE;
use super::connstr;
use super::database::{Database, Host, Peer, UserSettings};
use super::values::{Secret, Value};

/// Another pooler's port, where none is given.
const PEER_PORT: u16 = 6432;

fn typed<T: Value>(key: &str, value: &str) -> Result<T, String> {
    T::parse(value).map_err(|what| format!("{key}: {what}"))
}

/// A limit of its own; -1 is PgBouncer's way to say "none".
fn own<T: Value>(key: &str, value: &str) -> Result<Option<T>, String> {
    if value == "-1" { Ok(None) } else { typed(key, value).map(Some) }
}

fn port(value: &str) -> Result<u16, String> {
    match typed("port", value)? {
        0 => Err("port: 0 is no port".to_string()),
        port => Ok(port),
    }
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    connstr::parse(text).map_err(|error| error.to_string())
}

/// Reads one entry of `[databases]`.
pub fn database(name: &str, text: &str) -> Result<Database, String> {
    if name == ADMIN_DATABASE {
        return Err(format!("the database name \"{ADMIN_DATABASE}\" is reserved for the console"));
    }
    let mut database = Database::new(name);
    for (key, value) in pairs(text)? {
        if !set_server(&mut database, &key, &value)? && !set_limit(&mut database, &key, &value)? {
            return Err(format!("unrecognized connection parameter: {key}"));
        }
    }
    Ok(database)
}

/// Where the server is and who logs in. False: another kind of key.
fn set_server(database: &mut Database, key: &str, value: &str) -> Result<bool, String> {
    let text = || Some(value.to_string());
    match key {
        "dbname" => database.dbname = value.to_string(),
        "host" => database.hosts = value.split(',').map(|host| Host::parse(host.trim())).collect(),
        "port" => database.port = port(value)?,
        "user" => database.user = text(),
        "password" => database.password = Some(Secret::new(value)),
        "auth_user" => database.auth_user = text(),
        "auth_query" => database.auth_query = text(),
        "auth_dbname" => database.auth_dbname = text(),
        "connect_query" => database.connect_query = text(),
        "client_encoding" => set_startup(database, "client_encoding", value),
        "datestyle" => set_startup(database, "datestyle", value),
        "timezone" => set_startup(database, "timezone", value),
        "application_name" => set_startup(database, "application_name", value),
        _ => return Ok(false),
    }
    Ok(true)
}

fn set_startup(database: &mut Database, name: &'static str, value: &str) {
    database.startup.retain(|(known, _)| *known != name);
    database.startup.push((name, value.to_string()));
}

fn set_limit(database: &mut Database, key: &str, value: &str) -> Result<bool, String> {
    match key {
        "pool_size" => database.pool_size = own(key, value)?,
        "min_pool_size" => database.min_pool_size = own(key, value)?,
        "reserve_pool" | "reserve_pool_size" => database.reserve_pool_size = own(key, value)?,
        "max_db_connections" => database.max_db_connections = own(key, value)?,
        "max_db_client_connections" => database.max_db_client_connections = own(key, value)?,
        "pool_mode" => database.pool_mode = Some(typed(key, value)?),
        "load_balance_hosts" => database.load_balance_hosts = typed(key, value)?,
        "server_lifetime" => database.server_lifetime = own(key, value)?,
        "query_wait_timeout" => database.query_wait_timeout = own(key, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Reads one entry of `[users]`.
pub fn user(text: &str) -> Result<UserSettings, String> {
    let mut user = UserSettings::default();
    for (key, value) in pairs(text)? {
        let (key, value) = (key.as_str(), value.as_str());
        let time = || own::<Duration>(key, value);
        match key {
            "pool_mode" => user.pool_mode = Some(typed(key, value)?),
            "pool_size" => user.pool_size = own(key, value)?,
            "reserve_pool_size" => user.reserve_pool_size = own(key, value)?,
            "max_user_connections" => user.max_user_connections = own(key, value)?,
            "max_user_client_connections" => user.max_user_client_connections = own(key, value)?,
            "query_timeout" => user.query_timeout = time()?,
            "query_wait_timeout" => user.query_wait_timeout = time()?,
            "idle_transaction_timeout" => user.idle_transaction_timeout = time()?,
            "transaction_timeout" => user.transaction_timeout = time()?,
            "client_idle_timeout" => user.client_idle_timeout = time()?,
            _ => return Err(format!("unrecognized user parameter: {key}")),
        }
    }
    Ok(user)
}

/// Reads one entry of `[peers]`.
pub fn peer(name: &str, text: &str) -> Result<Peer, String> {
    let id = name.parse().ok().filter(|id| *id > 0);
    let id = id.ok_or("the id of a peer is a number from 1 to 65535")?;
    let mut peer = Peer { id, host: Host::Tcp(String::new()), port: PEER_PORT, pool_size: None };
    let mut has_host = false;
    for (key, value) in pairs(text)? {
        match key.as_str() {
            "host" => {
                peer.host = Host::parse(&value);
                has_host = true;
            }
            "port" => peer.port = port(&value)?,
            "pool_size" => peer.pool_size = own(&key, &value)?,
            _ => return Err(format!("unrecognized connection parameter: {key}")),
        }
    }
    if has_host { Ok(peer) } else { Err(format!("host was not provided for peer {id}")) }
}
