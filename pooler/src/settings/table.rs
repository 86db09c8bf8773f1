//! Every key of `[pgbouncer]`, declared once: name, type, default, when it may change, meaning.
//! Parsing, error messages, SHOW CONFIG, SET and the documentation all come from here.

use std::time::Duration;

use super::ADMIN_DATABASE;
use super::values::{AuthType, FileMode, Millis, Names, PoolMode, SslMode, Value};

/// Decision 0011.
pub(super) const NO_PAM: &str = "pam is not offered: let a directory server check passwords (ldap), or list SCRAM \
                                 secrets in auth_file or behind auth_query (scram-sha-256)";

/// When a new value of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// By RELOAD and by SET.
    Live,
    /// Only when the pooler starts.
    AtStart,
}

/// One row of the table.
pub struct Key {
    pub name: &'static str,
    /// None: no default; SHOW CONFIG prints NULL.
    pub default: Option<&'static str>,
    pub changes: Changes,
    pub doc: &'static str,
    set: fn(&mut Keys, &str) -> Result<(), String>,
    show: fn(&Keys) -> Option<String>,
}

impl Key {
    pub fn find(name: &str) -> Option<&'static Key> {
        TABLE.iter().find(|key| key.name == name)
    }

    /// Parses the value and puts it into its field.
    pub fn set(&self, keys: &mut Keys, value: &str) -> Result<(), String> {
        if self.name == "auth_dbname" && value == ADMIN_DATABASE {
            return Err(format!("cannot use the reserved \"{ADMIN_DATABASE}\" database as an auth_dbname"));
        }
        if self.name == "auth_type" && value.eq_ignore_ascii_case("pam") {
            return Err(NO_PAM.to_string());
        }
        (self.set)(keys, value)
    }

    pub fn show(&self, keys: &Keys) -> Option<String> {
        (self.show)(keys)
    }
}

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr, $changes:ident;)+) => {
        /// The values of `[pgbouncer]`. Times of zero and counts of zero mean "off" where the key says nothing else.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Keys { $($(#[doc = $doc])+ pub $name: $type,)+ }

        impl Default for Keys {
            fn default() -> Self {
                Keys { $($name: default_value::<$type>(stringify!($name), $default),)+ }
            }
        }

        /// In the order of SHOW CONFIG.
        pub static TABLE: &[Key] = &[$(Key {
            name: stringify!($name),
            default: $default,
            changes: Changes::$changes,
            doc: concat!($($doc),+),
            set: |keys, text| { keys.$name = Value::parse(text)?; Ok(()) },
            show: |keys| keys.$name.show(),
        },)+];
    };
}

/// A key without a default starts as if it had been given an empty value, or zero.
fn default_value<T: Value>(name: &str, default: Option<&str>) -> T {
    let text = default.unwrap_or("");
    T::parse(text)
        .or_else(|_| T::parse("0"))
        .unwrap_or_else(|_| panic!("the default of {name} does not parse"))
}

const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END \
                          FROM pg_authid WHERE rolname=$1 AND rolcanlogin";

