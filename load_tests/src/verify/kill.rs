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

/// Clients that wait for slow answers send less, and show less.
const RATE_MIN: f64 = 180.0;

/// One GET.
struct Get {
    sent: Instant,
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
    let killed = Instant::now();
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
    let told = judge(&gets, &victim.name, killed, took)?;
    Ok(format!("{told}; it was back after {:.1} s", back?.as_secs_f64()))
}

/// GETs at fixed times: a slow answer does not thin the load out, it makes the next one follow at once.
async fn beat(mut client: Client, token: Rc<str>, first: Instant) -> Vec<Get> {
    let call = Call::get("/api/users", "/api/users?limit=10").bearer(&token);
    let mut gets = Vec::new();
    for n in 0..GETS_EACH {
        sleep_until(first + BEAT * n).await;
        let sent = Instant::now();
        let get = match client.call(&call).await {
            Ok(answer) => Get {
                sent,
                served_by: answer.header("x-served-by").map(str::to_owned),
                fault: answer.expect(StatusCode::OK).err(),
            },
            Err(fault) => Get { sent, served_by: None, fault: Some(fault) },
        };
        gets.push(get);
    }
    gets
}

fn judge(gets: &[Get], victim: &str, killed: Instant, took: Duration) -> anyhow::Result<String> {
    let of_victim = |get: &&Get| get.sent < killed && get.served_by.as_deref() == Some(victim);
    anyhow::ensure!(
        gets.iter().any(|get| of_victim(&get)),
        "{victim} served nothing before it was killed: the check shows nothing"
    );
    let rate = gets.len() as f64 / took.as_secs_f64();
    anyhow::ensure!(rate >= RATE_MIN, "only {rate:.0} GETs/s went out: the check shows nothing");
    // A connection that broke within a response is what a kill may do; an error status is an answer, and a wrong one.
    let failed: Vec<&Fault> =
        gets.iter().filter_map(|get| get.fault.as_ref()).filter(|fault| !is_excused(fault)).collect();
    let excused = gets.iter().filter_map(|get| get.fault.as_ref()).filter(|fault| is_excused(fault)).count();
    if let Some(first) = failed.first() {
        anyhow::bail!("{} of {} GETs failed, first: {first}", failed.len(), gets.len());
    }
    Ok(format!(
        "{victim} killed under {rate:.0} GETs/s: {} GETs, none failed, {excused} cut within their response",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hundred GETs of which each tenth is web-3's, and one more that ended so.
    fn gets(killed: Instant, last: Option<Fault>) -> Vec<Get> {
        let get =
            |n: u32| Get { sent: killed - BEAT * n, served_by: Some(format!("web-{}", n % 10)), fault: None };
        let mut gets: Vec<Get> = (1..=200).map(get).collect();
        gets.push(Get { sent: killed + BEAT, served_by: None, fault: last });
        gets
    }

    fn verdict(last: Option<Fault>, victim: &str, took: Duration) -> Result<String, String> {
        let killed = Instant::now() + BEAT * 300;
        judge(&gets(killed, last), victim, killed, took).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn only_what_was_cut_within_its_response_is_excused() {
        let second = Duration::from_secs(1);
        verdict(None, "web-3", second).expect("none failed");
        let told = verdict(Some(Fault::Cut("reset".into())), "web-3", second).expect("excused");
        assert!(told.contains("1 cut within"), "{told}");
        let bad_gateway = Fault::Status { got: 502, wanted: 200, title: "Bad Gateway".into() };
        for fault in [bad_gateway, Fault::NoAnswer("reset".into()), Fault::Connect("refused".into())] {
            let told = verdict(Some(fault), "web-3", second).expect_err("it failed");
            assert!(told.contains("1 of 201 GETs failed"), "{told}");
        }
    }

    #[test]
    fn a_load_that_is_too_thin_or_misses_the_victim_shows_nothing() {
        let told = verdict(None, "web-3", Duration::from_secs(2)).expect_err("100 a second");
        assert!(told.contains("GETs/s"), "{told}");
        let told = verdict(None, "web-10", Duration::from_secs(1)).expect_err("it served nothing");
        assert!(told.contains("web-10 served nothing"), "{told}");
    }
}
