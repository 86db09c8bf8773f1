//! Settings that more than one program reads, each declared here and nowhere else: their tables take them from here, so
//! that what an operator says once means the same to all. Nothing of what one program alone reads.

use super::{Kind, Setting, fixed};

// The database, as the pooler and the replicas find it
pub const DB_HOST: Setting = fixed(
    "DB_HOST",
    Kind::Text,
    "pgbouncer",
    "pgbouncer: through the pooler; another host: straight to that Postgres",
);
pub const DB_PORT: Setting = fixed(
    "DB_PORT",
    Kind::Port,
    "6432",
    "port of DB_HOST; with DB_HOST=pgbouncer the port that the pooler listens on",
);
pub const DB_NAME: Setting = fixed("DB_NAME", Kind::Text, "arena_db", "name of the database");
pub const DB_USER: Setting = fixed("DB_USER", Kind::Text, "arena_user", "user of the database");
pub const DB_PASSWORD: Setting = fixed(
    "DB_PASSWORD",
    Kind::Secret,
    "",
    "password of DB_USER; empty: made at the first start of the native stack",
);
pub const DATABASE_URL: Setting =
    fixed("DATABASE_URL", Kind::Url, "", "the database, usually through the pooler; wins over DB_*");
pub const DATABASE_URL_DIRECT: Setting =
    fixed("DATABASE_URL_DIRECT", Kind::Url, "", "the database without pooler, for migrations");
pub const ACTUAL_DB_HOST: Setting = fixed(
    "ACTUAL_DB_HOST",
    Kind::Text,
    "",
    "host of your own Postgres; empty or postgres: the stack brings a private one",
);
pub const ACTUAL_DB_PORT: Setting = fixed("ACTUAL_DB_PORT", Kind::Port, "5432", "port of your own Postgres");
pub const DB_READ_HOST: Setting = fixed(
    "DB_READ_HOST",
    Kind::Text,
    "",
    "a read replica, HOST or HOST:PORT; pgbouncer: the pooler's pool of it",
);

// The pooler's figures: set by the stack, told by the web service at /db/connections/
pub const POOLER_POOL_MODE: Setting = fixed(
    "POOLER_POOL_MODE",
    Kind::Choice(&["transaction", "session", "statement"]),
    "transaction",
    "when a server connection goes back to the pool",
);
pub const POOLER_DEFAULT_POOL_SIZE: Setting = fixed(
    "POOLER_DEFAULT_POOL_SIZE",
    Kind::Count { min: 1, max: 1_000_000 },
    "25",
    "server connections of a pool",
);
pub const POOLER_MAX_CLIENT_CONN: Setting = fixed(
    "POOLER_MAX_CLIENT_CONN",
    Kind::Count { min: 1, max: 1_000_000 },
    "1000",
    "client connections, at most",
);

// Redis and the replicas' common secret
pub const REDIS_URL: Setting =
    fixed("REDIS_URL", Kind::Url, "", "your own Redis; wins over REDIS_HOST and its like");
pub const REDIS_HOST: Setting =
    fixed("REDIS_HOST", Kind::Text, "redis", "host of your own Redis; redis: the stack brings a private one");
pub const REDIS_PORT: Setting = fixed("REDIS_PORT", Kind::Port, "6379", "port of your own Redis");
pub const REDIS_PASSWORD: Setting =
    fixed("REDIS_PASSWORD", Kind::Secret, "", "password at Redis; empty: made for the private one");
pub const SECRET_KEY: Setting = fixed(
    "SECRET_KEY",
    Kind::Secret,
    "",
    "signs tokens: at least 32 characters, the same on all replicas; empty: made at the first start",
);

// The balancer's port for operators
pub const BALANCER_OPS_PORT: Setting = fixed(
    "BALANCER_OPS_PORT",
    Kind::Port,
    "9113",
    "port of the balancer's /metrics and health; without the stack none is opened unless it is given",
);
/// The one default that differs: the stack always gives the balancer this port, alone it does as `ops_listen` says.
pub const BALANCER_OPS_PORT_ALONE: Setting = Setting { default: "", ..BALANCER_OPS_PORT };
pub const BALANCER_OPS_ADDR: Setting =
    fixed("BALANCER_OPS_ADDR", Kind::Ip, "127.0.0.1", "address that BALANCER_OPS_PORT is opened on");
pub const BALANCER_DRAIN_TIMEOUT: Setting = fixed(
    "BALANCER_DRAIN_TIMEOUT",
    Kind::Seconds,
    "",
    "at most so long a graceful stop waits for what is under way; empty: as `worker_shutdown_timeout` says",
);
