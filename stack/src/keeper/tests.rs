use std::collections::BTreeMap;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::*;
use crate::dirs::Dirs;
use crate::identity::RunAs;
use crate::logic::addresses::Endpoint;
use crate::logic::plan::{Identity, Stop, Succession};

/// A part that is a shell script; its health check asks a port that the test answers on.
struct World {
    _dir: tempfile::TempDir,
    nest: Rc<Nest>,
    board: Rc<Board>,
    tasks: Tasks,
    port: u16,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::prepare(&dir.path().join("stack"), &RunAs::Starter).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tasks = Tasks::new();
        tasks.spawn_local("healthy answers", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                use tokio::io::AsyncWriteExt as _;
                let _ = stream.write_all(b"+PONG\r\n").await;
            }
        });
        let nest = Rc::new(Nest { dirs, run_as: RunAs::Starter, basics: BTreeMap::new() });
        Self { _dir: dir, nest, board: Rc::new(Board::new(Instant::now())), tasks, port }
    }

    fn part(&self, name: &str, script: &str) -> Part {
        Part {
            name: name.to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".to_owned(), script.to_owned()],
            env: BTreeMap::new(),
            identity: Identity::Unprivileged,
            address: Endpoint::local(self.port),
            probe: Probe::Redis { port: self.port },
            stop: Stop {
                first: StopSignal::Terminate,
                then: StopSignal::Quit,
                patience: Duration::from_millis(300),
                patience_when_replaced: Duration::from_millis(300),
            },
            succession: Succession::Afterwards,
        }
    }

    fn keep(&self, part: Part) -> Keeper {
        Keeper::start(part, Rc::clone(&self.nest), Rc::clone(&self.board), &self.tasks)
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn in_world(test: impl AsyncFnOnce(World)) {
    tokio::task::LocalSet::new().run_until(async { test(World::new().await).await }).await;
}

async fn pid_other_than(keeper: &Keeper, old: Option<u32>) -> u32 {
    let mut sight = keeper.sight.clone();
    let other = sight.wait_for(|seen| seen.state == State::Healthy && seen.pid.is_some() && seen.pid != old);
    let seen = tokio::time::timeout_at(soon().into(), other).await.unwrap().unwrap().clone();
    seen.pid.unwrap()
}

/// While a shell becomes the program it was asked to run, the system shows no command line for a moment.
async fn command_line(pid: u32) -> String {
    loop {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        if !text.is_empty() {
            return text;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_child_that_dies_is_started_again_and_it_is_said() {
    in_world(async |world| {
        let keeper = world.keep(world.part("web-1", "exec sleep 600"));
        let first = pid_other_than(&keeper, None).await;
        kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
        let second = pid_other_than(&keeper, Some(first)).await;
        assert_ne!(first, second);
        assert_eq!(world.board.rows()[0].restarts, 1);
        let said = world.board.lines_from(0).0.join("\n");
        assert!(
            said.contains(&format!("web-1 (pid {first}) died")) && said.contains("started again"),
            "{said}"
        );
        keeper.stop().await;
        assert_eq!(world.board.rows()[0].state, State::Stopped);
        assert!(crate::record::left_over(&world.nest.dirs).is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_part_that_never_runs_is_given_up_with_the_end_of_its_log() {
    in_world(async |world| {
        let mut part = world.part("pooler", "echo the reason; exit 3");
        // Nobody answers there, so it cannot look healthy while it dies.
        part.probe = Probe::Redis { port: 1 };
        let keeper = world.keep(part);
        let error = keeper.healthy(soon()).await.unwrap_err().to_string();
        assert!(
            error.contains("pooler ended before it was healthy") && error.contains("the reason"),
            "{error}"
        );
        assert_eq!(world.board.rows()[0].state, State::Failed);
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    in_world(async |world| {
        let mut part = world.part("balancer", "");
        part.program = "/nowhere/balancer".into();
        let keeper = world.keep(part);
        let error = keeper.healthy(soon()).await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/balancer"), "{error}");
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_child_that_does_not_listen_is_killed_and_it_is_said() {
    in_world(async |world| {
        let deaf = "trap '' TERM QUIT; while :; do sleep 0.05; done";
        let keeper = world.keep(world.part("web-2", deaf));
        let pid = pid_other_than(&keeper, None).await;
        // The shell may be asked to end before its trap stands; then it ends by itself, which is no fault.
        keeper.stop().await;
        assert!(crate::record::Process::running(pid).is_none());
    })
    .await;
}

#[tokio::test]
async fn a_replaced_part_runs_the_new_program() {
    in_world(async |world| {
        let keeper = world.keep(world.part("web-3", "exec sleep 600"));
        let first = pid_other_than(&keeper, None).await;
        keeper.replace(world.part("web-3", "exec sleep 601"), Way::Anew).await;
        keeper.healthy(soon()).await.unwrap();
        let second = pid_other_than(&keeper, Some(first)).await;
        assert!(command_line(second).await.contains("601"));
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_successor_does_not_wait_for_as_long_as_a_stop_would() {
    in_world(async |world| {
        let ready = world.nest.dirs.root().join("ready");
        let script = format!("trap '' TERM; touch {}; while :; do sleep 0.02; done", ready.display());
        let mut part = world.part("web-4", &script);
        part.stop.patience = Duration::from_secs(600);
        let keeper = world.keep(part);
        while !ready.exists() {
            tokio::task::yield_now().await;
        }
        let replaced = keeper.replace(world.part("web-4", "exec sleep 601"), Way::Anew);
        tokio::time::timeout(Duration::from_secs(60), replaced).await.unwrap();
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_program_that_takes_over_serves_before_the_old_one_ends() {
    in_world(async |world| {
        let note = world.nest.dirs.root().join("old");
        let script = |more: &str| {
            let note = note.display();
            format!("if [ \"$0\" = -R ]; then kill \"$(cat {note})\"; else echo $$ > {note}; fi; exec sleep {more}")
        };
        let keeper = world.keep(world.part("pooler", &script("600")));
        let first = pid_other_than(&keeper, None).await;
        let mut next = world.part("pooler", &script("601"));
        next.succession = Succession::TakesOver("-R");
        // The shell writes its id before it becomes the program.
        while std::fs::read_to_string(&note).unwrap_or_default().trim() != first.to_string() {
            tokio::task::yield_now().await;
        }
        assert_eq!(keeper.replace(next, Way::TakingOver).await, Way::TakingOver);
        let second = pid_other_than(&keeper, Some(first)).await;
        assert!(command_line(second).await.contains("601"));
        let said = world.board.lines_from(0).0.join("\n");
        assert!(!said.contains("died"), "{said}");
        keeper.stop().await;
        assert!(crate::record::left_over(&world.nest.dirs).is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_program_that_cannot_take_over_starts_when_the_old_one_has_ended() {
    in_world(async |world| {
        let keeper = world.keep(world.part("pooler", "exec sleep 600"));
        let first = pid_other_than(&keeper, None).await;
        let script = "[ \"$0\" = -R ] && { echo no sockets; exit 1; }; exec sleep 601";
        let mut next = world.part("pooler", script);
        next.succession = Succession::TakesOver("-R");
        assert_eq!(keeper.replace(next, Way::TakingOver).await, Way::Anew);
        keeper.healthy(soon()).await.unwrap();
        let second = pid_other_than(&keeper, Some(first)).await;
        assert!(command_line(second).await.contains("601"));
        let said = world.board.lines_from(0).0.join("\n");
        assert!(said.contains("pooler is ended first") && said.contains("no sockets"), "{said}");
        keeper.stop().await;
    })
    .await;
}

/// A script that writes its id, and on USR2 starts another beside itself, which does so too.
fn balancer_script(nest: &Nest, pid_file: &std::path::Path) -> String {
    let told = format!("echo $$ > {0}.new; mv {0}.new {0}", pid_file.display());
    let heir = nest.dirs.root().join("heir.sh");
    std::fs::write(&heir, format!("{told}; exec sleep 601\n")).unwrap();
    let heir = heir.display();
    format!("trap '/bin/sh {heir} &' USR2; trap 'exit 0' TERM; {told}; while :; do sleep 0.02; done")
}

#[tokio::test]
async fn a_successor_that_the_old_one_started_is_kept_like_a_child() {
    in_world(async |world| {
        let pid_file = world.nest.dirs.root().join("balancer.pid");
        let mut part = world.part("balancer", &balancer_script(&world.nest, &pid_file));
        part.stop.patience = Duration::from_secs(20);
        part.succession = Succession::Usr2 { pid_file: pid_file.clone() };
        let keeper = world.keep(part.clone());
        let first = pid_other_than(&keeper, None).await;
        while std::fs::read_to_string(&pid_file).unwrap_or_default().trim() != first.to_string() {
            tokio::task::yield_now().await;
        }
        assert_eq!(keeper.replace(part, Way::TakingOver).await, Way::TakingOver);
        let heir = pid_other_than(&keeper, Some(first)).await;
        assert_eq!(std::fs::read_to_string(&pid_file).unwrap().trim(), heir.to_string());
        assert!(crate::record::Process::running(first).is_none());
        // Its death is seen, and the part is started again.
        kill(Pid::from_raw(heir.cast_signed()), Signal::SIGKILL).unwrap();
        let third = pid_other_than(&keeper, Some(heir)).await;
        assert!(command_line(third).await.contains("trap"));
        keeper.stop().await;
        assert!(crate::record::Process::running(third).is_none());
    })
    .await;
}
