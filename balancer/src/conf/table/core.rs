//! Rows of the main and events contexts.

use super::{Context, Directive, Kind, one, words};

const MAIN: Context = Context::MAIN;
const EVENTS: Context = Context::EVENTS;

pub const ROWS: &[Directive] = &[
    one("worker_processes", MAIN, Kind::Words, "1", "worker threads; `auto` takes one per core"),
    one("worker_rlimit_nofile", MAIN, Kind::Count, "", "open files that the process asks for"),
    one(
        "worker_shutdown_timeout",
        MAIN,
        Kind::Millis,
        "",
        "how long a graceful stop waits before it cuts connections",
    ),
    one("worker_priority", MAIN, Kind::Words, "0", "nice value of the process, from its start on"),
    one("pid", MAIN, Kind::Words, "", "file that holds the process id"),
    words(
        "error_log",
        MAIN.or(Context::REQUEST),
        1..=2,
        "",
        "file or stderr, and the least urgent level to write",
    )
    .many(),
    one("daemon", MAIN, Kind::Flag, "on", "go to the background"),
    one(
        "master_process",
        MAIN,
        Kind::Flag,
        "on",
        "`off` runs one worker, as for debugging; all workers are threads of one process",
    ),
    words("user", MAIN, 1..=2, "", "user and group to become when started by root"),
    one("ops_listen", MAIN, Kind::Words, "", "ours: address for /metrics and /health/*; none by default"),
    words("events", MAIN, 0..=0, "", "settings of connection handling").opening(EVENTS),
    words("http", MAIN, 0..=0, "", "everything about HTTP").opening(Context::HTTP),
    one("worker_connections", EVENTS, Kind::Count, "512", "connections per worker, clients' and upstreams'"),
    one("accept_mutex", EVENTS, Kind::Flag, "off", "workers share listeners without a mutex: only `off`"),
    one("use", EVENTS, Kind::Choice(&["epoll"]), "epoll", "event notification: epoll"),
];
