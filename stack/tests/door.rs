//! What `deploy-loadbalanced.sh` makes of its verbs for a native stack, with the real `stack` and stand-ins for the services.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::path::Path;
use std::process::Command;

use world::{Said, Stores, World};

/// The world as a checkout that was built.
fn built() -> World {
    let world = World::new(Stores::Elsewhere);
    std::fs::create_dir(world.path("target")).unwrap();
    std::os::unix::fs::symlink(world.path("programs"), world.path("target/release")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_stack"), world.path("programs/stack")).unwrap();
    world
}

/// A function of deploy/lib/native.sh, called as the script calls it.
fn native(world: &World, call: &[&str]) -> Said {
    let script = r#"
        set -euo pipefail
        say() { printf '%s\n' "$*"; }
        fail() { printf 'deploy-loadbalanced: %s\n' "$*" >&2; exit 1; }
        HOME_DIR=$1 CARGO_TARGET_DIR=$1/target
        . "$2/deploy/lib/native.sh"
        shift 2
        "$@""#;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash"]).arg(world.folder.path()).arg(root).args(call).current_dir("/");
    let output = bash.output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Said { status: output.status.code().unwrap_or(-1), text }
}

#[test]
fn a_restart_with_a_bad_setting_leaves_the_stack_up() {
    let world = built();
    world.ok(&["up", "--replicas", "2"]);
    let before = world.pids();
    let own = "ACTUAL_DB_HOST=db.invalid\nREDIS_HOST=cache.invalid\nDB_PASSWORD=operators-own\n";
    world.configure(&format!("{own}POOLER_MAX_CLIENT_CONN=many\n"));
    let said = native(&world, &["native_restart"]);
    assert!(said.status == 1 && said.text.contains("POOLER_MAX_CLIENT_CONN: \"many\""), "{}", said.text);
    assert_eq!(world.pids(), before, "{}", said.text);
    let said = native(&world, &["native_restart", "--no-such-flag"]);
    assert!(said.status != 0 && world.pids() == before, "{}", said.text);
    world.configure(own);
    let said = native(&world, &["native_restart"]);
    assert!(said.status == 0 && said.text.contains("all 4 parts are healthy"), "{}", said.text);
    assert_ne!(world.pids(), before);
}
