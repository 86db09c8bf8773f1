//! Directives that are taken and change nothing, since they tune what does not exist here. Each is named in the log at
//! the start; the doc line says why.

use super::{ANY, Context, Directive, words};

const REQUEST: Context = Context::REQUEST;
const HTTP: Context = Context::HTTP;

/// Names and variables are resolved at load, without hash tables of a fixed size.
const NO_HASH: &str = "no effect: there are no hash tables to size";

/// Memory comes from the allocator and is kept by each worker for its next request.
const NO_POOL: &str = "no effect: there are no pools to size";

/// Records and frames are as long as what is there to send, up to what the protocol allows.
const NO_PIECES: &str = "no effect: records and frames are as long as what there is to send";

/// What is found by a name may have changed since.
const NO_FILES: &str = "no effect: files are looked for and opened each time";

const HEAD: Context = Context::HTTP.or(Context::SERVER);

pub const ROWS: &[Directive] = &[
    words("ssl_dhparam", HEAD, 1..=1, "", "no effect: only suites with elliptic curves are spoken"),
    words("ssl_buffer_size", HEAD, 1..=1, "", NO_PIECES),
    words(
        "ssl_stapling_verify",
        HEAD,
        1..=1,
        "",
        "no effect: the file of `ssl_stapling_file` is shown as it is",
    ),
    words(
        "ssl_stapling_responder",
        HEAD,
        1..=1,
        "",
        "no effect: nothing is fetched; see `ssl_stapling_file`",
    ),
    words("http2_chunk_size", REQUEST, 1..=1, "", NO_PIECES),
    words("http2_recv_buffer_size", HTTP, 1..=1, "", "no effect: each connection has its own buffer"),
    words(
        "client_body_in_single_buffer",
        REQUEST,
        1..=1,
        "",
        "no effect: a body that is kept is in one piece",
    ),
    words(
        "proxy_temp_file_write_size",
        REQUEST,
        1..=1,
        "",
        "no effect: what memory may not hold is written as it comes",
    ),
    words("types_hash_max_size", REQUEST, 1..=1, "", NO_HASH),
    words("types_hash_bucket_size", REQUEST, 1..=1, "", NO_HASH),
    words("server_names_hash_max_size", HTTP, 1..=1, "", NO_HASH),
    words("server_names_hash_bucket_size", HTTP, 1..=1, "", NO_HASH),
    words("variables_hash_max_size", HTTP, 1..=1, "", NO_HASH),
    words("variables_hash_bucket_size", HTTP, 1..=1, "", NO_HASH),
    words("map_hash_max_size", HTTP, 1..=1, "", NO_HASH),
    words("map_hash_bucket_size", HTTP, 1..=1, "", NO_HASH),
    words("proxy_headers_hash_max_size", REQUEST, 1..=1, "", NO_HASH),
    words("proxy_headers_hash_bucket_size", REQUEST, 1..=1, "", NO_HASH),
    words("multi_accept", Context::EVENTS, 1..=1, "", "no effect: all connections that wait are accepted"),
    words("connection_pool_size", HTTP.or(Context::SERVER), 1..=1, "", NO_POOL),
    words("request_pool_size", HTTP.or(Context::SERVER), 1..=1, "", NO_POOL),
    words("output_buffers", REQUEST, 2..=2, "", "no effect: files are read in pieces of 64 KiB"),
    words("gzip_buffers", REQUEST, 2..=2, "", "no effect: what is packed goes out as it comes"),
    words("sendfile", REQUEST, 1..=1, "", "no effect: files are read in pieces, whatever it says"),
    words("tcp_nopush", REQUEST, 1..=1, "", "no effect: head and body go out in one write already"),
    words(
        "proxy_busy_buffers_size",
        REQUEST,
        1..=1,
        "",
        "no effect: what has come is passed on without waiting for buffers to fill",
    ),
    words("sendfile_max_chunk", REQUEST, 1..=1, "", "no effect: files are read in pieces of 64 KiB"),
    words("open_file_cache", REQUEST, 1..=2, "", NO_FILES),
    words("open_file_cache_valid", REQUEST, 1..=1, "", NO_FILES),
    words("open_file_cache_min_uses", REQUEST, 1..=1, "", NO_FILES),
    words("open_file_cache_errors", REQUEST, 1..=1, "", NO_FILES),
    words("env", Context::MAIN, 1..=1, "", "no effect: the environment is left as it is; `TZ=` is refused")
        .many(),
    words(
        "load_module",
        Context::MAIN,
        1..=1,
        "",
        "no effect: nothing is loaded, and a directive of a module that is not built in is refused",
    )
    .many(),
    words("pcre_jit", Context::MAIN, 1..=1, "", "no effect: patterns are always compiled"),
    words("worker_cpu_affinity", Context::MAIN, 1..=ANY, "", "no effect: the kernel places the threads"),
];
