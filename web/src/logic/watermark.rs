//! How far a database has come: positions in the write-ahead log, the token that carries one, and who may answer a read.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::logic::lineage::Lineage;

/// A position in Postgres' write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

/// A state of the database: everything up to `lsn` on `timeline`. In order of the writes that they cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watermark {
    pub timeline: u32,
    pub lsn: Lsn,
}

impl Lsn {
    /// Reads Postgres' text form, such as `16/B374D848`.
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let part = |text: &str| (1..=8).contains(&text.len()).then(|| u64::from_str_radix(text, 16).ok());
        Some(Self((part(high)?? << 32) | part(low)??))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// Signs and checks consistency tokens, so that a client cannot invent a position and make every read wait.
#[derive(Clone)]
pub struct TokenKeys {
    /// The first one signs.
    keys: Vec<Vec<u8>>,
}

/// Half of a SHA-256: long enough against guessing, short enough for a cookie.
const SIGNATURE_LEN: usize = 16;
const BODY_LEN: usize = 12;

impl TokenKeys {
    pub fn new(keys: Vec<Vec<u8>>) -> Self {
        Self { keys }
    }

    pub fn token(&self, mark: Watermark) -> String {
        let mut bytes = Vec::with_capacity(BODY_LEN + SIGNATURE_LEN);
        bytes.extend_from_slice(&mark.timeline.to_be_bytes());
        bytes.extend_from_slice(&mark.lsn.0.to_be_bytes());
        let signature = self.keys.first().map(|key| mac(key, &bytes).finalize().into_bytes());
        bytes.extend(signature.iter().flat_map(|signature| &signature[..SIGNATURE_LEN]));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The state a token asks for; `None` when it is not one of ours.
    pub fn read(&self, token: &str) -> Option<Watermark> {
        let bytes =
            URL_SAFE_NO_PAD.decode(token).ok().filter(|bytes| bytes.len() == BODY_LEN + SIGNATURE_LEN)?;
        let (body, signature) = bytes.split_at(BODY_LEN);
        let ours = self.keys.iter().any(|key| mac(key, body).verify_truncated_left(signature).is_ok());
        let (timeline, lsn) = body.split_at(4);
        ours.then_some(Watermark {
            timeline: u32::from_be_bytes(timeline.try_into().ok()?),
            lsn: Lsn(u64::from_be_bytes(lsn.try_into().ok()?)),
        })
    }
}

fn mac(key: &[u8], body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(b"consistency-token");
    mac.update(body);
    mac
}

/// What a standby says about its replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    pub lsn: Lsn,
    pub receiver: Receiver,
    /// The newest timeline whose row it has replayed.
    pub entered: Option<u32>,
}

/// The standby's process that takes in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    Follows {
        timeline: u32,
    },
    /// It runs, but only `pg_monitor` may see which timeline it follows.
    Hidden,
    /// It does not run: the primary is away.
    Away,
}

/// How far a standby is known to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub mark: Watermark,
    pub proof: Proof,
}

/// Where the timeline of a standby's position is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Its receiver told.
    Receiver,
    /// A row that it has replayed. After a failover it comes a moment late, while positions go on.
    Row,
}

impl Replayed {
    /// What this says, after `before`.
    pub fn progress(self, before: Option<Progress>) -> Option<Progress> {
        let proven = before.filter(|before| before.proof == Proof::Receiver);
        match (self.receiver, proven) {
            (Receiver::Follows { timeline }, _) => {
                Some(Progress { mark: Watermark { timeline, lsn: self.lsn }, proof: Proof::Receiver })
            }
            // What it replays now may be of another timeline; what it had is still there.
            (Receiver::Away, Some(proven)) => {
                let lsn = proven.mark.lsn.min(self.lsn);
                Some(Progress { mark: Watermark { lsn, ..proven.mark }, ..proven })
            }
            (Receiver::Away | Receiver::Hidden, _) => {
                let mark = Watermark { timeline: self.entered?, lsn: self.lsn };
                Some(Progress { mark, proof: Proof::Row })
            }
        }
    }
}

/// What is known of one read replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Never asked, not answering, or no longer a standby.
    Out,
    /// It had replayed up to `replayed` when asked `age` ago, and by now it can only be further; the primary was
    /// beyond that at least `lag` ago.
    Following { replayed: Watermark, age: Duration, lag: Duration },
}

/// Who answers a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answerer {
    Primary,
    /// The replica with this index.
    Replica(usize),
}

/// An answer older than this says nothing about a replica that may have died since.
pub const STANDING_AGE_MAX: Duration = Duration::from_millis(800);

/// What a read asks of whoever answers it.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// The state that it must see.
    pub need: Option<Watermark>,
    /// The primary's timeline where it is known: a standby of another one follows somebody else.
    pub timeline: Option<u32>,
    pub lineage: &'a Lineage,
    /// A standby that lags longer is left out, whatever the read must see.
    pub lag_max: Duration,
}

impl Demand<'_> {
    /// Whether a replica that stands so may answer.
    fn is_met_by(&self, standing: Standing) -> bool {
        let Standing::Following { replayed, age, lag } = standing else { return false };
        age <= STANDING_AGE_MAX
            && lag <= self.lag_max
            && self.timeline.is_none_or(|timeline| timeline == replayed.timeline)
            && self.need.is_none_or(|need| self.lineage.holds(replayed, need))
    }
}

