#!/usr/bin/env bash
# Reads over two real standbys that lag, with a switch-over in the middle and a failover that loses writes at the end.
# Starts a Postgres primary and two standbys of its own, the native stack on top of them, and `load_tests reads`.
#
#     load_tests/replica_reads.sh [FLAGS of `load_tests reads`]
#
# Programs come from ${CARGO_TARGET_DIR:-target}/release; everything is made below a temporary folder and removed.
# Ports: REPLICA_READS_PORT (default 26000) and the next two for Postgres, the 30 after them for the stack.
set -euo pipefail

HOME_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
PROGRAMS=${CARGO_TARGET_DIR:-$HOME_DIR/target}/release
BASE=${REPLICA_READS_PORT:-26000}
PRIMARY=$BASE STANDBY_1=$((BASE + 1)) STANDBY_2=$((BASE + 2))
export DB_USER=arena_user DB_NAME=arena_db DB_PASSWORD=a-password-for-this-run-only
export PGPASSWORD=$DB_PASSWORD PGUSER=$DB_USER PGHOST=127.0.0.1

postgres_folder() {
    local folder
    if folder=$(command -v initdb); then dirname -- "$(readlink -f -- "$folder")"; return; fi
    find /usr/lib/postgresql -mindepth 1 -maxdepth 1 | sort -V | tail -n 1 | sed 's|$|/bin|'
}
# Postgres refuses to run as root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; else "$@"; fi
}
run_server() { # FOLDER PORT
    as_postgres "$BIN/pg_ctl" -s -w -t 60 -D "$DIR/$1" -l "$DIR/$1.log" start -o "-p $2 -k $DIR -c listen_addresses=127.0.0.1 \
        -c fsync=off -c max_connections=200 -c shared_preload_libraries=pg_stat_statements -c wal_keep_size=256MB"
}
stop_server() { as_postgres "$BIN/pg_ctl" -s -w -t 60 -D "$DIR/$1" stop -m "$2"; }
sql() { "$BIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$1" -d "$DB_NAME" -c "$2"; }

copy_standby() { # FOLDER PORT
    as_postgres env PGPASSWORD="$DB_PASSWORD" "$BIN/pg_basebackup" -h 127.0.0.1 -p "$PRIMARY" -U "$DB_USER" -D "$DIR/$1" \
        -R -X stream -c fast --no-sync
    run_server "$1" "$2"
}

# A standby becomes the primary at the primary's own port, so that the pooler and the other standby find it there.
promote_at_primary_port() { # FOLDER
    as_postgres "$BIN/psql" -X -q -h "$DIR" -p "$2" -U "$DB_USER" -d "$DB_NAME" -c "ALTER SYSTEM RESET recovery_min_apply_delay"
    stop_server "$1" fast
    run_server "$1" "$PRIMARY"
    as_postgres "$BIN/pg_ctl" -s -w -t 60 -D "$DIR/$1" promote
}

switch_over() {
    # A clean stop sends all of the log to the standbys first.
    stop_server primary fast
    promote_at_primary_port standby_1 "$STANDBY_1"
}
cut_off() {
    sql "$STANDBY_2" "ALTER SYSTEM RESET recovery_min_apply_delay"
    sql "$STANDBY_2" "ALTER SYSTEM SET primary_conninfo = ''"
    sql "$STANDBY_2" "SELECT pg_reload_conf()" >/dev/null
    local tries=0
    while [ -n "$(sql "$STANDBY_2" "SELECT pid FROM pg_stat_wal_receiver")" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || { echo "the standby goes on receiving" >&2; return 1; }
        sleep 0.1
    done
}
fail_over() {
    stop_server standby_1 immediate
    promote_at_primary_port standby_2 "$STANDBY_2"
}

# The generator calls this script again for what happens to the servers.
if [ "${1:-}" = act ]; then
    DIR=$REPLICA_READS_DIR BIN=$REPLICA_READS_BIN
    "$2"
    exit
fi

[ -x "$PROGRAMS/load_tests" ] || { echo "not built: ./deploy-loadbalanced.sh build" >&2; exit 1; }
BIN=$(postgres_folder)
DIR=$(mktemp -d)
chmod 755 "$DIR"
export REPLICA_READS_DIR=$DIR REPLICA_READS_BIN=$BIN
[ "$(id -u)" != 0 ] || chown postgres "$DIR"
stack() { "$PROGRAMS/stack" --home "$HOME_DIR" --dir "$DIR/stack" --config "$DIR/config.env" "$@"; }
clean_up() {
    stack down >/dev/null 2>&1 || true
    for folder in primary standby_1 standby_2; do stop_server "$folder" immediate >/dev/null 2>&1 || true; done
    if [ -n "${REPLICA_READS_KEEP:-}" ]; then echo "kept: $DIR"; else rm -rf -- "$DIR"; fi
}
trap clean_up EXIT

printf '%s' "$DB_PASSWORD" >"$DIR/password"
chmod 644 "$DIR/password"
as_postgres "$BIN/initdb" -D "$DIR/primary" -U "$DB_USER" --pwfile="$DIR/password" --auth=scram-sha-256 --auth-local=trust \
    -E UTF8 --locale=C --no-sync >/dev/null
run_server primary "$PRIMARY"
"$BIN/createdb" -h 127.0.0.1 -p "$PRIMARY" "$DB_NAME"
copy_standby standby_1 "$STANDBY_1"
copy_standby standby_2 "$STANDBY_2"

cat >"$DIR/config.env" <<EOF
DB_USER=$DB_USER
DB_NAME=$DB_NAME
DB_PASSWORD=$DB_PASSWORD
ACTUAL_DB_HOST=127.0.0.1
ACTUAL_DB_PORT=$PRIMARY
DB_READ_HOST_1=127.0.0.1:$STANDBY_1
DB_READ_HOST_2=127.0.0.1:$STANDBY_2
HTTP_PORT=$((BASE + 3))
DB_PORT=$((BASE + 4))
STACK_REDIS_PORT=$((BASE + 5))
BALANCER_OPS_PORT=$((BASE + 6))
POOLER_METRICS_PORT=$((BASE + 7))
WEB_PORT_BASE=$((BASE + 10))
WEB_OPS_PORT_BASE=$((BASE + 20))
STACK_START_TIMEOUT=180
EOF
stack up
stack status --json >"$DIR/status.json"
"$PROGRAMS/load_tests" reads --status "$DIR/status.json" --standby "127.0.0.1:$STANDBY_1" --standby "127.0.0.1:$STANDBY_2" \
    --switch-over "$HOME_DIR/load_tests/replica_reads.sh act switch_over" \
    --cut-off "$HOME_DIR/load_tests/replica_reads.sh act cut_off" \
    --fail-over "$HOME_DIR/load_tests/replica_reads.sh act fail_over" "$@"
