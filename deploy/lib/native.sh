# shellcheck shell=bash
# The native stack: the programs as they were built, and the verbs that act on them. The work is done by `stack`.

readonly STACK_DIR="$HOME_DIR/.stack"

target_dir() { printf '%s' "${CARGO_TARGET_DIR:-$HOME_DIR/target}"; }
stack() { "$(target_dir)/release/stack" --home "$HOME_DIR" "$@"; }
is_built() { [ -x "$(target_dir)/release/stack" ]; }
need_built() { is_built || fail "not built yet: ./deploy-loadbalanced.sh build"; }

native_build() {
    need_rust
    # Cargo fetches over https.
    install_missing "$BUILD_NEEDS
$TRUST_NEEDS"
    (cd "$HOME_DIR" && cargo build --release --locked)
}

native_start() {
    local ended=0 told
    told=$(is_built && stack status 2>&1) || ended=$?
    # A stack that runs, well (0) or not (1), is not built anew under its feet: upgrade does that. An older build ends with 1
    # where nothing runs, too.
    if [ "$ended" = 0 ] || { [ "$ended" = 1 ] && [ -n "$told" ] && [[ $told != "no stack runs"* ]]; }; then
        stack up "$@"
        return
    fi
    install_missing "$RUN_NEEDS"
    native_build
    stack up "$@"
}

native_stop() {
    if ! is_built; then
        [ -d "$STACK_DIR" ] || { say "nothing was started here, so nothing runs" && return; }
        # What runs is a copy: it goes on when the folder that it was built in is removed, or is another one now.
        need_rust
        (cd "$HOME_DIR" && cargo build --release --locked -p stack)
    fi
    stack down "$@"
}

native_restart() {
    need_built
    if [ $# -gt 0 ] && [[ $1 != -* ]]; then
        stack restart "$1"
    else
        [ $# -gt 0 ] || set -- --as-before
        # What would keep it from coming up again is told while it still runs.
        stack check "$@" >/dev/null
        stack down
        stack up "$@"
    fi
}

native_upgrade() {
    native_build
    stack upgrade
}

native_exec() {
    need_built
    [ $# -ge 2 ] || fail "exec SERVICE CMD..."
    stack exec "$@"
}

native_backup() {
    need_built
    local file=${1:-$HOME_DIR/results/backup-$(date -u +%Y%m%dT%H%M%SZ).dump}
    mkdir -p "$(dirname -- "$file")"
    # Straight to Postgres: a dump is one long transaction with settings of its own.
    if ! (umask 077 && stack exec postgres pg_dump --format=custom --no-owner --file="$file.part"); then
        rm -f -- "$file.part"
        fail "nothing is saved"
    fi
    mv -- "$file.part" "$file"
    say "saved: $file ($(du -h -- "$file" | cut -f1))"
}

# In one transaction: all of it or nothing. Extensions belong to the superuser and are there already.
# shellcheck disable=SC2016 # expanded where the database is known
readonly RESTORE='
    list=$(mktemp) ended=0
    pg_restore --list -- "$1" | grep -vE " (EXTENSION|COMMENT - EXTENSION) " >"$list"
    pg_restore --use-list="$list" --clean --if-exists --no-owner --single-transaction --exit-on-error \
        --dbname="$PGDATABASE" -- "$1" || ended=$?
    rm -f -- "$list"
    exit "$ended"'

native_restore() {
    need_built
    [ -f "${1:-}" ] || fail "restore FILE: which backup?"
    stack exec postgres sh -c "$RESTORE" sh "$(realpath -- "$1")"
    say "restored: $1"
}

native_token() {
    need_built
    stack exec web-1 web token
}
