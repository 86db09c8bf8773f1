//! The stack is told to end while requests, streams and sockets are in flight: none of them may be lost.

use super::upload;
use crate::accounts::Account;
use crate::http::{Call, Client};
use crate::logic::close::{Close, farewell_faults};
use crate::logic::fault::Fault;
use crate::logic::fleet::Service;
use crate::logic::shape::Session;
use crate::logic::tokens::Answer;
use crate::processes::is_gone;
use crate::site::{Keeper, Site};
use crate::users::{Until, follow};
use crate::ws::{Incoming, Socket};
use anyhow::Context;
use hyper::StatusCode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

const CLIENTS: u32 = 10;
const BEAT: Duration = Duration::from_millis(50);
/// Sockets come from so many networks, as each network goes to one replica.
const NETWORKS: u8 = 4;
const SOCKETS_EACH: usize = 6;
const STREAMS: usize = 3;
const QUESTION_WORDS: usize = 80;
const STOP_AFTER: Duration = Duration::from_secs(2);
/// Streams and uploads begin this long before the stop, to be in the middle of it.
const LEAD: Duration = Duration::from_millis(200);
const UPLOADS: usize = 5;
/// Longer than replicas that were told to end at once would wait.
const UPLOAD_LASTS: Duration = Duration::from_secs(6);
const GONE_LIMIT: Duration = Duration::from_secs(90);

/// A request and when it was sent.
struct Sent {
    at: Instant,
    fault: Option<Fault>,
}

pub async fn check(site: &Site, stop_command: Option<&str>) -> anyhow::Result<String> {
    let account = site.accounts(1).await?.remove(0);
    let session = open_session(site, &account).await?;
    let sockets = open_sockets(site, &session, &account).await?;
    let ended = CancellationToken::new();
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        clients.spawn_local(beat(site.client(), account.token(), began + BEAT * n / CLIENTS, ended.clone()));
    }
    sleep_until(began + STOP_AFTER - LEAD).await;
    let (mut streams, mut uploads) = (JoinSet::new(), JoinSet::new());
    for _ in 0..STREAMS {
        let session = open_session(site, &account).await?;
        streams.spawn_local(stream(site.client(), account.token(), session));
    }
    for _ in 0..UPLOADS {
        let body = json!({"title": "verify shutdown, slowly", "visibility": "private"});
        let token = account.token();
        uploads.spawn_local(upload::post(site.dialer.clone(), "/api/sessions", token, body, UPLOAD_LASTS));
    }
    sleep_until(began + STOP_AFTER).await;
    let stopped = Instant::now();
    let mut goodbyes = JoinSet::new();
    for (served_by, socket) in sockets {
        goodbyes.spawn_local(goodbye(served_by, socket));
    }
    end(site, stop_command).await?;
    ended.cancel();
    let took = stopped.elapsed();
    let mut sent = Vec::new();
    while let Some(done) = clients.join_next().await {
        sent.extend(done?);
    }
    while let Some(done) = streams.join_next().await {
        let ended = done?.context("a stream that was in flight was lost")?;
        anyhow::ensure!(ended > stopped, "a stream ended before the stop: the check shows nothing");
    }
    while let Some(done) = uploads.join_next().await {
        let status = done?.context("an upload that was in flight was lost")?;
        anyhow::ensure!(status == StatusCode::CREATED, "an upload that was in flight was answered {status}");
    }
    let mut farewells = Vec::new();
    while let Some(done) = goodbyes.join_next().await {
        farewells.push(done?.context("a socket was not told to go")?);
    }
    let faults = farewell_faults(&farewells);
    anyhow::ensure!(faults.is_empty(), "{}", faults.join("; "));
    let replicas: BTreeSet<&String> = farewells.iter().map(|(served_by, _)| served_by).collect();
    judge(&sent, stopped)?;
    let left: Vec<&str> =
        site.services.iter().filter(|part| is_left(part)).map(|part| part.name.as_str()).collect();
    anyhow::ensure!(left.is_empty(), "left running: {}", left.join(", "));
    let before = sent.iter().filter(|request| request.at < stopped).count();
    Ok(format!(
        "{before} GETs sent before the stop all answered, {STREAMS} streams and {UPLOADS} uploads in flight ended whole, \
         {} sockets at {} replicas asked back at different moments, the stack gone after {:.1} s",
        farewells.len(),
        replicas.len(),
        took.as_secs_f64()
    ))
}

fn judge(sent: &[Sent], stopped: Instant) -> anyhow::Result<()> {
    let lost = |request: &&Sent| match &request.fault {
        None => false,
        Some(_) if request.at < stopped => true,
        // Afterwards a stack may refuse, but not break off what it began to answer.
        Some(fault) => matches!(fault, Fault::Cut(_)),
    };
    let lost: Vec<&Sent> = sent.iter().filter(lost).collect();
    match lost.first().and_then(|request| request.fault.as_ref()) {
        Some(first) => anyhow::bail!("{} of {} requests were lost, first: {first}", lost.len(), sent.len()),
        None => Ok(()),
    }
}

