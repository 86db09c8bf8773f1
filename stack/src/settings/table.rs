//! Every setting that the stack tool itself reads: name, kind, default, meaning.
//!
//! What `config.env` says besides is for the parts whose tables have it: see readers.rs.

use chassis::settings::{Kind, Setting, fixed, shared};

const COUNT: Kind = Kind::Count { min: 1, max: 1_000_000 };

/// The table; from it come parsing, error messages and the section of config.env.example.
pub static SETTINGS: &[Setting] = &[
    // Where things listen
    fixed("HTTP_PORT", Kind::Port, "", "port of the balancer; empty: 8080 natively, 80 under docker-compose"),
    fixed("WEB_PORT_BASE", Kind::Port, "8001", "port of web-1 natively; web-2 has the next one, and so on"),
    fixed(
        "WEB_OPS_PORT_BASE",
        Kind::Port,
        "9201",
        "port of web-1's /metrics natively; web-2 has the next one",
    ),
    shared::BALANCER_OPS_PORT,
    shared::BALANCER_OPS_ADDR,
    shared::BALANCER_DRAIN_TIMEOUT,
    fixed("POOLER_METRICS_PORT", Kind::Port, "9127", "port of the pooler's /metrics and health"),
    fixed("STACK_POSTGRES_PORT", Kind::Port, "15432", "port of the private Postgres of the native stack"),
    fixed(
        "STACK_STANDBY_PORT",
        Kind::Port,
        "15433",
        "port of the private standby that --read-replica starts",
    ),
    fixed("STACK_REDIS_PORT", Kind::Port, "16379", "port of the private Redis of the native stack"),
    // How much, how long, as whom
    fixed("STACK_REPLICAS", Kind::Count { min: 1, max: 200 }, "10", "web replicas of the native stack"),
    fixed("STACK_START_TIMEOUT", Kind::Seconds, "90", "time that the native stack gets to become healthy"),
    fixed(
        "STACK_STOP_TIMEOUT",
        Kind::Seconds,
        "40",
        "time that each part of the native stack gets to end by itself",
    ),
    fixed(
        "STACK_LOG_MEGABYTES",
        COUNT,
        "100",
        "size at which a log of the native stack is kept as .1 and begun anew",
    ),
    fixed(
        "STACK_USER",
        Kind::Text,
        "",
        "user that runs the parts when root starts the stack; empty: postgres, else nobody",
    ),
    fixed(
        "STACK_POSTGRES_BIN",
        Kind::Path,
        "",
        "folder of Postgres' programs; empty: PATH, then Debian's newest",
    ),
    fixed(
        "STACK_DEMO_USERS",
        Kind::Choice(&["auto", "on", "off"]),
        "auto",
        "demo users alice, bob, carol and dave, whose password everybody knows (arena-demo), and the session test-session are made at each start; auto: in the stack's own database, not in yours",
    ),
    // The database, as the pooler and the replicas find it
    shared::DB_HOST,
    shared::DB_PORT,
    shared::DB_NAME,
    shared::DB_USER,
    shared::DB_PASSWORD,
    fixed(
        "POSTGRES_PASSWORD",
        Kind::Secret,
        "",
        "password of the superuser postgres under docker-compose; natively one is made",
    ),
    fixed(
        "REPLICATION_PASSWORD",
        Kind::Secret,
        "",
        "password of the standby at Postgres under docker-compose; natively one is made",
    ),
    shared::DATABASE_URL,
    shared::DATABASE_URL_DIRECT,
    shared::ACTUAL_DB_HOST,
    shared::ACTUAL_DB_PORT,
    shared::DB_READ_HOST,
    fixed(
        "ACTUAL_DB_READ_HOST",
        Kind::Text,
        "",
        "host of the read replica that the pooler's pool DB_NAME_standby dials",
    ),
    fixed("ACTUAL_DB_READ_PORT", Kind::Port, "5432", "port of that read replica"),
    // The pooler
    shared::POOLER_POOL_MODE,
    shared::POOLER_DEFAULT_POOL_SIZE,
    fixed(
        "POOLER_MIN_POOL_SIZE",
        Kind::Count { min: 0, max: 1_000_000 },
        "5",
        "server connections kept open",
    ),
    fixed("POOLER_RESERVE_POOL_SIZE", Kind::Count { min: 0, max: 1_000_000 }, "5", "more of them for bursts"),
    fixed("POOLER_MAX_DB_CONNECTIONS", COUNT, "50", "server connections to one database, at most"),
    shared::POOLER_MAX_CLIENT_CONN,
    fixed(
        "PGBOUNCER_ADMIN_PASSWORD",
        Kind::Secret,
        "",
        "password of pgbouncer_admin; empty: made at the first start",
    ),
    fixed(
        "PGBOUNCER_STATS_PASSWORD",
        Kind::Secret,
        "",
        "password of pgbouncer_stats; empty: made at the first start",
    ),
    // Redis and the replicas' common secret
    shared::REDIS_URL,
    shared::REDIS_HOST,
    shared::REDIS_PORT,
    shared::REDIS_PASSWORD,
    shared::SECRET_KEY,
];
