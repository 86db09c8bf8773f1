//! From a connection string to an entry of `[databases]`, `[users]` or `[peers]`.

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

/// One key of an entry, declared once: parsing and the documentation come from here.
pub struct EntryKey<T> {
    pub name: &'static str,
    /// In words, or a value in backquotes.
    pub default: &'static str,
    pub doc: &'static str,
    set: fn(&mut T, &str, &str) -> Result<(), String>,
}

/// Rows of `name: default, (entry, key, value) => what is set, meaning`.
macro_rules! entry_keys {
    ($($name:literal, $default:literal: |$entry:ident, $key:pat_param, $value:ident| $set:expr; $doc:literal)*) => {
        &[$(EntryKey {
            name: $name,
            default: $default,
            doc: $doc,
            set: |$entry, $key, $value| {
                $set;
                Ok(())
            },
        }),*]
    };
}

pub const DATABASE_KEYS: &[EntryKey<Database>] = entry_keys! {
    "dbname", "the entry's name": |d, _, v| d.dbname = v.to_string();
        "Name of the database on the server."
    "host", "the unix socket in `unix_socket_dir`": |d, _, v|
        d.hosts = v.split(',').map(|host| Host::parse(host.trim())).collect();
        "Names, addresses, `/folder` of a unix socket or `@abstract`; several with commas."
    "port", "`5432`": |d, _, v| d.port = port(v)?;
        "Port of the server."
    "user", "the client's": |d, _, v| d.user = text(v);
        "All clients use the server as this user."
    "password", "the one in `auth_file`, or what the client proved": |d, _, v| d.password = Some(Secret::new(v));
        "Password of `user`; in clear, MD5 or SCRAM form."
    "auth_user", "`auth_user`": |d, _, v| d.auth_user = text(v);
        "User who runs `auth_query`."
    "auth_query", "`auth_query`": |d, _, v| d.auth_query = text(v);
        "Query that gives a user's password."
    "auth_dbname", "`auth_dbname`": |d, _, v| d.auth_dbname = text(v);
        "Database in which `auth_query` runs."
    "pool_size", "`default_pool_size`": |d, key, v| d.pool_size = own(key, v)?;
        "Server connections for each user."
    "min_pool_size", "`min_pool_size`": |d, key, v| d.min_pool_size = own(key, v)?;
        "Server connections that are kept open for each user."
    "reserve_pool_size", "`reserve_pool_size`": |d, key, v| d.reserve_pool_size = own(key, v)?;
        "More of them for clients that have waited for `reserve_pool_timeout`."
    "reserve_pool", "`reserve_pool_size`": |d, key, v| d.reserve_pool_size = own(key, v)?;
        "The older name of `reserve_pool_size`."
    "max_db_connections", "`max_db_connections`": |d, key, v| d.max_db_connections = own(key, v)?;
        "Server connections of all users together."
    "max_db_client_connections", "`max_db_client_connections`": |d, key, v| d.max_db_client_connections = own(key, v)?;
        "Clients of all users together."
    "pool_mode", "`pool_mode`": |d, key, v| d.pool_mode = Some(typed(key, v)?);
        "When a server goes back: session, transaction or statement."
    "load_balance_hosts", "`round-robin`": |d, key, v| d.load_balance_hosts = typed(key, v)?;
        "Of several hosts: all in turn (`round-robin`), or the first until it fails (`disable`)."
    "server_lifetime", "`server_lifetime`": |d, key, v| d.server_lifetime = own(key, v)?;
        "Age at which a server connection is closed once it is idle, in seconds."
    "query_wait_timeout", "`query_wait_timeout`": |d, key, v| d.query_wait_timeout = own(key, v)?;
        "How long clients may wait for a server, in seconds."
    "connect_query", "–": |d, _, v| d.connect_query = text(v);
        "Runs once on each new server connection."
    "client_encoding", "the server's": |d, _, v| set_startup(d, "client_encoding", v);
        "Sent when a server connection starts."
    "datestyle", "the server's": |d, _, v| set_startup(d, "datestyle", v);
        "Sent when a server connection starts."
    "timezone", "the server's": |d, _, v| set_startup(d, "timezone", v);
        "Sent when a server connection starts."
    "application_name", "the server's": |d, _, v| set_startup(d, "application_name", v);
        "Sent when a server connection starts."
};

