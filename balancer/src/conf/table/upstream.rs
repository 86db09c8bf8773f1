//! Rows of the upstream context, and of what looks after upstreams elsewhere: health checks, status, the API.

use super::{ANY, Context, Directive, Kind, one, words};

const UPSTREAM: Context = Context::UPSTREAM;

pub const ROWS: &[Directive] = &[
    words("upstream", Context::HTTP, 1..=1, "", "a group of servers").opening(UPSTREAM).many(),
    words(
        "server",
        UPSTREAM,
        1..=ANY,
        "",
        "address with weight, max_conns, max_fails, fail_timeout, slow_start, route, backup, drain, down; \
         `resolve`: its addresses follow the name servers, `service=`: those of SRV records",
    )
    .many(),
    words(
        "zone",
        UPSTREAM,
        1..=2,
        "",
        "makes the group visible in the API; its state is always shared by all workers, the size is not needed",
    ),
    one("ip_hash", UPSTREAM, Kind::Words, "", "the client's network chooses the server").args(0),
    one(
        "ip_hash_ipv6_bits",
        UPSTREAM,
        Kind::Count,
        "128",
        "ours: how much of an IPv6 address `ip_hash` looks at; 64 follows a client whose privacy address changes",
    ),
    one("least_conn", UPSTREAM, Kind::Words, "", "the server with the fewest requests per weight").args(0),
    words(
        "least_time",
        UPSTREAM,
        1..=2,
        "",
        "the server that will answer first by its average time to `header` or `last_byte`; `inflight` counts unfinished requests",
    ),
    words("hash", UPSTREAM, 1..=2, "", "a key chooses the server; `consistent`: on a ring, as ketama"),
    one(
        "hash_balance_factor",
        UPSTREAM,
        Kind::Count,
        "0",
        "ours: no server of a `hash` gets more than this percentage of the average load; 0: no bound, else 101 or more",
    ),
    words(
        "random",
        UPSTREAM,
        0..=2,
        "",
        "a random server; `two`: the better of two by least_conn or least_time=header|last_byte",
    ),
    words(
        "sticky",
        UPSTREAM,
        2..=ANY,
        "",
        "clients stay with their server: `cookie`, `route` or `learn`, with nginx's parameters",
    ),
    words(
        "queue",
        UPSTREAM,
        1..=2,
        "",
        "so many requests wait for a server, up to `timeout=` (60s), while none can be picked",
    ),
    one(
        "state",
        UPSTREAM,
        Kind::Words,
        "",
        "the file that keeps the servers of the group, changed through the API, over restarts; needs `zone`",
    ),
    words("resolver", UPSTREAM, 1..=ANY, "", "name servers for the servers with `resolve`, as in http"),
    one("resolver_timeout", UPSTREAM, Kind::Millis, "30s", "longest wait for name servers"),
    words("keepalive", UPSTREAM, 1..=2, "32", "idle connections kept per worker; 0: none"),
    one("keepalive_requests", UPSTREAM, Kind::Count, "1000", "requests over one upstream connection"),
    one("keepalive_time", UPSTREAM, Kind::Millis, "1h", "longest life of an upstream connection"),
    one("keepalive_timeout", UPSTREAM, Kind::Millis, "60s", "how long an idle upstream connection stays"),
];
