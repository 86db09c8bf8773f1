//! The process that holds the parts together: brings them up in order, serves commands, takes them down in order.

mod commands;
mod fall;
mod rise;

pub(crate) use rise::check_ports;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use chassis::signals::{Signal, Signals};
use chassis::tasks::Tasks;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{mpsc, watch};

use crate::board::{Board, Stage};
use crate::control::{self, Command, Control, Reply, ReportSource, Request};
use crate::dirs::Dirs;
use crate::exec::{self, Around};
use crate::identity::RunAs;
use crate::keeper::Keeper;
use crate::logic::addresses::{Place, Route};
use crate::logic::plan::{Files, Plan};
use crate::logic::report::{DatabasePlace, Places, PoolerPlace, Replica, Report, Supervisor as Me};
use crate::origin::Origin;
use crate::release;
use crate::settings::Settings;
use crate::spawn::Nest;
use crate::{postgres, secrets};

pub use commands::todays_name;
pub use fall::end_left_over;

/// How often the sizes of logs are looked at.
const LOG_LOOK: Duration = Duration::from_secs(30);
/// Commands that wait while another one is carried out.
const WAITING_MAX: usize = 8;
/// A start can fail before its caller has connected.
const FIRST_CONTACT: Duration = Duration::from_millis(200);
/// Followers of a start that failed get this long to read why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The running stack.
struct Stack {
    origin: Origin,
    plan: Plan,
    /// The same, for who asks while a command is carried out.
    shown: watch::Sender<Plan>,
    /// Every release that a part may run: one, unless the way from one to another broke off.
    releases: Vec<PathBuf>,
    nest: Rc<Nest>,
    board: Rc<Board>,
    tasks: Tasks,
    stores: Vec<Keeper>,
    pooler: Option<Keeper>,
    replicas: Vec<Keeper>,
    balancer: Option<Keeper>,
}

/// Runs the stack until it is told to stop; returns when nothing of it is left.
///
/// # Errors
/// The start failed, or something did not end.
pub async fn run(origin: Origin, outer: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    let settings = origin.read(outer)?;
    let run_as = RunAs::find(settings.user.as_deref())?;
    let dirs = Dirs::prepare(&origin.dir, &run_as)?;
    let _lock = lock(&dirs)?;
    let tasks = Tasks::new();
    let board = Rc::new(Board::new(Instant::now()));
    let listener = control::listen(&dirs)?;
    let (commands, mut received) = mpsc::channel(8);
    let mut signals = Signals::new()?;
    let plan = make_plan(&origin, settings, &dirs, &run_as)?;
    let shown = watch::Sender::new(plan.clone());
    let source = StatusOf {
        board: Rc::clone(&board),
        places: places(&plan, &dirs),
        dirs: dirs.clone(),
        plan: shown.subscribe(),
        search_path: origin.search_path.clone(),
    };
    let control = Control { board: Rc::clone(&board), report: Box::new(source), commands };
    tasks.spawn_local("control", control::serve(listener, Rc::new(control), tasks.clone()));
    let nest = Rc::new(Nest { dirs, run_as, basics: plan.settings.told.basics() });
    let mut stack = Stack {
        origin,
        releases: vec![plan.files.programs.clone()],
        plan,
        shown,
        nest,
        board,
        tasks,
        stores: Vec::new(),
        pooler: None,
        replicas: Vec::new(),
        balancer: None,
    };
    let rise = stack.rise_unless_told(&mut received, &mut signals).await;
    let told = match rise {
        Ok(Rise::Up) => stack.serve(&mut received, &mut signals, outer).await,
        Ok(Rise::Told(command)) => command,
        Err(cause) => {
            let why = format!("{cause:#}");
            // Followers are told why at the end, when nothing is left running.
            tracing::error!("{why}");
            stack.fall().await?;
            stack.board.set_stage(Stage::Failed(why));
            // The follower may be about to connect; its connection is a task, for which draining waits.
            tokio::time::sleep(FIRST_CONTACT).await;
            stack.tasks.drain(LAST_WORDS).await;
            control::remove_socket(&stack.nest.dirs);
            bail!("the start has failed");
        }
    };
    stack.board.set_stage(Stage::Falling);
    let ended = stack.fall().await;
    if let Some(command) = told {
        let reply = match &ended {
            Ok(()) => Reply::Done,
            Err(cause) => Reply::Failed { why: format!("{cause:#}") },
        };
        command.reply(reply).await;
    }
    stack.tasks.drain(LAST_WORDS).await;
    control::remove_socket(&stack.nest.dirs);
    ended
}

/// How the start ended, if it did not fail.
enum Rise {
    Up,
    /// It was told to stop before it was up, by a command or by a signal.
    Told(Option<Command>),
}

