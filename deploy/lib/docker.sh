# shellcheck shell=bash
# The compose stack: settings and secrets for it, up and down in order, scaling, backups.

readonly COMPOSE_FILE="$HOME_DIR/docker-compose.loadbalanced.yml"
readonly DOCKER_DIR="$HOME_DIR/.stack-docker"
readonly ENV_HEADER="# Written by deploy-loadbalanced.sh from config.env and the secrets it made: change config.env instead."
readonly SECRET_NAMES="DB_PASSWORD SECRET_KEY REDIS_PASSWORD POSTGRES_PASSWORD REPLICATION_PASSWORD
PGBOUNCER_ADMIN_PASSWORD PGBOUNCER_STATS_PASSWORD"

SETTINGS_WRITTEN=
# What the way of starting asks for, whatever the environment says.
MODE_LINES=()

compose() {
    local files=(-f "$COMPOSE_FILE")
    docker_settings
    [ ! -f "$DOCKER_DIR/scale.yml" ] || files+=(-f "$DOCKER_DIR/scale.yml")
    if docker compose version >/dev/null 2>&1; then
        env "${MODE_LINES[@]}" docker compose --project-directory "$HOME_DIR" "${files[@]}" "$@"
    elif has docker-compose; then
        env "${MODE_LINES[@]}" docker-compose --project-directory "$HOME_DIR" "${files[@]}" "$@"
    else
        fail "neither 'docker compose' nor docker-compose is installed"
    fi
}

docker_answers() { has docker && docker version >/dev/null 2>&1; }
need_docker() { docker_answers || fail "no Docker engine answers (docker version)"; }

# By this script or by hand: either leaves the folder, and containers tell where they come from.
docker_was_started() {
    [ -d "$DOCKER_DIR" ] || [ -n "$(docker ps -aq --filter "label=com.docker.compose.project.working_dir=$HOME_DIR")" ]
}
need_docker_stack() { docker_was_started || fail "nothing was started here: ./deploy-loadbalanced.sh start --docker"; }

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
    mapfile -t MODE_LINES < <(docker_mode_lines "$(docker_mode)")
    [ "${#MODE_LINES[@]}" -eq 0 ] || printf '%s\n' "${MODE_LINES[@]}" >>"$env"
    umask 022
    SETTINGS_WRITTEN=yes
}

random_hex() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

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
    docker_check "$mode"
    docker_up "$replicas" "$mode"
}

# What is wrong with the settings is told before anything starts. From source, the programs are in the images alone.
docker_check() { # mode
    is_built || return 0
    case $1 in
    pooled) stack check --containers ;;
    *) stack check --containers "--$1" ;;
    esac
}

docker_up() { # replicas, mode
    local services=()
    docker_keep_mode "$2"
    docker_scale_files "$1"
    mapfile -t services < <(docker_services "$1" "$2")
    # In one go compose would start what the file names as needed, such as the pooler that is not wanted.
    compose up -d --no-deps postgres redis
    docker_wait_healthy postgres redis
    [ "$2" != read-replica ] || { compose up -d --no-deps standby && docker_wait_healthy standby; }
    docker_migrate
    compose up -d --no-deps "${services[@]}"
    docker_wait_healthy "${services[@]}"
    docker_has_proven_good
    say "chat          $(docker_url)/"
    say "status        $(docker_url)/status/"
    say "connections   $(docker_url)/db/connections/"
}

# Compose 1.29 ends well whatever becomes of the container.
docker_migrate() {
    compose up --no-deps migrate
    [ "$(docker inspect -f '{{.State.ExitCode}}' arena-migrate)" = 0 ] ||
        fail "the migration failed; see: ./deploy-loadbalanced.sh logs migrate --docker"
}

# How the stack was started: what the later verbs have to keep to.
docker_mode() { cat "$DOCKER_DIR/mode" 2>/dev/null || printf pooled; }

docker_keep_mode() { # mode
    mkdir -p "$DOCKER_DIR"
    printf '%s\n' "$1" >"$DOCKER_DIR/mode"
    SETTINGS_WRITTEN=
    docker_settings
}

# Option 2 and 3 of the documents, for the replicas and the pooler.
docker_mode_lines() { # mode
    local name host port
    case $1 in
    direct)
        host=${ACTUAL_DB_HOST:-$(env_value ACTUAL_DB_HOST)} port=${ACTUAL_DB_PORT:-$(env_value ACTUAL_DB_PORT)}
        printf '%s\n' "DB_HOST=${host:-postgres}" "DB_PORT=${port:-5432}"
        ;;
    read-replica)
        name=${DB_NAME:-$(env_value DB_NAME)}
        printf '%s\n' COMPOSE_PROFILES=read-replica ACTUAL_DB_READ_HOST=standby ACTUAL_DB_READ_PORT=5432 \
            DB_READ_HOST=pgbouncer "DB_READ_PORT=$(docker_pooler_port)" "DB_READ_NAME=${name:-arena_db}_standby"
        ;;
    esac
}

# Where the replicas look for the pooler, and where it listens therefore.
docker_pooler_port() {
    local port=${DB_PORT:-$(env_value DB_PORT)}
    printf '%s' "${port:-6432}"
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

# In the order of the stack: nothing new comes in, what is in flight ends, then the stores.
docker_stop() {
    docker_settings
    # Here alone: a standby of any start goes too, and where there is none, none is started again.
    local -x COMPOSE_PROFILES=read-replica
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
    # Requests and streams come to an end of their own; a socket does when its replica sends it away.
    while sleep 1 && kill -0 "$balancer" 2>/dev/null; do
        [ "${#replicas[@]}" -eq 0 ] || docker kill --signal USR1 "${replicas[@]}" >/dev/null 2>&1 || true
    done
    wait "$balancer" || true
    [ "${#replicas[@]}" -eq 0 ] || docker stop --time 45 "${replicas[@]}" >/dev/null
    compose stop --timeout 45 pooler
    compose stop --timeout 60
}

docker_restart() { # [service]
    if [ $# -eq 0 ]; then
        docker_stop --keep
        docker_start_again
    elif [ "$1" = web ]; then
        local replica
        for replica in $(docker_replicas); do docker_restart "$replica"; done
    else
        compose restart --timeout 45 "$(todays_name "$1")"
        docker_wait_healthy "$(todays_name "$1")"
        docker_reload_balancer
    fi
}

docker_replicas() { docker ps --format '{{.Names}}' | sed -nE 's/^arena-(web-[0-9]+)$/\1/p' | sort -t- -k2 -n; }

# What was made and stopped, by name: the file knows of more than that. The migration is done.
docker_start_again() {
    local services=()
    mapfile -t services < <(docker ps -a --format '{{.Names}}' | sed -n 's/^arena-//p' | grep -vx migrate)
    [ "${#services[@]}" -gt 0 ] || fail "nothing was started yet: ./deploy-loadbalanced.sh start --docker"
    compose start "${services[@]}"
    docker_wait_healthy "${services[@]}"
    docker_reload_balancer
}

docker_logs() {
    local args=() arg
    for arg in "$@"; do args+=("$(todays_name "$arg")"); done
    compose logs "${args[@]}"
}

docker_exec() {
    [ $# -ge 2 ] || fail "exec SERVICE CMD..."
    compose exec -T "$(todays_name "$1")" "${@:2}"
}

todays_name() {
    case $1 in
    pgbouncer) printf pooler ;;
    nginx) printf balancer ;;
    *) printf '%s' "$1" ;;
    esac
}
