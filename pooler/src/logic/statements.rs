//! Prepared statements over changing servers: a client's name → a shared text → the name it has on every server.
//! Which texts a server holds, and which it loses next.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use super::replies::Change;

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

impl UnnamedToken {
    /// Of a server whose unnamed statement, if it has one, may be anybody's.
    pub const UNKNOWN: UnnamedToken = UnnamedToken { client: u64::MAX, seq: 0 };
}

/// The statements that one client has prepared. Without memory until it prepares one: most of those who are idle never do.
#[derive(Debug, Default)]
pub struct ClientStatements(Option<Box<Prepared>>);

#[derive(Debug, Default)]
struct Prepared {
    names: HashMap<Box<[u8]>, Arc<Shared>>,
    /// What the batch under way has changed: undone when the batch fails before it.
    changes: Vec<(Change, Undo)>,
    last_change: Change,
    unnamed: Unnamed,
    /// Memory of an unnamed statement that was replaced, for the next one.
    spare: Vec<u8>,
}

/// A client's unnamed statement.
#[derive(Debug, Default)]
struct Unnamed {
    token: Option<UnnamedToken>,
    /// The Parse message.
    parse: Vec<u8>,
    /// What made it this.
    change: Change,
}

/// How to take a change back.
#[derive(Debug)]
enum Undo {
    Insert(Box<[u8]>),
    Remove(Box<[u8]>, Arc<Shared>),
    Unnamed(Unnamed),
}

impl ClientStatements {
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Shared>> {
        self.0.as_ref()?.names.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Shared>)> {
        self.0.iter().flat_map(|own| own.names.iter().map(|(name, shared)| (&**name, shared)))
    }

    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |own| own.names.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// None: the name is taken.
    pub fn insert(&mut self, name: &[u8], shared: Arc<Shared>) -> Option<Change> {
        self.0.get_or_insert_default().insert(name, shared)
    }

    /// None: there is no such name.
    pub fn remove(&mut self, name: &[u8]) -> Option<Change> {
        self.0.as_mut()?.remove(name)
    }

    /// DEALLOCATE ALL or DISCARD ALL went through.
    pub fn clear(&mut self) {
        if let Some(own) = &mut self.0 {
            own.names.clear();
            own.changes.clear();
        }
    }

    /// The request that made this change was not carried out. Later changes have to be taken back before.
    pub fn undo(&mut self, change: Change) {
        if let Some(own) = &mut self.0 {
            own.undo(change);
        }
    }

    /// This change was a Parse of the unnamed statement that failed: what was there before it is gone as well.
    pub fn undo_with_its_forerunner(&mut self, change: Change) {
        if let Some(own) = &mut self.0 {
            own.changes.retain(|(number, _)| *number != change);
            own.replace_unnamed(change, Unnamed::default());
        }
    }

    #[inline]
    pub fn on_batch_end(&mut self) {
        if let Some(own) = &mut self.0 {
            own.on_batch_end();
        }
    }

    /// The client prepares its unnamed statement anew; `message` is the whole Parse, or empty when it is too long to be
    /// remembered.
    pub fn remember_unnamed(&mut self, client: u64, message: &[u8]) -> (UnnamedToken, Change) {
        let own = self.0.get_or_insert_default();
        let change = own.close_unnamed();
        let token = UnnamedToken { client, seq: change };
        own.unnamed.token = Some(token);
        own.unnamed.parse.extend_from_slice(message);
        (token, change)
    }

    /// The client closes its unnamed statement.
    pub fn close_unnamed(&mut self) -> Change {
        self.0.get_or_insert_default().close_unnamed()
    }

    /// Whether there is an unnamed statement, or would be one if changes of the batches under way were taken back.
    pub fn may_have_unnamed(&self) -> bool {
        let is_unnamed = |(_, undo): &(Change, Undo)| matches!(undo, Undo::Unnamed(_));
        self.0.as_ref().is_some_and(|own| own.unnamed.token.is_some() || own.changes.iter().any(is_unnamed))
    }

    /// The unnamed statement and the message that makes it again; empty when it was too long.
    pub fn unnamed(&self) -> Option<(UnnamedToken, &[u8])> {
        let unnamed = &self.0.as_ref()?.unnamed;
        unnamed.token.map(|token| (token, unnamed.parse.as_slice()))
    }
}

impl Prepared {
    fn insert(&mut self, name: &[u8], shared: Arc<Shared>) -> Option<Change> {
        if self.names.contains_key(name) {
            return None;
        }
        self.names.insert(name.into(), shared);
        Some(self.note(Undo::Insert(name.into())))
    }

    fn remove(&mut self, name: &[u8]) -> Option<Change> {
        let (name, shared) = self.names.remove_entry(name)?;
        Some(self.note(Undo::Remove(name, shared)))
    }

