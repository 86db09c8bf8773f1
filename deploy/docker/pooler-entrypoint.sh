#!/bin/sh
# Writes pgbouncer.ini and userlist.txt from the environment at each start, then becomes the pooler.
set -eu
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    exec "$@"
fi
stack render pooler --template /usr/share/pooler/pgbouncer.ini --out /etc/pgbouncer
exec pooler "$@" /etc/pgbouncer/pgbouncer.ini
