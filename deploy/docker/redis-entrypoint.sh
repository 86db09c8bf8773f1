#!/bin/sh
# Writes Redis' configuration with the password of the environment, then becomes Redis.
set -eu
umask 077
escaped=$(printf '%s' "$REDIS_PASSWORD" | sed 's/[\\"]/\\&/g')
cat >/tmp/redis.conf <<EOF
bind * -::*
port 6379
requirepass "$escaped"
daemonize no
logfile ""
save ""
appendonly no
dir /tmp
EOF
exec redis-server /tmp/redis.conf
