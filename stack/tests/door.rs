//! What `deploy-loadbalanced.sh` makes of its verbs for a native stack, with the real `stack` and stand-ins for the services.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[allow(dead_code, reason = "lifecycle.rs uses the rest")]
mod world;

use std::os::unix::fs::PermissionsExt as _;
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
        has() { command -v "$1" >/dev/null; }
        HOME_DIR=$1 CARGO_TARGET_DIR=$1/target PATH=$1/programs:$PATH
        export CARGO_TARGET_DIR
        . "$2/deploy/lib/packages.sh"
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

#[test]
fn a_restart_onto_a_port_of_another_process_leaves_the_stack_up() {
    let world = built();
    world.ok(&["up", "--replicas", "2"]);
    let before = world.pids();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let own = "ACTUAL_DB_HOST=db.invalid\nREDIS_HOST=cache.invalid\nDB_PASSWORD=operators-own\n";
    world.configure(&format!("{own}POOLER_METRICS_PORT={port}\n"));
    let said = native(&world, &["native_restart"]);
    let expected = format!("port {port} for pooler is taken by another process");
    assert!(said.status == 1 && said.text.contains(&expected), "{}", said.text);
    assert_eq!(world.pids(), before, "{}", said.text);
}

#[test]
fn a_stack_whose_build_folder_was_removed_is_built_anew_to_stop_it() {
    let world = built();
    let said = native(&world, &["native_stop"]);
    assert!(said.status == 0 && said.text.contains("no stack runs"), "{}", said.text);
    world.ok(&["up", "--replicas", "1"]);
    assert!(!world.pids().is_empty());
    std::fs::remove_file(world.path("target/release")).unwrap();
    let built_again = format!(
        "mkdir -p \"$CARGO_TARGET_DIR/release\" && cp {} \"$CARGO_TARGET_DIR/release/stack\"",
        env!("CARGO_BIN_EXE_stack")
    );
    install(&world, "cargo", &built_again);
    let said = native(&world, &["native_stop"]);
    assert!(said.status == 0 && said.text.contains("the stack has stopped"), "{}", said.text);
}

/// A stand-in for a program of the machine.
fn install(world: &World, name: &str, script: &str) {
    let path = world.path("programs").join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_command_runs_in_the_surroundings_of_the_stack_that_runs() {
    let world = World::new(Stores::Elsewhere);
    install(&world, "redis-cli", "echo $REDISCLI_AUTH \"$@\"");
    let (port, own) = (world.base + 7, "ACTUAL_DB_HOST=db.invalid\nREDIS_HOST=cache.invalid\n");
    world.configure(&format!("{own}DB_PASSWORD=operators-own\nREDIS_PASSWORD=theirs\n"));
    let mut up = world.command(&["up", "--replicas", "2"]);
    assert!(up.env("DB_PORT", port.to_string()).env("LOG_LEVEL", "debug").output().unwrap().status.success());
    let echo = |part: &str, names: &str| world.stack(&["exec", part, "sh", "-c", &format!("echo {names}")]);
    assert_eq!(echo("pooler", "$PGPORT $PGUSER").text, format!("{port} pgbouncer_admin\n"));
    let web = echo("web-2", "$DB_PORT $DATABASE_POOLER $CONTAINER_NAME $LOG_LEVEL");
    assert_eq!(web.text, format!("{port} on web-2 debug\n"));
    assert_eq!(echo("postgres", "$PGHOST $PGPORT").text, "db.invalid 5432\n");
    let redis = world.ok(&["exec", "redis", "redis-cli", "FLUSHALL"]);
    assert_eq!(redis, "theirs -h cache.invalid -p 6379 FLUSHALL\n");
    for (part, told) in [
        ("web-3", "no part of this stack is named web-3: it has 2 replicas"),
        ("standby", "no part of this stack is named standby"),
        ("nobody", "no part is named nobody"),
    ] {
        let refused = echo(part, "");
        assert!(refused.status == 1 && refused.text.contains(told), "{}", refused.text);
    }
}

#[test]
fn without_a_pooler_no_command_is_sent_to_one() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "1", "--direct"]);
    let echo =
        |part: &str| world.stack(&["exec", part, "sh", "-c", "echo $DB_HOST $DB_PORT $DATABASE_POOLER"]);
    for time in ["while it runs", "when it has stopped"] {
        assert_eq!(echo("web-1").text, "db.invalid 5432 off\n", "{time}");
        let refused = echo("pooler");
        assert!(refused.status == 1 && refused.text.contains("without one (--direct)"), "{}", refused.text);
        world.ok(&["down"]);
    }
}

#[test]
fn redis_cli_asks_for_a_place_that_only_the_operator_knows() {
    let world = World::new(Stores::Elsewhere);
    install(&world, "redis-cli", "echo \"$@\"");
    world.configure(
        "ACTUAL_DB_HOST=db.invalid\nREDIS_URL=rediss://u:hunter2@c:7/0\nDB_PASSWORD=operators-own\n",
    );
    world.ok(&["up", "--replicas", "1"]);
    let refused = world.stack(&["exec", "redis", "redis-cli", "FLUSHALL"]);
    assert!(refused.status == 1 && refused.text.contains("named by REDIS_URL"), "{}", refused.text);
    assert_eq!(world.ok(&["exec", "redis", "redis-cli", "-h", "c", "PING"]), "-h c PING\n");
}

