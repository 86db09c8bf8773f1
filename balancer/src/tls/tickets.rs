//! Tickets: sessions that the client keeps, sealed. They end after `ssl_session_timeout`, which rustls' own do not know, and
//! open only where the same certificates are shown and clients are asked for the same.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

use super::sessions::{Context, SessionZone};

const KEY_NAME_LEN: usize = 16;
const EXPIRY_LEN: usize = 8;

/// Seals with the newest key and opens with any.
pub struct Tickets {
    keys: Keys,
    context: Context,
    lifetime: Duration,
}

enum Keys {
    Drawn(Arc<SessionZone>),
    /// `ssl_session_ticket_key`: the operator's to change.
    Given(Vec<TicketKey>),
}

/// Keys that nobody else has, newest first.
pub struct DrawnKeys {
    all: Vec<TicketKey>,
    /// When the newest was.
    drawn: Instant,
    /// The longest that somebody has sealed with it for.
    lifetime: Duration,
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
    pub fn drawn(zone: Arc<SessionZone>, context: Context, lifetime: Duration) -> Tickets {
        Tickets { keys: Keys::Drawn(zone), context, lifetime }
    }

    /// 48 or 80 bytes each, a name and secrets.
    pub fn given(files: &[Vec<u8>], context: Context, lifetime: Duration) -> Result<Tickets, String> {
        let keys = files.iter().map(|bytes| TicketKey::new(bytes)).collect::<Result<_, String>>()?;
        Ok(Tickets { keys: Keys::Given(keys), context, lifetime })
    }

    fn seal(&self, key: &TicketKey, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0u8; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = unix_time().saturating_add(self.lifetime.as_secs()).to_be_bytes().to_vec();
        sealed.extend_from_slice(plain);
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        key.aead.seal_in_place_append_tag(nonce_used, self.bound_to(key), &mut sealed).ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, keys: &[TicketKey], ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(KEY_NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let key = keys.iter().find(|key| key.name == *name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = key.aead.open_in_place(nonce, self.bound_to(key), &mut sealed).ok()?;
        let (expiry, plain) = opened.split_at_checked(EXPIRY_LEN)?;
        let expiry = u64::from_be_bytes(expiry.try_into().ok()?);
        (unix_time() < expiry).then(|| plain.to_vec())
    }

    fn bound_to(&self, key: &TicketKey) -> Aad<Vec<u8>> {
        Aad::from([&key.name[..], &self.context].concat())
    }
}

impl DrawnKeys {
    pub fn new() -> Result<DrawnKeys, String> {
        Ok(DrawnKeys { all: vec![TicketKey::random()?], drawn: Instant::now(), lifetime: Duration::ZERO })
    }

    /// Anew after each lifetime: a stolen one opens little.
    fn renew(&mut self, lifetime: Duration) {
        self.lifetime = self.lifetime.max(lifetime);
        if self.drawn.elapsed() >= self.lifetime
            && let Ok(key) = TicketKey::random()
        {
            // What the one before the last has sealed is over by now.
            self.all.truncate(1);
            self.all.insert(0, key);
            (self.drawn, self.lifetime) = (Instant::now(), lifetime);
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
        match &self.keys {
            Keys::Given(keys) => self.seal(keys.first()?, plain),
            Keys::Drawn(zone) => zone.with_keys(|keys| {
                keys.renew(self.lifetime);
                self.seal(keys.all.first()?, plain)
            }),
        }
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        match &self.keys {
            Keys::Given(keys) => self.open(keys, ticket),
            Keys::Drawn(zone) => zone.with_keys(|keys| self.open(&keys.all, ticket)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = [7; 32];

    fn given(files: &[Vec<u8>], lifetime: Duration) -> Result<Tickets, String> {
        Tickets::given(files, CONTEXT, lifetime)
    }

    #[test]
    fn a_ticket_opens_with_a_key_that_is_known_and_not_after_its_time() {
        let hour = Duration::from_secs(3600);
        let (first, second) = (vec![1u8; 48], vec![2u8; 80]);
        let before = given(std::slice::from_ref(&first), hour).unwrap();
        let after = given(&[second.clone(), first.clone()], hour).unwrap();
        let ticket = before.encrypt(b"session").unwrap();
        assert_eq!(after.decrypt(&ticket).unwrap(), b"session");
        assert!(before.decrypt(&after.encrypt(b"session").unwrap()).is_none(), "its key is not known");
        let elsewhere = Tickets::given(&[first], [8; 32], hour).unwrap();
        assert!(elsewhere.decrypt(&ticket).is_none(), "other certificates are shown there");
        let ended = given(&[second], Duration::ZERO).unwrap();
        assert!(ended.decrypt(&ended.encrypt(b"session").unwrap()).is_none());
        for cut in 0..ticket.len() {
            assert!(before.decrypt(&ticket[..cut]).is_none());
            let mut changed = ticket.clone();
            changed[cut] ^= 1;
            assert!(before.decrypt(&changed).is_none());
        }
        assert!(given(&[vec![0; 47]], hour).is_err());
    }

    #[test]
    fn drawn_keys_are_those_of_their_zone_and_the_last_but_one_opens() {
        let hour = Duration::from_secs(3600);
        let zone = || Arc::new(SessionZone::new("S", 1 << 20).unwrap());
        let (own, other) = (zone(), zone());
        let tickets = |zone: &Arc<SessionZone>, lifetime| Tickets::drawn(zone.clone(), CONTEXT, lifetime);
        let ticket = tickets(&own, hour).encrypt(b"session").unwrap();
        assert!(tickets(&other, hour).decrypt(&ticket).is_none());
        // A reload that has the zone too.
        other.go_on_with(&own);
        assert_eq!(tickets(&other, hour).decrypt(&ticket).unwrap(), b"session");
        let again = |zone: &Arc<SessionZone>| {
            zone.with_keys(|keys| {
                keys.lifetime = Duration::ZERO;
                keys.renew(Duration::ZERO);
            });
        };
        again(&own);
        assert_eq!(tickets(&other, hour).decrypt(&ticket).unwrap(), b"session");
        again(&own);
        assert!(tickets(&other, hour).decrypt(&ticket).is_none());
    }
}
