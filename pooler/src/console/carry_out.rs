//! The console's commands, done.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::facts::{Command, Outcome, Refusal, Shutdown};
use crate::clients::{ClientEntry, Order};
use crate::house::{House, Phase};
use crate::settings::Database;

/// How long KILL waits for clients to go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// None: the process ends, there is no answer.
pub async fn carry_out(house: &Arc<House>, command: &Command) -> Option<Outcome> {
    let done = match command {
        Command::Show(show) => {
            return Some(Outcome::Facts(Box::new(super::gather(house, show.needs_sockets()))));
        }
        Command::Set { key, value } => return Some(set(house, key, value)),
        Command::Reload => reload(house),
        Command::Pause(database) => pause(house, database.as_deref()).await,
        Command::Resume(database) => resume(house, database.as_deref()),
        Command::Disable(database) => disable(house, database, true),
        Command::Enable(database) => disable(house, database, false),
        Command::Reconnect(database) => known(house, database.as_deref()).map(|_| {
            house.pools.reconnect(house, database.as_deref());
        }),
        Command::Kill(database) => kill(house, database.as_deref()).await,
        Command::KillClient(id) => kill_client(house, *id).await,
        Command::Suspend => crate::suspend::suspend(house).await,
        // Needs the connection itself: see console.rs.
        Command::HandOver => Err(Refusal::NotOurselves),
        Command::Shutdown(how) => return shutdown(house, *how),
        Command::WaitClose(database) => wait_close(house, database.as_deref()).await,
    };
    Some(done.map_or_else(Outcome::Refused, |()| Outcome::Done))
}

fn set(house: &House, key: &str, value: &str) -> Outcome {
    match house.settings().with_set(key, value) {
        Ok(settings) => match house.replace_settings(settings) {
            Err(_) if key.contains("_tls_") || key.contains("_tls13_") => {
                Outcome::DoneWith("TLS settings could not be applied, still using old configuration")
            }
            _ => Outcome::Done,
        },
        Err(error) => {
            tracing::error!("{error}");
            Outcome::Refused(Refusal::Set)
        }
    }
}

/// Reads the files again. What is wrong with them is in the log; the old settings stay.
pub fn reload(house: &Arc<House>) -> Result<(), Refusal> {
    house.notifier.reloading();
    let reloaded = read_again(house);
    house.notifier.ready();
    reloaded
}

fn read_again(house: &Arc<House>) -> Result<(), Refusal> {
    match house.settings().reload() {
        Ok(settings) => {
            for warning in &settings.warnings {
                tracing::warn!("{warning}");
            }
            let replaced = house.replace_settings(settings);
            house.pools.drop_changed_databases(house);
            send_away_from_removed_databases(house);
            replaced.map_err(|_| Refusal::Reload)
        }
        Err(errors) => {
            tracing::error!("{errors}");
            Err(Refusal::Reload)
        }
    }
}

fn send_away_from_removed_databases(house: &House) {
    let settings = house.settings();
    for client in house.clients.all() {
        let pool = client.login.get().and_then(|login| login.pool.as_ref());
        if pool.is_some_and(|pool| settings.database(&pool.database.name).is_none()) {
            client.give(Order::DatabaseGone);
        }
    }
}

pub async fn pause(house: &Arc<House>, database: Option<&str>) -> Result<(), Refusal> {
    let named = known(house, database)?;
    if house.phase() != Phase::Running {
        return Err(Refusal::ShuttingDown);
    }
    if house.is_suspended() || house.pools.is_all_paused() {
        return Err(Refusal::AlreadyPaused);
    }
    match named {
        Some(named) => house.pools.pause(house, &named),
        None => house.pools.pause_all(house),
    }
    house.pools.wait_quiet(database).await;
    Ok(())
}

pub fn resume(house: &Arc<House>, database: Option<&str>) -> Result<(), Refusal> {
    known(house, database)?;
    let Some(name) = database else {
        if house.phase() != Phase::Running {
            return Err(Refusal::ShuttingDown);
        }
        let is_resumed = crate::suspend::resume(house) || house.pools.resume_all(house);
        return if is_resumed { Ok(()) } else { Err(Refusal::NothingPaused) };
    };
    if house.pools.resume(house, name) { Ok(()) } else { Err(Refusal::NotPaused(name.to_string())) }
}

fn disable(house: &House, database: &str, disabled: bool) -> Result<(), Refusal> {
    known(house, Some(database))?;
    house.pools.set_disabled(database, disabled);
    Ok(())
}

async fn kill(house: &Arc<House>, database: Option<&str>) -> Result<(), Refusal> {
    if house.is_suspended() || house.pools.is_all_paused() {
        return Err(Refusal::AlreadyPaused);
    }
    let named = known(house, database)?;
    let mut clients = house.clients.all();
    clients.retain(|client| {
        let login = client.login.get();
        login.is_some_and(|l| l.pool.is_some() && database.is_none_or(|name| l.database == name))
    });
    match named {
        Some(named) => house.pools.pause(house, &named),
        None => house.pools.pause_each(house),
    }
    kill_all(house, &clients, Order::DatabaseGone).await;
    Ok(())
}

async fn kill_client(house: &House, id: u64) -> Result<(), Refusal> {
    let client = house.clients.all().into_iter().find(|c| c.id == id || c.ptr == id);
    kill_all(house, &[client.ok_or(Refusal::NoSuchClient)?], Order::Killed).await;
    Ok(())
}

/// Comes back when they have gone: who looks afterwards does not find them any more.
async fn kill_all(house: &House, clients: &[Arc<ClientEntry>], order: Order) {
    clients.iter().for_each(|client| client.give(order));
    // An operator may have named himself: he gets his answer first.
    let is_operator = |client: &ClientEntry| client.login.get().is_some_and(|login| login.pool.is_none());
    let is_done =
        |client: &Arc<ClientEntry>| is_operator(client) || house.clients.by_key(client.key).is_none();
    let gone = async {
        loop {
            let changed = house.client_gone.notified();
            if clients.iter().all(is_done) {
                return;
            }
            changed.await;
        }
    };
    // One that never ends would be a fault of ours; the operator's console should not hang for it.
    let _ = tokio::time::timeout(KILL_PATIENCE, gone).await;
}

fn shutdown(house: &House, how: Shutdown) -> Option<Outcome> {
    let phase = match how {
        Shutdown::Now => Phase::Ending,
        Shutdown::WaitForServers => Phase::WaitForServers,
        Shutdown::WaitForClients => Phase::WaitForClients,
    };
    if house.phase() >= phase {
        return Some(Outcome::Refused(Refusal::ShuttingDown));
    }
    house.advance(phase);
    (how != Shutdown::Now).then_some(Outcome::Done)
}

async fn wait_close(house: &House, database: Option<&str>) -> Result<(), Refusal> {
    known(house, database)?;
    house.pools.wait_closed(database).await;
    Ok(())
}

/// The entry of the database that was named, if one was.
fn known(house: &House, database: Option<&str>) -> Result<Option<Arc<Database>>, Refusal> {
    let Some(name) = database else { return Ok(None) };
    let found = house.settings().database(name);
    found.map(Some).ok_or_else(|| Refusal::NoSuchDatabase(name.to_string()))
}
