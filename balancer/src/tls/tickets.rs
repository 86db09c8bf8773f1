//! Session resumption: sealed tickets that the client keeps, and sessions that are kept here. Both end after
//! `ssl_session_timeout`, which rustls' own do not know.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::{ProducesTickets, StoresServerSessions};

const KEY_NAME_LEN: usize = 16;
const EXPIRY_LEN: usize = 8;

/// Seals with the newest key and opens with any.
pub struct Tickets {
    keys: Mutex<Keys>,
    lifetime: Duration,
}

struct Keys {
    /// Newest first.
    all: Vec<TicketKey>,
    /// When the newest was drawn; none for keys of files, which are the operator's to change.
    drawn: Option<Instant>,
}

struct TicketKey {
    name: [u8; KEY_NAME_LEN],
    aead: LessSafeKey,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({:?})", self.lifetime)
    }
}

impl Tickets {
    /// Keys that nobody else has, drawn anew after each lifetime: a stolen one opens little.
    pub fn random(lifetime: Duration) -> Result<Tickets, String> {
        let keys = Keys { all: vec![TicketKey::random()?], drawn: Some(Instant::now()) };
        Ok(Tickets { keys: Mutex::new(keys), lifetime })
    }

    /// `ssl_session_ticket_key`: 48 or 80 bytes, a name and secrets.
    pub fn from_keys(files: &[Vec<u8>], lifetime: Duration) -> Result<Tickets, String> {
        let all = files.iter().map(|bytes| TicketKey::new(bytes)).collect::<Result<_, String>>()?;
        Ok(Tickets { keys: Mutex::new(Keys { all, drawn: None }), lifetime })
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    fn renew(&mut self, lifetime: Duration) {
        if self.drawn.is_some_and(|drawn| drawn.elapsed() >= lifetime)
            && let Ok(key) = TicketKey::random()
        {
            // What the one before the last has sealed is over by now.
            self.all.truncate(1);
            self.all.insert(0, key);
            self.drawn = Some(Instant::now());
        }
    }
}

impl TicketKey {
    fn random() -> Result<TicketKey, String> {
        let mut bytes = [0u8; 48];
        getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
        TicketKey::new(&bytes)
    }

    fn new(bytes: &[u8]) -> Result<TicketKey, String> {
        if bytes.len() != 48 && bytes.len() != 80 {
            return Err("must be 48 or 80 bytes".to_owned());
        }
        let mut name = [0; KEY_NAME_LEN];
        name.copy_from_slice(&bytes[..KEY_NAME_LEN]);
        let secret = &bytes[KEY_NAME_LEN..KEY_NAME_LEN + 32];
        let key = UnboundKey::new(&AES_256_GCM, secret).map_err(|error| error.to_string())?;
        Ok(TicketKey { name, aead: LessSafeKey::new(key) })
    }
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    /// Name of the key, nonce, sealed end and session.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut keys = self.keys();
        keys.renew(self.lifetime);
        let key = keys.all.first()?;
        let mut nonce = [0u8; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = unix_time().saturating_add(self.lifetime.as_secs()).to_be_bytes().to_vec();
        sealed.extend_from_slice(plain);
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        key.aead.seal_in_place_append_tag(nonce_used, Aad::from(key.name), &mut sealed).ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(KEY_NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys();
        let key = keys.all.iter().find(|key| key.name == *name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = key.aead.open_in_place(nonce, Aad::from(key.name), &mut sealed).ok()?;
        let (expiry, plain) = opened.split_at_checked(EXPIRY_LEN)?;
        let expiry = u64::from_be_bytes(expiry.try_into().ok()?);
        (unix_time() < expiry).then(|| plain.to_vec())
    }
}

/// `ssl_session_cache shared:…`: shared by all workers; the oldest make room.
#[derive(Debug)]
pub struct SessionCache {
    sessions: Mutex<Sessions>,
    sessions_max: usize,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<Vec<u8>, (Instant, Vec<u8>)>,
    /// Oldest first; may name sessions that are gone.
    order: VecDeque<Vec<u8>>,
}

/// nginx's manual: one megabyte holds about 4000 sessions.
const SESSIONS_PER_MB: usize = 4000;

impl SessionCache {
    pub fn new(size: usize, timeout: Duration) -> SessionCache {
        let sessions_max = ((size * SESSIONS_PER_MB) >> 20).max(1);
        SessionCache { sessions: Mutex::default(), sessions_max, timeout }
    }
}

impl StoresServerSessions for SessionCache {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        while sessions.order.len() >= self.sessions_max {
            if let Some(oldest) = sessions.order.pop_front() {
                sessions.by_id.remove(&oldest);
            }
        }
        sessions.order.push_back(id.clone());
        sessions.by_id.insert(id, (Instant::now(), session));
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, session) = sessions.by_id.get(id)?;
        (since.elapsed() < self.timeout).then(|| session.clone())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, session) = sessions.by_id.remove(id)?;
        (since.elapsed() < self.timeout).then_some(session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_with_a_key_that_is_known_and_not_after_its_time() {
        let hour = Duration::from_secs(3600);
        let (first, second) = (vec![1u8; 48], vec![2u8; 80]);
        let before = Tickets::from_keys(std::slice::from_ref(&first), hour).unwrap();
        let after = Tickets::from_keys(&[second.clone(), first], hour).unwrap();
        let ticket = before.encrypt(b"session").unwrap();
        assert_eq!(after.decrypt(&ticket).unwrap(), b"session");
        assert!(before.decrypt(&after.encrypt(b"session").unwrap()).is_none(), "its key is not known");
        let ended = Tickets::from_keys(&[second], Duration::ZERO).unwrap();
        assert!(ended.decrypt(&ended.encrypt(b"session").unwrap()).is_none());
        for cut in 0..ticket.len() {
            assert!(before.decrypt(&ticket[..cut]).is_none());
            let mut changed = ticket.clone();
            changed[cut] ^= 1;
            assert!(before.decrypt(&changed).is_none());
        }
        assert!(Tickets::from_keys(&[vec![0; 47]], hour).is_err());
    }

    #[test]
    fn a_full_cache_forgets_the_oldest_session() {
        let cache = SessionCache::new(1, Duration::from_secs(60));
        cache.put(b"a".to_vec(), b"1".to_vec());
        cache.put(b"b".to_vec(), b"2".to_vec());
        assert_eq!((cache.get(b"a"), cache.get(b"b")), (None, Some(b"2".to_vec())));
        assert_eq!((cache.take(b"b"), cache.take(b"b")), (Some(b"2".to_vec()), None));
        let ended = SessionCache::new(1 << 20, Duration::ZERO);
        ended.put(b"a".to_vec(), b"1".to_vec());
        assert_eq!(ended.get(b"a"), None);
    }
}
