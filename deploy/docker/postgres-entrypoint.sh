#!/bin/sh
# Makes the cluster at its first start, sets roles and database as the environment names them, becomes Postgres.
# Secrets come by the environment and go on by it or by files, never by a command line.
set -eu
umask 077

run_postgres() {
    exec postgres -D "$PGDATA" -c config_file=/etc/postgresql.conf -c "listen_addresses=*" \
        -c unix_socket_directories=/tmp
}

set_up() {
    pg_ctl -D "$PGDATA" -w -s -l /tmp/setup.log \
        -o "-c config_file=/etc/postgresql.conf -c listen_addresses= -c unix_socket_directories=/tmp" start
    PGPASSWORD=$POSTGRES_PASSWORD psql -X -q -v ON_ERROR_STOP=1 -h /tmp -U postgres -d postgres \
        -f /usr/share/arena/setup.sql
    pg_ctl -D "$PGDATA" -w -s -m fast stop
}

init_primary() {
    [ ! -s "$PGDATA/PG_VERSION" ] || return 0
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    initdb -D "$PGDATA" -U postgres --pwfile=/tmp/password -A scram-sha-256 -E UTF8 --locale=C.UTF-8 \
        --no-instructions >/tmp/initdb.log || { cat /tmp/initdb.log; exit 1; }
    rm -f /tmp/password
    {
        echo "host all all all scram-sha-256"
        echo "host replication arena_replicator all scram-sha-256"
    } >>"$PGDATA/pg_hba.conf"
}

# A standby that was away may lack WAL that the primary no longer has: the copy is made anew at each start.
copy_primary() {
    find "$PGDATA" -mindepth 1 -delete
    printf '*:*:*:arena_replicator:%s\n' "$(printf '%s' "$REPLICATION_PASSWORD" | sed 's/[\\:]/\\&/g')" >/tmp/pgpass
    PGPASSFILE=/tmp/pgpass pg_basebackup -D "$PGDATA" -h "${PRIMARY_HOST:-postgres}" -U arena_replicator -R -X stream -c fast
}

case ${1:-primary} in
primary)
    init_primary
    set_up
    run_postgres
    ;;
standby)
    copy_primary
    run_postgres
    ;;
*)
    exec "$@"
    ;;
esac
