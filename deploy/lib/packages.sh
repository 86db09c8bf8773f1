# shellcheck shell=bash
# Packages: what each verb needs that a bare Debian lacks, and why: package, a program of it, reason.

readonly BUILD_NEEDS="
gcc|gcc|compiles the C parts of cryptography and links our programs
libc6-dev|/usr/include/stdio.h|headers of the C library for that"
readonly TRUST_NEEDS="
ca-certificates|/etc/ssl/certs/ca-certificates.crt|trust for https addresses, of cargo and in settings"
readonly RUN_NEEDS="
postgresql|@postgres|the private Postgres
postgresql-client|psql|psql, pg_dump and pg_restore
redis-server|redis-server|the private Redis
procps|ps|process lists
curl|curl|asking the stack how it is
$TRUST_NEEDS"
readonly TEST_NEEDS="
nginx|nginx|the reference that the balancer is compared with
pgbouncer|pgbouncer|the reference that the pooler is compared with
chromium|chromium|the chat page is driven in a real browser
chromium-driver|chromedriver|drives that browser
shellcheck|shellcheck|checks the shell scripts
wrk|wrk|load for the balancer's tests
git|git|the house's rules look at the tracked files
python3|python3|the pooler's tests with drivers of Python
python3-psycopg|/usr/lib/python3/dist-packages/psycopg/__init__.py|a driver that the pooler has to serve
python3-asyncpg|/usr/lib/python3/dist-packages/asyncpg/__init__.py|another one
libpostgresql-jdbc-java|/usr/share/java/postgresql.jar|another one
default-jdk-headless|javac|runs it"

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
        # Who is interrupted here must not keep the services of later packages from starting.
        trap 'as_root rm -f /usr/sbin/policy-rc.d; trap - INT TERM; kill -s INT $BASHPID' INT TERM
        "$@" || ended=$?
        trap - INT TERM
        as_root rm -f "$policy"
    fi
    if [ -d /run/systemd/system ]; then
        for service in "${new[@]}"; do as_root systemctl disable --quiet "$service" 2>/dev/null || true; done
    fi
    return "$ended"
}

# Before anything is installed: what this release has no package of, and what would do instead.
need_candidates() { # package|program lines
    local package probe known lacking=
    while IFS='|' read -r package probe; do
        # A virtual package, and one that is a snap only, has no candidate.
        known=$(LC_ALL=C apt-cache policy "$package")
        [[ $known =~ Candidate:\ [^\(] ]] ||
            lacking+="
  $package: bring its program \"$probe\" yourself, to be found there or on the PATH"
    done <<<"$1"
    [[ $lacking != *chromium* ]] || lacking+="
  Ubuntu has Chromium as a snap only: snap install chromium, and link /snap/bin/chromium.chromedriver as chromedriver"
    [ -z "$lacking" ] || fail "this release has no package for what is missing:$lacking"
}

install_missing() {
    local package probe why packages=() missing=
    while IFS='|' read -r package probe why; do
        [ -n "$package" ] || continue
        is_met "$probe" && continue
        say "missing: $package - $why"
        packages+=("$package")
        missing+="${missing:+$'\n'}$package|$probe"
    done <<<"$1"
    [ "${#packages[@]}" -gt 0 ] || return 0
    has apt-get || fail "install by hand, this is no Debian: ${packages[*]}"
    say "installing with apt-get: ${packages[*]}"
    as_root apt-get update -qq
    need_candidates "$missing"
    without_debians_services as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

need_rust() {
    has cargo || { [ -x "$HOME/.cargo/bin/cargo" ] && PATH="$HOME/.cargo/bin:$PATH"; } ||
        fail "Rust is not installed: get it from https://rustup.rs (1.95 or later), then call again"
}

need_lints() {
    local tool
    for tool in fmt clippy; do
        cargo "$tool" --version >/dev/null 2>&1 || fail "cargo $tool is not installed: rustup component add rustfmt clippy"
    done
}
