# shellcheck shell=bash
# The compose file as docker-compose itself reads it, with settings given by hand; no engine is needed for that.

compose_program() { if docker compose version >/dev/null 2>&1; then printf 'docker compose'; else printf 'docker-compose'; fi; }
has_compose() { docker compose version >/dev/null 2>&1 || has docker-compose; }

# The README's way without the script: a copy of the example with the secrets given, and no file of the operator's.
compose_by_hand() {
    local dir name ended=0
    dir=$(mktemp -d)
    cp -- "$COMPOSE_FILE" "$dir/"
    cp -- "$HOME_DIR/config.env.example" "$dir/config.env"
    rendered_by_hand "$dir" "$dir/rendered" && say "the bare example is not refused" && ended=1
    grep -q 'DB_PASSWORD is not given' "$dir/rendered.said" || { say "the missing secret is not named" && ended=1; }
    for name in DB_PASSWORD POSTGRES_PASSWORD REDIS_PASSWORD SECRET_KEY; do printf '%s=%s-of-hand\n' "$name" "$name"; done \
        >>"$dir/config.env"
    printf '%s\n' DB_HOST=db.example DB_PORT=5433 REDIS_HOST=redis.example POOLER_MAX_CLIENT_CONN=77 >>"$dir/config.env"
    rendered_by_hand "$dir" "$dir/rendered" || ended=1
    for name in DB_PASSWORD-of-hand POSTGRES_PASSWORD-of-hand REDIS_PASSWORD-of-hand SECRET_KEY-of-hand db.example 5433 \
        redis.example 77; do
        grep -qE "^ +[A-Z_]+: ['\"]?${name}['\"]?\$" "$dir/rendered" || { say "not in the containers: $name" && ended=1; }
    done
    rm -rf -- "$dir"
    return "$ended"
}

rendered_by_hand() { # folder, file for what comes out
    # What the shell has set would win. Two words where it is a plugin.
    # shellcheck disable=SC2046
    (cd "$1" && env -i PATH="$PATH" HOME="$HOME" $(compose_program) --env-file config.env \
        -f docker-compose.loadbalanced.yml config) >"$2" 2>"$2.said" || { cat "$2.said" && return 1; }
}
