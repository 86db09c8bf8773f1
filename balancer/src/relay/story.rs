//! What is known of one request so far: what variables, headers and the log line are made of.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Exchange;
use super::inside::Inside;
use crate::conf::location::Captures;
use crate::conf::made::Memory;
use crate::conf::rewrite::UserVariable;
use crate::conf::upstream::UpstreamId;
use crate::logic::ending::{Ended, Reached, Trouble};
use crate::logic::h1::{Framing, Method, RequestHead, ResponseHead};
use crate::logic::limits::Place;
use crate::logic::retry::Failure;

#[derive(Debug, Default)]
pub struct Story {
    pub request: RequestHead,
    pub response: ResponseHead,
    /// When the first byte of the request came.
    pub started: Option<Instant>,
    /// Lower-case, without port: `$host`.
    pub host: Vec<u8>,
    /// Decoded and normalised: `$uri`.
    pub path: Vec<u8>,
    pub path_is: PathIs,
    /// The request was rewritten, or sent on inside (`error_page`, a named location).
    pub is_internal: bool,
    /// What a `proxy_pass` with variables rendered as the request's target.
    pub dynamic_uri: Option<Vec<u8>>,
    /// The host and port that it named.
    pub dynamic_host: Option<Vec<u8>>,
    /// That it named https.
    pub dynamic_is_tls: bool,
    /// How often the request moved inside.
    pub moves: u32,
    /// In place of the query string, after such a move.
    pub args: Option<Vec<u8>>,
    /// An error page is fetched with GET whatever was asked.
    pub as_get: bool,
    /// `try_files` found a file below an `alias` in a location given by a pattern: the path stands for it.
    pub adds_to_alias: bool,
    pub captures: Option<Captures>,
    /// What `set` or a named group gave each variable of the configuration last.
    pub user: Vec<Option<Vec<u8>>>,
    /// Values of variables that stay as they were first seen.
    pub memory: Memory,
    /// An `if` block had named an upstream, and a later one that names none took over: nginx has no answer to that.
    pub lost_pass: bool,
    /// It was made inside, on behalf of another request: nothing of its answer goes to the client by itself.
    pub inside: Inside,
    /// In how many others it was made.
    pub depth: u32,
    /// How many have been made inside for the same client's request.
    pub made_inside: u32,
    pub limited_requests: Option<Limited>,
    pub limited_connections: Option<Limited>,
    /// Under limits of concurrent requests; free again when the request is forgotten.
    pub places: Vec<Place>,
    /// `set $limit_rate`, `X-Accel-Limit-Rate`: over what the location says.
    pub limit_rate: Option<u64>,
    /// `X-Accel-Redirect`: header lines and the type that the answer which moved the request brought.
    pub carried: Vec<u8>,
    /// The head as it was sent, and the trailers, where variables ask for them.
    pub sent_head: Vec<u8>,
    pub sent_trailers: Vec<u8>,
    pub carried_type: Option<Vec<u8>>,
    /// `X-Accel-Charset`.
    pub charset: Option<Vec<u8>>,
    /// Trailer lines of the upstream's answer, where they are read.
    pub upstream_trailers: Vec<u8>,
    pub attempts: Vec<Attempt>,
    /// How many locations have passed it on to upstreams: a move inside may lead from one to the next.
    pub passes: u32,
    pub answer: LocalAnswer,
    /// By what each server was chosen, where that is asked for.
    pub reasons: Vec<String>,
    /// `Set-Cookie` of a sticky group, the whole line; empty where there is none.
    pub sticky_cookie: Vec<u8>,
    pub request_id: Option<[u8; 16]>,
    /// What was logged last, for `$balancer_ending`.
    pub trouble: Cell<Option<Trouble>>,
    /// Whom a trusted proxy named; else the client is the connection's peer.
    pub client: Option<Client>,
    /// Of our answer; 0 while there is none.
    pub status: u16,
    /// `error_page`: the status that the page's answer is sent with.
    pub status_override: Option<u16>,
    /// The upstream was asked with HEAD, whatever the client said (`proxy_method`).
    pub asked_head: bool,
    /// The upstream was told of another protocol, whether or not it may switch to it.
    pub is_upgrade_sent: bool,
    /// The upstream was told to close.
    pub is_close_sent: bool,
    /// Body bytes of the request as they came, with their framing.
    pub request_body_len: u64,
    pub sent_len: u64,
    pub sent_head_len: u64,
    pub is_pipelined: bool,
    pub is_complete: bool,
    /// Its line is in the log.
    pub is_recorded: bool,
    pub kept_alive: bool,
}

/// Where `path` comes from, and so what of it an upstream is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PathIs {
    /// The target as it was sent stands for it.
    #[default]
    AsSent,
    /// A rewrite or a move inside gave it, or its arguments are others.
    Changed,
    /// A rewrite gave it and stayed (`break`): no location's path stands at its beginning.
    Rewritten,
}

/// What a limit said: `$limit_req_status`, `$limit_conn_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    Passed,
    Delayed,
    Rejected,
    DelayedDryRun,
    RejectedDryRun,
}

impl Limited {
    pub fn rejected(dry_run: bool) -> Limited {
        if dry_run { Limited::RejectedDryRun } else { Limited::Rejected }
    }

    pub fn delayed(dry_run: bool) -> Limited {
        if dry_run { Limited::DelayedDryRun } else { Limited::Delayed }
    }

    pub fn text(self) -> &'static [u8] {
        match self {
            Limited::Passed => b"PASSED",
            Limited::Delayed => b"DELAYED",
            Limited::Rejected => b"REJECTED",
            Limited::DelayedDryRun => b"DELAYED_DRY_RUN",
            Limited::RejectedDryRun => b"REJECTED_DRY_RUN",
        }
    }
}

