//! The phases of one request, top to bottom: admit, route, choose, connect, send, receive, stream, record. The only
//! way back up is from a failure before an answer began to the next server, and `logic::retry` guards it.

mod accel;
mod answer;
mod api;
mod aside;
pub mod attempt;
mod backlog;
mod choosing;
mod download;
mod dress;
mod files;
mod guard;
mod inside;
mod intake;
mod lookup;
mod pace;
mod page;
pub mod pages;
mod patience;
mod real_ip;
mod record;
mod rest;
mod rewrite;
mod route;
pub mod scratch;
mod send_file;
pub mod sink;
mod spool;
pub mod story;
mod switch;
mod upload;

use std::time::{Duration, Instant};

use self::answer::{Answer, ErrorPages};
use self::aside::aside;
use self::record::Processing;
use self::scratch::Scratch;
use self::story::Asked;
use crate::api::dashboard::page;
use crate::conf::location::{Action, Lingering, Location, LocationKind, Server};
use crate::conf::proxy::{ProxyPass, Target};
use crate::conf::upstream::UpstreamId;
use crate::downstream::Downstream;
use crate::error::{Error, Side};
use crate::facts::Told;
use crate::logic::choose::Ending;
use crate::logic::ending::Trouble;
use crate::logic::h1::Framing;
use crate::logic::retry::{Failure, Situation, Verdict, verdict};
use crate::logic::upstreams::{Group, Lease};
use crate::running::Running;
use crate::upstream_conns::{Place, UpstreamConn};
use crate::wire::Wire;
use crate::worker::{Generation, Worker};

/// How long a client's connection waits for its next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleTime {
    pub max: Duration,
    /// A shutdown does not end it sooner.
    pub min: Duration,
}

/// What becomes of the client's connection.
#[derive(Debug)]
pub enum After {
    KeepAlive(IdleTime),
    /// Closed, but read from for a while, so that the answer arrives.
    Linger(Lingering),
    Close,
    /// Closed with a reset: the answer was cut and must not look whole.
    Abort,
}

/// One request with everything that its phases need.
#[derive(Debug)]
pub struct Exchange<'a> {
    pub worker: &'a Worker,
    pub running: &'a Running,
    generation: &'a Generation,
    pub down: &'a mut Downstream,
    pub scratch: &'a mut Scratch,
    pub server: &'a Server,
    pub location: &'a Location,
    /// The clock as it was read last: once per event.
    pub now: Instant,
}

/// How a phase ended that could end the request.
enum Step {
    Answer(Answer),
    /// To another location, or not.
    Moved(Result<(), Answer>),
    Ended(After),
}

/// Relays the request whose head is in `scratch`.
pub async fn relay(
    worker: &Worker,
    generation: &Generation,
    down: &mut Downstream,
    scratch: &mut Scratch,
) -> After {
    let running: &Running = &generation.running;
    let names = down.names(running);
    let server: &Server = route::server(names, scratch);
    let now = scratch.story.started.unwrap_or_else(Instant::now);
    let zone = server.zone.map(|zone| &*generation.zones[zone]);
    let _processing = Processing::begin(&running.metrics, zone);
    let mut x = Exchange { worker, running, generation, down, scratch, server, location: &server.root, now };
    let step = match x.read_early().await {
        Ok(()) => Step::Moved(x.route(names)),
        Err(step) => step,
    };
    let after = x.settle(step).await;
    x.record();
    x.parting(after)
}

/// A request that is cut, with its connection or with the worker, is in the logs too.
impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let story = &mut self.scratch.story;
        if story.is_sub() || story.is_recorded {
            return;
        }
        // An answer that its close delimits must not look whole. A tunnel has no end to be told from, and a stream that
        // is dropped is reset by h2.
        let is_cut = story.sent_len > 0 && !story.is_complete && story.status != 101;
        if is_cut && !matches!(self.down.wire, Wire::Served(_)) {
            self.down.wire.reset_on_close();
        }
        if std::thread::panicking() {
            return;
        }
        let is_ours = self.down.arrival.is_cut.get();
        story.trouble.set(Some(if is_ours { Trouble::Stopped } else { Trouble::ClientLeft }));
        if story.status == 0 {
            story.status = 499;
        }
        self.now = Instant::now();
        self.end_attempt();
        self.record();
    }
}