impl Stack {
    async fn rise_unless_told(
        &mut self,
        received: &mut mpsc::Receiver<Command>,
        signals: &mut Signals,
    ) -> Result<Rise> {
        tokio::select! {
            risen = self.rise() => {
                risen?;
                self.board.set_stage(Stage::Up);
                Ok(Rise::Up)
            }
            told = told_to_stop(received, signals) => Ok(Rise::Told(told)),
        }
    }

    /// Serves commands until one of them, or a signal, is the end.
    async fn serve(
        &mut self,
        received: &mut mpsc::Receiver<Command>,
        signals: &mut Signals,
        outer: &dyn Fn(&str) -> Option<String>,
    ) -> Option<Command> {
        let mut look = tokio::time::interval(LOG_LOOK);
        let mut inbox = Inbox { received, signals, waiting: VecDeque::new() };
        loop {
            if let Some(command) = inbox.waiting.pop_front() {
                match self.carry_out_unless_told(command, &mut inbox, outer).await {
                    Carried::Out => continue,
                    Carried::Told(told) => return told,
                }
            }
            tokio::select! {
                _ = look.tick() => self.trim_logs(),
                told = next_order(inbox.received, inbox.signals) => match told {
                    Order::End(told) => return told,
                    Order::Work(command) => inbox.waiting.push_back(command),
                },
            }
        }
    }

    /// Who is told to stop does not finish a command first, which may take minutes: the way down ends what it began.
    async fn carry_out_unless_told(
        &mut self,
        command: Command,
        inbox: &mut Inbox<'_>,
        outer: &dyn Fn(&str) -> Option<String>,
    ) -> Carried {
        let Inbox { received, signals, waiting } = inbox;
        let told = async {
            loop {
                match next_order(received, signals).await {
                    Order::End(told) => return told,
                    Order::Work(next) if waiting.len() < WAITING_MAX => waiting.push_back(next),
                    Order::Work(next) => {
                        let why = format!("{WAITING_MAX} commands wait already: ask again later");
                        next.reply(Reply::Failed { why }).await;
                    }
                }
            }
        };
        let done = tokio::select! {
            biased;
            told = told => Err(told),
            done = self.carry_out(&command, outer) => Ok(done),
        };
        match done {
            Ok(Ok(())) => command.reply(Reply::Done).await,
            Ok(Err(cause)) => command.reply(Reply::Failed { why: format!("{cause:#}") }).await,
            Err(told) => {
                let why = || "the stack was told to stop, this was not finished".to_owned();
                self.board.say("told to stop in the middle of a command: it is not finished");
                for broken_off in std::iter::once(&command).chain(&*waiting) {
                    broken_off.reply(Reply::Failed { why: why() }).await;
                }
                return Carried::Told(told);
            }
        }
        Carried::Out
    }

    /// A log that has grown too large is copied to `.1` and emptied: the parts append, so they go on at its beginning.
    fn trim_logs(&self) {
        let Ok(entries) = std::fs::read_dir(self.nest.dirs.logs()) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let large =
                std::fs::metadata(&path).is_ok_and(|meta| meta.len() > self.plan.settings.log_bytes_max);
            if !large || path.extension().is_none_or(|end| end != "log") {
                continue;
            }
            let kept = path.with_extension("log.1");
            let trimmed = std::fs::copy(&path, &kept)
                .and_then(|_| std::fs::OpenOptions::new().write(true).open(&path))
                .and_then(|file| file.set_len(0));
            if let Err(cause) = trimmed {
                self.board
                    .say(&format!("{} has grown too large and cannot be trimmed: {cause}", path.display()));
            }
        }
    }

    fn keep(&self, part: crate::logic::plan::Part) -> Keeper {
        Keeper::start(part, Rc::clone(&self.nest), Rc::clone(&self.board), &self.tasks)
    }

    fn start_deadline(&self) -> Instant {
        Instant::now() + self.plan.settings.start_timeout
    }
}

/// What the supervisor is told from outside.
enum Order {
    /// To end, by a command or by a signal.
    End(Option<Command>),
    Work(Command),
}

/// What the supervisor listens to, and what it has heard and not done yet.
struct Inbox<'a> {
    received: &'a mut mpsc::Receiver<Command>,
    signals: &'a mut Signals,
    waiting: VecDeque<Command>,
}

/// How a command ended.
enum Carried {
    Out,
    /// The stack is to end, by a command or by a signal.
    Told(Option<Command>),
}

async fn next_order(received: &mut mpsc::Receiver<Command>, signals: &mut Signals) -> Order {
    loop {
        tokio::select! {
            signal = signals.next() => if matches!(signal, Signal::Terminate | Signal::Interrupt | Signal::Quit) {
                return Order::End(None);
            },
            command = received.recv() => return match command {
                Some(command) if command.request != Request::Stop => Order::Work(command),
                stop_or_none => Order::End(stop_or_none),
            },
        }
    }
}

