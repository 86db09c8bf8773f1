//! Names → addresses: what is known and until when, what has been asked of whom, who waits for it. Follows nginx's
//! rules of a resolver. No sockets, no clock: see names.rs.

mod services;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::services::{Located, Target, targets};
use super::dns::{self, Data, Kind, Reply, Service};

/// A name server that says nothing for so long is passed over for the next one.
pub const RESEND_AFTER: Duration = Duration::from_secs(5);
/// Names kept at once. Clients may choose names: past this, known ones are forgotten and new ones are not asked for.
const NAMES_MAX: usize = 4096;

/// What `resolver` says, as far as decisions depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How many name servers there are.
    pub servers: usize,
    /// In place of what answers say.
    pub valid: Option<Duration>,
    pub ipv4: bool,
    pub ipv6: bool,
}

/// What is looked for under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    Addresses,
    Services,
}

/// A name that can be asked for: lower case, no dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    what: What,
    name: Box<str>,
}

impl Subject {
    /// `None`: no name server could know it.
    pub fn new(what: What, name: &str) -> Option<Subject> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        let is_name = is_plain && dns::question(0, name, Kind::A).is_some();
        is_name.then(|| Subject { what, name: name.to_ascii_lowercase().into() })
    }

    /// The services `service` of `host`: `http` is `_http._tcp`, what has a dot is taken as it is.
    pub fn service(service: &str, host: &str) -> Option<Subject> {
        let name = match service.contains('.') {
            true => format!("{service}.{host}"),
            false => format!("_{service}._tcp.{host}"),
        };
        Subject::new(What::Services, &name)
    }

    /// The same question about the name that this one stands for.
    pub fn at(&self, alias: &str) -> Option<Subject> {
        Subject::new(self.what, alias)
    }
}

/// What a name server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Addresses(Arc<[IpAddr]>),
    Services(Arc<[Service]>),
    Alias(Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub found: Found,
    /// Up to here it holds.
    pub until: Duration,
    /// How often it has been given out: who takes turns among addresses begins there.
    pub uses: usize,
}

/// Why there is no answer. Shown as nginx does: number and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("{}: {}", .0, words(*.0))]
    Code(u8),
    #[error("110: Operation timed out")]
    TimedOut,
}

impl Failure {
    pub const NO_SUCH_NAME: Failure = Failure::Code(dns::NAME_ERROR);
    const SERVER_FAILED: Failure = Failure::Code(2);
}

fn words(code: u8) -> &'static str {
    match code {
        1 => "Format error",
        2 => "Server failure",
        3 => "Host not found",
        4 => "Unimplemented",
        5 => "Operation refused",
        _ => "Unknown error",
    }
}

pub type Answer = Result<Known, Failure>;

/// A message to be sent. Over UDP until a name server says that its answer does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub server: usize,
    pub is_tcp: bool,
    pub message: Vec<u8>,
}

/// What a resolver has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub names: u64,
    pub services: u64,
    pub found: u64,
    /// By response code.
    pub failed: [u64; 6],
    pub timed_out: u64,
}

/// One resolver. `W` is whoever waits.
pub struct Resolver<W> {
    terms: Terms,
    entries: HashMap<Subject, Entry<W>>,
    /// Whom the next name is asked of.
    turn: usize,
    unsent: Vec<Query>,
    /// Numbers that nobody can foresee.
    ids: Box<dyn FnMut() -> u16 + Send>,
    counts: Counts,
}

impl<W> std::fmt::Debug for Resolver<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("terms", &self.terms).finish_non_exhaustive()
    }
}

enum Entry<W> {
    Known(Known),
    Asking(Asking<W>),
}

struct Asking<W> {
    server: usize,
    resend_at: Duration,
    questions: Vec<Question>,
    waiting: Vec<Waiter<W>>,
}

struct Question {
    kind: Kind,
    id: u16,
    is_tcp: bool,
    answer: Option<Reply>,
}

struct Waiter<W> {
    who: W,
    until: Duration,
}

impl<W> Resolver<W> {
    pub fn new(terms: Terms, ids: Box<dyn FnMut() -> u16 + Send>) -> Resolver<W> {
        debug_assert!(terms.servers > 0 && (terms.ipv4 || terms.ipv6), "the configuration is checked");
        Resolver {
            terms,
            entries: HashMap::new(),
            turn: 0,
            unsent: Vec::new(),
            ids,
            counts: Counts::default(),
        }
    }