async fn beat(mut client: Client, token: Rc<str>, first: Instant, ended: CancellationToken) -> Vec<Sent> {
    let call = Call::get("/api/users", "/api/users?limit=10").bearer(&token);
    let mut sent = Vec::new();
    let mut due = first;
    while !ended.is_cancelled() {
        sleep_until(due).await;
        due += BEAT;
        // A new connection each time: an idle one may be closed at the very moment it is used, and that is no loss.
        client.close();
        let at = Instant::now();
        let fault = match client.call(&call).await {
            Ok(answer) => answer.expect(StatusCode::OK).err(),
            Err(fault) => Some(fault),
        };
        sent.push(Sent { at, fault });
    }
    sent
}

async fn open_session(site: &Site, account: &Account) -> anyhow::Result<String> {
    let body = json!({"title": "verify shutdown", "visibility": "private"});
    let call = Call::post("/api/sessions", "/api/sessions", &body).bearer(&account.token());
    let session: Session = site.client().call(&call).await?.expect(StatusCode::CREATED)?.json()?;
    Ok(session.id)
}

/// When the answer was whole.
async fn stream(mut client: Client, token: Rc<str>, session: String) -> Result<Instant, Fault> {
    // The built-in responder says it back word by word: an answer of some seconds.
    let question = "a ".repeat(QUESTION_WORDS);
    let body = json!({"session_id": session, "content": question, "client_msg_id": "verify-stop"});
    let call = Call::post("/messages/stream/", "/messages/stream/", &body).bearer(&token);
    follow(&mut client, &call, &mut Answer::to(question, 0), Until::Done, |_| {}).await?;
    Ok(Instant::now())
}

/// Sockets from several networks, each with the replica that serves it.
async fn open_sockets(
    site: &Site,
    session: &str,
    account: &Account,
) -> anyhow::Result<Vec<(String, Socket)>> {
    let mut sockets = Vec::new();
    for network in 1..=NETWORKS {
        let dialer = site.dialer.of_network(network);
        for _ in 0..SOCKETS_EACH {
            let (socket, welcome) = Socket::open(&dialer, session, &account.token(), None).await?;
            sockets.push((welcome.served_by, socket));
        }
    }
    Ok(sockets)
}

/// How a member's connection is closed.
async fn goodbye(served_by: String, mut socket: Socket) -> anyhow::Result<(String, Close)> {
    let deadline = Instant::now() + GONE_LIMIT;
    loop {
        match socket.next(deadline).await.with_context(|| served_by.clone())? {
            Incoming::Closed(close) => return Ok((served_by, close)),
            Incoming::Nothing => anyhow::bail!("no close frame came from {served_by}"),
            Incoming::Frame(_) => {}
        }
    }
}

fn is_left(part: &Service) -> bool {
    part.pid.is_some_and(|pid| !is_gone(pid))
}

/// Ends the stack and waits until it is gone.
async fn end(site: &Site, stop_command: Option<&str>) -> anyhow::Result<()> {
    if let Some(command) = stop_command {
        let status =
            Command::new("sh").args(["-c", command]).stdout(std::process::Stdio::null()).status().await?;
        anyhow::ensure!(status.success(), "the stop command ended with {status}");
        return Ok(());
    }
    anyhow::ensure!(site.keeper == Keeper::Supervisor, "under docker the stop needs --stop-command");
    let pid = site.supervisor_pid.context("the status names no supervisor_pid")?;
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    anyhow::ensure!(command.trim() == "stack", "process {pid} is not the stack any more: take a new status");
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM).context("cannot tell the stack to end")?;
    let began = Instant::now();
    while !is_gone(pid) {
        anyhow::ensure!(
            began.elapsed() < GONE_LIMIT,
            "the stack was still there after {} s",
            GONE_LIMIT.as_secs()
        );
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(at: Instant, fault: Option<Fault>) -> Sent {
        Sent { at, fault }
    }

    #[test]
    fn what_was_sent_before_the_stop_must_be_answered_and_what_began_must_end() {
        let stopped = Instant::now();
        let (before, after) = (stopped - LEAD, stopped + LEAD);
        let refused = || Some(Fault::Connect("connection refused".into()));
        let bad_gateway = || Some(Fault::Status { got: 502, wanted: 200, title: "Bad Gateway".into() });
        judge(&[sent(before, None), sent(after, refused())], stopped).expect("nothing is lost");
        judge(&[sent(before, bad_gateway())], stopped).expect_err("it was in flight");
        judge(&[sent(before, refused())], stopped).expect_err("nothing was stopped yet");
        judge(&[sent(after, Some(Fault::Cut("reset".into())))], stopped).expect_err("it had begun");
    }
}