/// Answers a request whose head could not be read.
pub async fn refuse(
    worker: &Worker,
    generation: &Generation,
    down: &mut Downstream,
    scratch: &mut Scratch,
    error: Error,
) -> After {
    let running: &Running = &generation.running;
    let server: &Server = &down.names(running).default;
    let now = Instant::now();
    let mut x = Exchange { worker, running, generation, down, scratch, server, location: &server.root, now };
    x.scratch.story.request.keep_alive = false;
    x.log(&error, None);
    let after = match error {
        Error::ClientGone | Error::ClientTimeout => {
            x.scratch.story.status = if matches!(error, Error::ClientTimeout) { 408 } else { 400 };
            After::Close
        }
        _ => {
            // Of a head that breaks the rules nothing is believed, not even what could be read.
            x.scratch.story.request.fields.list.clear();
            x.scratch.story.host.clear();
            x.scratch.upload.begin(Framing::None, 0);
            let target = x.scratch.story.request.target;
            if !target.path.is_empty() || target.authority.is_some() {
                // It broke the rules later on. A named location can have its path, if that much was sound.
                let _ = x.read_path();
            }
            // nginx looks at the port before it looks at the words.
            let is_misled = x.down.arrival.tls.is_none() && x.down.names(running).is_tls;
            x.settle(Step::Answer(Answer::page(if is_misled { 497 } else { error.status() }))).await
        }
    };
    x.record();
    x.parting(after)
}

impl<'a> Exchange<'a> {
    /// Runs locations until one of them has ended the request or there is an answer to send.
    async fn settle(&mut self, mut step: Step) -> After {
        let mut pages = ErrorPages::MayLead;
        loop {
            let routed = match step {
                Step::Ended(after) => return after,
                Step::Moved(routed) => routed,
                Step::Answer(answer) => match self.error_page(answer, &mut pages) {
                    Ok(routed) => routed,
                    Err(answer) => return aside(self.answer(answer)).await,
                },
            };
            step = match routed {
                Ok(()) => self.act().await,
                Err(answer) => Step::Answer(answer),
            };
        }
    }

    /// `client_body_early_read`: the body comes before a location is looked for, so that its variables can tell it.
    async fn read_early(&mut self) -> Result<(), Step> {
        let server = self.server;
        let conditions = &server.early_read;
        if conditions.is_empty() || self.scratch.story.request.framing == Framing::None {
            return Ok(());
        }
        // Conditions may ask for the path; that of a bad one is refused where it is looked for.
        let _ = self.read_path();
        if !conditions.iter().any(|condition| condition.is_true(&self.facts())) {
            return Ok(());
        }
        self.admit().map_err(Step::Answer)?;
        let read = aside(self.read_into_file()).await;
        read.map_err(|error| self.not_upstreams_fault(&error))
    }

    /// `reset_timedout_connection`: who took too long, or is told nothing, gets a reset.
    fn parting(&self, after: After) -> After {
        let story = &self.scratch.story;
        let is_due = story.trouble.get() == Some(Trouble::ClientLate) || story.status == 444;
        match after {
            After::Close
                if is_due && self.location.reset_timedout && !matches!(self.down.wire, Wire::Served(_)) =>
            {
                After::Abort
            }
            after => after,
        }
    }

    /// Runs the location that was found.
    async fn act(&mut self) -> Step {
        if let Err(answer) = self.admit() {
            return Step::Answer(answer);
        }
        if !self.location.is_open()
            && let Err(step) = aside(self.guard()).await
        {
            return step;
        }
        match self.try_files() {
            None => {}
            Some(Ok(())) => return aside(self.act()).await,
            Some(Err(answer)) => return Step::Answer(answer),
        }
        match &self.location.action {
            Action::Proxy(pass) => self.proxy(pass).await,
            Action::Api { writes } => aside(self.api(*writes)).await,
            Action::Dashboard { api } => {
                Step::Answer(Answer::typed(200, "text/html; charset=utf-8", page(api)))
            }
            Action::Status => Step::Answer(self.stub_status()),
            Action::Nothing if self.scratch.story.lost_pass => Step::Answer(Answer::page(500)),
            Action::Nothing => aside(self.serve_file()).await,
        }
    }

