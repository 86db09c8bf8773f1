//! What is known of upstream servers, as a value that another process can take over: everything but what is under way.
//! Moments are told from the start of the first process; its successor counts from there too.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::health::PeerMemory;

/// One group.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct GroupMemory {
    pub name: Box<str>,
    /// The id of the next server that is new.
    pub next_id: u32,
    pub peers: Vec<KnownPeer>,
    pub sessions: Vec<KnownSession>,
}

/// A server is the same where it is written the same and has the same address.
#[derive(Debug, Serialize, Deserialize)]
pub struct KnownPeer {
    pub server: Box<str>,
    pub address: Box<str>,
    pub memory: PeerMemory,
}

/// A session that `sticky learn` has learnt: the digest of its name, its server, when it was seen last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownSession {
    pub name: [u8; 16],
    pub sid: Box<str>,
    pub seen: Duration,
}
