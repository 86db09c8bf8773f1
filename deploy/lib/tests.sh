# shellcheck shell=bash
# Everything that CI runs, step by step, counted.

PASSED=0
FAILED=0
SKIPPED=0

note_result() { # kind, what, figure
    printf '%-5s %-28s %s\n' "$1" "$2" "${3:-}"
}

# Runs one step in at most so many seconds, shows its end when it fails, counts it.
step() { # name, seconds, command...
    local name=$1 limit=$2 log started ended=0
    shift 2
    log="$RESULTS/$name.log"
    started=$SECONDS
    # Not behind ||: there a shell lets its errors pass.
    set +e
    within "$limit" "$@" >"$log" 2>&1 </dev/null
    ended=$?
    set -e
    end_what_a_step_left >>"$log" 2>&1 </dev/null
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

# A shell of its own, as what a command exports or where it fails is its own affair, and a process group of its
# own, as what hangs is ended with all that it started.
within() { # seconds, command...
    local deadline=$((SECONDS + $1)) limit=$1 job
    shift
    set -m
    (
        set +m -e
        "$@"
    ) &
    job=$!
    set +m
    while kill -0 "$job" 2>/dev/null; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            say "not done after $limit s, ended while these ran:"
            pgrep -a -g "$job"
            kill -KILL -- "-$job"
            break
        fi
        sleep 0.2
    done
    wait "$job"
}

skip() {
    SKIPPED=$((SKIPPED + 1))
    note_result SKIP "$1" "$2"
}

build_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --no-run
    else
        cargo test --workspace --locked --no-run
    fi
}

# Rust's tests count one by one; the runner's own closing lines are shown.
rust_tests() {
    local log="$RESULTS/tests.log" ended=0 started=$SECONDS before=$PASSED counts
    if cargo nextest --version >/dev/null 2>&1; then
        timeout -k 30 2400 cargo nextest run --workspace --locked --no-fail-fast --color never \
            >"$log" 2>&1 </dev/null || ended=$?
        tail -n 40 "$log" | grep -E 'Summary|FAIL|TIMEOUT|error' || true
        PASSED=$((PASSED + $(nextest_count passed "$log")))
        SKIPPED=$((SKIPPED + $(nextest_count skipped "$log")))
        counts=$(($(nextest_count failed "$log") + $(nextest_count 'timed out' "$log")))
        FAILED=$((FAILED + counts))
    else
        timeout -k 30 2400 cargo test --workspace --locked --no-fail-fast --color never >"$log" 2>&1 </dev/null || ended=$?
        grep -E '^test result:|^test .* FAILED$|^error' "$log" || true
        PASSED=$((PASSED + $(sum_of passed "$log")))
        FAILED=$((FAILED + $(sum_of failed "$log")))
        SKIPPED=$((SKIPPED + $(sum_of ignored "$log")))
        counts=$(sum_of failed "$log")
    fi
    # Tests that did not even compile, and a run of none, are no passed tests.
    if [ "$ended" = 0 ] && [ "$PASSED" = "$before" ]; then
        say "no test ran"
        ended=1
    fi
    if [ "$ended" != 0 ] && [ "${counts:-0}" = 0 ]; then FAILED=$((FAILED + 1)); fi
    if [ "$ended" = 0 ]; then
        note_result PASS rust-tests "$((SECONDS - started)) s"
    else
        note_result FAIL rust-tests "$((SECONDS - started)) s, all of it in $log"
        grep -A 12 -E "^---- .* stdout ----|panicked at" "$log" | tail -n 80 || true
    fi
}

# The rules of deny.toml, by cargo-deny itself. Without it the tests hold all of them but the advisories.
check_dependencies() {
    local fetched="$RESULTS/advisories-fetch.log"
    if ! cargo deny --version >/dev/null 2>&1; then
        skip cargo-deny "cargo-deny is not installed, so nobody looks for advisories (cargo install --locked cargo-deny)"
        return
    fi
    step cargo-deny 300 cargo deny --locked check bans licenses sources
    if timeout -k 5 120 cargo deny --locked fetch >"$fetched" 2>&1 </dev/null; then
        step cargo-deny-advisories 300 cargo deny --locked check --disable-fetch advisories
    else
        skip cargo-deny-advisories "the database of advisories cannot be had, see $fetched"
    fi
}

nextest_count() { sed -nE "s/^ *Summary .*[ ,]([0-9]+) $1.*/\1/p" "$2" | awk '{ n += $1 } END { print n + 0 }'; }

sum_of() { sed -nE "s/^test result:.* ([0-9]+) $1.*/\1/p" "$2" | awk '{ n += $1 } END { print n + 0 }'; }

run_tests() {
    # Steps may fail and are counted; where the script itself breaks off, not all was run.
    trap 'say "FAIL  the script broke off before all was run"' EXIT
    # Nothing here is built twice: what the compiler would keep for a second time is only time and space.
    [ "${CI:-}" != true ] || export CARGO_INCREMENTAL=0
    need_rust
    need_lints
    install_missing "$BUILD_NEEDS$RUN_NEEDS$TEST_NEEDS"
    cd "$HOME_DIR"
    RESULTS=$HOME_DIR/results/test
    mkdir -p "$RESULTS"
    local started=$SECONDS early
    step fmt 120 cargo fmt --all --check
    step shellcheck 120 check_scripts
    check_dependencies
    step clippy 1200 cargo clippy --workspace --all-targets --locked -- -D warnings
    step test-build 1200 build_tests
    # The tests wait more than they compute: the release build takes what they leave of the cores.
    nice -n 19 cargo build --release --locked --workspace >"$RESULTS/release-build-early.log" 2>&1 </dev/null &
    early=$!
    rust_tests
    wait "$early" || true
    step release-build 1500 cargo build --release --locked --workspace
    step wrong-settings 60 wrong_settings
    step native-stack 400 native_end_to_end all_checks
    step native-read-replica 200 native_end_to_end read_replica_checks --read-replica --replicas 2
    step native-upgrade 200 native_end_to_end upgrade_checks --replicas 3
    step native-direct 200 native_end_to_end direct_checks --direct --replicas 2
    if has_compose; then step compose-by-hand 60 compose_by_hand; else skip compose-by-hand "no docker-compose here"; fi
    if ! docker_answers; then
        skip docker-stack "no Docker engine answers here"
    elif [ -n "$(docker ps -aq --filter name=^arena-)" ]; then
        skip docker-stack "a compose stack is on this machine, running or stopped: its containers have the same names"
    else
        step docker-stack 900 docker_end_to_end
    fi
    trap - EXIT
    say "wall time $((SECONDS - started)) s"
    say "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" = 0 ]
}

# What deploy/lib holds is checked where it is read in: some of its names are used by the others alone.
check_scripts() {
    local scripts=()
    mapfile -t scripts < <(cd "$HOME_DIR" && git ls-files '*.sh' .ci/run ':!deploy/lib')
    shellcheck --external-sources --check-sourced "${scripts[@]}"
}
