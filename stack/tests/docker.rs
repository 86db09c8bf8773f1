//! The verbs with `--docker`, with a scripted Docker and docker-compose in place of the real ones.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Notes what is asked with the settings that compose would take: the environment's, else those of .env.
const COMPOSE: &str = r#"#!/bin/bash
while [ "$1" != "${1#-}" ]; do shift 2; done
setting() { if [ -n "${!1:-}" ]; then printf %s "${!1}"; else sed -n "s/^$1=//p" "$HOME/.env" | tail -n 1; fi; }
printf '%s' "$*" >>"$HOME/asked"
for name in DB_HOST DB_PORT DB_READ_HOST DB_READ_NAME ACTUAL_DB_READ_HOST COMPOSE_PROFILES ARENA_DOCKERFILE; do
    printf ' %s=%s' "$name" "$(setting "$name")" >>"$HOME/asked"
done
echo >>"$HOME/asked"
case $1 in
ps) [ "$2" != -q ] || echo "id-$3" ;;
up)
    shift
    for name in "$@"; do [ "$name" != "${name#-}" ] || echo "arena-$name" >>"$HOME/made"; done
    sort -uo "$HOME/made" "$HOME/made" ;;
# As Compose v2: all that the file and the profiles name, where nothing is named.
start)
    shift
    [ $# -gt 0 ] || set -- postgres redis pooler standby web-1 web-10 balancer
    for name in "$@"; do grep -qx "arena-$name" "$HOME/made" || { echo "service $name has no container" >&2; exit 1; }; done ;;
port) echo 0.0.0.0:80 ;;
build)
    mkdir -p "$HOME/tags"
    echo >>"$HOME/tags/builds"
    for name in web pooler balancer; do wc -l <"$HOME/tags/builds" >"$HOME/tags/arena-$name:current"; done ;;
esac
"#;

const DOCKER: &str = r#"#!/bin/bash
case "$*" in
compose*) exit 1 ;;
pull*) [ ! -e "$HOME/no-registry" ] ;;
tag*) cp "$HOME/tags/$2" "$HOME/tags/$3" ;;
image*) [ "$3" != -f ] || shift 2; cat "$HOME/tags/$3" ;;
*Health.Status*) echo "inspect $4" >>"$HOME/asked"; echo healthy ;;
*State.ExitCode*) cat "$HOME/migration-ended" 2>/dev/null || echo 0 ;;
*IPAddress*) grep -qx "$4" "$HOME/made" && echo "ip-of-$4" ;;
ps*project.working_dir=$HOME) cat "$HOME/made" 2>/dev/null ;;
ps*-q*) ;;
ps*) cat "$HOME/made" ;;
esac
"#;

/// A checkout of its own, in which nothing was started yet.
struct Checkout(TempDir);

