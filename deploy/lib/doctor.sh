# shellcheck shell=bash
# Looking for what would keep the stack from running.

doctor() {
    local bad=0 open
    check() { if "${@:2}" >/dev/null 2>&1; then say "ok    $1"; else say "lacks $1" && bad=1; fi; }
    check "Rust (cargo)" has cargo
    check "a C compiler (gcc)" has gcc
    check "Postgres' server programs" is_met @postgres
    check "psql, pg_dump, pg_restore" has psql
    check "redis-server" has redis-server
    check "built programs" is_built
    if docker_answers; then say "ok    a Docker engine answers"; else say "note  no Docker engine answers: --docker verbs cannot be used"; fi
    open=$(ulimit -Hn)
    if [ "$open" = unlimited ] || [ "$open" -ge 4096 ]; then
        say "ok    open files per process: $open"
    else
        say "lacks open files per process: $open; the balancer wants two per connection (ulimit -Hn)" && bad=1
    fi
    [ -f "$HOME_DIR/config.env" ] || say "note  no config.env: the defaults of config.env.example are used"
    if is_built; then
        stack check || bad=1
        stack status || true
    fi
    [ "$bad" = 0 ] || fail "something is lacking; start and test install packages themselves"
}
