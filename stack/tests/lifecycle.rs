//! The life of a stack, from its first start to its removal, with the real supervisor and its children.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::os::unix::fs::PermissionsExt as _;
use world::{Stores, World, is_alive, kill, wait_until};

fn is_healthy(row: &serde_json::Value) -> bool {
    row["state"] == "healthy"
}

#[test]
fn a_private_stack_comes_up_with_a_standby_and_leaves_nothing_behind() {
    let world = World::new(Stores::Private);
    let said = world.ok(&["up", "--replicas", "2", "--read-replica"]);
    assert!(said.contains("web-2      healthy") && said.contains("all 7 parts are healthy"), "{said}");
    assert!(said.contains("demo users    alice, bob, carol, dave; password arena-demo"), "{said}");
    let again = world.ok(&["up"]);
    assert!(again.starts_with("the stack runs already"), "{again}");
    world.ok(&["up", "--replicas", "2", "--read-replica"]);
    let otherwise = world.stack(&["up", "--replicas", "3"]);
    assert!(otherwise.status == 1 && otherwise.text.contains("`scale N`"), "{}", otherwise.text);

    let in_recovery = ["exec", "standby", "psql", "-XAt", "-p"];
    let (primary, standby) = ((world.base + 4).to_string(), (world.base + 5).to_string());
    let ask =
        |port: &str| world.ok(&[&in_recovery[..], &[port, "-c", "SELECT pg_is_in_recovery()"]].concat());
    assert_eq!((ask(&primary).as_str(), ask(&standby).as_str()), ("f\n", "t\n"));
    let max = world.ok(&["exec", "postgres", "psql", "-XAt", "-c", "SHOW max_connections"]);
    assert_eq!(max, "200\n", "deploy/postgresql.conf is in use");
    let kept = "SELECT count(*) FROM pg_stat_statements WHERE query LIKE 'ALTER ROLE%'";
    let kept = world.ok(&["exec", "postgres", "psql", "-XAt", "-c", kept]);
    assert_eq!(kept, "0\n", "who may read statistics does not read passwords in them");

    assert_eq!(world.ok(&["exec", "redis", "redis-cli", "PING"]), "PONG\n", "the stack's own, logged in");
    let in_recovery = "SELECT pg_is_in_recovery()";
    assert_eq!(world.ok(&["exec", "standby", "psql", "-XAt", "-c", in_recovery]), "t\n");

    let pids = world.pids();
    assert_eq!(pids.len(), 8);
    world.ok(&["down"]);
    let alive: Vec<i64> = pids.into_iter().filter(|pid| is_alive(*pid)).collect();
    assert!(alive.is_empty(), "still alive: {alive:?}\n{}", world.log("stack"));
    let left: Vec<_> =
        std::fs::read_dir(world.stack_path("run")).unwrap().flatten().map(|e| e.path()).collect();
    assert!(left.iter().all(|path| path.extension().is_none_or(|end| end == "lock")), "{left:?}");
    assert!(world.stack_path("data/postgres/PG_VERSION").exists(), "data is kept");

    let again = world.ok(&["up", "--as-before"]);
    assert!(again.contains("all 7 parts are healthy"), "{again}");
    let databases = world.ok(&["exec", "postgres", "psql", "-XAt", "-c", "SELECT current_database()"]);
    assert_eq!(databases, "arena_db\n");
    world.ok(&["down", "--purge"]);
    assert!(!world.path(".stack").exists());
}

#[test]
fn a_child_that_dies_comes_back_and_the_status_tells() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "2"]);
    let before = world.part("web-1");
    kill(&before["pid"]);
    let after = world.part_until("web-1", |row| is_healthy(row) && row["pid"] != before["pid"]);
    assert_eq!(after["restarts"], 1);
    assert!(world.log("stack").contains("web-1 (pid"), "it is said in the log");
    assert_eq!(world.part("web-2")["restarts"], 0);
}

#[test]
fn a_pooler_that_lets_no_query_pass_is_not_healthy_and_the_status_says_why() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "1"]);
    std::fs::write(world.stack_path("no-queries"), "").unwrap();
    let row = world.part_until("pooler", |row| row["state"] == "unhealthy");
    assert_eq!(row["trouble"], "no query passes to arena_db: not today");
    let status = world.stack(&["status"]);
    assert_eq!(status.status, 1);
    assert!(status.text.contains("pooler: no query passes to arena_db: not today"), "{}", status.text);
    std::fs::remove_file(world.stack_path("no-queries")).unwrap();
    let row = world.part_until("pooler", is_healthy);
    assert_eq!(row["trouble"], serde_json::Value::Null);
}

