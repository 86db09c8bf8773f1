//! Sessions that `sticky learn` has learnt: which server each belongs to, until it has not been seen for a while. The
//! oldest makes room when the zone is full.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use md5::{Digest as _, Md5};

use super::memory::KnownSession;

/// What `samesite=` may say.
pub fn is_samesite(value: &[u8]) -> bool {
    [&b"strict"[..], b"lax", b"none"].iter().any(|known| known.eq_ignore_ascii_case(value))
}

/// The sessions of one zone. Of a session's name only the digest is kept: it is the client's secret.
#[derive(Debug)]
pub struct Sessions {
    by_name: HashMap<Name, Session>,
    /// When each was seen last; the number keeps those of one moment apart.
    by_age: BTreeMap<(Duration, u64), Name>,
    sessions_max: usize,
    timeout: Duration,
    next: u64,
}

type Name = [u8; 16];

#[derive(Debug)]
struct Session {
    sid: Box<str>,
    seen: (Duration, u64),
}

impl Sessions {
    pub fn new(sessions_max: usize, timeout: Duration) -> Sessions {
        Sessions { by_name: HashMap::new(), by_age: BTreeMap::new(), sessions_max, timeout, next: 0 }
    }

    /// A reload may have changed the terms.
    pub fn set_terms(&mut self, sessions_max: usize, timeout: Duration) {
        (self.sessions_max, self.timeout) = (sessions_max, timeout);
        self.make_room(sessions_max);
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The server of this session.
    pub fn find(&mut self, name: &[u8], now: Duration) -> Option<&str> {
        self.expire(now);
        self.by_name.get(&digest(name)).map(|session| &*session.sid)
    }

    /// The session was answered by this server; an unknown one is learnt.
    pub fn learn(&mut self, name: &[u8], sid: &str, now: Duration) {
        self.expire(now);
        let name = digest(name);
        if !self.by_name.contains_key(&name) {
            self.make_room(self.sessions_max.saturating_sub(1));
        }
        self.set(name, sid, now);
    }

    /// The session was answered by this server; an unknown one stays unknown.
    pub fn touch(&mut self, name: &[u8], sid: &str, now: Duration) {
        self.expire(now);
        let name = digest(name);
        if self.by_name.contains_key(&name) {
            self.set(name, sid, now);
        }
    }

    /// All of them, the one that was seen longest ago first.
    pub fn known(&self) -> Vec<KnownSession> {
        let known = |((seen, _), name): (&(Duration, u64), &Name)| {
            let sid = self.by_name.get(name)?.sid.clone();
            Some(KnownSession { name: *name, sid, seen: *seen })
        };
        self.by_age.iter().filter_map(known).collect()
    }

    /// Takes over those of another process, in that order.
    pub fn recall(&mut self, known: Vec<KnownSession>) {
        for session in known {
            self.set(session.name, &session.sid, session.seen);
        }
        self.make_room(self.sessions_max);
    }

    fn set(&mut self, name: Name, sid: &str, now: Duration) {
        let seen = (now, self.next);
        self.next += 1;
        if let Some(before) = self.by_name.insert(name, Session { sid: sid.into(), seen }) {
            self.by_age.remove(&before.seen);
        }
        self.by_age.insert(seen, name);
        debug_assert_eq!(self.by_age.len(), self.by_name.len());
    }

    fn expire(&mut self, now: Duration) {
        while let Some(oldest) = self.by_age.first_entry() {
            if oldest.key().0 + self.timeout > now {
                return;
            }
            let name = oldest.remove();
            self.by_name.remove(&name);
        }
    }

    fn make_room(&mut self, len_max: usize) {
        while self.by_name.len() > len_max {
            let Some((_, name)) = self.by_age.pop_first() else { return };
            self.by_name.remove(&name);
        }
    }
}

fn digest(name: &[u8]) -> Name {
    Md5::digest(name).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_session_is_forgotten_when_it_was_not_seen_for_the_timeout() {
        let mut sessions = Sessions::new(10, at(5));
        sessions.learn(b"one", "a", at(0));
        sessions.touch(b"one", "b", at(4));
        assert_eq!(sessions.find(b"one", at(8)), Some("b"));
        assert_eq!(sessions.find(b"one", at(9)), None);
        sessions.touch(b"one", "b", at(9));
        assert!(sessions.is_empty(), "only learning makes a session");
    }

    proptest! {
        /// Against a list in the order of last sight.
        #[test]
        fn it_is_a_bounded_memory_of_the_latest(steps in prop::collection::vec((0_u8..3, 0_u8..6, 0_u8..3, 0_u64..3), 0..120)) {
            let mut sessions = Sessions::new(3, at(5));
            let mut model: Vec<(u8, u8, u64)> = Vec::new();
            let mut now = 0;
            for (kind, name, sid, wait) in steps {
                now += wait;
                model.retain(|(_, _, seen)| seen + 5 > now);
                let known = model.iter().position(|(known, ..)| *known == name);
                let text = sid.to_string();
                match kind {
                    0 => {
                        let found = sessions.find(&[name], at(now)).map(str::to_owned);
                        prop_assert_eq!(found, known.map(|at| model[at].1.to_string()));
                        continue;
                    }
                    1 => sessions.learn(&[name], &text, at(now)),
                    _ => sessions.touch(&[name], &text, at(now)),
                }
                if kind == 1 || known.is_some() {
                    known.map(|at| model.remove(at));
                    model.push((name, sid, now));
                    if model.len() > 3 {
                        model.remove(0);
                    }
                }
                prop_assert_eq!(sessions.len(), model.len());
            }
            let mut heir = Sessions::new(3, at(5));
            heir.recall(sessions.known());
            prop_assert_eq!(heir.known(), sessions.known());
        }
    }
}
