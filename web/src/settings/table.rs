//! Every setting of the web service: name, kind, default, meaning. What they become is in settings.rs.

use chassis::settings::{Kind, Setting};

const fn fixed(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Setting {
    Setting { name, kind, default, live: false, doc }
}

/// The table; from it come parsing, error messages and the section of config.env.example.
pub static SETTINGS: &[Setting] = &[
    // The service itself
    fixed(
        "CONTAINER_NAME",
        Kind::Text,
        "",
        "name of this replica in JSON and X-Served-By; empty: the host name",
    ),
    fixed("LISTEN_ADDR", Kind::Text, "0.0.0.0", "address that the web service and its ops port listen on"),
    fixed("PORT", Kind::Port, "8000", "port of the web service"),
    fixed("OPS_PORT", Kind::Port, "9200", "port of /metrics, never to be reached through the balancer"),
    fixed(
        "WEB_THREADS",
        Kind::Count { min: 0, max: 256 },
        "0",
        "threads that serve; 0: one per core, at most 4",
    ),
    fixed("DEBUG", Kind::Flag, "False", "show the cause of internal errors to clients; never in production"),
    fixed("ALLOWED_HOSTS", Kind::List, "*", "host names that requests may name; * allows all"),
    fixed("TRUST_FORWARDED", Kind::Flag, "True", "believe X-Forwarded-For, which the balancer sets"),
    fixed("LOG_FORMAT", Kind::Choice(&["text", "json"]), "text", "how log lines look"),
    fixed("LOG_LEVEL", Kind::Text, "info", "log level, or a filter such as info,sqlx=warn"),
    fixed(
        "DRAIN_DELAY",
        Kind::Seconds,
        "1",
        "wait between telling \"not ready\" and taking no more connections",
    ),
    fixed(
        "DRAIN_TIMEOUT",
        Kind::Seconds,
        "20",
        "time that requests, sockets and streams get to end on shutdown",
    ),
    fixed(
        "REQUEST_TIMEOUT",
        Kind::Seconds,
        "30",
        "time that an API request may take; streams and sockets are free of it",
    ),
    // Authentication
    fixed(
        "SECRET_KEY",
        Kind::Secret,
        "",
        "signs tokens; required, at least 32 characters, same on all replicas",
    ),
    fixed(
        "SECRET_KEY_PREVIOUS",
        Kind::Secret,
        "",
        "the key before the last change: still accepted, never used",
    ),
    fixed("ADMIN_USERNAMES", Kind::List, "", "users who are made admin when they register or at start"),
    fixed("MONITORING_PUBLIC", Kind::Flag, "False", "open the monitoring endpoints to everybody"),
    fixed(
        "LOGIN_TRIES_MAX",
        Kind::Count { min: 1, max: 10_000 },
        "10",
        "failed logins of one name in LOGIN_WINDOW before 429",
    ),
    fixed(
        "LOGIN_TRIES_ADDRESS_MAX",
        Kind::Count { min: 1, max: 1_000_000 },
        "100",
        "failed logins of one address in LOGIN_WINDOW before 429",
    ),
    fixed("LOGIN_WINDOW", Kind::Seconds, "300", "time that failed logins are remembered"),
    fixed("REFRESH_LIFETIME", Kind::Seconds, "2592000", "time that a refresh token is valid"),
    // Database
    fixed("DATABASE_URL", Kind::Url, "", "the database, usually through the pooler; wins over DB_*"),
    fixed("DATABASE_URL_DIRECT", Kind::Url, "", "the database without pooler, for migrations"),
    fixed("DATABASE_DIRECT_PRIMARY", Kind::Url, "", "another name of DATABASE_URL_DIRECT"),
    fixed("DATABASE_READ_URL", Kind::Url, "", "a read replica; wins over DB_READ_*"),
    fixed("DB_HOST", Kind::Text, "pgbouncer", "host of the database or of its pooler"),
    fixed("DB_PORT", Kind::Port, "6432", "port of the database or of its pooler"),
    fixed("DB_NAME", Kind::Text, "arena_db", "name of the database"),
    fixed("DB_USER", Kind::Text, "arena_user", "user of the database"),
    fixed("DB_PASSWORD", Kind::Secret, "", "password of DB_USER"),
    fixed("ACTUAL_DB_HOST", Kind::Text, "", "host of Postgres itself where DB_HOST is a pooler"),
    fixed("ACTUAL_DB_PORT", Kind::Port, "5432", "port of Postgres itself"),
    fixed(
        "DB_READ_HOST",
        Kind::Text,
        "",
        "a read replica, HOST or HOST:PORT; empty: reads go to the primary",
    ),
    fixed("DB_READ_HOST_1", Kind::Text, "", "first of several read replicas"),
    fixed("DB_READ_HOST_2", Kind::Text, "", "second read replica"),
    fixed("DB_READ_HOST_3", Kind::Text, "", "third read replica"),
    fixed("DB_READ_HOST_4", Kind::Text, "", "fourth read replica"),
    fixed("DB_READ_HOST_5", Kind::Text, "", "fifth read replica"),
    fixed("DB_READ_HOST_6", Kind::Text, "", "sixth read replica"),
    fixed("DB_READ_HOST_7", Kind::Text, "", "seventh read replica"),
    fixed("DB_READ_HOST_8", Kind::Text, "", "eighth read replica"),
    fixed("DB_READ_PORT", Kind::Port, "5432", "port of the read replicas that name none"),
    fixed("DB_READ_NAME", Kind::Text, "", "database name at the read replicas; empty: DB_NAME"),
    fixed("DB_READ_USER", Kind::Text, "", "user at the read replicas; empty: DB_USER"),
    fixed("DB_READ_PASSWORD", Kind::Secret, "", "password of DB_READ_USER; empty: DB_PASSWORD"),
    fixed(
        "DATABASE_POOL_MIN",
        Kind::Count { min: 0, max: 1000 },
        "1",
        "connections that a replica keeps open",
    ),
    fixed(
        "DATABASE_POOL_MAX",
        Kind::Count { min: 1, max: 1000 },
        "5",
        "connections that a replica opens at most",
    ),
    fixed("DATABASE_POOL_TIMEOUT", Kind::Seconds, "10", "wait for a free connection before 503"),
    fixed("DATABASE_CONNECT_TIMEOUT", Kind::Seconds, "10", "time to open a connection"),
    fixed("DATABASE_STATEMENT_TIMEOUT", Kind::Millis, "30000", "time after which Postgres ends a statement"),
    fixed("CONN_MAX_AGE", Kind::Seconds, "600", "age at which a connection is replaced"),
    fixed(
        "DATABASE_MAX_CONNECTIONS",
        Kind::Count { min: 1, max: 100_000 },
        "100",
        "connections that the database allows; monitoring counts against it",
    ),
    fixed(
        "DATABASE_POOLER",
        Kind::Choice(&["auto", "on", "off"]),
        "auto",
        "whether DB_HOST is a pooler; auto: it is when ACTUAL_DB_HOST differs, on port 6432, or with ?pgbouncer=true",
    ),
    // What the pooler is set to, for /db/connections/; the console's answer wins
    fixed(
        "POOLER_POOL_MODE",
        Kind::Choice(&["transaction", "session", "statement"]),
        "transaction",
        "the pooler's mode",
    ),
    fixed(
        "POOLER_DEFAULT_POOL_SIZE",
        Kind::Count { min: 1, max: 100_000 },
        "25",
        "the pooler's default_pool_size",
    ),
    fixed(
        "POOLER_MAX_CLIENT_CONN",
        Kind::Count { min: 1, max: 1_000_000 },
        "1000",
        "the pooler's max_client_conn",
    ),
    // Redis
    fixed("REDIS_URL", Kind::Url, "", "Redis; wins over REDIS_HOST and its like"),
    fixed("REDIS_HOST", Kind::Text, "redis", "host of Redis"),
    fixed("REDIS_PORT", Kind::Port, "6379", "port of Redis"),
    fixed("REDIS_DB", Kind::Count { min: 0, max: 65535 }, "0", "number of the Redis database"),
    fixed("REDIS_USER", Kind::Text, "", "ACL user at Redis"),
    fixed("REDIS_PASSWORD", Kind::Secret, "", "password at Redis"),
    fixed("METRICS_LOG_INTERVAL", Kind::Seconds, "60", "how often the connection pool metrics are logged"),
];
