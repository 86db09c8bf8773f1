#!/usr/bin/env bash
# The one door to the stack: build, start, stop, look, change, save, check. See usage() or: ./deploy-loadbalanced.sh help
set -euo pipefail

HOME_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly HOME_DIR
readonly COMPOSE_FILE="$HOME_DIR/docker-compose.loadbalanced.yml"
readonly BASE_IMAGE=debian:bookworm-slim
readonly DOCKER_DIR="$HOME_DIR/.stack-docker"
readonly ENV_HEADER="# Written by deploy-loadbalanced.sh from config.env and the secrets it made: change config.env instead."
readonly SECRET_NAMES="DB_PASSWORD SECRET_KEY REDIS_PASSWORD POSTGRES_PASSWORD REPLICATION_PASSWORD
PGBOUNCER_ADMIN_PASSWORD PGBOUNCER_STATS_PASSWORD"

# What each verb needs that a bare Debian lacks, and why: package, a program of it, reason.
readonly BUILD_NEEDS="
gcc|gcc|compiles the C parts of cryptography and links our programs
libc6-dev|/usr/include/stdio.h|headers of the C library for that"
readonly RUN_NEEDS="
postgresql|@postgres|the private Postgres
postgresql-client|psql|psql, pg_dump and pg_restore
redis-server|redis-server|the private Redis
procps|ps|process lists
curl|curl|asking the stack how it is
ca-certificates|/etc/ssl/certs/ca-certificates.crt|trust for https addresses in settings"
readonly TEST_NEEDS="
nginx|nginx|the reference that the balancer is compared with
pgbouncer|pgbouncer|the reference that the pooler is compared with
chromium|chromium|the chat page is driven in a real browser
chromium-driver|chromedriver|drives that browser
shellcheck|shellcheck|checks the shell scripts
wrk|wrk|load for the balancer's tests
git|git|the house's rules look at the tracked files
python3|python3|side-by-side benchmarks and the locust file's check"

DOCKER=no
ARGS=()
SETTINGS_WRITTEN=

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
  upgrade                   build and go over to the new programs, replicas one at a time
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
EOF
}

say() { printf '%s\n' "$*"; }
fail() { printf 'deploy-loadbalanced: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# ---------------------------------------------------------------- packages

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif has sudo; then
        sudo -n true 2>/dev/null || [ -t 0 ] || fail "needs root for: $* (run as root, or give sudo a password beforehand)"
        sudo "$@"
    else
        fail "needs root for: $* (run it as root, then call again)"
    fi
}