pub const USER_KEYS: &[EntryKey<UserSettings>] = entry_keys! {
    "pool_mode", "the database's": |u, key, v| u.pool_mode = Some(typed(key, v)?);
        "When a server goes back: session, transaction or statement."
    "pool_size", "the database's": |u, key, v| u.pool_size = own(key, v)?;
        "Server connections of this user for each database."
    "reserve_pool_size", "the database's": |u, key, v| u.reserve_pool_size = own(key, v)?;
        "More of them for clients that have waited for `reserve_pool_timeout`."
    "max_user_connections", "`max_user_connections`": |u, key, v| u.max_user_connections = own(key, v)?;
        "Server connections of this user to all databases together."
    "max_user_client_connections", "`max_user_client_connections`": |u, key, v|
        u.max_user_client_connections = own(key, v)?;
        "Clients that log in as this user."
    "query_timeout", "`query_timeout`": |u, key, v| u.query_timeout = own(key, v)?;
        "How long one query may take, in seconds."
    "query_wait_timeout", "the database's": |u, key, v| u.query_wait_timeout = own(key, v)?;
        "How long clients may wait for a server, in seconds."
    "idle_transaction_timeout", "`idle_transaction_timeout`": |u, key, v| u.idle_transaction_timeout = own(key, v)?;
        "How long a transaction may stand idle, in seconds."
    "transaction_timeout", "`transaction_timeout`": |u, key, v| u.transaction_timeout = own(key, v)?;
        "How long a transaction may take, in seconds."
    "client_idle_timeout", "`client_idle_timeout`": |u, key, v| u.client_idle_timeout = own(key, v)?;
        "How long a client may be idle, in seconds."
};

pub const PEER_KEYS: &[EntryKey<Peer>] = entry_keys! {
    "host", "–, required": |p, _, v| p.host = Host::parse(v);
        "Name, address or `/folder` of its unix socket."
    "port", "`6432`": |p, _, v| p.port = port(v)?;
        "Its port."
    "pool_size", "`default_pool_size`": |p, key, v| p.pool_size = own(key, v)?;
        "Connections to it for cancel requests."
};

fn text(value: &str) -> Option<String> {
    Some(value.to_string())
}

fn set_startup(database: &mut Database, name: &'static str, value: &str) {
    database.startup.retain(|(known, _)| *known != name);
    database.startup.push((name, value.to_string()));
}

/// `kind` as in "unrecognized … parameter".
fn fill<T>(entry: &mut T, keys: &[EntryKey<T>], text: &str, kind: &str) -> Result<(), String> {
    for (name, value) in pairs(text)? {
        let key = keys.iter().find(|key| key.name == name);
        let key = key.ok_or_else(|| format!("unrecognized {kind} parameter: {name}"))?;
        (key.set)(entry, &name, &value)?;
    }
    Ok(())
}

/// Reads one entry of `[databases]`.
pub fn database(name: &str, text: &str) -> Result<Database, String> {
    if name == ADMIN_DATABASE {
        return Err(format!("the database name \"{ADMIN_DATABASE}\" is reserved for the console"));
    }
    let mut database = Database::new(name);
    fill(&mut database, DATABASE_KEYS, text, "connection")?;
    Ok(database)
}

/// Reads one entry of `[users]`.
pub fn user(text: &str) -> Result<UserSettings, String> {
    let mut user = UserSettings::default();
    fill(&mut user, USER_KEYS, text, "user")?;
    Ok(user)
}

/// Reads one entry of `[peers]`.
pub fn peer(name: &str, text: &str) -> Result<Peer, String> {
    let id = name.parse().ok().filter(|id| *id > 0);
    let id = id.ok_or("the id of a peer is a number from 1 to 65535")?;
    let nowhere = Host::Tcp(String::new());
    let mut peer = Peer { id, host: nowhere.clone(), port: PEER_PORT, pool_size: None };
    fill(&mut peer, PEER_KEYS, text, "connection")?;
    if peer.host == nowhere { Err(format!("host was not provided for peer {id}")) } else { Ok(peer) }
}