#[test]
fn secrets_are_kept_to_their_owner_and_off_every_command_line() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "1"]);
    let mut secrets = Vec::new();
    for entry in std::fs::read_dir(world.stack_path("secrets")).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
        secrets.push(std::fs::read_to_string(entry.path()).unwrap());
    }
    let mode = std::fs::metadata(world.stack_path("conf/userlist.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for pid in world.pids() {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(secrets.iter().all(|secret| !line.contains(secret.as_str())), "a secret is on: {line}");
    }
    let logs: String = ["stack", "web-1", "pooler", "balancer"].map(|name| world.log(name)).concat();
    assert!(secrets.iter().all(|secret| !logs.contains(secret.as_str())), "a secret is in a log");
}

#[test]
fn a_part_is_started_with_what_it_reads_of_the_environment_and_no_more() {
    let world = World::new(Stores::Private);
    let own = ["JWT_KEY", "RESPONDER_API_KEY", "DB_READ_PASSWORD", "SECRET_KEY_PREVIOUS"];
    world.configure("SECRET_KEY_FALLBACKS=from-the-file\n");
    let mut up = world.command(&["up", "--replicas", "1", "--read-replica"]);
    up.env("NOBODYS_TOKEN", "unknown-one").env("TZ", "UTC").env("BALANCER_OPS_ADDR", "0.0.0.0");
    let said = up.envs(own.map(|name| (name, "of-the-web-service"))).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let status = world.status();
    let rows = status["services"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        let environ = std::fs::read_to_string(format!("/proc/{}/environ", row["pid"])).unwrap();
        let is_web = row["name"] == "web-1";
        let has = |what: &str| environ.split('\0').any(|pair| pair.contains(what));
        for name in own.into_iter().chain(["SECRET_KEY_FALLBACKS", "from-the-file", "of-the-web-service"]) {
            assert_eq!(has(name), is_web, "{name} at {}", row["name"]);
        }
        assert!(!has("NOBODYS_TOKEN"), "{}", row["name"]);
        // Redis and Postgres write their titles where their environment stood.
        let is_ours = is_web || row["name"] == "balancer" || row["name"] == "pooler";
        assert!(!is_ours || has("TZ=UTC") && has("PATH="), "{}", row["name"]);
        assert_eq!(has("BALANCER_OPS_ADDR=0.0.0.0"), row["name"] == "balancer", "{}", row["name"]);
    }
}

#[test]
fn a_taken_port_is_named_with_its_setting_and_nothing_is_started() {
    let world = World::new(Stores::Elsewhere);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", world.base + 3)).unwrap();
    let said = world.stack(&["up"]);
    assert_eq!(said.status, 1);
    let expected =
        format!("port {} for pooler is taken by another process: set POOLER_METRICS_PORT", world.base + 3);
    assert!(said.text.contains(&expected), "{}", said.text);
    assert_eq!(world.stack(&["status"]).status, 3, "no stack runs");
}

#[test]
fn a_failed_migration_ends_the_start_and_shows_its_log() {
    let world = World::new(Stores::Elsewhere);
    let out = world.command(&["up"]).env("LOG_LEVEL", "no-migration-today").output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success());
    assert!(
        text.contains("migrate ended with exit status: 3") && text.contains("migrate for db.invalid:5432"),
        "{text}"
    );
    assert_eq!(world.stack(&["status"]).status, 3, "no stack runs");
}

#[test]
fn a_start_that_is_failing_can_be_taken_down_at_once() {
    let world = World::new(Stores::Elsewhere);
    let mut up = world.command(&["up", "--replicas", "1"]);
    let mut up =
        up.env("LOG_LEVEL", "no-migration-today").stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_until("the migration has failed", || world.log("stack").contains("migrate ended with"));
    world.ok(&["down", "--purge"]);
    assert!(!world.path(".stack").exists());
    assert!(!up.wait().unwrap().success());
}

#[test]
fn after_a_start_that_failed_the_next_one_finds_nothing_of_it() {
    let world = World::new(Stores::Elsewhere);
    let failed =
        world.command(&["up", "--replicas", "1"]).env("LOG_LEVEL", "no-migration-today").output().unwrap();
    assert!(!failed.status.success());
    let said = world.ok(&["up", "--replicas", "1"]);
    assert!(said.contains("parts are healthy"), "{said}");
}