    fn undo(&mut self, change: Change) {
        let Some(index) = self.changes.iter().rposition(|(number, _)| *number == change) else { return };
        match self.changes.swap_remove(index).1 {
            Undo::Insert(name) => drop(self.names.remove(&name)),
            // A batch behind this one may have given the name again, and was answered.
            Undo::Remove(name, shared) => drop(self.names.entry(name).or_insert(shared)),
            Undo::Unnamed(before) => self.replace_unnamed(change, before),
        }
    }

    /// Where the change is not the last one, it is what a later one would go back to.
    fn replace_unnamed(&mut self, change: Change, by: Unnamed) {
        let later = self.changes.iter_mut().filter_map(|(_, undo)| match undo {
            Undo::Unnamed(before) => Some(before),
            _ => None,
        });
        let mut all = later.chain(std::iter::once(&mut self.unnamed));
        if let Some(made) = all.find(|unnamed| unnamed.change == change) {
            *made = by;
        }
    }

    fn on_batch_end(&mut self) {
        for (_, undo) in self.changes.drain(..) {
            if let Undo::Unnamed(before) = undo {
                self.spare = before.parse;
            }
        }
    }

    fn close_unnamed(&mut self) -> Change {
        let mut parse = std::mem::take(&mut self.spare);
        parse.clear();
        let none = Unnamed { token: None, parse, change: self.last_change + 1 };
        let before = std::mem::replace(&mut self.unnamed, none);
        self.note(Undo::Unnamed(before))
    }

    fn note(&mut self, undo: Undo) -> Change {
        self.last_change += 1;
        self.changes.push((self.last_change, undo));
        self.last_change
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
    /// All that was asked up to here has been answered.
    settled: u64,
    /// Evicted since then: their Close may yet be dropped by the server.
    evicted: Vec<Slot>,
    /// Whose unnamed statement the server holds.
    pub unnamed: Option<UnnamedToken>,
    unnamed_set: u64,
}

#[derive(Debug)]
struct Slot {
    shared: Arc<Shared>,
    used: u64,
    parsed: u64,
    /// A Parse of it was dropped behind an error.
    is_lost: bool,
}

/// Whether a server has a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Sure,
    /// What made it, or removed it, is under way in an earlier batch, which may fail before it, or was dropped.
    InDoubt,
    Absent,
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

    /// Counts as a use.
    pub fn touch(&mut self, id: u64) -> Presence {
        self.clock += 1;
        let (clock, doubtful) = (self.clock, self.settled + 1..=self.batch_start);
        match self.prepared.get_mut(&id) {
            Some(slot) => {
                slot.used = clock;
                if slot.is_lost || doubtful.contains(&slot.parsed) {
                    Presence::InDoubt
                } else {
                    Presence::Sure
                }
            }
            None if self.evicted.iter().any(|slot| slot.shared.id == id) => Presence::InDoubt,
            None => Presence::Absent,
        }
    }

    /// A Parse of it goes to the server.
    pub fn insert(&mut self, shared: &Arc<Shared>) {
        self.clock += 1;
        let slot = Slot { shared: shared.clone(), used: self.clock, parsed: self.clock, is_lost: false };
        self.prepared.insert(shared.id, slot);
    }

    /// A request that gives the server another unnamed statement, or none, goes to it.
    pub fn set_unnamed(&mut self, token: Option<UnnamedToken>) {
        self.clock += 1;
        self.unnamed_set = self.clock;
        self.unnamed = token;
    }

    /// Whose unnamed statement the next request meets.
    pub fn unnamed_now(&self) -> Option<UnnamedToken> {
        let is_doubtful = (self.settled + 1..=self.batch_start).contains(&self.unnamed_set);
        if is_doubtful { Some(UnnamedToken::UNKNOWN) } else { self.unnamed }
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
        let slot = self.prepared.remove(&id)?;
        let shared = slot.shared.clone();
        self.evicted.push(slot);
        Some(shared)
    }

    /// A Parse was not carried out: an earlier one may have been, though. Its statement may have been evicted since, and
    /// come back when that is not carried out either.
    pub fn on_lost_parse(&mut self, id: u64) {
        let evicted = self.evicted.iter_mut().filter(|slot| slot.shared.id == id);
        self.prepared.get_mut(&id).into_iter().chain(evicted).for_each(|slot| slot.is_lost = true);
    }

    /// A Close of an evicted statement was not carried out: the server still has it.
    pub fn on_lost_close(&mut self, id: u64) {
        let Some(index) = self.evicted.iter().rposition(|slot| slot.shared.id == id) else { return };
        let slot = self.evicted.swap_remove(index);
        self.prepared.entry(id).or_insert(Slot { used: 0, ..slot });
    }

    pub fn clear(&mut self) {
        self.prepared.clear();
    }

    /// A Sync goes to the server: what comes behind it may be carried out though what came before it failed.
    pub fn on_sync(&mut self) {
        self.batch_start = self.clock;
    }

    /// The server owes nothing any more.
    pub fn on_settled(&mut self) {
        self.batch_start = self.clock;
        self.settled = self.clock;
        self.evicted.clear();
    }
}
