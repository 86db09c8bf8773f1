//! How the container of Postgres makes its cluster, with scripted programs in place of Postgres' own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// As far as the cluster goes: PG_VERSION first, as initdb does; the script can be killed in the middle of it.
const INITDB: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" != -D ] || dir=$2; shift; done
[ -z "$(ls -A "$dir" 2>/dev/null)" ] || { echo "initdb: $dir is not empty"; exit 1; }
mkdir -p "$dir/base" && echo 15 >"$dir/PG_VERSION"
[ "${KILLED_IN:-}" != initdb ] || kill -KILL $PPID
echo "local all all scram-sha-256" >"$dir/pg_hba.conf"
echo whole >"$dir/base/1"
"#;

/// Lets so many through and then kills the script that moves.
const MV: &str = r#"#!/bin/sh
if [ -n "${MOVES:-}" ]; then
    echo >>"$TMPDIR/moves"
    [ "$(wc -l <"$TMPDIR/moves")" -le "$MOVES" ] || kill -KILL $PPID
fi
exec /bin/mv "$@"
"#;

struct Container(TempDir);

impl Container {
    fn new() -> Self {
        let here = Self(tempfile::tempdir().expect("a folder of its own"));
        for folder in ["bin", "data", "tmp"] {
            fs::create_dir(here.0.path().join(folder)).expect("writable");
        }
        let programs = [
            ("initdb", INITDB),
            ("mv", MV),
            ("pg_ctl", "#!/bin/sh\n"),
            ("psql", "#!/bin/sh\n"),
            ("postgres", "#!/bin/sh\n"),
        ];
        for (name, text) in programs {
            let file = here.0.path().join("bin").join(name);
            fs::write(&file, text).expect("writable");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        here
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn start(&self, more: &[(&str, &str)]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/docker/postgres-entrypoint.sh");
        fs::remove_file(self.0.path().join("tmp/moves")).ok();
        Command::new("sh")
            .arg(script)
            .env("PATH", format!("{}/bin:/usr/bin:/bin", self.0.path().display()))
            .env("PGDATA", self.data())
            .env("TMPDIR", self.0.path().join("tmp"))
            .env("POSTGRES_PASSWORD", "secret-of-the-test")
            .envs(more.iter().copied())
            .output()
            .expect("sh is there")
    }

    /// A start that succeeds, after which the cluster is whole and nothing else lies in the volume.
    #[track_caller]
    fn assert_starts_whole(&self) {
        let output = self.start(&[]);
        assert!(output.status.success(), "{output:?}");
        let mut names: Vec<String> = fs::read_dir(self.data())
            .expect("there")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["PG_VERSION", "base", "pg_hba.conf"]);
        let rules = fs::read_to_string(self.data().join("pg_hba.conf")).expect("there");
        assert_eq!(
            rules.lines().collect::<Vec<_>>(),
            [
                "local all all scram-sha-256",
                "host all all all scram-sha-256",
                "host replication arena_replicator all scram-sha-256"
            ]
        );
        assert_eq!(fs::read_to_string(self.data().join("base/1")).expect("there"), "whole\n");
        assert_eq!(fs::metadata(self.data()).expect("there").permissions().mode() & 0o777, 0o700);
        assert!(!self.0.path().join("tmp/password").exists(), "the password is left in a file");
    }
}

#[test]
fn a_cluster_is_made_once_and_kept() {
    let container = Container::new();
    container.assert_starts_whole();
    fs::write(container.data().join("base/1"), "whole\n").expect("writable");
    // Making it anew would kill the start.
    assert!(container.start(&[("KILLED_IN", "initdb")]).status.success());
    container.assert_starts_whole();
}

#[test]
fn a_start_that_was_killed_in_initdb_is_made_good_by_the_next() {
    let container = Container::new();
    assert!(!container.start(&[("KILLED_IN", "initdb")]).status.success());
    container.assert_starts_whole();
}

#[test]
fn a_start_that_was_killed_at_any_move_is_made_good_by_the_next() {
    let mut killed = 0;
    for moves in ["0", "1", "2", "3"] {
        let container = Container::new();
        killed += usize::from(!container.start(&[("MOVES", moves)]).status.success());
        container.assert_starts_whole();
    }
    assert!(killed >= 2, "killed at {killed} moves only");
}

#[test]
fn a_volume_of_somebody_else_is_not_touched() {
    let container = Container::new();
    let theirs = container.data().join("theirs");
    fs::write(&theirs, "dear").expect("writable");
    let output = container.start(&[]);
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("not empty"), "{output:?}");
    assert_eq!(fs::read_to_string(&theirs).expect("there"), "dear");
    assert_eq!(fs::read_dir(container.data()).expect("there").count(), 1);
}

#[test]
fn a_volume_that_is_a_file_system_of_its_own_is_empty_all_the_same() {
    let container = Container::new();
    fs::create_dir(container.data().join("lost+found")).expect("writable");
    let output = container.start(&[]);
    assert!(output.status.success(), "{output:?}");
    assert!(container.data().join("PG_VERSION").exists() && container.data().join("lost+found").exists());
}
