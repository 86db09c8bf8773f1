//! The way down: the balancer first, so that nothing new comes in; then replicas, pooler and stores.

use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::Stack;
use crate::keeper::Keeper;
use crate::record::{self, Process};

/// How often the replicas are told to send their sockets away while the balancer drains: one may have come in since.
const FAREWELL_PERIOD: Duration = Duration::from_secs(1);
/// A replica takes it as "close all sockets".
const FAREWELL: Signal = Signal::SIGUSR1;
/// How often ending processes are looked at that are not our children.
const LOOK: Duration = Duration::from_millis(50);

/// The order in which parts end; what is not named is a replica.
const ORDER: [&str; 5] = ["balancer", "web", "pooler", "standby", "postgres"];

impl Stack {
    /// Ends every part and makes sure of it.
    ///
    /// # Errors
    /// Something is left; the text names it.
    pub(super) async fn fall(&mut self) -> Result<()> {
        self.board.say("stopping: no new requests are taken, those in flight are finished");
        let balancer = async {
            if let Some(balancer) = &self.balancer {
                balancer.stop().await;
            }
        };
        // Requests and streams come to an end of their own; a socket does when its replica sends it away.
        let mut balancer = std::pin::pin!(balancer);
        while tokio::time::timeout(FAREWELL_PERIOD, &mut balancer).await.is_err() {
            for replica in &self.replicas {
                replica.signal(FAREWELL).await;
            }
        }
        stop_all(&self.replicas).await;
        if let Some(pooler) = &self.pooler {
            pooler.stop().await;
        }
        // A standby ends before its primary, or it would complain about it.
        for keeper in self.stores.iter().filter(|keeper| keeper.name() == "standby") {
            keeper.stop().await;
        }
        stop_all(&self.stores).await;
        let left = record::left_over(&self.nest.dirs);
        if !left.is_empty() {
            end_left_over(&left, self.plan.settings.stop_timeout).await;
        }
        let still: Vec<String> = record::left_over(&self.nest.dirs)
            .iter()
            .map(|(name, process)| format!("{name} (pid {})", process.pid))
            .collect();
        if !still.is_empty() {
            bail!("still running: {}", still.join(", "));
        }
        self.board.say("stopped: nothing is left running");
        Ok(())
    }
}

/// Ends several parts at once.
pub(super) async fn stop_all(keepers: &[Keeper]) {
    futures_util::future::join_all(keepers.iter().map(Keeper::stop)).await;
}

/// Ends processes that are not children of this one, in the order of the stack, in the end by force.
pub async fn end_left_over(left: &[(String, Process)], patience: Duration) {
    let rank = |name: &str| {
        let kind = if name.starts_with("web-") { "web" } else { name };
        ORDER.iter().position(|one| *one == kind).unwrap_or(ORDER.len())
    };
    for stage in 0..=ORDER.len() {
        let stage_parts: Vec<&Process> =
            left.iter().filter(|(name, _)| rank(name) == stage).map(|(_, process)| process).collect();
        for (name, process) in left.iter().filter(|(name, _)| rank(name) == stage) {
            process.signal(first_signal(name));
            if name == "balancer" {
                for (_, replica) in left.iter().filter(|(name, _)| name.starts_with("web-")) {
                    replica.signal(FAREWELL);
                }
            }
        }
        if !ended_within(&stage_parts, patience).await {
            for process in &stage_parts {
                process.signal(Signal::SIGKILL);
            }
            ended_within(&stage_parts, patience).await;
        }
    }
}

/// The signal that each part takes as "end well", as in the plan.
fn first_signal(name: &str) -> Signal {
    match name {
        "balancer" => Signal::SIGQUIT,
        "postgres" | "standby" | "pooler" => Signal::SIGINT,
        _ => Signal::SIGTERM,
    }
}

async fn ended_within(processes: &[&Process], patience: Duration) -> bool {
    let all_ended = async {
        while processes.iter().any(|process| process.is_alive()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(patience, all_ended).await.is_ok()
}