# A need is met by a program on the PATH, by a file, or by Postgres' server programs.
is_met() {
    case $1 in
    @postgres) has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ;;
    /*) [ -e "$1" ] ;;
    *) has "$1" ;;
    esac
}

# Debian starts servers when their packages are installed, and at each boot from then on. Ours bring their
# own ports and data: a policy keeps Debian's from starting now, and those that are new stay off.
without_debians_services() {
    local policy=/usr/sbin/policy-rc.d ended=0 service new=()
    for service in postgresql redis-server nginx pgbouncer; do
        [ -e "/etc/init.d/$service" ] || new+=("$service")
    done
    if [ -e "$policy" ]; then
        "$@" || ended=$?
    else
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        "$@" || ended=$?
        as_root rm -f "$policy"
    fi
    if [ -d /run/systemd/system ]; then
        for service in "${new[@]}"; do as_root systemctl disable --quiet "$service" 2>/dev/null || true; done
    fi
    return "$ended"
}

install_missing() {
    local package probe why packages=()
    while IFS='|' read -r package probe why; do
        [ -n "$package" ] || continue
        is_met "$probe" && continue
        say "missing: $package - $why"
        packages+=("$package")
    done <<<"$1"
    [ "${#packages[@]}" -gt 0 ] || return 0
    has apt-get || fail "install by hand, this is no Debian: ${packages[*]}"
    say "installing with apt-get: ${packages[*]}"
    as_root apt-get update -qq
    without_debians_services as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

need_rust() {
    has cargo || { [ -x "$HOME/.cargo/bin/cargo" ] && PATH="$HOME/.cargo/bin:$PATH"; } ||
        fail "Rust is not installed: get it from https://rustup.rs (1.95 or later), then call again"
}

# ---------------------------------------------------------------- the native stack

target_dir() { printf '%s' "${CARGO_TARGET_DIR:-$HOME_DIR/target}"; }
stack() { "$(target_dir)/release/stack" --home "$HOME_DIR" "$@"; }
is_built() { [ -x "$(target_dir)/release/stack" ]; }
need_built() { is_built || fail "not built yet: ./deploy-loadbalanced.sh build"; }

native_build() {
    need_rust
    install_missing "$BUILD_NEEDS"
    (cd "$HOME_DIR" && cargo build --release --locked)
}

native_start() {
    # A stack that runs is not built anew under its feet: upgrade does that.
    if is_built && stack status >/dev/null 2>&1; then
        stack up
        return
    fi
    install_missing "$RUN_NEEDS"
    native_build
    stack up "$@"
}

native_stop() {
    if is_built; then stack down "$@"; else say "nothing was built, so nothing runs"; fi
}

native_restart() {
    need_built
    if [ $# -gt 0 ] && [[ $1 != -* ]]; then
        stack restart "$1"
    else
        [ $# -gt 0 ] || set -- --as-before
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
    (umask 077 && stack exec postgres pg_dump --format=custom --no-owner --file="$file.part")
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
    stack exec web-1 "$(target_dir)/release/load_tests" verify --status "$status" "${shutdown[@]}" "$@" || ended=$?
    rm -f -- "$status"
    if ! stack status >/dev/null 2>&1; then
        say "starting the stack again"
        stack up --as-before >/dev/null
    fi
    return "$ended"
}

# ---------------------------------------------------------------- docker

compose() {
    local files=(-f "$COMPOSE_FILE")
    docker_settings
    [ ! -f "$DOCKER_DIR/scale.yml" ] || files+=(-f "$DOCKER_DIR/scale.yml")
    if docker compose version >/dev/null 2>&1; then
        docker compose --project-directory "$HOME_DIR" "${files[@]}" "$@"
    elif has docker-compose; then
        docker-compose --project-directory "$HOME_DIR" "${files[@]}" "$@"
    else
        fail "neither 'docker compose' nor docker-compose is installed"
    fi
}

docker_answers() { has docker && docker version >/dev/null 2>&1; }
need_docker() { docker_answers || fail "no Docker engine answers (docker version)"; }

# Compose reads .env: what config.env says, and the secrets that it leaves open, made once.
docker_settings() {
    local env="$HOME_DIR/.env" kept="$DOCKER_DIR/secrets.env" name
    [ -z "$SETTINGS_WRITTEN" ] || return 0
    if [ -e "$env" ] && ! head -n 1 "$env" | grep -qF "$ENV_HEADER"; then
        fail "$env was not written by this script: move its lines to config.env and remove it"
    fi
    umask 077
    mkdir -p "$DOCKER_DIR"
    [ -e "$HOME_DIR/config.env" ] || {
        printf '# Settings of the stack: see config.env.example.\n' >"$HOME_DIR/config.env"
        say "config.env is made: empty, so the defaults are used"
    }
    touch "$kept"
    for name in $SECRET_NAMES; do
        grep -q "^$name=" "$kept" || printf '%s=%s\n' "$name" "$(random_hex)" >>"$kept"
    done
    {
        printf '%s\n' "$ENV_HEADER"
        cat "$kept"
        # Later lines win: what the operator set, without empty values and placeholders.
        grep -E '^(export )?[A-Za-z_][A-Za-z0-9_]*=.' "$HOME_DIR/config.env" | sed 's/^export //' |
            grep -viE '^[A-Z_]*(PASSWORD|SECRET_KEY)=["'\'']?(your_password|password|secret|changeme|change-me|secure_password)["'\'']?$' || true
    } >"$env.new"
    mv -- "$env.new" "$env"
    umask 022
    SETTINGS_WRITTEN=yes
}

random_hex() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# From source in a Rust image where one is named; otherwise the programs are built here and packed.
docker_build() {
    need_docker
    if [ -n "${RUST_IMAGE:-}" ]; then
        say "building the images from source with $RUST_IMAGE"
        compose build --build-arg "RUST_IMAGE=$RUST_IMAGE"
        return
    fi
    native_build
    docker_pack
}

# The one base of all images: there already, from a registry, or made from Debian's packages.
docker_base_image() {
    ! docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 || return 0
    ! docker pull --quiet "$BASE_IMAGE" || return 0
    say "no registry gives $BASE_IMAGE: making it from Debian's packages"
    install_missing "debootstrap|debootstrap|makes the base image where no registry is reached"
    local root ended=0
    root=$(mktemp -d)
    as_root debootstrap --variant=minbase bookworm "$root" >/dev/null || ended=$?
    [ "$ended" != 0 ] || as_root tar -C "$root" -c . | docker import - "$BASE_IMAGE" >/dev/null || ended=$?
    as_root rm -rf -- "$root"
    [ "$ended" = 0 ] || fail "the base image $BASE_IMAGE can be neither pulled nor made"
}

# Images from the built programs.
docker_pack() {
    local staged="$HOME_DIR/deploy/docker/programs" program ended=0
    mkdir -p "$staged"
    for program in pooler balancer web stack; do
        cp -- "$(target_dir)/release/$program" "$staged/$program"
    done
    docker_base_image
    ARENA_DOCKERFILE=deploy/docker/Dockerfile.binaries compose build || ended=$?
    rm -rf -- "$staged"
    return "$ended"
}

docker_start() {
    need_docker
    local replicas=10 mode=pooled
    while [ $# -gt 0 ]; do
        case $1 in
        --replicas) [ $# -ge 2 ] || fail "--replicas N: a number from 1"; replicas=$2 && shift ;;
        --direct) mode=direct ;;
        --read-replica) mode=read-replica ;;
        *) fail "start --docker takes --replicas N, --direct and --read-replica, not $1" ;;
        esac
        shift
    done
    [[ $replicas =~ ^[1-9][0-9]*$ ]] || fail "--replicas N: a number from 1"
    docker_build
    docker_up "$replicas" "$mode"
}

docker_up() { # replicas, mode
    local services=()
    docker_mode "$2"
    docker_scale_files "$1"
    mapfile -t services < <(docker_services "$1" "$2")
    # In one go compose would start what the file names as needed, such as the pooler that is not wanted.
    compose up -d --no-deps postgres redis
    docker_wait_healthy postgres redis
    [ "$2" != read-replica ] || { compose up -d --no-deps standby && docker_wait_healthy standby; }
    compose up --no-deps migrate
    [ "$(docker inspect -f '{{.State.ExitCode}}' arena-migrate)" = 0 ] || fail "the migration failed"
    compose up -d --no-deps "${services[@]}"
    docker_wait_healthy "${services[@]}"
    say "chat          $(docker_url)/"
    say "status        $(docker_url)/status/"
    say "connections   $(docker_url)/db/connections/"
}

# Option 2 and 3 of the documents, for the replicas and the pooler.
docker_mode() {
    case $1 in
    direct) export DB_HOST=postgres DB_PORT=5432 ;;
    read-replica)
        export COMPOSE_PROFILES=read-replica ACTUAL_DB_READ_HOST=standby DB_READ_HOST=pgbouncer DB_READ_PORT=6432
        export DB_READ_NAME="${DB_NAME:-arena_db}_standby"
        ;;
    esac
}

# What runs besides the stores.
docker_services() { # replicas, mode
    local number
    [ "$2" = direct ] || printf 'pooler\n'
    for ((number = 1; number <= $1; number++)); do printf 'web-%s\n' "$number"; done
    printf 'balancer\n'
}

docker_wait_healthy() {
    local service id state waited=0
    for service in "$@"; do
        while :; do
            id=$(compose ps -q "$service" 2>/dev/null | head -n 1)
            state=$(docker inspect -f '{{.State.Health.Status}}' "$id" 2>/dev/null || printf 'absent')
            [ "$state" != healthy ] || break
            [ "$waited" -lt 180 ] || fail "$service is $state after $waited s; see: ./deploy-loadbalanced.sh logs $service --docker"
            sleep 1
            waited=$((waited + 1))
        done
        printf '%-10s healthy\n' "$service"
    done
}

docker_port() { compose port balancer 80 | sed 's/.*://'; }
docker_url() { printf 'http://127.0.0.1:%s' "$(docker_port)"; }

# The balancer's file for this many replicas, and a compose file with those past the ten.
docker_scale_files() {
    local number
    mkdir -p "$DOCKER_DIR/balancer"
    chmod 755 "$DOCKER_DIR/balancer"
    rm -f -- "$DOCKER_DIR/scale.yml"
    if is_built; then
        "$(target_dir)/release/stack" render balancer --template "$HOME_DIR/deploy/nginx.conf" \
            --out "$DOCKER_DIR/balancer/nginx.conf" --replicas "$1"
    elif [ "$1" -ne 10 ]; then
        need_built
    fi
    [ "$1" -gt 10 ] || return 0
    {
        # The anchors of the file, which no other file can refer to.
        sed '/^services:/,$d' "$COMPOSE_FILE"
        printf 'services:\n'
        for ((number = 11; number <= $1; number++)); do
            printf '  web-%s: {<<: *web, container_name: arena-web-%s, hostname: web-%s, ' "$number" "$number" "$number"
            printf 'environment: {<<: *web-environment, CONTAINER_NAME: web-%s}}\n' "$number"
        done
    } >"$DOCKER_DIR/scale.yml"
}

# It looks names up when it reads its file: a container that was made anew may have another address.
docker_reload_balancer() {
    [ -z "$(docker ps -q --filter name=^arena-balancer$)" ] || docker kill --signal HUP arena-balancer >/dev/null
}

# New replicas are healthy before the balancer learns of them; those that go are forgotten by it first.
docker_scale() {
    [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "scale N: how many replicas?"
    local services=() surplus=()
    docker_scale_files "$1"
    mapfile -t services < <(docker_services "$1" pooled | grep '^web-')
    compose up -d --no-deps --no-recreate "${services[@]}"
    docker_wait_healthy "${services[@]}"
    docker_reload_balancer
    mapfile -t surplus < <(docker ps -a --format '{{.Names}}' | grep -E '^arena-web-[0-9]+$' | sort -t- -k3 -n | tail -n "+$(($1 + 1))")
    if [ "${#surplus[@]}" -gt 0 ]; then
        sleep 1
        docker stop --time 45 "${surplus[@]}" >/dev/null
        docker rm "${surplus[@]}" >/dev/null
    fi
    say "$1 replicas"
}

docker_token() { compose exec -T web-1 web token; }

docker_backup() {
    local file=${1:-$HOME_DIR/results/backup-$(date -u +%Y%m%dT%H%M%SZ).dump}
    mkdir -p "$(dirname -- "$file")"
    # shellcheck disable=SC2016 # expanded in the container
    (umask 077 && compose exec -T postgres sh -c \
        'PGPASSWORD=$DB_PASSWORD exec pg_dump -h 127.0.0.1 -U "$DB_USER" --format=custom --no-owner "$DB_NAME"' >"$file.part")
    mv -- "$file.part" "$file"
    say "saved: $file ($(du -h -- "$file" | cut -f1))"
}

docker_restore() {
    [ -f "${1:-}" ] || fail "restore FILE: which backup?"
    # shellcheck disable=SC2016 # expanded in the container
    compose exec -T postgres sh -c 'export PGHOST=127.0.0.1 PGUSER="$DB_USER" PGPASSWORD="$DB_PASSWORD" PGDATABASE="$DB_NAME"
        cat >/tmp/restore.dump && set -- /tmp/restore.dump; trap "rm -f /tmp/restore.dump" EXIT;'"$RESTORE" <"$1"
    say "restored: $1"
}

# The setting as compose has it; later lines win.
env_value() { sed -n "s/^$1=//p" "$HOME_DIR/.env" | tail -n 1 | sed -E "s/^(['\"])(.*)\\1\$/\\2/"; }

container_ip() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }

docker_verify() {
    need_built
    docker_settings
    local ended=0 name user password shutdown=(--with-shutdown --stop-command "$HOME_DIR/deploy-loadbalanced.sh stop --docker --keep")
    [ "${1:-}" != --keep-running ] || { shutdown=() && shift; }
    name=$(env_value DB_NAME) user=$(env_value DB_USER) password=$(env_value DB_PASSWORD)
    DB_NAME=${name:-arena_db} DB_USER=${user:-arena_user} DB_PASSWORD=$password \
        "$(target_dir)/release/load_tests" verify --docker --balancer "$(docker_url)" \
        --pooler "$(container_ip arena-pooler):6432" --postgres "$(container_ip arena-postgres):5432" \
        "${shutdown[@]}" "$@" || ended=$?
    [ "${#shutdown[@]}" -eq 0 ] || compose start >/dev/null
    return "$ended"
}

docker_verb() {
    local verb=$1
    shift
    need_docker
    case $verb in
    build) docker_build ;;
    start) docker_start "$@" ;;
    stop) docker_stop "$@" ;;
    restart) docker_restart "$@" ;;
    status | ps) compose ps ;;
    logs) docker_logs "$@" ;;
    exec) compose exec -T "$(todays_name "$1")" "${@:2}" ;;
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

# In the order of the stack: nothing new comes in, what is in flight ends, then the stores.
docker_stop() {
    export COMPOSE_PROFILES=read-replica
    docker_ordered_stop
    case ${1:-} in
    --keep) ;;
    --purge)
        compose down --volumes --remove-orphans
        rm -rf -- "$DOCKER_DIR" "$HOME_DIR/.env"
        ;;
    *) compose down --remove-orphans ;;
    esac
}

docker_ordered_stop() {
    local replicas=() balancer
    mapfile -t replicas < <(docker ps --format '{{.Names}}' | grep -E '^arena-web-[0-9]+$' || true)
    compose stop --timeout 45 balancer &
    balancer=$!
    # Requests in flight end within this; what stays open are sockets and streams, which the replicas end.
    sleep 2
    [ "${#replicas[@]}" -eq 0 ] || docker stop --time 45 "${replicas[@]}" >/dev/null
    wait "$balancer" || true
    compose stop --timeout 45 pooler
    compose stop --timeout 60
}

docker_restart() {
    if [ $# -eq 0 ]; then
        docker_stop --keep
        compose start
    else
        compose restart --timeout 45 "$(todays_name "$1")"
    fi
    docker_reload_balancer
}

docker_logs() {
    local args=() arg
    for arg in "$@"; do args+=("$(todays_name "$arg")"); done
    compose logs "${args[@]}"
}

# The images in use are kept under the tag "previous"; replicas go over one at a time.
docker_upgrade() {
    local image
    for image in arena-web arena-pooler arena-balancer; do
        ! docker image inspect "$image:current" >/dev/null 2>&1 || docker tag "$image:current" "$image:previous"
    done
    docker_build
    docker_roll
}

docker_rollback() {
    local image
    for image in arena-web arena-pooler arena-balancer; do
        docker image inspect "$image:previous" >/dev/null 2>&1 || fail "there is no earlier $image image to go back to"
    done
    for image in arena-web arena-pooler arena-balancer; do
        docker tag "$image:current" "$image:undone"
        docker tag "$image:previous" "$image:current"
        docker tag "$image:undone" "$image:previous"
    done
    docker_roll
}

docker_roll() {
    local service
    compose up --no-deps migrate
    for service in $(docker ps --format '{{.Names}}' | sed -nE 's/^arena-(web-[0-9]+)$/\1/p' | sort -t- -k2 -n) pooler balancer; do
        compose up -d --no-deps "$service"
        docker_wait_healthy "$service"
        docker_reload_balancer
    done
}

todays_name() {
    case $1 in
    pgbouncer) printf pooler ;;
    nginx) printf balancer ;;
    *) printf '%s' "$1" ;;
    esac
}

# ---------------------------------------------------------------- doctor

doctor() {
    local bad=0 open
    check() { if "${@:2}" >/dev/null 2>&1; then say "ok    $1"; else say "lacks $1" && bad=1; fi; }
    check "Rust (cargo)" has cargo
    check "a C compiler (gcc)" has gcc
    check "Postgres' server programs" is_met @postgres
    check "psql, pg_dump, pg_restore" has psql
    check "redis-server" has redis-server
    check "built programs" is_built
    if docker_answers; then say "ok    a Docker engine answers"; else say "note  no Docker engine answers: --docker verbs cannot be used"; fi
    open=$(ulimit -Hn)
    if [ "$open" = unlimited ] || [ "$open" -ge 4096 ]; then
        say "ok    open files per process: $open"
    else
        say "lacks open files per process: $open; the balancer wants two per connection (ulimit -Hn)" && bad=1
    fi
    [ -f "$HOME_DIR/config.env" ] || say "note  no config.env: the defaults of config.env.example are used"
    if is_built; then stack status || true; fi
    [ "$bad" = 0 ] || fail "something is lacking; start and test install packages themselves"
}

# ---------------------------------------------------------------- tests

PASSED=0
FAILED=0
SKIPPED=0

note_result() { # kind, what, figure
    printf '%-5s %-28s %s\n' "$1" "$2" "${3:-}"
}

# Runs one step, shows its end when it fails, counts it.
step() {
    local name=$1 log started ended=0
    shift
    log="$RESULTS/$name.log"
    started=$SECONDS
    # A shell of its own: what a step exports or where it fails is its own affair.
    set +e
    (set -e && "$@") >"$log" 2>&1 </dev/null
    ended=$?
    set -e
    if [ "$ended" = 0 ]; then
        PASSED=$((PASSED + 1))
        note_result PASS "$name" "$((SECONDS - started)) s"
    else
        FAILED=$((FAILED + 1))
        note_result FAIL "$name" "$((SECONDS - started)) s, the end of $log:"
        tail -n 60 "$log"
    fi
    return 0
}

skip() {
    SKIPPED=$((SKIPPED + 1))
    note_result SKIP "$1" "$2"
}

# Rust's tests count one by one; the runner's own closing lines are shown.
rust_tests() {
    local log="$RESULTS/tests.log" ended=0 started=$SECONDS counts
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --no-fail-fast --color never >"$log" 2>&1 </dev/null || ended=$?
        tail -n 40 "$log" | grep -E 'Summary|FAIL|TIMEOUT|error' || true
        counts=$(sed -nE 's/.* ([0-9]+) tests? run: ([0-9]+) passed.*/\2/p' "$log" | tail -n 1)
        PASSED=$((PASSED + ${counts:-0}))
        counts=$(sed -nE 's/.* ([0-9]+) (failed|timed out).*/\1/p' "$log" | tail -n 1)
        FAILED=$((FAILED + ${counts:-0}))
    else
        cargo test --workspace --locked --no-fail-fast --color never >"$log" 2>&1 </dev/null || ended=$?
        grep -E '^test result:|^test .* FAILED$|^error' "$log" || true
        PASSED=$((PASSED + $(sum_of passed "$log")))
        FAILED=$((FAILED + $(sum_of failed "$log")))
        SKIPPED=$((SKIPPED + $(sum_of ignored "$log")))
        counts=$(sum_of failed "$log")
    fi
    # Tests that did not even compile are no passed tests.
    if [ "$ended" != 0 ] && [ "${counts:-0}" = 0 ]; then FAILED=$((FAILED + 1)); fi
    if [ "$ended" = 0 ]; then
        note_result PASS rust-tests "$((SECONDS - started)) s"
    else
        note_result FAIL rust-tests "$((SECONDS - started)) s, all of it in $log"
        grep -A 12 -E "^---- .* stdout ----|panicked at" "$log" | tail -n 80 || true
    fi
}

