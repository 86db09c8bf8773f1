//! The blows that a stack must take without losing a message.

use super::gap;
use super::stage::Stage;
use crate::processes::{self, Process};
use crate::site::Site;
use anyhow::Context;
use clap::ValueEnum;
use nix::sys::signal::Signal;
use std::time::Duration;
use tokio::time::sleep;

/// What happens to the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// SIGTERM to every replica, one after the other, each when the one before is healthy again
    Rolling,
    /// SIGKILL to two replicas at once
    Kill,
    /// SIGKILL to Redis, which comes back empty
    RedisEmpty,
    /// SIGSTOP to Redis: no connection is reset, nothing is answered
    RedisFrozen,
    /// A replica is killed when a message of it is committed and not published
    CommitGap,
}

/// A replica ends within its drain time and starts again.
const BACK_LIMIT: Duration = Duration::from_secs(90);

/// Strikes; returns when the disturbance itself is over, with words about it.
pub async fn strike(case: Case, site: &Site, stage: &Stage, frozen: Duration) -> anyhow::Result<String> {
    anyhow::ensure!(site.replicas.len() > 2, "needs the replicas and their pids: give --status");
    match case {
        Case::Rolling => rolling(site).await,
        Case::Kill => {
            for victim in &site.replicas[1..3] {
                Process::of_replica(victim)?.signal(Signal::SIGKILL)?;
            }
            Ok(format!("{} and {} killed at once", site.replicas[1].name, site.replicas[2].name))
        }
        Case::RedisEmpty => {
            let redis = Process::of_redis(site)?;
            redis.signal(Signal::SIGKILL)?;
            redis.gone(BACK_LIMIT).await?;
            Ok("Redis killed".to_owned())
        }
        Case::RedisFrozen => {
            let redis = Process::of_redis(site)?;
            redis.freeze(BACK_LIMIT).await?;
            sleep(frozen).await;
            redis.signal(Signal::SIGCONT)?;
            Ok(format!("Redis frozen for {} s", frozen.as_secs()))
        }
        Case::CommitGap => gap::strike(site, stage).await.context("between commit and publish"),
    }
}

/// Waits until every replica is healthy.
pub async fn healed(site: &Site) -> anyhow::Result<()> {
    for replica in &site.replicas {
        processes::healthy(site, replica, BACK_LIMIT).await?;
    }
    Ok(())
}

async fn rolling(site: &Site) -> anyhow::Result<String> {
    let mut longest = Duration::ZERO;
    for replica in &site.replicas {
        let process = Process::of_replica(replica)?;
        process.signal(Signal::SIGTERM)?;
        let gone = process.gone(BACK_LIMIT).await?;
        let back = processes::healthy(site, replica, BACK_LIMIT).await?;
        println!(
            "  {} ended within {:.1} s and was back {:.1} s later",
            replica.name,
            gone.as_secs_f64(),
            back.as_secs_f64()
        );
        longest = longest.max(gone);
    }
    Ok(format!(
        "{} replicas restarted one after the other, the slowest ended within {:.1} s",
        site.replicas.len(),
        longest.as_secs_f64()
    ))
}