    /// The answer, if it is at hand; else `who` gets one by `until`, whatever happens.
    pub fn ask(&mut self, subject: &Subject, who: W, until: Duration, now: Duration) -> Option<(W, Answer)> {
        match subject.what {
            What::Addresses => self.counts.names += 1,
            What::Services => self.counts.services += 1,
        }
        match self.entries.get_mut(subject) {
            Some(Entry::Known(known)) if now < known.until => {
                known.uses += 1;
                return Some((who, Ok(known.clone())));
            }
            Some(Entry::Asking(asking)) => {
                asking.waiting.push(Waiter { who, until });
                return None;
            }
            _ => {}
        }
        if !self.make_room(subject) {
            return Some((who, Err(Failure::SERVER_FAILED)));
        }
        let mut asking = self.asking(subject.what, now);
        asking.waiting.push(Waiter { who, until });
        self.unsent.extend(asking.queries(&subject.name));
        self.entries.insert(subject.clone(), Entry::Asking(asking));
        None
    }

    fn asking(&mut self, what: What, now: Duration) -> Asking<W> {
        let server = self.turn;
        self.turn = (server + 1) % self.terms.servers;
        let kinds: &[Kind] = match (what, self.terms.ipv4, self.terms.ipv6) {
            (What::Services, ..) => &[Kind::Srv],
            (What::Addresses, true, true) => &[Kind::A, Kind::Aaaa],
            (What::Addresses, _, false) => &[Kind::A],
            (What::Addresses, false, true) => &[Kind::Aaaa],
        };
        let question = |kind: &Kind| Question { kind: *kind, id: (self.ids)(), is_tcp: false, answer: None };
        let questions = kinds.iter().map(question).collect();
        Asking { server, resend_at: now + RESEND_AFTER, questions, waiting: Vec::new() }
    }

    /// False when all that is kept is being asked for.
    fn make_room(&mut self, subject: &Subject) -> bool {
        if self.entries.len() < NAMES_MAX || self.entries.contains_key(subject) {
            return true;
        }
        let until = |entry: &Entry<W>| match entry {
            Entry::Known(known) => Some(known.until),
            Entry::Asking(_) => None,
        };
        let known = self.entries.iter().filter_map(|(subject, entry)| Some((until(entry)?, subject)));
        let oldest = known.min_by_key(|(until, _)| *until).map(|(_, subject)| subject.clone());
        oldest.is_some_and(|oldest| self.entries.remove(&oldest).is_some())
    }

    /// A name server has answered. Gives those who need not wait any more; `None` when nobody has asked for it in this
    /// very way: it may be forged.
    pub fn on_reply(&mut self, reply: Reply, is_tcp: bool, now: Duration) -> Option<Vec<(W, Answer)>> {
        let what = if reply.kind == Kind::Srv { What::Services } else { What::Addresses };
        let subject = Subject { what, name: reply.name.as_str().into() };
        let Some(Entry::Asking(asking)) = self.entries.get_mut(&subject) else { return None };
        let fits = |question: &&mut Question| {
            question.answer.is_none()
                && (question.kind, question.id, question.is_tcp) == (reply.kind, reply.id, is_tcp)
        };
        let question = asking.questions.iter_mut().find(fits)?;
        if reply.is_cut {
            if is_tcp {
                return None;
            }
            question.is_tcp = true;
            asking.resend_at = now + RESEND_AFTER;
            let query = question.query(asking.server, &subject.name);
            self.unsent.extend(query);
            return Some(Vec::new());
        }
        question.answer = Some(reply);
        if asking.questions.iter().any(|question| question.answer.is_none()) {
            return Some(Vec::new());
        }
        let Some(Entry::Asking(asking)) = self.entries.remove(&subject) else { return None };
        Some(self.conclude(subject, asking, now))
    }

