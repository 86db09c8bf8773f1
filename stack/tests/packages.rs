//! How the script installs what is missing, with a scripted apt in place of the real one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// Installs `needs` where apt knows the packages `known` alone; what apt-get was asked ends what was said.
fn installed(known: &str, needs: &str) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    let dir = tempfile::tempdir().expect("a folder of its own");
    let apt_cache = format!(
        "#!/bin/sh\nfor name; do :; done\ncase ' {known} ' in\n*\" $name \"*) printf '%s:\\n  Candidate: 1.0\\n' $name; seq 1 30000 ;;\n\
         *\" $name-virtual \"*) printf '%s:\\n  Candidate: (none)\\n' $name ;;\nesac\n"
    );
    let programs =
        [("apt-cache", apt_cache.as_str()), ("apt-get", "#!/bin/sh\necho \"apt-get $*\" >>\"$ASKED\"\n")];
    for (name, text) in programs {
        let file = dir.path().join(name);
        std::fs::write(&file, text).expect("writable");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let script = r#"
        set -euo pipefail
        say() { printf '%s\n' "$*"; }
        fail() { printf '%s\n' "$*" >&2; exit 1; }
        has() { command -v "$1" >/dev/null 2>&1; }
        . "$1/deploy/lib/packages.sh"
        as_root() { "$@"; }
        without_debians_services() { "$@"; }
        PATH=$2:$PATH
        export ASKED=$2/asked
        trap 'cat "$ASKED"' EXIT
        install_missing "$3""#;
    Command::new("bash")
        .args(["-c", script, "bash"])
        .arg(root)
        .arg(dir.path())
        .arg(needs)
        .output()
        .expect("bash is there")
}

const NEEDS: &str = "alpha-tool|/no/such/alpha|does alpha\nchromium|/no/such/chromium|drives a page\ngamma|/no/such/gamma|does gamma";

#[test]
fn a_package_that_the_release_lacks_is_told_with_its_program_and_nothing_is_installed() {
    for known in ["alpha-tool gamma", "alpha-tool gamma chromium-virtual"] {
        let output = installed(known, NEEDS);
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!output.status.success(), "{said}{told}");
        assert!(told.contains("chromium") && told.contains("/no/such/chromium"), "{said}{told}");
        assert!(!told.contains("alpha") && !told.contains("gamma"), "{told}");
        assert!(!said.contains("apt-get install"), "{said}");
    }
}

#[test]
fn what_the_release_has_is_installed_in_one_go() {
    let output = installed("alpha-tool chromium gamma", NEEDS);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(
        said.contains("apt-get install -y -qq --no-install-recommends alpha-tool chromium gamma"),
        "{said}"
    );
}

#[test]
fn nothing_is_asked_of_apt_where_nothing_is_missing() {
    let output = installed("", "bash|bash|runs this");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}
