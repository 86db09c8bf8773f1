//! How `./deploy-loadbalanced.sh test` counts what nextest and cargo-deny say, with a scripted cargo in their place.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// What the script says when this function of it has run with a `cargo` that does this.
fn said_of(function: &str, cargo_does: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let dir = tempfile::tempdir().expect("a folder of its own");
    let cargo = dir.path().join("cargo");
    std::fs::write(&cargo, format!("#!/bin/sh\n{cargo_does}\n")).expect("writable");
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let script = r#"
        set -euo pipefail
        say() { printf '%s\n' "$*"; }
        end_what_a_step_left() { :; }
        . "$1/deploy/lib/tests.sh"
        RESULTS=$2
        PATH=$2:$PATH
        $3
        say "$PASSED passed, $FAILED failed, $SKIPPED skipped""#;
    let output = Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(root)
        .arg(dir.path())
        .arg(function)
        .output()
        .expect("bash is there");
    let said = String::from_utf8(output.stdout).expect("our script speaks UTF-8");
    format!("{}; {}", said.trim_end(), output.status)
}

/// What the script says once nextest has said `summary` and ended with `code`: its counts, or where it broke.
fn counted(summary: &str, code: i32) -> String {
    let cargo_does = format!("[ \"$2\" != --version ] || exit 0\ncat <<'EOF'\n{summary}\nEOF\nexit {code}");
    said_of("rust_tests", &cargo_does).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_green_run_is_counted_and_the_script_goes_on() {
    assert_eq!(
        counted("     Summary [ 793.294s] 1298 tests run: 1298 passed, 0 skipped", 0),
        "1298 passed, 0 failed, 0 skipped; exit status: 0"
    );
}

#[test]
fn slow_tests_are_passed_tests() {
    assert_eq!(
        counted("     Summary [   9.000s] 12 tests run: 12 passed (3 slow), 0 skipped", 0),
        "12 passed, 0 failed, 0 skipped; exit status: 0"
    );
}

#[test]
fn failures_and_timeouts_are_failed_tests() {
    assert_eq!(
        counted("     Summary [   9.000s] 12 tests run: 8 passed, 3 failed, 1 timed out, 0 skipped", 100),
        "8 passed, 4 failed, 0 skipped; exit status: 0"
    );
}

#[test]
fn tests_that_do_not_compile_are_one_failure() {
    assert_eq!(
        counted("error: could not compile `web`", 101),
        "0 passed, 1 failed, 0 skipped; exit status: 0"
    );
}

#[test]
fn a_run_without_a_test_is_a_failure_and_so_is_one_that_says_nothing() {
    let summary = "     Summary [   0.000s] 0 tests run: 0 passed, 0 skipped";
    assert_eq!(counted(summary, 0), "0 passed, 1 failed, 0 skipped; exit status: 0");
    assert_eq!(counted("", 0), "0 passed, 1 failed, 0 skipped; exit status: 0");
}

#[test]
fn tests_that_were_left_out_are_counted() {
    assert_eq!(
        counted("     Summary [   9.000s] 12 tests run: 12 passed, 3 skipped", 0),
        "12 passed, 0 failed, 3 skipped; exit status: 0"
    );
}

#[test]
fn without_cargo_deny_its_check_is_left_out_and_said_so() {
    let said = said_of("check_dependencies", "exit 1");
    assert!(said.starts_with("SKIP  cargo-deny ") && said.contains("is not installed"), "{said}");
    assert!(said.ends_with("\n0 passed, 0 failed, 1 skipped; exit status: 0"), "{said}");
}

#[test]
fn cargo_deny_checks_advisories_where_their_database_can_be_had() {
    let said = said_of("check_dependencies", "exit 0");
    assert!(said.contains("PASS  cargo-deny-advisories "), "{said}");
    assert!(said.ends_with("\n2 passed, 0 failed, 0 skipped; exit status: 0"), "{said}");
    let said = said_of("check_dependencies", "case $* in *fetch) exit 1 ;; esac");
    assert!(said.contains("SKIP  cargo-deny-advisories "), "{said}");
    assert!(said.ends_with("\n1 passed, 0 failed, 1 skipped; exit status: 0"), "{said}");
}

#[test]
fn what_cargo_deny_refuses_is_a_failure_and_the_script_goes_on() {
    let said = said_of("check_dependencies", "case $* in *advisories) echo RUSTSEC-1; exit 4 ;; esac");
    assert!(said.contains("FAIL  cargo-deny-advisories ") && said.contains("\nRUSTSEC-1\n"), "{said}");
    assert!(said.ends_with("\n1 passed, 1 failed, 0 skipped; exit status: 0"), "{said}");
}