sum_of() { sed -nE "s/^test result:.* ([0-9]+) $1.*/\1/p" "$2" | awk '{ n += $1 } END { print n + 0 }'; }

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
    "${here[@]}" up "$@" || ended=$?
    [ "$ended" != 0 ] || "$check" "$dir" "${here[@]}" || ended=$?
    # A red run says what the parts said.
    [ "$ended" = 0 ] || "${here[@]}" logs -n 20 || true
    "${here[@]}" down --purge || ended=$?
    rm -rf -- "$dir"
    return "$ended"
}

all_checks() {
    local dir=$1
    shift
    "$@" status --json >"$dir/status.json" || return
    "$@" exec web-1 "$(target_dir)/release/load_tests" verify --status "$dir/status.json" --with-shutdown
}

# Reads are answered by the standby, and both databases are in the answers that the documents name.
read_replica_checks() {
    local answer
    answer=$(curl -fsS "http://127.0.0.1:$HTTP_PORT/status/") || return
    grep -q '"read_replica"' <<<"$answer" || { say "no read_replica in /status/: $answer" && return 1; }
    answer=$(curl -fsS "http://127.0.0.1:$HTTP_PORT/db/connections/") || return
    grep -q '"read_replica"' <<<"$answer" || { say "no read_replica in /db/connections/: $answer" && return 1; }
    shift
    [ "$("$@" exec pooler psql -X -A -t -d arena_db_standby -U arena_user -c 'SELECT pg_is_in_recovery()')" = t ] ||
        { say "the pooler's pool arena_db_standby is no standby" && return 1; }
}