async fn told_to_stop(received: &mut mpsc::Receiver<Command>, signals: &mut Signals) -> Option<Command> {
    loop {
        match next_order(received, signals).await {
            Order::End(told) => return told,
            Order::Work(command) => {
                command.reply(Reply::Failed { why: "the stack is still starting".to_owned() }).await;
            }
        }
    }
}

fn make_plan(origin: &Origin, settings: Settings, dirs: &Dirs, run_as: &RunAs) -> Result<Plan> {
    let secrets = secrets::keep_or_make(&settings, dirs, run_as)?;
    let postgres_bin = match settings.topology.primary {
        Place::Ours => postgres::find_programs(settings.postgres_bin.as_deref(), &origin.search_path)?,
        Place::Theirs(_) => PathBuf::new(),
    };
    let redis_server = match settings.topology.redis {
        Place::Ours => postgres::find_on_path("redis-server", "redis-server", &origin.search_path)?,
        Place::Theirs(_) => PathBuf::new(),
    };
    let programs = release::current(dirs).context("no release is installed: start with `stack up`")?;
    let files = files(dirs, programs, postgres_bin, redis_server);
    Ok(Plan { settings, secrets, files })
}

fn files(dirs: &Dirs, programs: PathBuf, postgres_bin: PathBuf, redis_server: PathBuf) -> Files {
    let (conf, data, run) = (dirs.conf(), dirs.data(), dirs.services_run());
    Files { programs, current: release::current_link(dirs), conf, data, run, postgres_bin, redis_server }
}

/// The plan of a stack in this folder, for verbs that run beside it.
///
/// # Errors
/// The settings are wrong or the stack was never started here.
pub fn plan_of(origin: &Origin, outer: &dyn Fn(&str) -> Option<String>) -> Result<(Plan, Nest)> {
    let settings = origin.read(outer)?;
    let run_as = RunAs::find(settings.user.as_deref())?;
    let dirs = Dirs::at(&origin.dir);
    let secrets = secrets::read_kept(&dirs)?;
    let postgres_bin =
        postgres::find_programs(settings.postgres_bin.as_deref(), &origin.search_path).unwrap_or_default();
    let programs = release::current(&dirs).context("no release is installed: start the stack first")?;
    let files = files(&dirs, programs, postgres_bin, PathBuf::new());
    let nest = Nest { dirs, run_as, basics: settings.told.basics() };
    Ok((Plan { settings, secrets, files }, nest))
}

/// One supervisor per folder.
fn lock(dirs: &Dirs) -> Result<Flock<std::fs::File>> {
    let path = dirs.run().join("stack.lock");
    let file = std::fs::File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| anyhow::anyhow!("another supervisor holds {}", path.display()))
}

fn places(plan: &Plan, dirs: &Dirs) -> Places {
    let ports = plan.settings.ports;
    let primary = plan.primary();
    Places {
        url: plan.url(),
        balancer_metrics: format!("http://127.0.0.1:{}/metrics", ports.balancer_ops),
        pooler: (plan.settings.topology.route == Route::Pooled).then(|| PoolerPlace {
            host: "127.0.0.1".to_owned(),
            port: ports.pooler,
            metrics: format!("http://127.0.0.1:{}/metrics", ports.pooler_metrics),
        }),
        database: DatabasePlace {
            host: primary.host,
            port: primary.port,
            name: plan.settings.database.name.clone(),
            user: plan.settings.database.user.clone(),
        },
        pgpass_file: dirs.pgpass().to_string_lossy().into_owned(),
        docker: false,
        demo_users: plan.settings.demo_users,
    }
}

#[derive(Debug)]
struct StatusOf {
    board: Rc<Board>,
    places: Places,
    dirs: Dirs,
    plan: watch::Receiver<Plan>,
    search_path: String,
}

impl ReportSource for StatusOf {
    fn report(&self) -> Report {
        let services = self.board.rows();
        let replicas = services.iter().filter(|row| row.name.starts_with("web-")).map(|row| Replica {
            name: row.name.clone(),
            url: format!("http://{}", row.address),
            pid: row.pid,
        });
        let pid = std::process::id();
        Report {
            stack: Me {
                pid,
                uptime_s: self.board.started().elapsed().as_secs(),
                dir: self.dirs.root().to_string_lossy().into_owned(),
            },
            supervisor_pid: pid,
            places: self.places.clone(),
            replicas: replicas.collect(),
            services,
        }
    }

    fn around(&self, service: &str) -> Result<Around> {
        let plan = self.plan.borrow();
        let kept = self.board.rows().iter().filter(|row| row.name.starts_with("web-")).count();
        let replicas = match self.board.stage() {
            Stage::Rising => plan.settings.replicas,
            _ => u32::try_from(kept).unwrap_or(u32::MAX),
        };
        exec::around(&plan, &self.dirs, service, replicas, &self.search_path)
    }
}