keys! {
    /// Users who may do everything on the console.
    admin_users: Names = Some(""), Live;
    /// Put the client's address into application_name at the start of its session.
    application_name_add_host: bool = Some("0"), Live;
    /// Database in which auth_query runs.
    auth_dbname: Option<String> = None, Live;
    /// File of user names and passwords.
    auth_file: Option<String> = None, Live;
    /// Rules in pg_hba.conf's form, for auth_type hba.
    auth_hba_file: String = Some(""), Live;
    /// Maps in pg_ident.conf's form, for the HBA methods cert and peer.
    auth_ident_file: Option<String> = None, Live;
    /// Where and how a directory server checks passwords, for auth_type ldap.
    auth_ldap_options: Option<String> = None, Live;
    /// Query that looks up the password of a user who is not in auth_file.
    auth_query: String = Some(AUTH_QUERY), Live;
    /// How clients log in: any, trust, plain, md5, cert, hba, scram-sha-256, ldap.
    auth_type: AuthType = Some("md5"), Live;
    /// User who runs auth_query.
    auth_user: Option<String> = None, Live;
    /// Seconds until an unused automatic database is forgotten.
    autodb_idle_timeout: Duration = Some("3600"), Live;
    /// Seconds that a cancel request may wait for a server connection.
    cancel_wait_timeout: Duration = Some("10"), Live;
    /// Seconds after which an idle client is closed; 0 = never.
    client_idle_timeout: Duration = Some("0"), Live;
    /// Seconds that a client has to log in.
    client_login_timeout: Duration = Some("60"), Live;
    /// Cipher suites of TLS 1.3 towards clients.
    client_tls13_ciphers: Option<String> = None, Live;
    /// File of the authorities that sign client certificates.
    client_tls_ca_file: String = Some(""), Live;
    /// File of the certificate shown to clients.
    client_tls_cert_file: String = Some(""), Live;
    /// Cipher suites of TLS 1.2 towards clients.
    client_tls_ciphers: String = Some("default"), Live;
    /// Diffie-Hellman parameters; TLS here uses elliptic curves only.
    client_tls_dheparams: String = Some("auto"), Live;
    /// Elliptic curve of the key exchange.
    client_tls_ecdhcurve: String = Some("auto"), Live;
    /// File of the private key of client_tls_cert_file.
    client_tls_key_file: String = Some(""), Live;
    /// TLS versions allowed towards clients: secure, all, or a list such as tlsv1.2,tlsv1.3.
    client_tls_protocols: String = Some("secure"), Live;
    /// TLS towards clients: disable, allow, prefer, require, verify-ca, verify-full.
    client_tls_sslmode: SslMode = Some("disable"), Live;
    /// Path of the configuration file; a new value is read by the next RELOAD.
    conffile: Option<String> = None, Live;
    /// Server connections per database and user.
    default_pool_size: u32 = Some("20"), Live;
    /// Refuse the simple query protocol.
    disable_pqexec: bool = Some("0"), AtStart;
    /// Seconds that a host name's addresses are kept.
    dns_max_ttl: Duration = Some("15"), Live;
    /// Seconds that a failed name lookup is kept.
    dns_nxdomain_ttl: Duration = Some("15"), Live;
    /// Seconds between checks of DNS zone serials; 0 = off.
    dns_zone_check_period: Duration = Some("0"), Live;
    /// Seconds that a client may be idle in a transaction; 0 = for ever.
    idle_transaction_timeout: Duration = Some("0"), Live;
    /// Startup parameters that are accepted and dropped.
    ignore_startup_parameters: Names = Some(""), Live;
    /// Name of this process in the syslog and the process title.
    job_name: String = Some("pgbouncer"), AtStart;
    /// Addresses to listen on, separated by commas; * = all; empty = unix socket only.
    listen_addr: Names = Some(""), AtStart;
    /// Connections that the kernel keeps waiting for accept.
    listen_backlog: u32 = Some("128"), AtStart;
    /// TCP port, and the number in the unix socket's name.
    listen_port: u16 = Some("6432"), AtStart;
    /// Log each login.
    log_connections: bool = Some("1"), Live;
    /// Log each disconnection with its reason.
    log_disconnections: bool = Some("1"), Live;
    /// Log the errors that the pooler sends to clients.
    log_pooler_errors: bool = Some("1"), Live;
    /// Log a line of statistics each stats_period.
    log_stats: bool = Some("1"), Live;
    /// File of the log.
    logfile: String = Some(""), Live;
    /// Notice sent to each client after login.
    login_notify_message: String = Some(""), Live;
    /// Client connections over all.
    max_client_conn: u32 = Some("100"), Live;
    /// Client connections per database; 0 = no limit.
    max_db_client_connections: u32 = Some("0"), Live;
    /// Server connections per database; 0 = no limit.
    max_db_connections: u32 = Some("0"), Live;
    /// Longest message in bytes that may pass.
    max_packet_size: u32 = Some("2147483647"), Live;
    /// Prepared statements kept per server connection in transaction and statement mode; 0 = not handled.
    max_prepared_statements: u32 = Some("200"), Live;
    /// Client connections per user; 0 = no limit.
    max_user_client_connections: u32 = Some("0"), Live;
    /// Server connections per user; 0 = no limit.
    max_user_connections: u32 = Some("0"), Live;
    /// Ours: address of the metrics listener.
    metrics_listen_addr: String = Some("127.0.0.1"), AtStart;
    /// Ours: port of the Prometheus metrics; 0 = off.
    metrics_listen_port: u16 = Some("9127"), AtStart;
    /// Server connections that are kept open per pool.
    min_pool_size: u32 = Some("0"), Live;
    /// Number of this process among its peers; 0 = no peers.
    peer_id: u16 = Some("0"), Live;
    /// File that holds the process id.
    pidfile: String = Some(""), AtStart;
    /// Bytes of a connection's buffer.
    pkt_buf: u32 = Some("4096"), AtStart;
    /// When a server goes back to the pool: session, transaction, statement.
    pool_mode: PoolMode = Some("session"), Live;
    /// Seconds until an unused pool is forgotten; 0 = never.
    pool_idle_timeout: Duration = Some("0"), Live;
    /// Seconds that a query may take; 0 = for ever.
    query_timeout: Duration = Some("0"), Live;
    /// Seconds of waiting for a server after which the client is told; 0 = never.
    query_wait_notify: Duration = Some("5"), Live;
    /// Seconds that a query may wait for a server; 0 = for ever.
    query_wait_timeout: Duration = Some("120"), Live;
    /// Additional server connections for a pool whose clients wait.
    reserve_pool_size: u32 = Some("0"), Live;
    /// Seconds of waiting after which the reserve is used; 0 = never.
    reserve_pool_timeout: Duration = Some("5"), Live;
    /// Path of resolv.conf, for the resolver.
    resolv_conf: String = Some(""), AtStart;
    /// Reads from one socket before another gets its turn.
    sbuf_loopcnt: u32 = Some("5"), Live;
    /// Rounds of the key derivation when a SCRAM secret is made from a plain password.
    scram_iterations: u32 = Some("4096"), Live;
    /// Seconds after use during which a server connection needs no check.
    server_check_delay: Duration = Some("30"), Live;
    /// Check of a server connection: a query, <empty> for an empty query, or nothing.
    server_check_query: String = Some("<empty>"), Live;
    /// Seconds that dialling and logging in to a server may take.
    server_connect_timeout: Duration = Some("15"), Live;
    /// In session mode, close servers that are to be closed at the end of the transaction.
    server_fast_close: bool = Some("0"), Live;
    /// Seconds after which an idle server connection is closed; 0 = never.
    server_idle_timeout: Duration = Some("600"), Live;
    /// Seconds after which a server connection is replaced.
    server_lifetime: Duration = Some("3600"), Live;
    /// Seconds to wait after a failed login to a server.
    server_login_retry: Duration = Some("15"), Live;
    /// Query that cleans a server connection between clients.
    server_reset_query: String = Some("DISCARD ALL"), Live;
    /// Clean in every pool mode, not only in session mode.
    server_reset_query_always: bool = Some("0"), Live;
    /// Take the server that was idle longest instead of the one used last.
    server_round_robin: bool = Some("0"), Live;
    /// Cipher suites of TLS 1.3 towards servers.
    server_tls13_ciphers: Option<String> = None, Live;
    /// File of the authorities that sign server certificates.
    server_tls_ca_file: String = Some(""), Live;
    /// File of the certificate shown to servers.
    server_tls_cert_file: String = Some(""), Live;
    /// Cipher suites of TLS 1.2 towards servers.
    server_tls_ciphers: String = Some("default"), Live;
    /// File of the private key of server_tls_cert_file.
    server_tls_key_file: String = Some(""), Live;
    /// TLS versions allowed towards servers.
    server_tls_protocols: String = Some("secure"), Live;
    /// TLS towards servers: disable, allow, prefer, require, verify-ca, verify-full.
    server_tls_sslmode: SslMode = Some("prefer"), Live;
    /// Let several processes listen on the same port.
    so_reuseport: bool = Some("0"), AtStart;
    /// Seconds over which averages are made.
    stats_period: Duration = Some("60"), Live;
    /// Users who may look at the console.
    stats_users: Names = Some(""), Live;
    /// Seconds that SUSPEND may take.
    suspend_timeout: Duration = Some("10"), Live;
    /// Log to the syslog.
    syslog: bool = Some("0"), Live;
    /// Facility of the syslog.
    syslog_facility: String = Some("daemon"), Live;
    /// Name in the syslog.
    syslog_ident: String = Some("pgbouncer"), Live;
    /// Seconds that the kernel waits for a client's first bytes before accept; 0 = off.
    tcp_defer_accept: bool = Some("1"), Live;
    /// Send TCP keepalives.
    tcp_keepalive: bool = Some("1"), Live;
    /// Keepalives without an answer until the connection is dead; 0 = the system's.
    tcp_keepcnt: u32 = Some("0"), Live;
    /// Seconds of silence before the first keepalive; 0 = the system's.
    tcp_keepidle: Duration = Some("0"), Live;
    /// Seconds between keepalives; 0 = the system's.
    tcp_keepintvl: Duration = Some("0"), Live;
    /// Bytes of the kernel's socket buffers; 0 = the system's.
    tcp_socket_buffer: u32 = Some("0"), Live;
    /// Milliseconds that sent data may stay unacknowledged; 0 = the system's.
    tcp_user_timeout: Millis = Some("0"), Live;
    /// Reported parameters that follow the client from server to server, beside the usual ones.
    track_extra_parameters: Names = Some("IntervalStyle"), AtStart;
    /// Seconds that a transaction may take; 0 = for ever.
    transaction_timeout: Duration = Some("0"), Live;
    /// Folder of the unix socket; @name = abstract; empty = none.
    unix_socket_dir: String = Some("/tmp"), AtStart;
    /// Group that owns the unix socket.
    unix_socket_group: String = Some(""), AtStart;
    /// Permission bits of the unix socket.
    unix_socket_mode: FileMode = Some("0777"), AtStart;
    /// User to run as when started by root.
    user: Option<String> = None, AtStart;
    /// More detail in the log: 0, 1, 2.
    verbose: u32 = None, Live;
    /// Ours: percent of a core that a thread uses before another one helps out; 0 = all share the clients at once.
    worker_busy: u32 = Some("70"), AtStart;
    /// Ours: threads that serve clients, at most; 0 = one per core.
    worker_threads: u32 = Some("0"), AtStart;
}

#[cfg(test)]
mod tests;
