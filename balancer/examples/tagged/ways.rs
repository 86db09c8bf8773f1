//! What clients ask for, by which ways through the balancer, and what has to come of it.

use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    Http1,
    Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upstream {
    Clear,
    Tls,
    Http2,
}

/// What the client speaks, and what the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub client: Spoken,
    pub upstream: Upstream,
}

pub const WAYS: [Way; 6] = {
    use {Spoken as S, Upstream as U};
    [
        Way { client: S::Http1, upstream: U::Clear },
        Way { client: S::Http1, upstream: U::Tls },
        Way { client: S::Http1, upstream: U::Http2 },
        Way { client: S::Http2, upstream: U::Clear },
        Way { client: S::Http2, upstream: U::Tls },
        Way { client: S::Http2, upstream: U::Http2 },
    ]
};

impl Way {
    pub fn name(self) -> &'static str {
        match (self.client, self.upstream) {
            (Spoken::Http1, Upstream::Clear) => "1.1 to 1.1",
            (Spoken::Http1, Upstream::Tls) => "1.1 to 1.1 over TLS",
            (Spoken::Http1, Upstream::Http2) => "1.1 to 2",
            (Spoken::Http2, Upstream::Clear) => "2 to 1.1",
            (Spoken::Http2, Upstream::Tls) => "2 to 1.1 over TLS",
            (Spoken::Http2, Upstream::Http2) => "2 to 2",
        }
    }

    /// The location that leads there.
    pub fn location(self) -> &'static str {
        match self.upstream {
            Upstream::Clear => "/clear",
            Upstream::Tls => "/tls",
            Upstream::Http2 => "/http2",
        }
    }
}

/// What a client does, and what comes of it whenever all goes well.
#[derive(Debug)]
pub struct Act {
    pub name: &'static str,
    /// How often, beside the others.
    pub weight: usize,
    pub due: &'static [&'static str],
    takes: fn(Way) -> bool,
}

pub const OWN: &str = "its own answer";
pub const OWN_FAILURE: &str = "its own answer, not 200";
pub const CUT: &str = "cut";
pub const LEFT: &str = "left";

const fn act(name: &'static str, weight: usize, due: &'static [&'static str]) -> Act {
    Act { name, weight, due, takes: |_| true }
}

/// HTTP/2 has no words for it, towards the origin or towards the client either.
const fn of_http1(act: Act) -> Act {
    Act { takes: |way| way.client == Spoken::Http1 && way.upstream != Upstream::Http2, ..act }
}

pub const ACTS: [Act; 18] = [
    act("plain", 600, &[OWN]),
    act("pieces", 40, &[OWN]),
    act("chunked", 60, &[OWN]),
    act("echo", 60, &[OWN]),
    act("echo-chunked", 20, &[OWN]),
    act("head", 20, &[OWN]),
    Act { takes: |way| way.upstream != Upstream::Http2, ..act("extra", 10, &[OWN]) },
    act("fail", 10, &[OWN_FAILURE]),
    act("drop", 10, &["502"]),
    act("cut", 10, &[CUT]),
    act("early", 10, &[OWN]),
    // What is unread at the origin may destroy its answer.
    act("early-close", 10, &[OWN, CUT, "502"]),
    of_http1(act("upgrade", 10, &[OWN])),
    of_http1(act("upgrade-refused", 10, &[OWN])),
    act("late", 4, &["504"]),
    act("kill", 2, &["502"]),
    act("gone", 10, &[LEFT]),
    act("cut-body", 10, &[LEFT]),
];

/// Acts that are seldom, so that a short run may see none of them on one way or another.
const SELDOM: usize = 10;

impl Act {
    pub fn is_taken_by(&self, way: Way) -> bool {
        (self.takes)(way)
    }

    pub fn is_seldom(&self) -> bool {
        self.weight < SELDOM
    }

    /// Of so many things done, so many are this one, if not very many times fewer come than are to be expected.
    pub fn least(&self, done: u64) -> u64 {
        let weights: usize = ACTS.iter().map(|act| act.weight).sum();
        let ways = WAYS.iter().filter(|way| self.is_taken_by(**way)).count();
        match self.is_seldom() {
            true => 1,
            false => done * self.weight as u64 * ways as u64 / (weights * WAYS.len() * 2) as u64,
        }
    }
}

/// What this client does next, and to which origin.
pub fn pick(client: Spoken, random: &mut Random) -> (Way, &'static Act) {
    let ways: Vec<Way> = WAYS.into_iter().filter(|way| way.client == client).collect();
    let weights: usize = ACTS.iter().map(|act| act.weight).sum();
    loop {
        let way = ways[random.below(ways.len())];
        let mut at = random.below(weights);
        let picked = ACTS.iter().find(|act| match at < act.weight {
            true => true,
            false => {
                at -= act.weight;
                false
            }
        });
        if let Some(act) = picked.filter(|act| act.is_taken_by(way)) {
            return (way, act);
        }
    }
}