/// Picks the next replica in turn that is known to have what the read must see; the primary where there is none.
pub fn choose(demand: &Demand<'_>, standings: &[Standing], turn: usize) -> Answerer {
    (0..standings.len())
        .map(|step| (turn % standings.len() + step) % standings.len())
        .find(|&index| demand.is_met_by(standings[index]))
        .map_or(Answerer::Primary, Answerer::Replica)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(secret: &str) -> TokenKeys {
        TokenKeys::new(vec![secret.as_bytes().to_vec()])
    }

    fn following(lsn: u64) -> Standing {
        let replayed = Watermark { timeline: 1, lsn: Lsn(lsn) };
        Standing::Following { replayed, age: Duration::ZERO, lag: Duration::ZERO }
    }

    fn pick(need: Option<Watermark>, timeline: Option<u32>, standings: &[Standing], turn: usize) -> Answerer {
        let demand =
            Demand { need, timeline, lineage: &Lineage::default(), lag_max: Duration::from_secs(10) };
        choose(&demand, standings, turn)
    }

    #[test]
    fn positions_are_read_and_written_as_postgres_does() {
        assert_eq!(Lsn::parse("16/B374D848").unwrap().to_string(), "16/B374D848");
        assert!(Lsn::parse("0/0").unwrap() < Lsn::parse("1/0").unwrap());
        assert_eq!(Lsn::parse("16"), None);
        assert_eq!(Lsn::parse("x/1"), None);
    }

    #[test]
    fn a_replica_that_is_behind_silent_late_or_promoted_is_passed_over() {
        let need = Some(Watermark { timeline: 1, lsn: Lsn(100) });
        let replayed = Watermark { timeline: 1, lsn: Lsn(500) };
        let silent = Standing::Following { replayed, age: Duration::from_secs(5), lag: Duration::ZERO };
        let late = Standing::Following { replayed, age: Duration::ZERO, lag: Duration::from_secs(11) };
        let standings = [following(99), silent, Standing::Out, late, following(100)];
        assert_eq!(pick(need, Some(1), &standings, 0), Answerer::Replica(4));
        assert_eq!(pick(need, Some(1), &standings[..4], 0), Answerer::Primary);
        assert_eq!(pick(need, Some(2), &standings, 0), Answerer::Primary, "they follow an old primary");
        assert_eq!(pick(need, None, &standings, 0), Answerer::Replica(4), "the primary is away");
        assert_eq!(pick(None, None, &standings, 0), Answerer::Replica(0));
        assert_eq!(pick(None, Some(1), &[silent, late], 0), Answerer::Primary);
        assert_eq!(pick(None, None, &[], 7), Answerer::Primary);
    }

    #[test]
    fn a_standby_without_its_primary_is_believed_only_what_it_had_before() {
        let said = |lsn, receiver| Replayed { lsn: Lsn(lsn), receiver, entered: Some(1) };
        let at = |lsn, proof| Some(Progress { mark: Watermark { timeline: 1, lsn: Lsn(lsn) }, proof });
        let following = said(100, Receiver::Follows { timeline: 1 }).progress(None);
        assert_eq!(following, at(100, Proof::Receiver));
        let alone = said(150, Receiver::Away).progress(following);
        assert_eq!(alone, at(100, Proof::Receiver), "what came after may be of a new timeline");
        assert_eq!(said(150, Receiver::Away).progress(None), at(150, Proof::Row));
        assert_eq!(said(150, Receiver::Hidden).progress(following), at(150, Proof::Row));
        let new = said(160, Receiver::Follows { timeline: 2 }).progress(alone).unwrap();
        assert_eq!(new.mark, Watermark { timeline: 2, lsn: Lsn(160) });
    }

    #[test]
    fn replicas_take_turns() {
        let standings = [following(1), following(1)];
        let picked: Vec<_> = (0..4).map(|turn| pick(None, None, &standings, turn)).collect();
        assert_eq!(picked, [0, 1, 0, 1].map(Answerer::Replica));
    }

    proptest! {
        #[test]
        fn a_token_says_what_went_in_and_no_other_key_reads_it(timeline: u32, lsn: u64) {
            let mark = Watermark { timeline, lsn: Lsn(lsn) };
            let token = keys("one").token(mark);
            prop_assert_eq!(keys("one").read(&token), Some(mark));
            prop_assert_eq!(keys("two").read(&token), None);
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,60}") {
            let _ = keys("one").read(&text);
            let _ = Lsn::parse(&text);
        }

        #[test]
        fn no_read_goes_to_a_replica_that_lacks_what_it_needs(
            need in 0u64..20, positions in proptest::collection::vec(0u64..20, 0..6), turn in 0usize..100,
        ) {
            let standings: Vec<_> = positions.iter().map(|&lsn| following(lsn)).collect();
            let mark = Watermark { timeline: 1, lsn: Lsn(need) };
            match pick(Some(mark), Some(1), &standings, turn) {
                Answerer::Replica(index) => prop_assert!(positions[index] >= need),
                Answerer::Primary => prop_assert!(positions.iter().all(|&lsn| lsn < need)),
            }
        }
    }
}
