# shellcheck shell=bash
# Checks of a running stack and load on it, by load_tests.

# The last check ends the stack: it is started again as it was, unless --keep-running leaves that check out.
native_verify() {
    need_built
    local status ended=0 shutdown=(--with-shutdown)
    [ "${1:-}" != --keep-running ] || { shutdown=() && shift; }
    status=$(mktemp)
    if ! stack status --json >"$status"; then
        rm -f -- "$status"
        fail "the stack is not healthy; see: ./deploy-loadbalanced.sh status"
    fi
    ADMIN_TOKEN=$(native_token)
    export ADMIN_TOKEN
    stack exec web-1 "$(target_dir)/release/load_tests" verify --status "$status" "${shutdown[@]}" "$@" || ended=$?
    rm -f -- "$status"
    if ! stack status >/dev/null 2>&1; then
        say "starting the stack again"
        stack up --as-before >/dev/null
    fi
    return "$ended"
}

docker_verify() {
    need_built
    docker_settings
    local ended=0 name user password way=(--direct) shutdown=(--with-shutdown --stop-command "$HOME_DIR/deploy-loadbalanced.sh stop --docker --keep")
    [ "${1:-}" != --keep-running ] || { shutdown=() && shift; }
    name=$(env_value DB_NAME) user=$(env_value DB_USER) password=$(env_value DB_PASSWORD)
    ADMIN_TOKEN=$(docker_token)
    export ADMIN_TOKEN
    [ "$(docker_mode)" = direct ] || way=(--pooler "$(container_ip arena-pooler):$(docker_pooler_port)")
    DB_NAME=${name:-arena_db} DB_USER=${user:-arena_user} DB_PASSWORD=$password \
        "$(target_dir)/release/load_tests" verify --docker --balancer "$(docker_url)" \
        "${way[@]}" --postgres "$(container_ip arena-postgres):5432" \
        "${shutdown[@]}" "$@" || ended=$?
    [ "${#shutdown[@]}" -eq 0 ] || docker_start_again >/dev/null
    return "$ended"
}

# The documents' baseline scenario against the running stack; flags of load_tests may be given instead.
run_bench() {
    need_built
    local url
    [ "$DOCKER" = no ] || need_docker_stack
    if [ "$DOCKER" = yes ]; then url=$(docker_url); else url=$(stack status --json | sed -n 's/^  "url": "\(.*\)",$/\1/p'); fi
    [ -n "$url" ] || fail "no stack runs: ./deploy-loadbalanced.sh start"
    mkdir -p "$HOME_DIR/results"
    [ $# -gt 0 ] || set -- --users 200 --spawn-rate 10 --run-time 1m --csv "$HOME_DIR/results/bench"
    "$(target_dir)/release/load_tests" --host "$url" --headless "$@"
}