    /// Refuses a body that is too long for this location, before anything is read or asked.
    fn admit(&mut self) -> Result<(), Answer> {
        self.find_client();
        let len_max = self.location.body.len_max;
        let upload = &mut self.scratch.upload;
        if upload.is_refused() {
            return Ok(());
        }
        if !upload.has_begun() {
            upload.begin(self.scratch.story.request.framing, len_max);
        }
        upload.min_rate = self.location.body.min_rate;
        // nginx looks at a known length where a path finds its location, and not again where a name does.
        let is_named = self.location.kind == LocationKind::Named;
        upload.limit(if is_named && upload.has_len() { 0 } else { len_max });
        if is_named || !upload.is_too_long() {
            return Ok(());
        }
        upload.refuse();
        self.log(&Error::BodyTooLarge, None);
        Err(Answer::page(413))
    }

    /// Sends the request to a server of the group and its answer to the client.
    async fn proxy(&mut self, pass: &'a ProxyPass) -> Step {
        if !self.is_bodiless()
            && let Err(error) = aside(self.read_ahead()).await
        {
            return self.not_upstreams_fault(&error);
        }
        self.scratch.story.passes += 1;
        let own;
        let (group, id) = match self.target(pass).await {
            Ok(Found::Shared(group, id)) => (group, Some(id)),
            Ok(Found::Own(group)) => {
                own = group;
                (&*own, None)
            }
            Err(step) => return step,
        };
        match self.ask(group, id, pass).await {
            Ok((conn, lease)) => self.pass_on(conn, lease, id).await,
            Err(step) => step,
        }
    }