/// What an answer of our own bears; variables of sent headers tell it.
#[derive(Debug, Default)]
pub struct LocalAnswer {
    pub is_ours: bool,
    pub content_type: Vec<u8>,
    pub location: Vec<u8>,
    /// `WWW-Authenticate` lines of an answer whose page is ours.
    pub challenges: Vec<u8>,
    pub content_length: Option<u64>,
    /// 416: how long that is of which no range could be had.
    pub unsatisfied_len: Option<u64>,
}

#[derive(Debug)]
pub struct Client {
    pub address: std::net::SocketAddr,
    /// The address without port.
    pub text: Vec<u8>,
}

/// One server asked.
#[derive(Debug)]
pub struct Attempt {
    pub to: Asked,
    /// By which of the locations that passed the request on.
    pub pass: u32,
    pub started: Instant,
    pub connected: Option<Duration>,
    pub head: Option<Duration>,
    pub ended: Option<Duration>,
    pub outcome: Outcome,
    pub sent_len: u64,
    pub received_len: u64,
    pub body_len: u64,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing, so far; nothing at all where the client or we ended it.
    Open,
    /// The head of an answer that could be used.
    Answered(u16),
    Failed(Failure),
}

impl Outcome {
    /// The status that the server gave.
    pub fn answered(self) -> Option<u16> {
        match self {
            Outcome::Answered(status) => Some(status),
            Outcome::Open | Outcome::Failed(_) => None,
        }
    }

    /// As nginx tells it: a failure by the status that stands for it.
    pub fn told(self) -> Option<u16> {
        match self {
            Outcome::Open => None,
            Outcome::Answered(status) => Some(status),
            Outcome::Failed(failure) => Some(failure.status()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Peer {
        group: UpstreamId,
        index: usize,
    },
    /// An address that only this request knew, or the name of a group without live servers.
    Name(Box<str>),
}

impl Attempt {
    pub fn new(to: Asked, pass: u32, started: Instant) -> Attempt {
        Attempt {
            to,
            pass,
            started,
            connected: None,
            head: None,
            ended: None,
            outcome: Outcome::Open,
            sent_len: 0,
            received_len: 0,
            body_len: 0,
        }
    }
}

impl Exchange<'_> {
    pub(super) fn begin_attempt(&mut self, asked: Asked) {
        let story = &mut self.scratch.story;
        story.attempts.push(Attempt::new(asked, story.passes, self.now));
    }

    pub(super) fn fail_attempt(&mut self, failure: Failure) {
        if let Some(attempt) = self.scratch.story.attempt() {
            attempt.outcome = Outcome::Failed(failure);
        }
    }

    /// Closes the books on the server asked last.
    pub(super) fn end_attempt(&mut self) {
        let now = self.now;
        if let Some(attempt) = self.scratch.story.attempt() {
            attempt.ended.get_or_insert(now.duration_since(attempt.started));
        }
    }
}

impl Story {
    /// Forgets the request and keeps the memory.
    pub fn clear(&mut self) {
        self.request.clear();
        self.response.clear();
        // Not field by field: one that is added later and forgotten here would tell one client of another.
        let mut old = std::mem::take(self);
        old.host.clear();
        old.path.clear();
        old.attempts.clear();
        old.answer.content_type.clear();
        old.answer.location.clear();
        self.request = old.request;
        self.response = old.response;
        self.host = old.host;
        self.path = old.path;
        self.attempts = old.attempts;
        self.answer.content_type = old.answer.content_type;
        self.answer.location = old.answer.location;
    }

    /// What a pattern has caught counts until another catches something; its names until they are given another value.
    pub fn remember(&mut self, mut captures: Captures) {
        for (variable, value) in captures.take_named() {
            self.give(variable, value);
        }
        self.captures = Some(captures);
    }

    pub fn give(&mut self, variable: UserVariable, value: Vec<u8>) {
        if self.user.len() <= variable.0 {
            self.user.resize(variable.0 + 1, None);
        }
        self.user[variable.0] = Some(value);
    }

    /// The value that a variable was given.
    pub fn given(&self, variable: UserVariable) -> Option<&[u8]> {
        self.user.get(variable.0)?.as_deref()
    }

    /// The target that was sent is not asked for any more.
    pub fn change_path(&mut self) {
        if self.path_is == PathIs::AsSent {
            self.path_is = PathIs::Changed;
        }
    }

    pub fn method(&self) -> Method {
        match self.as_get {
            true if self.request.method != Method::Head => Method::Get,
            _ => self.request.method,
        }
    }

    /// The method as it is passed on and told; empty where no method could be read.
    pub fn method_name<'h>(&self, head: &'h [u8]) -> &'h [u8] {
        match self.as_get {
            true if self.request.method != Method::Head => b"GET",
            _ => self.request.method_span.of(head),
        }
    }

    /// Where the upstream's answer ends: by the method that it was asked with, which need not be the client's.
    pub fn answer_framing(&self) -> Framing {
        self.response.framing(if self.asked_head { Method::Head } else { Method::Get })
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Ended {
        let reached = match self.attempts.last() {
            None => Reached::Nobody,
            Some(Attempt { head: Some(_), .. }) => Reached::Body,
            Some(Attempt { connected: Some(_), .. }) => Reached::Head,
            Some(_) => Reached::Connect,
        };
        Ended {
            trouble: self.trouble.get(),
            reached,
            is_complete: self.is_complete,
            is_ours: self.answer.is_ours,
            status: self.status,
        }
    }

    pub fn attempt(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut()
    }
}
