//! One replica is killed under a steady 200 GETs a second: each GET whose response had not begun must be answered.

use crate::engine;
use crate::http::{Call, Client};
use crate::logic::fault::Fault;
use crate::logic::fleet::Replica;
use crate::processes;
use crate::site::{Keeper, Site};
use anyhow::Context;
use hyper::StatusCode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

const CLIENTS: u32 = 20;
/// Each client's beat; twenty of them make 200 a second.
const BEAT: Duration = Duration::from_millis(100);
const GETS_EACH: u32 = 80;
const KILL_AFTER: Duration = Duration::from_secs(2);
/// How long a killed container stays away.
const ABSENCE: Duration = Duration::from_secs(3);
const RETURN_LIMIT: Duration = Duration::from_secs(60);

/// One GET.
struct Get {
    served_by: Option<String>,
    fault: Option<Fault>,
}

pub async fn check(site: &Site) -> anyhow::Result<String> {
    // The third of ten: neither the first nor the last in any list.
    let victim = site
        .replicas
        .get(2)
        .or(site.replicas.last())
        .context("needs the replicas: give --status or --replica")?;
    let token = site.accounts(1).await?.remove(0).token();
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        clients.spawn_local(beat(site.client(), token.clone(), began + BEAT * n / CLIENTS));
    }
    sleep_until(began + KILL_AFTER).await;
    end(victim, site.keeper).await?;
    let all_gets = async {
        let mut gets = Vec::new();
        while let Some(done) = clients.join_next().await {
            gets.extend(done?);
        }
        anyhow::Ok((gets, began.elapsed()))
    };
    let (gets, back) = tokio::join!(all_gets, come_back(site, victim));
    let (gets, took) = gets?;
    let told = judge(&gets, victim, took.as_secs_f64())?;
    Ok(format!("{told}; it was back after {:.1} s", back?.as_secs_f64()))
}

/// GETs at fixed times: a slow answer does not thin the load out, it makes the next one follow at once.
async fn beat(mut client: Client, token: Rc<str>, first: Instant) -> Vec<Get> {
    let call = Call::get("/api/users", "/api/users?limit=10").bearer(&token);
    let mut gets = Vec::new();
    for n in 0..GETS_EACH {
        sleep_until(first + BEAT * n).await;
        let answer = client.call(&call).await;
        let get = match answer {
            Ok(answer) => Get {
                served_by: answer.header("x-served-by").map(str::to_owned),
                fault: answer.expect(StatusCode::OK).err(),
            },
            Err(fault) => Get { served_by: None, fault: Some(fault) },
        };
        gets.push(get);
    }
    gets
}

fn judge(gets: &[Get], victim: &Replica, seconds: f64) -> anyhow::Result<String> {
    let by_victim = gets.iter().filter(|get| get.served_by.as_deref() == Some(&victim.name)).count();
    anyhow::ensure!(
        by_victim > 0,
        "{} served nothing before it was killed: the check shows nothing",
        victim.name
    );
    // A connection that broke within a response is what a kill may do; an error status is an answer, and a wrong one.
    let failed: Vec<&Fault> =
        gets.iter().filter_map(|get| get.fault.as_ref()).filter(|fault| !is_excused(fault)).collect();
    let excused = gets.iter().filter_map(|get| get.fault.as_ref()).filter(|fault| is_excused(fault)).count();
    if let Some(first) = failed.first() {
        anyhow::bail!("{} of {} GETs failed, first: {first}", failed.len(), gets.len());
    }
    Ok(format!(
        "{} killed under {:.0} GETs/s: {} GETs, none failed, {excused} cut within their response",
        victim.name,
        gets.len() as f64 / seconds,
        gets.len()
    ))
}

fn is_excused(fault: &Fault) -> bool {
    matches!(fault, Fault::Cut(_))
}

async fn end(victim: &Replica, keeper: Keeper) -> anyhow::Result<()> {
    if keeper == Keeper::Docker {
        return engine::docker(&["kill", &engine::container_of(&victim.name)]).await.map(drop);
    }
    let pid = victim.pid.with_context(|| format!("the status names no pid of {}", victim.name))?;
    // The status may be old, and its number another process by now.
    let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    anyhow::ensure!(
        command.trim() == "web",
        "process {pid} is not {} any more: take a new status",
        victim.name
    );
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)
        .with_context(|| format!("cannot kill {}", victim.name))
}

/// Waits until the replica is healthy again, so that the next check finds the whole stack.
async fn come_back(site: &Site, replica: &Replica) -> anyhow::Result<Duration> {
    let began = Instant::now();
    if site.keeper == Keeper::Docker {
        // The engine does not start again what was killed by hand. The GETs must meet its absence first.
        tokio::time::sleep(ABSENCE).await;
        engine::docker(&["start", &engine::container_of(&replica.name)]).await?;
    }
    processes::healthy(site, replica, RETURN_LIMIT).await?;
    Ok(began.elapsed())
}