    /// Asks one server after the other until one answers, as `proxy_next_upstream` allows.
    async fn ask<'g>(
        &mut self,
        group: &'g Group,
        id: Option<UpstreamId>,
        pass: &'a ProxyPass,
    ) -> Result<(UpstreamConn, Lease<'g>), Step> {
        let mut attempts = self.attempts_in(group);
        let mut tries =
            Tries { left: if group.is_single() { 1 } else { group.tries_max() }, began: self.now };
        let tries_max = self.location.proxy.next.tries_max;
        if tries_max > 0 {
            tries.left = tries.left.min(tries_max);
        }
        loop {
            let mut lease = match self.choose(group, &mut attempts).await {
                Ok(lease) => lease,
                Err(Error::NoLiveUpstreams) => return Err(self.no_live_upstreams(group)),
                Err(error) => return Err(self.not_upstreams_fault(&error)),
            };
            tries.left = tries.left.saturating_sub(1);
            match self.ask_server(&lease, id, pass, &tries).await {
                Ok(conn) => {
                    self.on_head(&mut lease);
                    return Ok((conn, lease));
                }
                Err(NoAnswer::NotItsFault(error)) => return Err(self.not_upstreams_fault(&error)),
                Err(NoAnswer::ServerFailed(failure, next)) => {
                    let ending = if failure.is_blamed() { Ending::Failed } else { Ending::Blameless };
                    self.end_lease(lease, ending);
                    if next == Verdict::GiveUp {
                        return Err(Step::Answer(Answer::page(failure.status())));
                    }
                }
            }
        }
    }

    /// Asks one server; again over a new connection when the one kept from before turned out to be closed.
    async fn ask_server(
        &mut self,
        lease: &Lease<'_>,
        id: Option<UpstreamId>,
        pass: &'a ProxyPass,
        tries: &Tries,
    ) -> Result<UpstreamConn, NoAnswer> {
        let mut reuse = true;
        loop {
            let asked = match id {
                Some(group) => Asked::Peer { group, index: lease.index() },
                None => Asked::Name(lease.peer().name.clone()),
            };
            self.begin_attempt(asked);
            let place =
                id.filter(|_| reuse && !self.location.proxy.is_bound_to_client()).map(|id| place(id, lease));
            let failed = match self.attempt(lease, place, pass).await {
                Ok(conn) => match self.wants_next(tries) {
                    None => return Ok(conn),
                    Some(failure) => return Err(NoAnswer::ServerFailed(failure, Verdict::Next)),
                },
                Err(failed) => failed,
            };
            self.now = Instant::now();
            self.end_attempt();
            let Some(failure) = failed.error.retry() else {
                return Err(NoAnswer::NotItsFault(failed.error));
            };
            self.fail_attempt(failure);
            self.log(&failed.error, Some(lease));
            let situation = self.situation(tries, failed.was_sent, failed.was_stale);
            match verdict(&self.location.proxy.next, failure, situation) {
                Verdict::SameServer if reuse => {
                    // One server, asked once: the client's and the log's view of it.
                    self.scratch.story.attempts.pop();
                    reuse = false;
                }
                next => return Err(NoAnswer::ServerFailed(failure, next)),
            }
        }
    }

    /// A whole answer whose status `proxy_next_upstream` lists, with another server to ask.
    fn wants_next(&mut self, tries: &Tries) -> Option<Failure> {
        let failure = Failure::Status(self.scratch.story.response.status);
        let situation = self.situation(tries, true, false);
        if verdict(&self.location.proxy.next, failure, situation) != Verdict::Next {
            return None;
        }
        self.end_attempt();
        Some(failure)
    }

    fn situation(&self, tries: &Tries, was_sent: bool, was_stale: bool) -> Situation {
        Situation {
            was_sent,
            is_non_idempotent: self.scratch.story.request.method.is_non_idempotent(),
            is_replayable: self.scratch.upload.is_replayable(),
            was_stale,
            tries_left: tries.left,
            // Looked at only where a limit is set, and each answer asks for it.
            elapsed: match self.location.proxy.next.time_max.is_zero() {
                true => Duration::ZERO,
                false => self.now.duration_since(tries.began),
            },
        }
    }

    async fn target(&mut self, pass: &'a ProxyPass) -> Result<Found<'a>, Step> {
        match &pass.target {
            Target::Group(id) => Ok(Found::Shared(self.running.upstreams.group(*id), *id)),
            Target::Dynamic { url, naming } => aside(self.dynamic_target(url, *naming)).await,
        }
    }

    fn no_live_upstreams(&mut self, group: &Group) -> Step {
        self.begin_attempt(Asked::Name(group.name().into()));
        self.end_attempt();
        self.fail_attempt(Failure::Error);
        self.log(&Error::NoLiveUpstreams, None);
        if group.upstream().queue.is_some() {
            self.scratch.story.trouble.set(Some(Trouble::QueueLate));
        }
        Step::Answer(Answer::page(502))
    }

    /// The client left, its body is at fault, or we lack something: no server is to blame and none is asked again.
    fn not_upstreams_fault(&mut self, error: &Error) -> Step {
        debug_assert_ne!(error.side(), Side::Upstream, "its failures go through the retry rules");
        self.log(error, None);
        match error {
            Error::ClientGone => {
                self.scratch.story.status = 499;
                Step::Ended(After::Close)
            }
            // nginx closes on a client that stops in its body; the log says 408.
            Error::ClientTimeout => {
                self.scratch.story.status = 408;
                Step::Ended(After::Close)
            }
            Error::BodyTooSlow => {
                self.scratch.upload.refuse();
                self.scratch.story.request.keep_alive = false;
                Step::Answer(Answer::page(408))
            }
            error => Step::Answer(Answer::page(error.status())),
        }
    }

    pub fn facts(&self) -> Told<'_> {
        Told {
            worker: self.worker,
            running: self.running,
            down: self.down,
            scratch: self.scratch,
            server: self.server,
            location: self.location,
            now: self.now,
        }
    }
}

/// What is left of the tries that a request has.
struct Tries {
    left: u32,
    began: Instant,
}

enum NoAnswer {
    /// The client's or ours.
    NotItsFault(Error),
    ServerFailed(Failure, Verdict),
}

fn place<'l>(group: UpstreamId, lease: &Lease<'l>) -> Place<'l> {
    Place { group: group.0, peer: lease.index(), address: &lease.peer().address }
}

/// Where a request is to go.
enum Found<'a> {
    Shared(&'a Group, UpstreamId),
    Own(Box<Group>),
}