#[test]
fn everything_wrong_with_the_settings_is_told_at_once_and_nothing_is_started() {
    let world = World::new(Stores::Elsewhere);
    let lines = [
        "DB_HOST=db.invalid",
        "CHAT_QUEUE_BYTES=few",
        "REDIS_PORT=many",
        "hunter2",
        "STACK_REPLICA=3",
        "DB_PORTS='open",
        "SECRET_KEY=short",
        "BALANCER_OPS_ADDR=not-an-address",
    ];
    world.configure(&lines.join("\n"));
    let said = world.stack(&["up"]);
    assert_eq!(said.status, 1);
    // The world's own lines are ten.
    for told in [
        "config.env:12: CHAT_QUEUE_BYTES: \"few\" is no whole number",
        "config.env:13: REDIS_PORT: \"many\" is no port number",
        "config.env:14: expected KEY=VALUE",
        "config.env:15: no part knows STACK_REPLICA; is STACK_REPLICAS meant? (a warning)",
        "config.env:16: the quote that opens the value is not closed",
        "config.env:17: SECRET_KEY: too short",
        "config.env:18: BALANCER_OPS_ADDR: \"not-an-address\" is no IP address",
    ] {
        assert!(said.text.contains(told), "{told} is not in:\n{}", said.text);
    }
    assert!(!said.text.contains("hunter2"), "{}", said.text);
    assert!(!world.path(".stack").exists(), "nothing was made");
}

#[test]
fn faults_in_the_operators_own_files_are_told_with_their_name_and_line_and_nothing_is_started() {
    let world = World::new(Stores::Elsewhere);
    let mut told = Vec::new();
    for name in ["pgbouncer.ini", "nginx.conf"] {
        let path = world.path("deploy").join(name);
        let text = std::fs::read_to_string(&path).unwrap() + "nonsense\n";
        // The last line, behind those that the stack leaves out or makes of its own.
        told.push(format!("{}:{}: what is that?", path.display(), text.lines().count()));
        std::fs::write(&path, text).unwrap();
    }
    for verb in ["check", "up"] {
        let said = world.stack(&[verb]);
        assert_eq!(said.status, 1, "{}", said.text);
        for told in &told {
            assert!(said.text.contains(told), "{told} is not in:\n{}", said.text);
        }
    }
    assert!(!world.path(".stack").exists(), "nothing was made");
}

#[test]
fn what_this_machine_lacks_is_told_before_the_start() {
    let world = World::new(Stores::Private);
    world.configure("STACK_POSTGRES_BIN=/nowhere\nSTACK_USER=no_such_user\n");
    let said = world.stack(&["check"]);
    assert_eq!(said.status, 1, "{}", said.text);
    assert!(
        said.text.contains(": STACK_POSTGRES_BIN: /nowhere does not hold all of postgres"),
        "{}",
        said.text
    );
    // Who is no root runs all parts itself.
    let is_told = said.text.contains(": STACK_USER: no user named no_such_user on this machine");
    assert_eq!(is_told, nix::unistd::geteuid().is_root(), "{}", said.text);
}

#[test]
fn a_name_that_no_part_knows_is_a_warning_and_no_hindrance() {
    let world = World::new(Stores::Elsewhere);
    let own = "ACTUAL_DB_HOST=db.invalid\nREDIS_HOST=cache.invalid\nDB_PASSWORD=operators-own\n";
    world.configure(&format!("{own}DB_PASWORD=x\n"));
    let said = world.ok(&["check"]);
    assert!(said.contains("the settings are right"), "{said}");
    assert!(said.contains("config.env:14: no part knows DB_PASWORD; is DB_PASSWORD meant?"), "{said}");
}

#[test]
fn what_a_killed_supervisor_left_behind_is_ended() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "2"]);
    let pids = world.pids();
    kill(&world.status()["stack"]["pid"]);
    let supervisor = *pids.last().unwrap();
    wait_until("the supervisor is gone", || !is_alive(supervisor));
    let status = world.stack(&["status"]);
    assert!(
        status.status == 3 && status.text.contains("left behind: balancer, pooler, web-1, web-2"),
        "{}",
        status.text
    );
    // A new start ends them first, because they hold its ports.
    let said = world.ok(&["up", "--replicas", "1"]);
    assert!(said.contains("ending what an earlier supervisor left behind"), "{said}");
    assert!(pids.into_iter().all(|pid| !is_alive(pid)));
}