#[test]
fn a_backup_that_failed_leaves_no_file() {
    let world = built();
    world.ok(&["up", "--replicas", "1"]);
    install(
        &world,
        "pg_dump",
        "for arg; do case $arg in --file=*) : >\"${arg#--file=}\";; esac; done; exit 3",
    );
    let file = world.path("backups/one.dump");
    let said = native(&world, &["native_backup", file.to_str().unwrap()]);
    assert!(said.status == 1 && said.text.contains("nothing is saved"), "{} {}", said.status, said.text);
    let left: Vec<_> = std::fs::read_dir(world.path("backups")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    install(&world, "pg_dump", "for arg; do case $arg in --file=*) echo x >\"${arg#--file=}\";; esac; done");
    assert_eq!(native(&world, &["native_backup", file.to_str().unwrap()]).status, 0);
    assert_eq!(std::fs::read_to_string(file).unwrap(), "x\n");
}

#[test]
fn demo_users_are_made_in_the_stacks_own_database_or_where_they_are_asked_for() {
    let world = World::new(Stores::Elsewhere);
    let own = "ACTUAL_DB_HOST=db.invalid\nREDIS_HOST=cache.invalid\nDB_PASSWORD=operators-own\n";
    let said = world.ok(&["up", "--replicas", "1"]);
    assert!(!said.contains("demo users") && !world.stack_path("logs/seed.log").exists(), "{said}");
    world.ok(&["down"]);
    world.configure(&format!("{own}STACK_DEMO_USERS=on\n"));
    let said = world.ok(&["up", "--replicas", "1"]);
    assert!(said.contains("password arena-demo") && world.stack_path("logs/seed.log").exists(), "{said}");
}

/// Where the compose file's service `migrate` goes by its own words, carried out with a stand-in for `web`:
/// each of its verbs with the host that ACTUAL_DB_HOST names then.
fn migrated_under_compose(settings: &[(&str, &str)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let compose = std::fs::read_to_string(root.join("docker-compose.loadbalanced.yml")).unwrap();
    let (_, service) = compose.split_once("\n  migrate:\n").unwrap();
    assert!(!service.contains("\n      DB_HOST:"), "the service has another DB_HOST than the replicas");
    let (_, script) = service.split_once("      - |\n").unwrap();
    let lines = script.lines().take_while(|line| line.starts_with("        "));
    let script = lines.collect::<Vec<_>>().join("\n").replace("$$", "$");
    let mut sh = Command::new("sh");
    sh.args(["-euc", &format!("web() {{ echo \"$1 $ACTUAL_DB_HOST\"; }}\n{script}")]).env_clear();
    sh.env("PATH", "/usr/bin:/bin").env("STACK_DEMO_USERS", "auto");
    // What the file gives where nothing is said.
    sh.env("DB_HOST", "pgbouncer").env("ACTUAL_DB_HOST", "postgres");
    let output = sh.envs(settings.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const AT_POOLER: &str = "postgresql://u:p@pgbouncer:6432/d";
const AT_POSTGRES: &str = "postgresql://u:p@postgres/d";
const AT_THEIRS: &str = "postgresql://postgres:p@db.example/postgres";

#[test]
fn under_compose_the_database_of_the_replicas_is_the_one_that_is_migrated() {
    let migrated = |settings: &[(&str, &str)]| {
        migrated_under_compose(settings).lines().next().map(str::to_owned).unwrap()
    };
    for ours in ["pgbouncer", "pooler", "postgres"] {
        assert_eq!(migrated(&[("DB_HOST", ours)]), "migrate postgres", "{ours}");
        assert_eq!(migrated(&[("DB_HOST", ours), ("ACTUAL_DB_HOST", "db.example")]), "migrate db.example");
    }
    assert_eq!(migrated(&[("DATABASE_URL", AT_POOLER)]), "migrate postgres");
    assert_eq!(migrated(&[("DATABASE_URL", "postgresql://pooler/d")]), "migrate postgres");
    // Where DB_HOST or DATABASE_URL says: web goes there when nothing lies behind.
    assert_eq!(migrated(&[("DB_HOST", "your-postgres-host")]), "migrate ");
    assert_eq!(migrated(&[("DATABASE_URL", AT_THEIRS)]), "migrate ");
    assert_eq!(
        migrated(&[("DB_HOST", "pgb.example"), ("ACTUAL_DB_HOST", "db.example")]),
        "migrate db.example"
    );
}

#[test]
fn under_compose_demo_users_are_made_in_the_stacks_own_database_too() {
    let seeded = |settings: &[(&str, &str)]| migrated_under_compose(settings).contains("\nseed ");
    let theirs = ("ACTUAL_DB_HOST", "db.example");
    assert!(seeded(&[]) && seeded(&[("DATABASE_URL", AT_POOLER)]));
    assert!(seeded(&[("STACK_DEMO_USERS", "on"), theirs]));
    assert!(seeded(&[("DATABASE_URL", AT_THEIRS), ("DATABASE_URL_DIRECT", AT_POSTGRES)]));
    assert!(!seeded(&[theirs]) && !seeded(&[theirs, ("DATABASE_URL", AT_POOLER)]));
    assert!(!seeded(&[theirs, ("DATABASE_URL_DIRECT", AT_POOLER)]) && !seeded(&[("DB_HOST", "db.example")]));
    assert!(!seeded(&[("DATABASE_URL", AT_THEIRS)]));
    assert!(!seeded(&[("STACK_DEMO_USERS", "off")]));
}

#[test]
fn under_compose_no_way_of_naming_another_database_brings_demo_users_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("url");
    std::fs::write(&file, format!("{AT_THEIRS}\n")).unwrap();
    let file = file.to_str().unwrap();
    for name in ["DATABASE_URL", "DATABASE_URL_DIRECT", "DATABASE_DIRECT_PRIMARY"] {
        let by_file = format!("{name}_FILE");
        for given in [(name, AT_THEIRS), (&by_file, file)] {
            assert!(!migrated_under_compose(&[given]).contains("\nseed "), "{given:?}");
        }
    }
}
