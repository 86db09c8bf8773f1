#!/usr/bin/env bash
# The one door to the stack: build, start, stop, look, change, save, check. See usage() or: ./deploy-loadbalanced.sh help
set -euo pipefail

HOME_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly HOME_DIR

DOCKER=no
ARGS=()

usage() {
    cat <<'EOF'
./deploy-loadbalanced.sh VERB [--docker] [...]

  build                     compile the programs (with --docker: the images)
  start [--replicas N] [--direct] [--read-replica]
                            install what is missing, build, start everything, wait until all is healthy
  stop [--purge]            drain and stop everything; --purge removes the data too
  restart [SERVICE]         everything, or one part; web: all replicas one after the other
  status | ps               health, pid, uptime and address of each part
  logs [SERVICE] [-f]       logs of all parts or of one
  exec SERVICE CMD...       run a command in a part's surroundings
  scale N                   another number of web replicas
  upgrade                   build and go over to the new programs, replicas one at a time; nobody is refused
  rollback                  go back to the programs before
  backup [FILE]             save the database (pg_dump, custom format)
  restore FILE              load a backup into the database
  doctor                    look for what would keep the stack from running
  token                     an admin's access token for the monitoring endpoints
  verify                    check a running stack, one line per check
  test                      everything that CI runs
  bench [FLAGS]             load on the running stack: rates, percentiles, errors (flags of load_tests)

SERVICE: balancer (nginx), web-1 ... web-10, pooler (pgbouncer), postgres, redis.
With --docker the verbs act on docker-compose.loadbalanced.yml; otherwise on the native stack in .stack/.
Settings: config.env (see config.env.example) and the environment, which wins.
Images are built from source in RUST_IMAGE [default: rust:1.95-slim-bookworm]; where it can be had from no registry, or
is "none", the programs are built on this machine and packed.
EOF
}

say() { printf '%s\n' "$*"; }
fail() { printf 'deploy-loadbalanced: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# Each holds one noun; none does anything when it is read.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=deploy/lib/packages.sh
. "$HOME_DIR/deploy/lib/packages.sh"
# shellcheck source=deploy/lib/native.sh
. "$HOME_DIR/deploy/lib/native.sh"
# shellcheck source=deploy/lib/docker.sh
. "$HOME_DIR/deploy/lib/docker.sh"
# shellcheck source=deploy/lib/compose_file.sh
. "$HOME_DIR/deploy/lib/compose_file.sh"
# shellcheck source=deploy/lib/images.sh
. "$HOME_DIR/deploy/lib/images.sh"
# shellcheck source=deploy/lib/verify.sh
. "$HOME_DIR/deploy/lib/verify.sh"
# shellcheck source=deploy/lib/doctor.sh
. "$HOME_DIR/deploy/lib/doctor.sh"
# shellcheck source=deploy/lib/end_to_end.sh
. "$HOME_DIR/deploy/lib/end_to_end.sh"
# shellcheck source=deploy/lib/tests.sh
. "$HOME_DIR/deploy/lib/tests.sh"

native_verb() {
    local verb=$1
    shift
    case $verb in
    build) native_build ;;
    start) native_start "$@" ;;
    stop) native_stop "$@" ;;
    restart) native_restart "$@" ;;
    status | ps) need_built && stack status "$@" ;;
    logs) need_built && stack logs "$@" ;;
    exec) native_exec "$@" ;;
    scale) need_built && stack scale "$@" ;;
    upgrade) native_upgrade ;;
    rollback) need_built && stack rollback ;;
    backup) native_backup "$@" ;;
    restore) native_restore "$@" ;;
    doctor) doctor ;;
    token) native_token ;;
    verify) native_verify "$@" ;;
    test) run_tests ;;
    bench) run_bench "$@" ;;
    *) usage >&2 && fail "no verb \"$verb\"" ;;
    esac
}

docker_verb() {
    local verb=$1
    shift
    need_docker
    case $verb in
    build | start | doctor) ;;
    status | ps | stop) docker_was_started || { say "nothing was started here, so nothing runs" && return; } ;;
    *) need_docker_stack ;;
    esac
    case $verb in
    build) docker_build ;;
    start) docker_start "$@" ;;
    stop) docker_stop "$@" ;;
    restart) docker_restart "$@" ;;
    status | ps) compose ps ;;
    logs) docker_logs "$@" ;;
    exec) docker_exec "$@" ;;
    scale) docker_scale "$@" ;;
    upgrade) docker_upgrade ;;
    rollback) docker_rollback ;;
    backup) docker_backup "$@" ;;
    restore) docker_restore "$@" ;;
    token) docker_token ;;
    verify) docker_verify "$@" ;;
    doctor) doctor ;;
    *) fail "$verb has no --docker form" ;;
    esac
}

main() {
    local verb=${1:-help} arg
    [ $# -eq 0 ] || shift
    # For exec the rest is the command's own, --docker stands before the service there.
    for arg in "$@"; do
        if [ "$arg" = --docker ] && { [ "$verb" != exec ] || [ "${#ARGS[@]}" -eq 0 ]; }; then
            DOCKER=yes
        else
            ARGS+=("$arg")
        fi
    done
    case $verb in
    help | -h | --help) usage ;;
    test | bench) native_verb "$verb" "${ARGS[@]}" ;;
    *) if [ "$DOCKER" = yes ]; then docker_verb "$verb" "${ARGS[@]}"; else native_verb "$verb" "${ARGS[@]}"; fi ;;
    esac
}

main "$@"
