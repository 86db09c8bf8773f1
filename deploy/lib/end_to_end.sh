# shellcheck shell=bash
# Stacks from nothing to nothing: started on ports of their own, checked, stopped, looked at for what they leave.

# The first of 700 ports of which none is listened on.
free_port_base() {
    local base port taken=" "
    while read -r _ port _; do
        taken+="$((16#${port##*:})) "
    done < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -v local_address)
    for ((base = 20000; base < 31000; base += 700)); do
        for ((port = base; port < base + 700; port++)); do
            [[ $taken != *" $port "* ]] || continue 2
        done
        printf '%s' "$base"
        return
    done
    fail "no range of free ports between 20000 and 31000"
}

# The native stack from nothing to nothing: start on ports of its own, check, stop, look for leftovers.
native_end_to_end() {
    local dir base
    dir=$(mktemp -d)
    chmod 755 "$dir"
    base=$(free_port_base)
    export HTTP_PORT=$base WEB_PORT_BASE=$((base + 100)) WEB_OPS_PORT_BASE=$((base + 300)) BALANCER_OPS_PORT=$((base + 1)) \
        DB_PORT=$((base + 2)) POOLER_METRICS_PORT=$((base + 3)) STACK_POSTGRES_PORT=$((base + 4)) \
        STACK_STANDBY_PORT=$((base + 5)) STACK_REDIS_PORT=$((base + 6))
    end_to_end_at "$dir" "$@"
}

end_to_end_at() {
    local dir=$1 ended=0 check=$2
    shift 2
    local here=(stack --config /dev/null --dir "$dir/stack")
    # For a step that is ended for its time: its stack is not of its process group.
    printf '%s\n' "$dir/stack" >"$(under_check)"
    "${here[@]}" up "$@" || ended=$?
    [ "$ended" != 0 ] || "$check" "$dir" "${here[@]}" || ended=$?
    # A red run says what the parts said.
    [ "$ended" = 0 ] || "${here[@]}" logs -n 20 || true
    "${here[@]}" down --purge || ended=$?
    rm -rf -- "$dir" "$(under_check)"
    return "$ended"
}

under_check() { printf '%s' "$HOME_DIR/results/test/stack-under-check"; }

# The stack of a step that did not come to its own end.
end_what_a_step_left() {
    local dir
    [ -s "$(under_check)" ] || return 0
    dir=$(<"$(under_check)")
    rm -f -- "$(under_check)"
    say "ending the stack that this step left in $dir"
    within 120 stack --config /dev/null --dir "$dir" down --purge || true
}

all_checks() {
    verify_here "$@" -- --with-shutdown | tee "$1/verified" || return
    as_documented <"$1/verified"
}

# No check was left out, and the stack was the documents': ten replicas behind the pooler.
as_documented() {
    local told
    told=$(cat)
    if ! grep -q 'named 10 containers, using_pgbouncer true in all' <<<"$told" ||
        ! grep -qx '9 passed, 0 failed, 0 skipped' <<<"$told"; then
        say "this was not every check, or not the stack of the documents"
        return 1
    fi
}

# Folder and command of the stack under check, then flags of verify.
verify_here() { # dir, stack..., --, flags...
    local dir=$1 here=()
    shift
    while [ "$1" != -- ]; do here+=("$1") && shift; done
    shift
    "${here[@]}" status --json >"$dir/status.json" || return
    # The contract's monitoring routes are for admins.
    ADMIN_TOKEN=$("${here[@]}" exec web-1 web token) || return
    export ADMIN_TOKEN
    "${here[@]}" exec web-1 "$(target_dir)/release/load_tests" verify --status "$dir/status.json" "$@"
}