    /// All questions about a name are answered.
    fn conclude(&mut self, subject: Subject, asking: Asking<W>, now: Duration) -> Vec<(W, Answer)> {
        let replies: Vec<Reply> =
            asking.questions.into_iter().filter_map(|question| question.answer).collect();
        let answer = found(subject.what, &replies).map(|(found, ttl)| {
            let until = now + self.terms.valid.unwrap_or(ttl);
            Known { found, until, uses: 0 }
        });
        match &answer {
            Ok(known) => {
                self.counts.found += 1;
                if now < known.until {
                    self.entries.insert(subject, Entry::Known(known.clone()));
                }
            }
            Err(Failure::Code(code)) => self.counts.failed[usize::from(*code).min(5)] += 1,
            Err(Failure::TimedOut) => {}
        }
        asking.waiting.into_iter().map(|waiter| (waiter.who, answer.clone())).collect()
    }

    /// Asks again where no answer came, and gives those whose time is over.
    pub fn on_time(&mut self, now: Duration) -> Vec<(W, Answer)> {
        let mut ended = Vec::new();
        let Resolver { entries, unsent, terms, counts, .. } = self;
        entries.retain(|subject, entry| {
            let asking = match entry {
                Entry::Known(known) => return now < known.until,
                Entry::Asking(asking) => asking,
            };
            let gone = asking.waiting.extract_if(.., |waiter| waiter.until <= now);
            ended.extend(gone.map(|waiter| (waiter.who, Err(Failure::TimedOut))));
            if asking.waiting.is_empty() {
                counts.timed_out += 1;
                return false;
            }
            if asking.resend_at <= now {
                asking.server = (asking.server + 1) % terms.servers;
                asking.resend_at = now + RESEND_AFTER;
                unsent.extend(asking.queries(&subject.name));
            }
            true
        });
        ended
    }

    /// When `on_time` should be called; `None`: nothing is under way.
    pub fn wakes_at(&self) -> Option<Duration> {
        let of_asking = |entry: &Entry<W>| match entry {
            Entry::Known(_) => None,
            Entry::Asking(asking) => {
                asking.waiting.iter().map(|waiter| waiter.until).chain([asking.resend_at]).min()
            }
        };
        self.entries.values().filter_map(of_asking).min()
    }

    /// What is to be sent now.
    pub fn take_unsent(&mut self) -> Vec<Query> {
        std::mem::take(&mut self.unsent)
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }
}

impl<W> Asking<W> {
    fn queries(&self, name: &str) -> Vec<Query> {
        let open = self.questions.iter().filter(|question| question.answer.is_none());
        open.filter_map(|question| question.query(self.server, name)).collect()
    }
}

impl Question {
    fn query(&self, server: usize, name: &str) -> Option<Query> {
        let message = dns::question(self.id, name, self.kind)?;
        Some(Query { server, is_tcp: self.is_tcp, message })
    }
}

/// What the replies say together, and for how long. As in nginx one that failed spoils the others.
fn found(what: What, replies: &[Reply]) -> Result<(Found, Duration), Failure> {
    if let Some(code) = replies.iter().map(|reply| reply.code).find(|code| *code != 0) {
        return Err(Failure::Code(code));
    }
    let records = || replies.iter().flat_map(|reply| &reply.records);
    let ttl = records().map(|record| record.ttl).min().unwrap_or(0);
    let ttl = Duration::from_secs(ttl.into());
    let addresses: Arc<[IpAddr]> = records()
        .filter_map(|record| match record.data {
            Data::Address(ip) if what == What::Addresses => Some(ip),
            _ => None,
        })
        .collect();
    let services: Arc<[Service]> = records()
        .filter_map(|record| match &record.data {
            Data::Service(service) if what == What::Services => Some(service.clone()),
            _ => None,
        })
        .collect();
    // nginx: the last word counts. Where one family is an alias, so is the other, in any zone that is whole.
    let last = replies.last().map_or(&[][..], |reply| &reply.records);
    let mut aliases = last.iter().filter_map(|record| match &record.data {
        Data::Alias(name) => Some(name.as_str().into()),
        _ => None,
    });
    match (addresses.is_empty(), services.is_empty(), aliases.next_back()) {
        (false, ..) => Ok((Found::Addresses(addresses), ttl)),
        (_, false, _) => Ok((Found::Services(services), ttl)),
        (_, _, Some(alias)) => Ok((Found::Alias(alias), ttl)),
        _ => Err(Failure::NO_SUCH_NAME),
    }
}

#[cfg(test)]
mod tests;
