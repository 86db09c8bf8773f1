//! Prepared statements over changing servers: a client's name → a shared text → the name it has on every server.
//! Which texts a server holds, and which it loses next.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

/// A longer unnamed statement is not remembered: a Bind in a later batch then gets Postgres' own error 26000.
pub const UNNAMED_REMEMBERED_MAX: usize = 1 << 20;

/// A statement's text and parameter types, shared by all clients that prepare the same.
#[derive(Debug)]
pub struct Shared {
    /// From a 64-bit counter, so two texts never meet under one name.
    pub id: u64,
    /// The name on servers.
    pub name: String,
    pub query: Box<[u8]>,
    pub types: Box<[u8]>,
}

/// All texts in use. One for the process, behind a short lock.
#[derive(Debug, Default)]
pub struct Registry {
    last_id: u64,
    hasher: RandomState,
    by_hash: HashMap<u64, Vec<Weak<Shared>>>,
    sweep_at: usize,
}

impl Registry {
    /// The shared statement of this text; the same text with other parameter types is another statement.
    pub fn intern(&mut self, query: &[u8], types: &[u8]) -> Arc<Shared> {
        let hash = self.hasher.hash_one((query, types));
        let same = |s: &Arc<Shared>| *s.query == *query && *s.types == *types;
        if let Some(found) =
            self.by_hash.get(&hash).and_then(|v| v.iter().filter_map(Weak::upgrade).find(same))
        {
            return found;
        }
        self.last_id += 1;
        let shared = Arc::new(Shared {
            id: self.last_id,
            name: format!("PGBOUNCER_{}", self.last_id),
            query: query.into(),
            types: types.into(),
        });
        self.by_hash.entry(hash).or_default().push(Arc::downgrade(&shared));
        self.sweep();
        shared
    }

    pub fn len(&self) -> usize {
        self.by_hash.values().flatten().filter(|s| s.strong_count() > 0).count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last number that was given to a text.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Numbers up to this one are taken: servers that came from another process still hold texts under them.
    pub fn start_after(&mut self, id: u64) {
        self.last_id = self.last_id.max(id);
    }

    /// Texts that nobody uses are dropped when their number has doubled: constant work per new text.
    fn sweep(&mut self) {
        if self.by_hash.len() < self.sweep_at.max(1024) {
            return;
        }
        self.by_hash.retain(|_, v| {
            v.retain(|s| s.strong_count() > 0);
            !v.is_empty()
        });
        self.sweep_at = self.by_hash.len() * 2;
    }
}

/// Tells one client's unnamed statement from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnnamedToken {
    pub client: u64,
    pub seq: u64,
}

/// The statements that one client has prepared.
#[derive(Debug, Default)]
pub struct ClientStatements {
    names: HashMap<Box<[u8]>, Arc<Shared>>,
    /// Names given in the batch under way: taken back when the batch fails before them.
    batch: Vec<(Box<[u8]>, u64)>,
    unnamed: Option<UnnamedToken>,
    /// The Parse message of the unnamed statement; its memory is used again.
    unnamed_parse: Vec<u8>,
    seq: u64,
}

impl ClientStatements {
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Shared>> {
        self.names.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Shared>)> {
        self.names.iter().map(|(name, shared)| (&**name, shared))
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// False: the name is taken.
    pub fn insert(&mut self, name: &[u8], shared: Arc<Shared>) -> bool {
        if self.names.contains_key(name) {
            return false;
        }
        self.batch.push((name.into(), shared.id));
        self.names.insert(name.into(), shared);
        true
    }

    pub fn remove(&mut self, name: &[u8]) -> bool {
        self.names.remove(name).is_some()
    }

    /// DEALLOCATE ALL or DISCARD ALL went through.
    pub fn clear(&mut self) {
        self.names.clear();
        self.batch.clear();
    }

    /// A Parse of this text was not carried out.
    pub fn on_lost_parse(&mut self, id: u64) {
        let Some(index) = self.batch.iter().position(|(_, of)| *of == id) else { return };
        let (name, _) = self.batch.swap_remove(index);
        self.names.remove(&name);
    }

    pub fn on_batch_end(&mut self) {
        self.batch.clear();
    }

    /// The client prepares its unnamed statement anew; `message` is the whole Parse.
    pub fn remember_unnamed(&mut self, client: u64, message: &[u8]) -> Option<UnnamedToken> {
        self.forget_unnamed();
        if message.len() > UNNAMED_REMEMBERED_MAX {
            return None;
        }
        self.seq += 1;
        self.unnamed_parse.extend_from_slice(message);
        self.unnamed = Some(UnnamedToken { client, seq: self.seq });
        self.unnamed
    }

    pub fn forget_unnamed(&mut self) {
        self.unnamed = None;
        self.unnamed_parse.clear();
    }

    /// The unnamed statement and the message that makes it again.
    pub fn unnamed(&self) -> Option<(UnnamedToken, &[u8])> {
        self.unnamed.map(|token| (token, self.unnamed_parse.as_slice()))
    }
}

/// The shared statements that one server has prepared: least recently used goes first.
#[derive(Debug, Default)]
pub struct ServerStatements {
    prepared: HashMap<u64, Slot>,
    limit: usize,
    clock: u64,
    /// Statements used from here on belong to the batch under way.
    batch_start: u64,
    /// Evicted in the batch under way: their Close may yet be dropped by the server.
    evicted: Vec<Arc<Shared>>,
    /// Whose unnamed statement the server holds.
    pub unnamed: Option<UnnamedToken>,
}

#[derive(Debug)]
struct Slot {
    shared: Arc<Shared>,
    used: u64,
}

impl ServerStatements {
    pub fn new(limit: usize) -> ServerStatements {
        ServerStatements { limit, ..ServerStatements::default() }
    }

    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub fn len(&self) -> usize {
        self.prepared.len()
    }

    pub fn is_empty(&self) -> bool {
        self.prepared.is_empty()
    }

    /// True when the server has it; counts as a use.
    pub fn touch(&mut self, id: u64) -> bool {
        self.clock += 1;
        let clock = self.clock;
        self.prepared.get_mut(&id).map(|slot| slot.used = clock).is_some()
    }

    /// A Parse of it goes to the server.
    pub fn insert(&mut self, shared: &Arc<Shared>) {
        self.clock += 1;
        self.prepared.insert(shared.id, Slot { shared: shared.clone(), used: self.clock });
    }

    /// The next statement that must be closed to stay within the limit: never one that the batch under way has used,
    /// for a Bind behind it may still need it.
    pub fn evict(&mut self) -> Option<Arc<Shared>> {
        if self.prepared.len() <= self.limit.max(1) {
            return None;
        }
        let oldest = self.prepared.values().min_by_key(|slot| slot.used)?;
        if oldest.used > self.batch_start {
            return None;
        }
        let id = oldest.shared.id;
        let evicted = self.prepared.remove(&id).map(|slot| slot.shared)?;
        self.evicted.push(evicted.clone());
        Some(evicted)
    }

    /// A Parse was not carried out, or the statement is closed.
    pub fn remove(&mut self, id: u64) {
        self.prepared.remove(&id);
    }

    /// A Close of an evicted statement was not carried out: the server still has it.
    pub fn on_lost_close(&mut self, id: u64) {
        let Some(index) = self.evicted.iter().position(|s| s.id == id) else { return };
        let shared = self.evicted.swap_remove(index);
        self.prepared.insert(id, Slot { shared, used: 0 });
    }

    pub fn clear(&mut self) {
        self.prepared.clear();
    }

    pub fn on_batch_end(&mut self) {
        self.batch_start = self.clock;
        self.evicted.clear();
    }
}
