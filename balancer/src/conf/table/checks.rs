//! Rows of health checks, status and run-time changes: what NGINX Plus has beside the upstream context.

use super::{ANY, Context, Directive, Kind, one, words};

const SITE: Context = Context::SERVER.or(Context::LOCATION);

pub const ROWS: &[Directive] = &[
    words(
        "health_check",
        Context::LOCATION,
        0..=ANY,
        "",
        "asks the servers of the location's group: interval (5s), jitter, fails (1), passes (1), uri (/), port, match, mandatory, persistent, type=grpc",
    ),
    words("match", Context::HTTP, 1..=1, "", "what an answer to a health check must look like")
        .opening(Context::MATCH)
        .many(),
    words("status", Context::MATCH, 1..=ANY, "", "codes or ranges, after `!` those that must not come"),
    words("header", Context::MATCH, 1..=3, "", "`NAME`, `! NAME`, or NAME with =, !=, ~ or !~ and a value")
        .many(),
    words("body", Context::MATCH, 2..=2, "", "`~` or `!~` and a pattern, looked for in the first 256k"),
    words("api", Context::LOCATION, 0..=1, "", "NGINX Plus's REST API, version 9; `write=on` allows changes"),
    one(
        "dashboard",
        Context::LOCATION,
        Kind::Words,
        "",
        "ours: the live page; the argument is the path of the location that has `api`",
    ),
    one(
        "status_zone",
        SITE,
        Kind::Words,
        "",
        "counts the requests of this server or location under a name, for the API",
    ),
];
