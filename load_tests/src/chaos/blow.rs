//! The blows that a stack must take without losing a message.

use super::gap;
use super::stage::Stage;
use crate::logic::fleet::Replica;
use crate::logic::incidents::Harm;
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

impl Case {
    /// What it does to the members' connections.
    pub fn harm(self, replicas: &[Replica]) -> Harm {
        match self {
            Self::Rolling => Harm::SentAway,
            Self::Kill | Self::CommitGap => {
                Harm::Died(self.victims(replicas).iter().map(|victim| victim.name.clone()).collect())
            }
            Self::RedisEmpty | Self::RedisFrozen => Harm::Nothing,
        }
    }

    /// The replicas that it kills.
    fn victims(self, replicas: &[Replica]) -> &[Replica] {
        let killed = match self {
            Self::Kill => 1..3,
            Self::CommitGap => 0..1,
            Self::Rolling | Self::RedisEmpty | Self::RedisFrozen => 0..0,
        };
        replicas.get(killed).unwrap_or_default()
    }
}

/// A replica ends within its drain time and starts again.
const BACK_LIMIT: Duration = Duration::from_secs(90);

/// Strikes; returns when the disturbance itself is over, with words about it.
pub async fn strike(case: Case, site: &Site, stage: &Stage, frozen: Duration) -> anyhow::Result<String> {
    anyhow::ensure!(site.replicas.len() > 2, "needs the replicas and their pids: give --status");
    match case {
        Case::Rolling => rolling(site).await,
        Case::Kill => {
            let victims = case.victims(&site.replicas);
            for victim in victims {
                Process::of_replica(victim)?.signal(Signal::SIGKILL)?;
            }
            let names: Vec<&str> = victims.iter().map(|victim| victim.name.as_str()).collect();
            Ok(format!("{} killed at once", names.join(" and ")))
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
        Case::CommitGap => {
            let victims = case.victims(&site.replicas);
            gap::strike(site, stage, &victims[0]).await.context("between commit and publish")
        }
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
