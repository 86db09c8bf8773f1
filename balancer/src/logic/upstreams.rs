//! The live state of all upstream groups, shared by all workers: one short lock per group, taken when a server is
//! picked and when its request ends, so that every count is exact. Which server is `choose`'s to say. A group is never
//! changed in place: a new one takes over its state, and what is still under way in the old one is counted in both.

mod group;
mod succession;

use std::sync::Arc;
use std::time::Duration;

pub use self::group::{Group, Lease, QueueState, Seat};
use crate::conf::settings::Http;
use crate::conf::upstream::{Upstream, UpstreamId};
use crate::logic::memory::GroupMemory;
use crate::logic::named::inherited;

/// The groups of one generation of the configuration, by `UpstreamId`.
#[derive(Debug, Default, Clone)]
pub struct Set {
    groups: Vec<Arc<Group>>,
}

impl Set {
    /// Groups that did not change stay as they are; in the others, servers that stay keep their state.
    pub fn new(http: &Http, previous: Option<&Set>, now: Duration) -> Set {
        let group_of = |upstream: &Arc<Upstream>| {
            let same_name = |group: &&Arc<Group>| {
                group.upstream().name == upstream.name && group.upstream().origin == upstream.origin
            };
            match previous.and_then(|set| set.groups.iter().find(same_name)) {
                Some(before) => {
                    let upstream = match upstream.named.is_empty() {
                        true => upstream.clone(),
                        false => Arc::new(inherited(upstream, before.upstream())),
                    };
                    match before.is_same(&upstream) {
                        true => before.clone(),
                        false => Group::succeeding(before, &upstream, now),
                    }
                }
                None => Arc::new(Group::new(upstream.clone())),
            }
        };
        Set { groups: http.upstreams.iter().map(group_of).collect() }
    }

    /// The same groups but for one, whose servers have changed at run time.
    pub fn with(&self, upstream: &Arc<Upstream>, now: Duration) -> Set {
        let mut groups = self.groups.clone();
        let place = upstream.id.0;
        groups[place] = Group::succeeding(&groups[place], upstream, now);
        Set { groups }
    }

    /// What a process that takes our place should know.
    pub fn memory(&self) -> Vec<GroupMemory> {
        self.groups.iter().map(|group| group.memory()).collect()
    }

    /// Goes on where another process was, with the groups that it had too.
    pub fn recall(&self, memories: Vec<GroupMemory>) {
        for memory in memories {
            if let Some(group) = self.named(&memory.name) {
                group.recall(memory);
            }
        }
    }

    pub fn group(&self, id: UpstreamId) -> &Arc<Group> {
        &self.groups[id.0]
    }

    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// The group of that name.
    pub fn named(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.iter().find(|group| &*group.upstream().name == name)
    }
}

#[cfg(test)]
mod tests;