#[test]
fn replicas_come_and_go_and_the_balancer_learns_of_it() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "2"]);
    let balancer = world.part("balancer")["pid"].clone();
    world.ok(&["scale", "4"]);
    assert!(is_healthy(&world.part("web-4")));
    // Four upstreams, a line for each of four replicas.
    wait_until("the balancer has read its file again", || world.log("balancer").contains("read again 16"));
    world.ok(&["scale", "1"]);
    assert_eq!(world.status()["replicas"].as_array().unwrap().len(), 1);
    assert_eq!(world.part("balancer")["pid"], balancer, "it was not restarted");
    world.ok(&["down"]);
    world.ok(&["up", "--as-before"]);
    assert_eq!(world.status()["replicas"].as_array().unwrap().len(), 1, "a restart keeps to the number");
    let refused = world.stack(&["restart", "web-2"]);
    assert!(
        refused.status == 1 && refused.text.contains("no part of this stack is named web-2"),
        "{}",
        refused.text
    );
}

#[test]
fn after_a_scale_that_failed_the_stack_is_as_it_was() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "2"]);
    let before = world.pids();
    let taken = std::net::TcpListener::bind(("127.0.0.1", world.base + 8 + 3)).unwrap();
    let said = world.stack(&["scale", "4"]);
    assert_eq!(said.status, 1, "{}", said.text);
    assert!(said.text.contains("still 2 replicas: web-4 ended before it was healthy"), "{}", said.text);
    assert_eq!(world.pids(), before);
    assert_eq!(world.stack(&["status"]).status, 0, "all that is there is healthy");
    drop(taken);
    world.ok(&["scale", "4"]);
}

#[test]
fn a_restart_takes_the_settings_of_now_and_the_documents_names() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "1"]);
    let before = world.part("pooler")["pid"].clone();
    let own = "ACTUAL_DB_HOST=db.invalid\nREDIS_HOST=cache.invalid\n";
    world.configure(&format!("{own}DB_PASSWORD=another-one\nPOOLER_DEFAULT_POOL_SIZE=77\n"));
    world.ok(&["restart", "pgbouncer"]);
    assert_ne!(world.part("pooler")["pid"], before);
    let ini = std::fs::read_to_string(world.stack_path("conf/pgbouncer.ini")).unwrap();
    assert!(ini.contains("default_pool_size = 77"), "{ini}");
    let users = std::fs::read_to_string(world.stack_path("conf/userlist.txt")).unwrap();
    assert!(users.contains("\"arena_user\" \"another-one\""));
    world.configure(&format!("{own}DB_PASSWORD=another-one\nHTTP_PORT=1\n"));
    let refused = world.stack(&["restart", "web"]);
    assert!(refused.status == 1 && refused.text.contains("stop and start the stack"), "{}", refused.text);
}

#[test]
fn an_upgrade_replaces_what_changed_and_a_rollback_brings_it_back() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "2"]);
    assert!(world.ok(&["upgrade"]).contains("in use already"));
    let before = world.status();
    let web = world.path("programs/web");
    let text = std::fs::read_to_string(&web).unwrap().replace("\"serves\"", "\"serves better\"");
    std::fs::write(&web, text).unwrap();
    let said = world.ok(&["upgrade"]);
    assert!(said.contains("changed: web") && said.contains("web-2 was restarted"), "{said}");
    assert!(world.log("web-1").contains("serves better"));
    let after = world.status();
    assert_eq!(after["services"][0]["pid"], before["services"][0]["pid"], "the pooler goes on");
    world.ok(&["rollback"]);
    assert_eq!(world.log("web-1").lines().last(), Some("web serves"));
}

#[test]
fn a_rollback_after_a_failed_and_a_good_upgrade_goes_back_to_what_ran_before_both() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "1"]);
    let web = world.path("programs/web");
    let text = std::fs::read_to_string(&web).unwrap();
    let broken = text.replace("server.serve_forever()", "sys.exit(1)");
    std::fs::write(&web, broken).unwrap();
    assert_eq!(world.stack(&["upgrade"]).status, 1);
    std::fs::write(&web, text.replace("\"serves\"", "\"serves better\"")).unwrap();
    world.ok(&["upgrade"]);
    assert!(world.log("web-1").contains("serves better"));
    world.ok(&["rollback"]);
    assert_eq!(world.log("web-1").lines().last(), Some("web serves"));
}

