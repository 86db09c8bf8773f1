#!/bin/sh
# Becomes the balancer, with the configuration of the moment where there is one: scaling writes it, a reload reads it.
set -eu
conf=/etc/balancer/stack/nginx.conf
[ -f "$conf" ] || conf=/etc/balancer/nginx.conf
exec balancer -c "$conf" -g "daemon off;" "$@"
