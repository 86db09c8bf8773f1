//! `-R`: a new process takes over from a running one. It gets the listening sockets first, so that nobody is refused, then
//! each client as soon as nothing is under way for it, with the server it holds. What cannot move — TLS, replication —
//! stays with the old process, which ends when the last of them has gone.
//!
//! The two speak over a connection to the old one's console: `HAND_OVER`, answered like any command, and from there
//! records with sockets attached (SCM_RIGHTS). See moving/records.rs.

mod give;
mod records;
mod take;

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::logic::moving::MovedClient;

pub use give::give;
pub use take::Takeover;

/// Clients that may wait for the other process to take them.
const PARCELS_MAX: usize = 64;

/// One client on its way.
#[derive(Debug)]
pub struct Parcel {
    pub client: MovedClient,
    pub socket: OwnedFd,
    /// The socket of the server it holds.
    pub server: Option<OwnedFd>,
}

/// The way out of this process.
#[derive(Debug, Default)]
pub struct Movers {
    way: Mutex<Option<Way>>,
}

#[derive(Debug)]
struct Way {
    parcels: mpsc::Sender<Parcel>,
    thread: JoinHandle<()>,
}

impl Movers {
    /// None: nobody takes clients.
    pub fn parcels(&self) -> Option<mpsc::Sender<Parcel>> {
        self.lock().as_ref().map(|way| way.parcels.clone())
    }

    /// Waits until all that is on its way has arrived.
    pub fn finish(&self) {
        let Some(Way { parcels, thread }) = self.lock().take() else { return };
        drop(parcels);
        if thread.join().is_err() {
            tracing::error!("the thread that moves clients has panicked");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Way>> {
        self.way.lock().expect("no code panics while it holds the way out")
    }
}
