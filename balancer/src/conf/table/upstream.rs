//! Rows of the upstream context.

use super::{ANY, Context, Directive, Kind, one, words};

const UPSTREAM: Context = Context::UPSTREAM;

pub const ROWS: &[Directive] = &[
    words("upstream", Context::HTTP, 1..=1, "", "a group of servers").opening(UPSTREAM).many(),
    words(
        "server",
        UPSTREAM,
        1..=ANY,
        "",
        "address with weight, max_conns, max_fails, fail_timeout, backup, down",
    )
    .many(),
    words(
        "zone",
        UPSTREAM,
        1..=2,
        "",
        "name of the shared state; ours is always shared, the size is not needed",
    ),
    one("ip_hash", UPSTREAM, Kind::Words, "", "the client's network chooses the server").args(0),
    one("least_conn", UPSTREAM, Kind::Words, "", "the server with the fewest requests per weight").args(0),
    words("hash", UPSTREAM, 1..=2, "", "a key chooses the server; `consistent`: on a ring"),
    words("random", UPSTREAM, 0..=2, "", "a random server; `two`: the less busy of two"),
    words("keepalive", UPSTREAM, 1..=2, "32", "idle connections kept per worker; 0: none"),
    one("keepalive_requests", UPSTREAM, Kind::Count, "1000", "requests over one upstream connection"),
    one("keepalive_time", UPSTREAM, Kind::Millis, "1h", "longest life of an upstream connection"),
    one("keepalive_timeout", UPSTREAM, Kind::Millis, "60s", "how long an idle upstream connection stays"),
];