impl Checkout {
    fn new() -> Self {
        let here = Self(tempfile::tempdir().expect("a folder of its own"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
        let home = here.0.path();
        std::fs::create_dir_all(home.join("deploy/lib")).expect("writable");
        for file in ["deploy-loadbalanced.sh", "docker-compose.loadbalanced.yml"] {
            std::fs::copy(root.join(file), home.join(file)).expect("there");
        }
        for file in
            std::fs::read_dir(root.join("deploy/lib")).expect("there").map(|file| file.expect("readable"))
        {
            std::fs::copy(file.path(), home.join("deploy/lib").join(file.file_name())).expect("writable");
        }
        here.program("bin/docker-compose", COMPOSE);
        here.program("bin/docker", DOCKER);
        here.program("release/stack", "#!/bin/sh\n");
        here
    }

    fn program(&self, name: &str, text: &str) {
        let file = self.0.path().join(name);
        std::fs::create_dir_all(file.parent().expect("in a folder")).expect("writable");
        std::fs::write(&file, text).expect("writable");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("ours");
    }

    fn run(&self, args: &[&str]) -> Output {
        let home = self.0.path();
        Command::new(home.join("deploy-loadbalanced.sh"))
            .args(args)
            .arg("--docker")
            .env_clear()
            .env("PATH", format!("{}/bin:/usr/local/bin:/usr/bin:/bin", home.display()))
            .env("HOME", home)
            .env("CARGO_TARGET_DIR", home)
            .output()
            .expect("the script runs")
    }

    /// What compose and Docker were asked by a verb that succeeds.
    fn asked_by(&self, args: &[&str]) -> Vec<String> {
        let asked = self.0.path().join("asked");
        std::fs::write(&asked, "").expect("writable");
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(&asked).expect("written").lines().map(str::to_owned).collect()
    }
}

/// Every call that makes or starts `service` says `expected`.
#[track_caller]
fn assert_made_with(asked: &[String], service: &str, expected: &str) {
    let made: Vec<&String> = asked
        .iter()
        .filter(|line| line.starts_with("up ") && line.split(' ').any(|word| word == service))
        .collect();
    assert!(!made.is_empty(), "{service} was not made: {asked:#?}");
    assert!(made.iter().all(|line| line.contains(expected)), "{service} not with {expected}: {made:#?}");
}

#[test]
fn images_are_built_from_source_or_packed_where_no_registry_gives_rust() {
    let here = Checkout::new();
    let asked = here.asked_by(&["start"]);
    let build = "build --build-arg RUST_IMAGE=rust:1.95-slim-bookworm ";
    assert!(asked.iter().any(|line| line.starts_with(build)), "{asked:#?}");
    let path = |name: &str| here.0.path().join(name);
    std::fs::write(path("no-registry"), "").expect("writable");
    std::fs::write(path("tags/debian:bookworm-slim"), "").expect("writable");
    here.program("bin/cargo", "#!/bin/sh\necho \"cargo $*\" >>\"$HOME/asked\"\n");
    for name in ["pooler", "balancer", "web"] {
        here.program(&format!("release/{name}"), "");
    }
    let asked = here.asked_by(&["start"]);
    assert!(asked.iter().any(|line| line == "cargo build --release --locked"), "{asked:#?}");
    let packed = "ARENA_DOCKERFILE=deploy/docker/Dockerfile.binaries";
    assert!(asked.iter().any(|line| line.starts_with("build ") && line.ends_with(packed)), "{asked:#?}");
}

const READS: &str = "DB_READ_HOST=pgbouncer DB_READ_NAME=game_standby ACTUAL_DB_READ_HOST=standby";

#[test]
fn a_read_replica_outlives_scaling_upgrade_and_rollback() {
    let here = Checkout::new();
    std::fs::write(here.0.path().join("config.env"), "DB_NAME=game\n").expect("writable");
    assert_made_with(&here.asked_by(&["start", "--read-replica"]), "web-1", READS);
    assert_made_with(&here.asked_by(&["scale", "12"]), "web-12", READS);
    let asked = here.asked_by(&["upgrade"]);
    assert_made_with(&asked, "web-1", READS);
    assert_made_with(&asked, "pooler", "ACTUAL_DB_READ_HOST=standby");
    assert_made_with(&here.asked_by(&["rollback"]), "web-1", READS);
}

#[test]
fn replicas_without_a_pooler_stay_so_and_none_is_brought_up() {
    let here = Checkout::new();
    here.asked_by(&["start", "--direct"]);
    for verb in [&["scale", "12"][..], &["upgrade"], &["rollback"]] {
        let asked = here.asked_by(verb);
        assert_made_with(&asked, "web-1", "DB_HOST=postgres DB_PORT=5432");
        assert!(!asked.iter().any(|line| line.starts_with("up ") && line.contains(" pooler ")), "{asked:#?}");
    }
}

#[test]
fn replicas_without_a_pooler_go_to_the_operators_database_where_one_is_named() {
    let here = Checkout::new();
    std::fs::write(here.0.path().join("config.env"), "ACTUAL_DB_HOST=db.example\nACTUAL_DB_PORT=5433\n")
        .expect("writable");
    assert_made_with(&here.asked_by(&["start", "--direct"]), "web-1", "DB_HOST=db.example DB_PORT=5433");
}

#[test]
fn a_check_of_the_running_stack_knows_whether_there_is_a_pooler() {
    let here = Checkout::new();
    here.program("release/load_tests", "#!/bin/sh\nprintf 'load_tests %s\\n' \"$*\" >>\"$HOME/asked\"\n");
    for (start, expected) in
        [(&["start"][..], "--pooler ip-of-arena-pooler:6432 "), (&["start", "--direct"], "--direct ")]
    {
        std::fs::write(here.0.path().join("made"), "").expect("writable");
        here.asked_by(start);
        let asked = here.asked_by(&["verify", "--keep-running"]);
        let line = asked.iter().find(|line| line.starts_with("load_tests verify ")).expect("it is called");
        assert!(line.contains(expected), "{start:?}: {line}");
        assert_eq!(line.contains("--pooler"), expected.contains("--pooler"), "{start:?}: {line}");
    }
}

#[test]
fn no_replica_goes_over_to_a_release_whose_migration_failed() {
    let here = Checkout::new();
    here.asked_by(&["start"]);
    std::fs::write(here.0.path().join("migration-ended"), "1\n").expect("writable");
    for verb in ["upgrade", "rollback"] {
        std::fs::write(here.0.path().join("asked"), "").expect("writable");
        let output = here.run(&[verb]);
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("the migration failed"),
            "{verb}: {output:?}"
        );
        assert!(!output.status.success(), "{verb}");
        let asked = std::fs::read_to_string(here.0.path().join("asked")).expect("written");
        assert!(asked.contains("up --no-deps migrate") && !asked.contains("web-1"), "{verb}: {asked}");
    }
}

#[test]
fn a_rollback_after_a_failed_and_a_good_upgrade_goes_back_to_what_ran_before_both() {
    let here = Checkout::new();
    let migration = here.0.path().join("migration-ended");
    here.asked_by(&["start"]);
    std::fs::write(&migration, "1\n").expect("writable");
    for time in 1..=2 {
        assert!(!here.run(&["upgrade"]).status.success(), "time {time}");
    }
    std::fs::remove_file(&migration).expect("there");
    here.asked_by(&["upgrade"]);
    here.asked_by(&["rollback"]);
    let build = |tag: &str| std::fs::read_to_string(here.0.path().join("tags").join(tag)).expect("tagged");
    assert_eq!((build("arena-web:current").trim(), build("arena-web:previous").trim()), ("1", "4"));
}

#[test]
fn a_later_start_without_flags_is_through_the_pooler() {
    let here = Checkout::new();
    here.asked_by(&["start", "--direct"]);
    let asked = here.asked_by(&["start"]);
    assert_made_with(&asked, "web-1", "DB_HOST= DB_PORT= DB_READ_HOST= ");
    assert_made_with(&asked, "pooler", "COMPOSE_PROFILES=");
}

#[test]
fn a_restart_starts_what_was_made_and_waits_until_it_is_healthy() {
    for mode in [&["start"][..], &["start", "--direct"], &["start", "--read-replica"]] {
        let here = Checkout::new();
        here.asked_by(mode);
        let asked = here.asked_by(&["restart"]);
        let started = asked.iter().position(|line| line.starts_with("start ")).expect("started again");
        for service in ["postgres", "web-10", "balancer"] {
            let healthy = format!("inspect id-{service}");
            assert!(
                asked[started..].contains(&healthy),
                "{mode:?}: {service} was not waited for: {asked:#?}"
            );
        }
        assert!(!asked[started].contains("migrate"), "{}", asked[started]);
    }
}

#[test]
fn a_restart_of_one_part_waits_for_it() {
    let here = Checkout::new();
    here.asked_by(&["start"]);
    let asked = here.asked_by(&["restart", "pgbouncer"]);
    assert!(asked.contains(&"inspect id-pooler".to_owned()), "{asked:#?}");
}

#[test]
fn a_restart_of_web_takes_one_replica_after_the_other() {
    let here = Checkout::new();
    here.asked_by(&["start", "--replicas", "2"]);
    let asked = here.asked_by(&["restart", "web"]);
    let steps: Vec<&str> = asked
        .iter()
        .filter_map(|line| {
            line.strip_prefix("restart --timeout 45 ").or_else(|| line.strip_prefix("inspect "))
        })
        .map(|line| line.split(' ').next().unwrap_or_default())
        .collect();
    assert_eq!(steps, ["web-1", "id-web-1", "web-2", "id-web-2"]);
}

#[test]
fn the_pooler_listens_where_the_replicas_look_for_it() {
    let compose = std::fs::read_to_string(Checkout::new().0.path().join("docker-compose.loadbalanced.yml"))
        .expect("there");
    let pooler =
        compose.split("\n  pooler:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a service");
    assert!(pooler.contains("DB_PORT: ${DB_PORT:-6432}"), "{pooler}");
}

#[test]
fn looking_at_a_stack_that_was_never_started_makes_nothing() {
    let here = Checkout::new();
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(here.0.path())
            .expect("there")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let before = names();
    for verb in ["status", "ps", "stop"] {
        let output = here.run(&[verb]);
        assert!(output.status.success(), "{verb}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("nothing runs"), "{verb}: {output:?}");
        assert_eq!(names(), before, "{verb}");
    }
    for verb in [&["restart"][..], &["logs"], &["scale", "3"], &["upgrade"], &["token"], &["bench"]] {
        let output = here.run(verb);
        assert!(!output.status.success(), "{verb:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("start --docker"), "{verb:?}: {output:?}");
        assert_eq!(names(), before, "{verb:?}");
    }
}

#[test]
fn a_stack_whose_folder_was_lost_is_still_stopped() {
    let here = Checkout::new();
    here.asked_by(&["start"]);
    std::fs::remove_dir_all(here.0.path().join(".stack-docker")).expect("there");
    let asked = here.asked_by(&["stop"]);
    assert!(asked.iter().any(|line| line.starts_with("down ")), "{asked:#?}");
}
