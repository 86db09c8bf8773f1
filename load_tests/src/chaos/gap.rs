//! A replica dies between the commit of a message and its publication. A lock on the session's row holds the commit
//! back until the replica is stopped (SIGSTOP): then the row is there, and nobody can have been told.

use super::stage::Stage;
use super::traffic::open_session;
use crate::http::Call;
use crate::logic::fleet::Replica;
use crate::logic::frames::{self, Frame};
use crate::logic::room::RoomView;
use crate::processes::Process;
use crate::site::Site;
use crate::ws::{Incoming, Socket};
use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client as Postgres;
use uuid::Uuid;

const KEY: &str = "gap-1";
const STEP_LIMIT: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(5);
/// The comparison of offsets must find it: its period is 5 s by default.
const LEVEL_LIMIT: Duration = Duration::from_secs(15);

pub async fn strike(site: &Site, stage: &Stage, victim: &Replica) -> anyhow::Result<String> {
    let mut others = site.replicas.iter().filter(|replica| replica.name != victim.name);
    let other = others.next().context("needs two replicas")?;
    let account = stage.account(0);
    let mut client = stage.client(0);
    let room = open_session(&mut client, &account, "chaos: commit gap", "public").await?;
    let join = Call::post("join", format!("/api/sessions/{}/join", room.id), &json!({}));
    let watcher_account = stage.account(1);
    client.call(&join.bearer(&watcher_account.token())).await?;
    let token = account.token();
    let mut sender = open(site, victim, &room.id, &token, None).await?;
    let mut watcher = open(site, other, &room.id, &watcher_account.token(), None).await?;

    let postgres = site.postgres.as_ref().context("needs Postgres' own address: give --status")?;
    let locker = site.connect(postgres, &site.database).await?;
    let session: Uuid = room.id.parse().context("a session's id is a UUID")?;
    locker.batch_execute("BEGIN").await?;
    locker.execute("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", &[&session]).await?;
    let seer = site.connect(postgres, &site.database).await?;
    sender.send(frames::send(KEY, "committed and never published")).await?;
    let blocked = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity
                    WHERE (SELECT pid FROM pg_locks WHERE pid = $1 LIMIT 1) = ANY (pg_blocking_pids(pid)))";
    let pid: i32 = locker.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    until("the message waits for its commit", async || {
        Ok(seer.query_one(blocked, &[&pid]).await?.get::<_, bool>(0))
    })
    .await?;
    let process = Process::of_replica(victim)?;
    process.freeze(STEP_LIMIT).await?;
    locker.batch_execute("COMMIT").await?;
    let stored = until("the message is committed", async || is_stored(&seer, session).await).await;
    // Whatever came of it: a stopped replica must not stay so.
    process.signal(Signal::SIGKILL)?;
    let killed = Instant::now();
    stored?;
    heard(&mut watcher, KEY).await.context("the member on another replica")?;
    let took = killed.elapsed();

    // The sender knows of no ack: it comes back, sends the same again, and must be told the first offset.
    let mut back = Socket::open(&stage.dialers[0], &room.id, &token, Some(0)).await?.0;
    back.send(frames::send(KEY, "committed and never published")).await?;
    let offset = acked(&mut back).await.context("the sender that came back")?;
    anyhow::ensure!(offset == 1, "the repeated message got offset {offset} in place of 1");
    room.on_ack(KEY.to_owned(), offset);
    stage.sessions.borrow_mut().push(room);
    Ok(format!(
        "{} killed between commit and publish; the other member had the message {} ms later",
        victim.name,
        took.as_millis()
    ))
}

async fn open(
    site: &Site,
    replica: &Replica,
    room: &str,
    token: &str,
    since: Option<i64>,
) -> anyhow::Result<Socket> {
    Ok(Socket::open(&*site.dialer_of(replica).await?, room, token, since).await?.0)
}

async fn is_stored(seer: &Postgres, session: Uuid) -> anyhow::Result<bool> {
    let asked = "SELECT EXISTS (SELECT 1 FROM messages WHERE session_id = $1)";
    Ok(seer.query_one(asked, &[&session]).await?.get(0))
}

async fn until(what: &str, holds: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !holds().await? {
        anyhow::ensure!(
            began.elapsed() < STEP_LIMIT,
            "waited {} s in vain until {what}",
            STEP_LIMIT.as_secs()
        );
        sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// Waits for the message with this key.
async fn heard(socket: &mut Socket, key: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + LEVEL_LIMIT;
    loop {
        match socket.next(deadline).await? {
            Incoming::Frame(Frame::Message(message)) if message.client_msg_id.as_deref() == Some(key) => {
                return Ok(());
            }
            Incoming::Frame(_) => {}
            Incoming::Closed(close) => anyhow::bail!("closed with {close}"),
            Incoming::Nothing => {
                anyhow::bail!("did not get the message within {} s", LEVEL_LIMIT.as_secs())
            }
        }
    }
}

/// Waits for the ack and for the message, which may come once only.
async fn acked(socket: &mut Socket) -> anyhow::Result<i64> {
    let deadline = Instant::now() + LEVEL_LIMIT;
    let (mut view, mut ack) = (RoomView::at(0), None);
    loop {
        if let (Some(offset), 1) = (ack, view.last()) {
            return Ok(offset);
        }
        match socket.next(deadline).await? {
            Incoming::Frame(Frame::Message(message)) => view.on_message(message.offset)?,
            Incoming::Frame(Frame::Ack { offset, .. }) => ack = Some(offset),
            Incoming::Frame(_) => {}
            Incoming::Closed(close) => anyhow::bail!("closed with {close}"),
            Incoming::Nothing => anyhow::bail!("no ack within {} s", LEVEL_LIMIT.as_secs()),
        }
    }
}
