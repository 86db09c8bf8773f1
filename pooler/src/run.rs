//! The assembly: listeners, workers, keeper, signals, the way out. What main and the tests call.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chassis::signals::{Signal, Signals};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

use crate::cli::Start;
use crate::clients::Order;
use crate::house::{House, Phase};
use crate::listeners::Listeners;
use crate::logic::ledger::WorkerId;
use crate::moving::Takeover;
use crate::settings::Settings;
use crate::worker::{Accepted, MAILBOX_LEN, Worker};
use crate::{console, keeper, metrics, spread, suspend, systemd};

/// How long an immediate end waits for goodbyes to be written.
const GOODBYE: Duration = Duration::from_millis(200);

/// Serves until the process is told to end.
pub fn run(start: Start) -> anyhow::Result<()> {
    let Start { settings, log, notify, ldap_conf, takes_over, ready } = start;
    let workers = match settings.worker_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n as usize,
    };
    let runtime = runtime()?;
    // Before anything shows that we are here: whoever sees it may send a signal.
    let signals = {
        let _inside = runtime.enter();
        Signals::new().context("cannot listen for signals")?
    };
    let (listeners, takeover) = listeners(&settings, takes_over)?;
    let house = Arc::new(House::new(settings, log, notify, workers));
    if let Some(path) = ldap_conf {
        let _ = house.ldap_conf.set(path);
    }
    house.apply_tls().map_err(|what| anyhow::anyhow!("TLS setup failed: {what}"))?;
    let mut mailboxes = Vec::new();
    let mut threads = Vec::new();
    for id in 1..workers {
        let (sender, receiver) = mpsc::channel(MAILBOX_LEN);
        mailboxes.push(sender);
        threads.push(spawn_worker(house.clone(), id as WorkerId, receiver)?);
    }
    let (sender, receiver) = mpsc::channel(MAILBOX_LEN);
    mailboxes.insert(0, sender);
    let served = runtime.block_on(async {
        let worker = Worker::new(0, house.clone());
        tokio::task::spawn_local(worker.run(receiver));
        tokio::task::spawn_local(keeper::run(house.clone()));
        tokio::task::spawn_local(keeper::watch_statistics(house.clone()));
        house.spread.set_mailboxes(mailboxes.clone());
        tokio::task::spawn_local(spread::run(house.clone()));
        house.pools.open_minimum(&house);
        open_doors(&house, listeners, &mailboxes)?;
        ready()?;
        house.notifier.ready();
        if let Some(takeover) = takeover {
            house.start_statements_after(takeover.last_statement);
            takeover.go(mailboxes)?;
        }
        until_end(&house, signals).await;
        Ok::<(), anyhow::Error>(())
    });
    // Also where nothing could be opened: the threads wait for it.
    house.tasks.start_drain();
    runtime.shutdown_background();
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker's thread has panicked");
        }
    }
    house.movers.finish();
    house.doors.remove_files();
    served
}

/// From a running process, from a service manager, or our own.
fn listeners(settings: &Settings, takes_over: bool) -> anyhow::Result<(Listeners, Option<Takeover>)> {
    if takes_over {
        let mut takeover = Takeover::begin(settings)?;
        return Ok((std::mem::take(&mut takeover.listeners), Some(takeover)));
    }
    let passed = systemd::passed_sockets().context("a socket from the service manager cannot be used")?;
    let listeners = if passed.is_empty() {
        Listeners::open(settings)?
    } else {
        Listeners::from_manager(passed, settings)?
    };
    Ok((listeners, None))
}

fn open_doors(
    house: &Arc<House>,
    listeners: Listeners,
    mailboxes: &[mpsc::Sender<Accepted>],
) -> anyhow::Result<()> {
    if let Some(listener) = &listeners.metrics {
        let serving = chassis::ops::serve(listener.try_clone()?, ops(house), house.tasks.clone());
        house.tasks.spawn_local("metrics", serving);
    }
    listeners.accept(house, mailboxes)
}

fn spawn_worker(
    house: Arc<House>,
    id: WorkerId,
    mailbox: mpsc::Receiver<Accepted>,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let (started, has_started) = std::sync::mpsc::sync_channel(1);
    let work = move || match runtime() {
        Ok(runtime) => {
            let _ = started.send(Ok(()));
            runtime.block_on(Worker::new(id, house).run(mailbox));
            // A name lookup that hangs must not hold up the end.
            runtime.shutdown_background();
        }
        Err(cause) => drop(started.send(Err(cause))),
    };
    let thread = std::thread::Builder::new().name(format!("worker-{id}")).spawn(work);
    let thread = thread.context("cannot start a thread")?;
    has_started.recv().context("a worker's thread ended at once")??;
    Ok(thread)
}