# Without the pooler, and as small as it goes.
direct_checks() {
    local answer
    answer=$(curl -fsS "http://127.0.0.1:$HTTP_PORT/db/connections/") || return
    grep -q '"using_pgbouncer": *false' <<<"$answer" || { say "using_pgbouncer is not false: $answer" && return 1; }
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
    (set -e; docker_up 10 pooled; docker_verify)
    ended=$?
    set -e
    [ "$ended" = 0 ] || compose logs --no-color --tail 20 || true
    compose down --volumes --remove-orphans || ended=$?
    return "$ended"
}

run_tests() {
    need_rust
    install_missing "$BUILD_NEEDS"
    install_missing "$RUN_NEEDS"
    install_missing "$TEST_NEEDS"
    cd "$HOME_DIR"
    RESULTS=$HOME_DIR/results/test
    mkdir -p "$RESULTS"
    local started=$SECONDS
    step fmt cargo fmt --all --check
    step shellcheck check_scripts
    step clippy cargo clippy --workspace --all-targets --locked -- -D warnings
    rust_tests
    step release-build cargo build --release --locked --workspace
    step native-stack native_end_to_end all_checks
    step native-read-replica native_end_to_end read_replica_checks --read-replica --replicas 2
    step native-direct native_end_to_end direct_checks --direct --replicas 2
    if ! docker_answers; then
        skip docker-stack "no Docker engine answers here"
    elif [ -n "$(docker ps -aq --filter name=^arena-)" ]; then
        skip docker-stack "a compose stack is on this machine, running or stopped: its containers have the same names"
    else
        step docker-stack docker_end_to_end
    fi
    say "wall time $((SECONDS - started)) s"
    say "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" = 0 ]
}

check_scripts() {
    local scripts=()
    mapfile -t scripts < <(cd "$HOME_DIR" && git ls-files '*.sh' .ci/run)
    shellcheck "${scripts[@]}"
}

# The documents' baseline scenario against the running stack; flags of load_tests may be given instead.
run_bench() {
    need_built
    local url
    if [ "$DOCKER" = yes ]; then url=$(docker_url); else url=$(stack status --json | sed -n 's/^  "url": "\(.*\)",$/\1/p'); fi
    [ -n "$url" ] || fail "no stack runs: ./deploy-loadbalanced.sh start"
    mkdir -p "$HOME_DIR/results"
    [ $# -gt 0 ] || set -- --users 200 --spawn-rate 10 --run-time 1m --csv "$HOME_DIR/results/bench"
    "$(target_dir)/release/load_tests" --host "$url" --headless "$@"
}

# ---------------------------------------------------------------- verbs

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
