//! Sessions that are kept here, and the zones that hold them over reloads.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::server::StoresServerSessions;

use super::tickets::DrawnKeys;

/// Where a session may be resumed: a digest of the certificates that are shown and of what clients are asked for.
pub type Context = [u8; 32];

/// `ssl_session_cache shared:NAME:SIZE` as one configuration knows it: sessions and keys of tickets for all workers and for
/// all server blocks that name it. A reload that has it too goes on with what it holds.
#[derive(Debug)]
pub struct SessionZone {
    pub name: Box<str>,
    pub size: usize,
    held: Mutex<Arc<Held>>,
}

struct Held {
    sessions: Mutex<Sessions>,
    keys: Mutex<DrawnKeys>,
}

/// Who reads a log must not read secrets.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

/// A panic elsewhere leaves a state that is whole: each change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SessionZone {
    pub fn new(name: &str, size: usize) -> Result<SessionZone, String> {
        let held = Held { sessions: Mutex::default(), keys: Mutex::new(DrawnKeys::new()?) };
        Ok(SessionZone { name: name.into(), size, held: Mutex::new(Arc::new(held)) })
    }

    pub fn go_on_with(&self, before: &SessionZone) {
        let held = before.held();
        *lock(&self.held) = held;
    }

    pub fn with_keys<T>(&self, use_them: impl FnOnce(&mut DrawnKeys) -> T) -> T {
        use_them(&mut lock(&self.held().keys))
    }

    fn held(&self) -> Arc<Held> {
        lock(&self.held).clone()
    }

    fn sessions_max(&self) -> usize {
        ((self.size * SESSIONS_PER_MB) >> 20).max(1)
    }
}

/// What a new configuration has in common with the last one is not forgotten.
pub fn go_on(zones: &[Arc<SessionZone>], before: &[Arc<SessionZone>]) {
    for zone in zones {
        let known = before.iter().find(|known| known.name == zone.name && known.size == zone.size);
        if let Some(known) = known {
            zone.go_on_with(known);
        }
    }
}

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<Vec<u8>, (Instant, Vec<u8>)>,
    /// Oldest first; may name sessions that are gone.
    order: VecDeque<Vec<u8>>,
}

/// nginx's manual: one megabyte holds about 4000 sessions.
const SESSIONS_PER_MB: usize = 4000;

/// A zone as a server block uses it; the oldest sessions make room.
#[derive(Debug)]
pub struct SessionCache {
    zone: Arc<SessionZone>,
    context: Context,
    timeout: Duration,
}

impl SessionCache {
    pub fn new(zone: Arc<SessionZone>, context: Context, timeout: Duration) -> SessionCache {
        SessionCache { zone, context, timeout }
    }

    /// What was agreed on under other certificates or rules is not found.
    fn key(&self, id: &[u8]) -> Vec<u8> {
        [&self.context[..], id].concat()
    }
}

impl StoresServerSessions for SessionCache {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        let (held, id) = (self.zone.held(), self.key(&id));
        let mut sessions = lock(&held.sessions);
        while sessions.order.len() >= self.zone.sessions_max() {
            if let Some(oldest) = sessions.order.pop_front() {
                sessions.by_id.remove(&oldest);
            }
        }
        sessions.order.push_back(id.clone());
        sessions.by_id.insert(id, (Instant::now(), session));
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let held = self.zone.held();
        let sessions = lock(&held.sessions);
        let (since, session) = sessions.by_id.get(&self.key(id))?;
        (since.elapsed() < self.timeout).then(|| session.clone())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let (since, session) = lock(&self.zone.held().sessions).by_id.remove(&self.key(id))?;
        (since.elapsed() < self.timeout).then_some(session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn zone(size: usize) -> Arc<SessionZone> {
        Arc::new(SessionZone::new("S", size).unwrap())
    }

    #[test]
    fn a_full_cache_forgets_the_oldest_session() {
        let cache = SessionCache::new(zone(1), [1; 32], MINUTE);
        cache.put(b"a".to_vec(), b"1".to_vec());
        cache.put(b"b".to_vec(), b"2".to_vec());
        assert_eq!((cache.get(b"a"), cache.get(b"b")), (None, Some(b"2".to_vec())));
        assert_eq!((cache.take(b"b"), cache.take(b"b")), (Some(b"2".to_vec()), None));
        let ended = SessionCache::new(zone(1 << 20), [1; 32], Duration::ZERO);
        ended.put(b"a".to_vec(), b"1".to_vec());
        assert_eq!(ended.get(b"a"), None);
    }

    #[test]
    fn a_session_is_found_by_who_shows_and_asks_the_same_also_after_a_reload() {
        let before = zone(1 << 20);
        let cache = |zone: &Arc<SessionZone>, context| SessionCache::new(zone.clone(), context, MINUTE);
        cache(&before, [1; 32]).put(b"a".to_vec(), b"1".to_vec());
        assert_eq!(cache(&before, [2; 32]).get(b"a"), None);
        for (after, found) in [(zone(1 << 20), Some(b"1".to_vec())), (zone(1 << 21), None)] {
            go_on(std::slice::from_ref(&after), std::slice::from_ref(&before));
            assert_eq!(cache(&after, [1; 32]).get(b"a"), found);
            assert_eq!(cache(&after, [2; 32]).take(b"a"), None);
        }
        let renamed = Arc::new(SessionZone::new("T", 1 << 20).unwrap());
        go_on(std::slice::from_ref(&renamed), &[before]);
        assert_eq!(cache(&renamed, [1; 32]).get(b"a"), None);
    }
}
