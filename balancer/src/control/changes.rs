//! Changes at run time: the API asks, or name servers say something new, the master makes the next generation, all workers take it up, and the state file
//! keeps it. One at a time, so that no two changes are made from the same past.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Master;
use super::crew::all_done;
use crate::conf::upstream::Upstream;
use crate::logic::changes::{Edit, Refusal, apply, state_text};
use crate::running::Running;
use crate::worker::Command;

/// What a start waits for name servers.
const NAMES_PATIENCE: Duration = Duration::from_secs(1);

/// Changes that wait; the API's clients are people and scripts.
pub const CHANGES_MAX: usize = 64;

/// What is asked of the master.
#[derive(Debug)]
pub struct Change {
    pub group: Box<str>,
    pub edit: Edit,
    /// Learns of the generation that has the change, or why there is none.
    pub done: oneshot::Sender<Result<Arc<Running>, Refusal>>,
}

impl Master {
    pub(super) async fn on_change(&mut self, change: Change) {
        let changed = self.change(&change.group, change.edit).await;
        // Who asked may have left.
        let _ = change.done.send(changed);
    }

    async fn change(&mut self, name: &str, edit: Edit) -> Result<Arc<Running>, Refusal> {
        let running = self.running();
        let group = running.upstreams.named(name).ok_or(Refusal::UpstreamNotFound)?;
        let upstream = group.upstream();
        if upstream.zone.is_none() {
            return Err(Refusal::UpstreamStatic);
        }
        let ids: Vec<u32> = group.with_peers(|peers| peers.iter().map(|peer| peer.id).collect());
        let is_by_name = matches!(edit, Edit::Resolve { .. });
        let next = apply(upstream, &ids, edit)?;
        if is_by_name && next.peers == upstream.peers {
            return Ok(running);
        }
        if let Some(path) = next.state_file.as_ref().filter(|_| !is_by_name) {
            write_state(path, &next)?;
        }
        tracing::info!(
            group = name,
            servers = next.peers.len(),
            "servers of upstream \"{name}\" were changed"
        );
        let upstreams = running.upstreams.with(&Arc::new(next), running.started.elapsed());
        let next = Arc::new(running.with_upstreams(upstreams));
        self.probe(&next);
        self.publish(next.clone());
        self.adopt(&next).await;
        next.metrics.forget_others(&next);
        Ok(next)
    }

    /// The first requests should find servers that are known by name, too, if the name servers are quick.
    pub(super) async fn settle_names(&mut self) {
        let until = tokio::time::Instant::now() + NAMES_PATIENCE;
        while self.names.are_pending() {
            tokio::select! {
                Some(change) = self.changes.recv() => self.on_change(change).await,
                () = self.names.progressed() => {}
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }

    /// Comes back when all workers serve new requests with it.
    async fn adopt(&self, next: &Arc<Running>) {
        let mut waiting = Vec::new();
        for worker in self.crew.working() {
            let (done, adopted) = oneshot::channel();
            worker.send(Command::Adopt { running: next.clone(), done }).await;
            waiting.push(adopted);
        }
        if !all_done(waiting).await {
            tracing::warn!("a worker is too busy to take up changed servers at once");
        }
    }
}

/// Written beside and moved into place: a crash, also of the machine, leaves the old one or the new one.
fn write_state(path: &Path, upstream: &Upstream) -> Result<(), Refusal> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let written = write_through(&beside, &state_text(upstream)).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        let what = crate::conf::error::system("open", path, &error);
        tracing::error!("{what}");
        Refusal::StateFile(what.into())
    })
}

/// The text is on disk before this returns: a name that is moved before that may lead to an empty file.
fn write_through(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