/// For local tasks, and no `LocalSet` on a runtime: that would be woken, by a write to its own eventfd, in each round in
/// which a socket had something to say.
fn runtime() -> anyhow::Result<LocalRuntime> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.context("cannot start a runtime")
}

fn ops(house: &Arc<House>) -> chassis::ops::Ops {
    let (for_metrics, for_ready) = (house.clone(), house.clone());
    chassis::ops::Ops {
        metrics: Arc::new(move || metrics::render(&console::gather(&for_metrics, true))),
        ready: Arc::new(move || for_ready.phase() == Phase::Running),
    }
}

/// Obeys signals and the console until nothing is left to wait for.
async fn until_end(house: &Arc<House>, mut signals: Signals) {
    loop {
        // Before looking: a change in between must not be missed.
        let changed = house.phase_wake.notified();
        if is_over(house) {
            break;
        }
        tokio::select! {
            signal = signals.next() => on_signal(house, signal),
            () = changed => {}
        }
        if house.phase() != Phase::Running {
            house.doors.close_tcp();
        }
    }
    match house.phase() {
        Phase::WaitForServers => tracing::info!("server connections dropped, exiting"),
        Phase::WaitForClients | Phase::Moving => tracing::info!("client connections dropped, exiting"),
        // A fast exit is one: sockets just close, as in PgBouncer.
        Phase::Running | Phase::Ending => return,
    }
    say_goodbye(house).await;
}

/// Who is left, operators among them, is told.
async fn say_goodbye(house: &House) {
    for client in house.clients.all() {
        client.give(Order::Shutdown);
    }
    let _ = tokio::time::timeout(GOODBYE, async {
        while !house.clients.is_empty() {
            house.phase_wake.notified().await;
        }
    })
    .await;
}

fn is_over(house: &House) -> bool {
    match house.phase() {
        Phase::Running => false,
        Phase::WaitForClients => house.clients.count_of(|l| l.pool.is_some()) == 0,
        Phase::WaitForServers => house.pools.is_quiet(),
        // Somebody may be logging in yet.
        Phase::Moving => house.clients.is_all_console(),
        Phase::Ending => true,
    }
}

fn on_signal(house: &Arc<House>, signal: Signal) {
    match signal {
        Signal::Hangup => {
            tracing::info!("got SIGHUP, re-reading config");
            if let Err(error) = house.log.reopen() {
                tracing::error!("{error}");
            }
            // What is wrong is in the log.
            let _ = console::reload(house);
        }
        Signal::Terminate if house.phase() == Phase::Running => {
            tracing::info!("got SIGTERM, shutting down, waiting for all clients disconnect");
            house.advance(Phase::WaitForClients);
        }
        Signal::Interrupt if house.phase() == Phase::Running => {
            tracing::info!("got SIGINT, shutting down, waiting for all servers connections to be released");
            house.advance(Phase::WaitForServers);
        }
        Signal::Terminate => {
            tracing::info!("got SIGTERM while shutting down, fast exit");
            house.advance(Phase::Ending);
        }
        Signal::Interrupt => {
            tracing::info!("got SIGINT while shutting down, fast exit");
            house.advance(Phase::Ending);
        }
        Signal::Quit => {
            tracing::info!("got SIGQUIT, fast exit");
            house.advance(Phase::Ending);
        }
        Signal::Usr1 => {
            if !house.is_suspended() && !house.pools.is_all_paused() {
                tracing::info!("got SIGUSR1, pausing all activity");
                house.pools.pause_all(house);
            } else {
                tracing::info!("got SIGUSR1, but already paused/suspended");
            }
        }
        Signal::Usr2 if house.phase() != Phase::Running => {
            tracing::info!("got SIGUSR2 while shutting down, ignoring");
        }
        Signal::Usr2 => {
            if suspend::resume(house) {
                tracing::info!("got SIGUSR2, continuing from SUSPEND");
            } else if house.pools.resume_all(house) {
                tracing::info!("got SIGUSR2, continuing from PAUSE");
            } else {
                tracing::info!("got SIGUSR2, but not paused/suspended");
            }
        }
        Signal::WindowChange => {}
    }
}