#[test]
fn an_upgrade_that_failed_fails_again_and_a_rollback_mends_what_it_left() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "2"]);
    let before = world.part("web-2")["pid"].clone();
    let web = world.path("programs/web");
    let text = std::fs::read_to_string(&web).unwrap();
    let broken = text.replace("server.serve_forever()", "sys.exit(1)");
    assert_ne!(broken, text);
    std::fs::write(&web, broken).unwrap();
    for time in ["the first time", "the second time"] {
        let said = world.stack(&["upgrade"]);
        assert_eq!(said.status, 1, "{time}: {}", said.text);
        assert!(said.text.contains("web-1 ended before it was healthy"), "{time}: {}", said.text);
        assert_eq!(world.part("web-1")["state"], "failed", "{time}");
    }
    let said = world.ok(&["rollback"]);
    assert!(said.contains("changed: web") && is_healthy(&world.part("web-1")), "{said}");
    assert_ne!(world.part("web-2")["pid"], before, "whatever it ran, it runs the release before now");
    std::fs::write(&web, text).unwrap();
    assert!(world.ok(&["upgrade"]).contains("in use already"));
}

#[test]
fn a_stop_does_not_wait_for_a_restart_of_all_replicas() {
    let world = World::new(Stores::Elsewhere);
    for stop in ["down", "SIGTERM"] {
        world.ok(&["up", "--replicas", "4"]);
        let served = || world.log("web-4").matches("web serves").count();
        let (before, first) = (served(), world.part("web-1")["pid"].clone());
        let pids = world.pids();
        let mut restart = world.command(&["restart", "web"]);
        let restart = restart.stderr(std::process::Stdio::piped()).spawn().unwrap();
        world.part_until("web-1", |row| is_healthy(row) && row["pid"] != first);
        if stop == "down" {
            world.ok(&["down"]);
        } else {
            let supervisor = nix::unistd::Pid::from_raw(i32::try_from(*pids.last().unwrap()).unwrap());
            nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGTERM).unwrap();
            wait_until("the supervisor is gone", || !is_alive(supervisor.as_raw().into()));
        }
        let restart = restart.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&restart.stderr).into_owned();
        assert!(!restart.status.success() && said.contains("told to stop"), "{stop}: {said}");
        assert_eq!(served(), before, "{stop}: the last replica was restarted first");
        assert!(pids.into_iter().all(|pid| !is_alive(pid)), "{stop}: something is left");
        let left = world.stack(&["status"]);
        assert!(left.status == 3 && !left.text.contains("left behind"), "{stop}: {}", left.text);
    }
}

#[test]
fn on_the_way_down_replicas_end_once_the_balancer_has_drained() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "2"]);
    let sockets = world.stack_path("sockets");
    std::fs::write(&sockets, "open").unwrap();
    // The parts run as another user.
    std::fs::set_permissions(&sockets, std::fs::Permissions::from_mode(0o666)).unwrap();
    world.ok(&["down"]);
    for replica in ["web-1", "web-2"] {
        let log = std::fs::read_to_string(world.stack_path(&format!("logs/{replica}.log"))).unwrap();
        assert!(log.lines().any(|line| line.ends_with("told to end")), "{log}");
    }
}

#[test]
fn logs_are_shown_by_part_and_by_the_documents_names() {
    let world = World::new(Stores::Elsewhere);
    world.ok(&["up", "--replicas", "1"]);
    assert_eq!(world.ok(&["logs", "pgbouncer"]), "pooler     | pooler serves\n");
    assert!(world.ok(&["logs"]).contains("web-1      | web serves"));
    let refused = world.stack(&["logs", "nobody"]);
    assert!(refused.status == 1 && refused.text.contains("there are: balancer"), "{}", refused.text);
}

#[test]
fn a_stack_in_the_foreground_ends_well_when_it_is_told() {
    let world = World::new(Stores::Elsewhere);
    let log = std::fs::File::create(world.path("foreground.log")).unwrap();
    let mut stack = world.command(&["up", "--foreground", "--replicas", "1"]).stderr(log).spawn().unwrap();
    let said = || std::fs::read_to_string(world.path("foreground.log")).unwrap();
    wait_until("all parts are healthy", || {
        assert!(stack.try_wait().unwrap().is_none(), "it ended: {}", said());
        said().contains("parts are healthy")
    });
    let pid = nix::unistd::Pid::from_raw(i32::try_from(stack.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(stack.wait().unwrap().success());
    assert!(world.log("web-1").ends_with("web ended well\n"));
}
