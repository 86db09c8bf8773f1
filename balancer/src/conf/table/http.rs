//! Rows of the http, server and location contexts, but for proxying.

use super::{ANY, Context, Directive, Kind, one, words};

const HTTP: Context = Context::HTTP;
const SERVER: Context = Context::SERVER;
const LOCATION: Context = Context::LOCATION;
const REQUEST: Context = Context::REQUEST;
const HEAD: Context = HTTP.or(SERVER);
const INNER: Context = SERVER.or(LOCATION);
const IF_SERVER: Context = Context::IF_SERVER;
const IF_LOCATION: Context = Context::IF_LOCATION;
const STEPS: Context = INNER.or(IF_SERVER).or(IF_LOCATION);
const REQUEST_IF: Context = REQUEST.or(IF_LOCATION);
const REQUEST_LIMIT: Context = REQUEST.or(Context::LIMIT_EXCEPT);
const LEVELS: Kind = Kind::Choice(&["info", "notice", "warn", "error"]);

pub const ROWS: &[Directive] = &[
    words("server", HTTP, 0..=0, "", "a virtual server").opening(SERVER).many(),
    words("location", INNER, 1..=2, "", "settings for some paths: prefix, `=`, `^~`, `~`, `~*`, `@name`")
        .opening(LOCATION)
        .many(),
    words("map", HTTP, 2..=2, "", "a variable looked up by another").opening(Context::FREE).many(),
    words("geo", HTTP, 1..=2, "", "a variable that belongs to the network of an address")
        .opening(Context::FREE)
        .many(),
    words("split_clients", HTTP, 2..=2, "", "a variable with a value for each share of the keys")
        .opening(Context::FREE)
        .many(),
    words("log_format", HTTP, 2..=ANY, "", "a format of access logs: name, `escape=`, text").many(),
    words(
        "access_log",
        REQUEST_IF.or(Context::LIMIT_EXCEPT),
        1..=ANY,
        "logs/access.log combined",
        "file, which may have variables, format, `buffer=`, `flush=`, `gzip`, `if=`; or `off`",
    )
    .many(),
    words(
        "open_log_file_cache",
        REQUEST,
        1..=4,
        "off",
        "how many logs with variables in their names stay open: `max=`, `inactive=` (10s), `min_uses=` (1), `valid=` (60s)",
    ),
    words(
        "resolver",
        REQUEST,
        1..=ANY,
        "",
        "name servers for what is only known at run time, with `valid=`, `ipv4=off`, `ipv6=off`, `status_zone=`",
    ),
    one("resolver_timeout", REQUEST, Kind::Millis, "30s", "longest wait for name servers"),
    words("listen", SERVER, 1..=ANY, "*:80", "address and port with options").many(),
    words("server_name", SERVER, 1..=ANY, "", "host names: exact, `*.x`, `.x`, `x.*`, `~pattern`").many(),
    words("if", SERVER, 1..=ANY, "", "steps for requests that meet a condition").opening(IF_SERVER).many(),
    words("if", LOCATION, 1..=ANY, "", "steps and settings for requests that meet a condition")
        .opening(IF_LOCATION)
        .many(),
    words("set", STEPS, 2..=2, "", "give a variable a value").many(),
    words(
        "rewrite",
        STEPS,
        2..=3,
        "",
        "change the path: pattern, replacement, last, break, redirect or permanent",
    )
    .many(),
    words("break", STEPS, 0..=0, "", "no more steps").many(),
    words("return", STEPS, 1..=2, "", "answer at once: status, text or URL").many(),
    words("stub_status", INNER, 0..=1, "", "answer with the numbers of connections and requests"),
    one("internal", LOCATION, Kind::Words, "", "only for redirects inside").args(0),
    // files
    one("root", REQUEST_IF, Kind::Words, "html", "folder below which paths are looked for"),
    one("alias", LOCATION, Kind::Words, "", "folder in place of the location's own path"),
    words("index", REQUEST, 1..=ANY, "index.html", "files for a path that ends with a slash").many(),
    one("etag", REQUEST, Kind::Flag, "on", "give files an ETag"),
    one(
        "if_modified_since",
        REQUEST,
        Kind::Choice(&["off", "exact", "before"]),
        "exact",
        "which date of a client spares it a file: the file's own, that or a later one, none",
    ),
    one(
        "max_ranges",
        REQUEST,
        Kind::Count,
        "",
        "a request for more ranges of a file gets the whole; 0: for any",
    ),
    one("log_not_found", REQUEST, Kind::Flag, "on", "say in the error log which file was not there"),
    words("try_files", INNER, 2..=ANY, "", "files to look for in order; last: path, name or `=CODE`"),
    words("types", REQUEST, 0..=0, "", "content types by the ending of file names").opening(Context::FREE),
    // heads
    one("client_header_timeout", HEAD, Kind::Millis, "60s", "for the whole head of a request"),
    words(
        "client_header_min_rate",
        HEAD,
        1..=2,
        "500 after=20s",
        "ours: bytes per second by which a head may take longer than `after=`; `off`",
    ),
    one("client_header_buffer_size", HEAD, Kind::Size, "1k", "first buffer of a head"),
    words("large_client_header_buffers", HEAD, 2..=2, "4 8k", "number and size of further buffers of a head"),
    one("max_headers", HEAD, Kind::Count, "1000", "most header fields of a request"),
    one("ignore_invalid_headers", HEAD, Kind::Flag, "on", "drop header fields with odd names"),
    one("underscores_in_headers", HEAD, Kind::Flag, "off", "take underscores in header names as valid"),
    one("merge_slashes", HEAD, Kind::Flag, "on", "take several slashes for one"),
    // bodies and connections of clients
    one("client_max_body_size", REQUEST, Kind::Offset, "1m", "longest body of a request; 0: any"),
    one("client_body_timeout", REQUEST, Kind::Millis, "60s", "longest pause while a body is read"),
    words(
        "client_body_min_rate",
        REQUEST,
        1..=2,
        "500 after=60s",
        "ours: bytes per second by which a body may be waited for longer than `after=` in all; `off`, the default where bodies are streamed",
    ),
    one("client_body_buffer_size", REQUEST, Kind::Size, "16k", "buffer for a body"),
    one(
        "client_body_in_file_only",
        REQUEST,
        Kind::Choice(&["on", "clean", "off"]),
        "off",
        "write bodies to files: `$request_body_file`; `clean` removes them",
    ),
    words("client_body_temp_path", REQUEST, 1..=4, "client_body_temp", "folder of such files"),
    words(
        "client_body_early_read",
        HEAD,
        1..=ANY,
        "",
        "read the body before a location is looked for, if any of these values is neither empty nor 0",
    ),
    one(
        "reset_timedout_connection",
        REQUEST,
        Kind::Flag,
        "off",
        "end connections of clients that took too long, and after `return 444`, with a reset",
    ),
    one("send_timeout", REQUEST, Kind::Millis, "60s", "longest pause while an answer is written"),
    words(
        "keepalive_timeout",
        REQUEST,
        1..=2,
        "75s",
        "how long an idle client connection stays; second: what the header says",
    ),
    words(
        "keepalive_disable",
        REQUEST,
        1..=3,
        "msie6",
        "browsers whose connections are not kept: msie6, safari, none",
    ),
    one(
        "keepalive_min_timeout",
        REQUEST,
        Kind::Millis,
        "0",
        "how long an idle client connection stays even when the balancer shuts down",
    ),
    one("keepalive_requests", REQUEST, Kind::Count, "1000", "requests over one client connection"),
    one("keepalive_time", REQUEST, Kind::Millis, "1h", "longest life of a client connection"),
    one(
        "lingering_close",
        REQUEST,
        Kind::Choice(&["off", "on", "always"]),
        "on",
        "read what a client still sends before closing",
    ),
    one("lingering_time", REQUEST, Kind::Millis, "30s", "longest lingering"),
    one("lingering_timeout", REQUEST, Kind::Millis, "5s", "longest pause while lingering"),
    one("tcp_nodelay", REQUEST, Kind::Flag, "on", "send small pieces at once"),
    // answers
    one("default_type", REQUEST, Kind::Words, "text/plain", "Content-Type of answers made here"),
    words("add_trailer", REQUEST_IF, 2..=3, "", "a trailer for answers; `always`: for errors too").many(),
    words(
        "expires",
        REQUEST_IF,
        1..=2,
        "off",
        "Expires and Cache-Control: time, `modified` time, @time of day, epoch, max, off",
    ),
    one("chunked_transfer_encoding", REQUEST, Kind::Flag, "on", "send bodies of unknown length in chunks"),
    one("limit_rate", REQUEST_IF, Kind::Words, "", "bytes per second of an answer"),
    one("limit_rate_after", REQUEST_IF, Kind::Words, "", "bytes of an answer that come at full speed first"),
    one("gzip", REQUEST_IF, Kind::Flag, "off", "pack answers"),
    one(
        "gzip_static",
        REQUEST,
        Kind::Choice(&["off", "on", "always"]),
        "off",
        "send FILE.gz, where it is, in place of FILE",
    ),
    one("gunzip", REQUEST, Kind::Flag, "off", "unpack answers for clients that cannot"),
    one("gzip_vary", REQUEST, Kind::Flag, "off", "say in Vary that the answer depends on Accept-Encoding"),
    one(
        "charset",
        REQUEST_IF,
        Kind::Words,
        "off",
        "what `Content-Type` says of the text's coding; bodies are sent as they are",
    ),
    words(
        "charset_types",
        REQUEST,
        1..=ANY,
        "text/html text/xml text/plain text/vnd.wap.wml application/javascript application/rss+xml",
        "types that `charset` is for, beside text/html; `*`: all",
    )
    .many(),
    one(
        "override_charset",
        REQUEST_IF,
        Kind::Flag,
        "off",
        "`charset` also in place of what an upstream says",
    ),
    one(
        "ssi",
        REQUEST_IF,
        Kind::Flag,
        "off",
        "run the commands in pages: include, echo, set, if, config, block",
    ),
    words("ssi_types", REQUEST, 1..=ANY, "text/html", "types that are pages, beside text/html; `*`: all")
        .many(),
    one("ssi_silent_errors", REQUEST, Kind::Flag, "off", "say nothing in the page of commands that fail"),
    one("ssi_last_modified", REQUEST, Kind::Flag, "off", "keep the Last-Modified of the page's text"),
    one("gzip_min_length", REQUEST, Kind::Offset, "20", "shorter answers are not packed"),
    one("gzip_comp_level", REQUEST, Kind::Count, "1", "how hard to pack, 1 to 9"),
    words("gzip_types", REQUEST, 1..=ANY, "text/html", "types packed beside text/html; `*`: all").many(),
    one(
        "gzip_http_version",
        REQUEST,
        Kind::Choice(&["1.0", "1.1"]),
        "1.1",
        "least version of a request whose answer is packed",
    ),
    words("gzip_proxied", REQUEST, 1..=ANY, "off", "what is packed for requests that came through a proxy"),
    words("gzip_disable", REQUEST, 1..=ANY, "", "user agents that get nothing packed, by pattern; `msie6`"),
    words("add_header", REQUEST_IF, 2..=3, "", "a header for answers; `always`: for errors too").many(),
    one(
        "recursive_error_pages",
        REQUEST,
        Kind::Flag,
        "off",
        "let the page of an error fail into another one",
    ),
    words("error_page", REQUEST_IF, 2..=ANY, "", "what to answer in place of an error").many(),
    one(
        "server_tokens",
        REQUEST,
        Kind::Choice(&["on", "off", "build"]),
        "on",
        "name the version in `Server` and on error pages; `build`: ours too",
    ),
    words(
        "early_hints",
        REQUEST,
        1..=ANY,
        "",
        "pass a 103 on if any of these values is neither empty nor 0; without the directive: always",
    ),
    one("absolute_redirect", REQUEST, Kind::Flag, "on", "redirect to a full URL"),
    one("server_name_in_redirect", REQUEST, Kind::Flag, "off", "use the first server_name in redirects"),
    one("port_in_redirect", REQUEST, Kind::Flag, "on", "name the port in redirects"),
    // who may come in
    one("satisfy", REQUEST, Kind::Choice(&["all", "any"]), "all", "whether all checks must pass, or any"),
    words("limit_except", LOCATION, 1..=ANY, "", "what holds for all methods but these")
        .opening(Context::LIMIT_EXCEPT),
    one("auth_basic", REQUEST_LIMIT, Kind::Words, "", "the realm that a password is asked for; `off`"),
    one("auth_basic_user_file", REQUEST_LIMIT, Kind::Words, "", "file with names and passwords"),
    one("auth_delay", REQUEST, Kind::Millis, "0", "how long an answer of 401 waits"),
    one(
        "auth_request",
        REQUEST,
        Kind::Words,
        "",
        "the location that is asked whether a request may come in; `off`",
    ),
    words("auth_request_set", REQUEST, 2..=2, "", "give a variable a value from that answer").many(),
    words("limit_req_zone", HTTP, 2..=3, "", "counts of a request rate: key, `zone=name:size`, `rate=`")
        .many(),
    words("limit_req", REQUEST, 1..=3, "", "limit by a rate: `zone=`, `burst=`, `nodelay` or `delay=`")
        .many(),
    one("limit_req_status", REQUEST, Kind::Count, "503", "answer of requests beyond the rate"),
    one("limit_req_log_level", REQUEST, LEVELS, "error", "how loud refusals are; delays one level less"),
    one("limit_req_dry_run", REQUEST, Kind::Flag, "off", "count and tell, but refuse nothing"),
    words("limit_conn_zone", HTTP, 2..=2, "", "counts of concurrent requests: key, `zone=name:size`").many(),
    words("limit_conn", REQUEST, 2..=2, "", "zone and most concurrent requests per key").many(),
    one("limit_conn_status", REQUEST, Kind::Count, "503", "answer of requests beyond the number"),
    one("limit_conn_log_level", REQUEST, LEVELS, "error", "how loud refusals are"),
    one("limit_conn_dry_run", REQUEST, Kind::Flag, "off", "count and tell, but refuse nothing"),
    one("allow", REQUEST_LIMIT, Kind::Words, "", "an address, network, `unix:` or `all` that may").many(),
    one("deny", REQUEST_LIMIT, Kind::Words, "", "an address, network, `unix:` or `all` that may not").many(),
    one("set_real_ip_from", REQUEST, Kind::Words, "", "a proxy that is trusted to name its client").many(),
    one("real_ip_header", REQUEST, Kind::Words, "X-Real-IP", "the header that names the client"),
    one("real_ip_recursive", REQUEST, Kind::Flag, "off", "pass over trusted addresses in the header"),
];
