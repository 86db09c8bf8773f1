# shellcheck shell=bash
# Everything that CI runs, step by step, counted.

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

build_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --no-run
    else
        cargo test --workspace --locked --no-run
    fi
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

run_tests() {
    need_rust
    install_missing "$BUILD_NEEDS"
    install_missing "$RUN_NEEDS"
    install_missing "$TEST_NEEDS"
    cd "$HOME_DIR"
    RESULTS=$HOME_DIR/results/test
    mkdir -p "$RESULTS"
    local started=$SECONDS early
    step fmt cargo fmt --all --check
    step shellcheck check_scripts
    step clippy cargo clippy --workspace --all-targets --locked -- -D warnings
    step test-build build_tests
    # The tests wait more than they compute: the release build takes what they leave of the cores.
    nice -n 19 cargo build --release --locked --workspace >"$RESULTS/release-build-early.log" 2>&1 </dev/null &
    early=$!
    rust_tests
    wait "$early" || true
    step release-build cargo build --release --locked --workspace
    step wrong-settings wrong_settings
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

# What deploy/lib holds is checked where it is read in: some of its names are used by the others alone.
check_scripts() {
    local scripts=()
    mapfile -t scripts < <(cd "$HOME_DIR" && git ls-files '*.sh' .ci/run ':!deploy/lib')
    shellcheck --external-sources --check-sourced "${scripts[@]}"
}