# Reads are answered by the standby, and both databases are in the answers that the documents name.
read_replica_checks() {
    local answer token
    answer=$(curl -fsS "http://127.0.0.1:$HTTP_PORT/status/") || return
    grep -q '"read_replica"' <<<"$answer" || { say "no read_replica in /status/: $answer" && return 1; }
    answer=$(curl -fsS "http://127.0.0.1:$HTTP_PORT/db/connections/") || return
    grep -q '"read_replica"' <<<"$answer" || { say "no read_replica in /db/connections/: $answer" && return 1; }
    shift
    token=$("$@" exec web-1 web token) || return
    # A replica reads there once it has seen where the standby stands.
    for _ in {1..50}; do
        answer=$(curl -fsS -o /dev/null -D - -H @- "http://127.0.0.1:$HTTP_PORT/api/users" <<<"Authorization: Bearer $token") || return
        ! grep -qi '^x-read-from: replica' <<<"$answer" || break
        sleep 0.2
    done
    grep -qi '^x-read-from: replica' <<<"$answer" || { say "not read from the standby: $answer" && return 1; }
    [ "$("$@" exec pooler psql -X -A -t -d arena_db_standby -U arena_user -c 'SELECT pg_is_in_recovery()')" = t ] ||
        { say "the pooler's pool arena_db_standby is no standby" && return 1; }
}

# Without the pooler, and as small as it goes.
direct_checks() { verify_here "$@" -- --only containers,sticky,rooms,stream,kill; }

# All programs go over to another build under requests, each on a connection of its own, and none of them fails.
upgrade_checks() {
    local dir=$1 name said load ended=0
    shift
    mkdir "$dir/next"
    for name in web pooler balancer; do
        cp "$(target_dir)/release/$name" "$dir/next/$name"
        # Another file and the same program.
        printf '\n' >>"$dir/next/$name"
    done
    (
        until [ -e "$dir/enough" ]; do
            curl -fsS -o /dev/null "http://127.0.0.1:$HTTP_PORT/db/connections/" 2>>"$dir/failed" || true
            printf . >>"$dir/asked"
        done
    ) &
    # Enough requests for each replica that goes to be found failing.
    wrk -t 1 -c 8 -d 120s "http://127.0.0.1:$HTTP_PORT/db/connections/" >"$dir/load" &
    load=$!
    said=$("$@" --programs "$dir/next" upgrade) || ended=$?
    touch "$dir/enough"
    kill -INT "$load"
    wait
    say "$(grep -E 'requests in|Non-2xx|Socket errors' "$dir/load")"
    grep -q 'requests in' "$dir/load" || { say "there was no load meanwhile" && ended=1; }
    ! grep -qE 'Non-2xx|Socket errors' "$dir/load" || ended=1
    say "$said"
    say "$(stat -c %s "$dir/asked") requests meanwhile, $(wc -l <"$dir/failed") failed"
    [ -s "$dir/asked" ] || { say "nothing was asked meanwhile" && ended=1; }
    [ ! -s "$dir/failed" ] || { cat "$dir/failed" && ended=1; }
    for name in pooler balancer; do
        grep -q "^$name has taken over" <<<"$said" || { say "$name was not taken over" && ended=1; }
    done
    return "$ended"
}

# What is wrong with the settings of all parts is told in one go, and nothing is made.
wrong_settings() {
    local dir told expected ended=0
    dir=$(mktemp -d)
    printf '%s\n' HTTP_PORT=many CHAT_QUEUE_BYTES=few RESPONDER=openai nonsense HTPP_PORT=1 >"$dir/config.env"
    told=$(stack --config "$dir/config.env" --dir "$dir/stack" up 2>&1) && ended=1
    say "$told"
    for expected in ':1: HTTP_PORT: "many" is no' ':2: CHAT_QUEUE_BYTES: "few" is no' 'RESPONDER_URL: unset' ':4: expected KEY=VALUE' \
        ':5: no part knows HTPP_PORT; is HTTP_PORT meant?'; do
        grep -qF -- "$expected" <<<"$told" || { say "not told: $expected" && ended=1; }
    done
    [ ! -e "$dir/stack" ] || { say "something was made" && ended=1; }
    rm -rf -- "$dir"
    return "$ended"
}

docker_end_to_end() {
    local ended=0
    HTTP_PORT=$(free_port_base)
    export HTTP_PORT
    # A project of its own: its volumes are removed below, and the operator's are not.
    export COMPOSE_PROJECT_NAME=arena-end-to-end
    docker_pack || return
    # A shell of its own with errors fatal: what fails in there must not keep us from tidying up.
    set +e
    (set -e; docker_up 10 pooled; docker_verify | tee "$RESULTS/docker-verified"; as_documented <"$RESULTS/docker-verified")
    ended=$?
    set -e
    [ "$ended" = 0 ] || compose logs --no-color --tail 20 || true
    compose down --volumes --remove-orphans || ended=$?
    return "$ended"
}
