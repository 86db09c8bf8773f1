#!/bin/sh
# Makes the cluster at its first start, sets roles and database as the environment names them, becomes Postgres.
# Secrets come by the environment and go on by it or by files, never by a command line.
set -eu
umask 077
temporary=${TMPDIR:-/tmp}

run_postgres() {
    exec postgres -D "$PGDATA" -c config_file=/etc/postgresql.conf -c "listen_addresses=*" \
        -c unix_socket_directories=/tmp
}

set_up() {
    pg_ctl -D "$PGDATA" -w -s -l "$temporary/setup.log" \
        -o "-c config_file=/etc/postgresql.conf -c listen_addresses= -c unix_socket_directories=/tmp" start
    PGPASSWORD=$POSTGRES_PASSWORD psql -X -q -v ON_ERROR_STOP=1 -h /tmp -U postgres -d postgres \
        -f /usr/share/arena/setup.sql
    pg_ctl -D "$PGDATA" -w -s -m fast stop
}

# Beside its place, in the volume, and PG_VERSION moves last: a cluster that has one is whole, whenever we were killed.
init_primary() {
    making=$PGDATA/.making
    if [ -s "$PGDATA/PG_VERSION" ]; then
        rm -rf -- "$making"
        return
    fi
    # All that lies beside it came out of it.
    [ ! -d "$making" ] || find "$PGDATA" -mindepth 1 -maxdepth 1 ! -name .making ! -name lost+found -exec rm -rf -- {} +
    if [ -n "$(find "$PGDATA" -mindepth 1 -maxdepth 1 ! -name .making ! -name lost+found)" ]; then
        echo "postgres-entrypoint: the volume at $PGDATA holds no cluster and is not empty: give another, or empty it" >&2
        exit 1
    fi
    rm -rf -- "$making/cluster"
    mkdir -p "$making"
    # As initdb would: Postgres wants nobody else to look in.
    chmod 700 "$PGDATA"
    make_cluster "$making/cluster"
    for entry in "$making/cluster"/*; do
        [ "${entry##*/}" = PG_VERSION ] || mv -- "$entry" "$PGDATA/"
    done
    sync -f "$PGDATA"
    mv -- "$making/cluster/PG_VERSION" "$PGDATA/"
    sync -f "$PGDATA"
    rm -rf -- "$making"
}

make_cluster() { # folder
    printf '%s' "$POSTGRES_PASSWORD" >"$temporary/password"
    initdb -D "$1" -U postgres --pwfile="$temporary/password" -A scram-sha-256 -E UTF8 --locale=C.UTF-8 \
        --no-instructions >"$temporary/initdb.log" || { cat "$temporary/initdb.log"; exit 1; }
    rm -f "$temporary/password"
    {
        echo "host all all all scram-sha-256"
        echo "host replication arena_replicator all scram-sha-256"
    } >>"$1/pg_hba.conf"
}

# A standby that was away may lack WAL that the primary no longer has: the copy is made anew at each start.
copy_primary() {
    find "$PGDATA" -mindepth 1 -delete
    printf '*:*:*:arena_replicator:%s\n' "$(printf '%s' "$REPLICATION_PASSWORD" | sed 's/[\\:]/\\&/g')" >"$temporary/pgpass"
    PGPASSFILE=$temporary/pgpass pg_basebackup -D "$PGDATA" -h "${PRIMARY_HOST:-postgres}" -U arena_replicator -R -X stream -c fast
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
