//! Which server gets the request: the key and the session by which it is chosen, the wait in a group's queue, what is
//! learnt when it has answered, and the cookie by which the client finds back.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Instant as TimerInstant;

use super::Exchange;
use super::aside::aside;
use super::story::Asked;
use crate::buffer::BUFFER_LEN;
use crate::conf::template::Template;
use crate::conf::upstream::{CookieExpires, Method, QueueTerms, Sticky, StickyCookie, StickyKind, Tier};
use crate::error::{Error, Side};
use crate::logic::choose::{Attempts, Ending, Key};
use crate::logic::h1::write;
use crate::logic::sticky::is_samesite;
use crate::logic::times::AnswerTimes;
use crate::logic::upstreams::{Group, Lease, Seat};

impl Exchange<'_> {
    /// By what this group chooses, from this request.
    pub(super) fn attempts_in(&self, group: &Group) -> Attempts {
        let upstream = group.upstream();
        let key = match &upstream.method {
            Method::IpHash { ipv6_bits } => Key::of_client(self.client_ip(), *ipv6_bits),
            Method::Hash { key, .. } | Method::ConsistentHash { key, .. } => {
                Key::text(&key.to_bytes(&self.facts()))
            }
            _ => Key::None,
        };
        let attempts = Attempts::new(key, self.worker.random());
        match &upstream.sticky {
            Some(sticky) => attempts.sticking_to(self.wanted_in(group, sticky).as_deref()),
            None => attempts,
        }
    }

    /// The id of the server that the client had before.
    fn wanted_in(&self, group: &Group, sticky: &Sticky) -> Option<Vec<u8>> {
        let found = self.first_of(&sticky.lookup)?;
        match sticky.kind {
            StickyKind::Route | StickyKind::Cookie(_) => Some(found),
            StickyKind::Learn(_) => Some(group.session(&found, self.now_of_groups())?.as_bytes().to_vec()),
        }
    }

    fn first_of(&self, templates: &[Template]) -> Option<Vec<u8>> {
        let facts = self.facts();
        templates.iter().map(|template| template.to_bytes(&facts)).find(|value| !value.is_empty())
    }

    pub(super) fn now_of_groups(&self) -> Duration {
        self.worker.clock.since_start(self.now)
    }

    /// The next server of this request. On the first try it may wait in the group's queue; one that has been passed on
    /// by a server does not hold up those who come new.
    pub(super) async fn choose<'g>(
        &mut self,
        group: &'g Group,
        attempts: &mut Attempts,
    ) -> Result<Lease<'g>, Error> {
        let explains = self.running.settings.http.explains;
        let passed_over = explains.then(|| group.passed_over(attempts, self.now_of_groups()));
        let chosen = match (group.pick(attempts, self.now_of_groups()), group.upstream().queue) {
            (Some(lease), _) => Ok(lease),
            (None, Some(terms)) if attempts.is_first() => {
                aside(self.wait_in_queue(group, terms, attempts)).await
            }
            (None, _) => Err(Error::NoLiveUpstreams),
        };
        if let Some(passed_over) = passed_over {
            let by = by_what(group, chosen.as_ref().ok(), attempts);
            self.scratch.story.reasons.push(match passed_over.is_empty() {
                true => by.to_owned(),
                false => format!("{by}({passed_over})"),
            });
        }
        let lease = chosen?;
        if let Some(StickyKind::Cookie(cookie)) = group.upstream().sticky.as_ref().map(|sticky| &sticky.kind)
        {
            let mut line = std::mem::take(&mut self.scratch.story.sticky_cookie);
            line.clear();
            self.write_cookie(cookie, lease.peer().terms.sid.text(), &mut line);
            self.scratch.story.sticky_cookie = line;
        }
        Ok(lease)
    }

    async fn wait_in_queue<'g>(
        &mut self,
        group: &'g Group,
        terms: QueueTerms,
        attempts: &mut Attempts,
    ) -> Result<Lease<'g>, Error> {
        let until = TimerInstant::now() + terms.timeout;
        let is_watched = self.scratch.upload.is_read() && !self.location.proxy.ignore_client_abort;
        let Exchange { down, scratch, worker, .. } = self;
        let mut seat: Option<Seat<'g>> = None;
        let waited = poll_fn(|cx| {
            loop {
                seat = seat.take().or_else(|| group.enqueue(cx.waker()));
                let Some(seat) = &seat else { return Poll::Ready(Err(Error::NoLiveUpstreams)) };
                let now = Instant::now();
                let since_start = worker.clock.since_start(now);
                let again = match seat.pick(attempts, since_start, cx.waker()) {
                    Ok(lease) => return Poll::Ready(Ok(lease)),
                    Err(again) => again.map(|again| now + again.saturating_sub(since_start)),
                };
                if now >= until.into_std() {
                    return Poll::Ready(Err(Error::NoLiveUpstreams));
                }
                if is_watched && down.poll_gone(cx, &mut scratch.inbound, BUFFER_LEN) {
                    return Poll::Ready(Err(Error::ClientGone));
                }
                down.deadline.set_at(again.map_or(until, |again| until.min(TimerInstant::from_std(again))));
                ready!(down.deadline.poll(cx));
            }
        })
        .await;
        self.now = Instant::now();
        waited
    }

    /// The head of the answer that will be passed on has come.
    pub(super) fn on_head(&self, lease: &mut Lease<'_>) {
        let Some(took) = self.scratch.story.attempts.last().and_then(|attempt| attempt.head) else { return };
        lease.on_header(took, self.now_of_groups());
        self.learn(lease, At::Header);
    }

    /// The request at this server is over.
    pub(super) fn end_lease(&self, lease: Lease<'_>, ending: Ending) {
        let peer = lease.peer();
        if matches!(ending, Ending::Answered(_)) {
            self.learn(&lease, At::End);
        }
        if lease.end(ending, self.now_of_groups()) {
            if let Some(Asked::Peer { group, index }) =
                self.scratch.story.attempts.last().map(|attempt| &attempt.to)
            {
                self.generation.peers[group.0][*index].ejections.fetch_add(1, Relaxed);
            }
            tracing::warn!(upstream = %peer.name, "upstream server temporarily disabled");
        }
    }

    /// How the attempt that has just ended counts, where nobody is to blame.
    pub(super) fn answered(&self) -> Ending {
        let times = self.scratch.story.attempts.last().and_then(|attempt| {
            Some(AnswerTimes { header: attempt.head?, total: attempt.ended.unwrap_or_default() })
        });
        times.map_or(Ending::Blameless, Ending::Answered)
    }

    /// Once the head has come. A silence may be a stream's own, or the client's whose request is not out yet: no server
    /// is blamed for it, as none is by nginx after the head.
    pub(super) fn ending(&self, error: Option<&Error>) -> Ending {
        match error {
            Some(Error::BodyTimeout) | None => self.answered(),
            Some(error) if error.side() == Side::Upstream => Ending::Failed,
            Some(_) => self.answered(),
        }
    }

    /// `sticky learn`: remembers which server the session belongs to.
    fn learn(&self, lease: &Lease<'_>, at: At) {
        let group = lease.group();
        let Some(sticky) = &group.upstream().sticky else { return };
        let StickyKind::Learn(learn) = &sticky.kind else { return };
        if learn.at_header != (at == At::Header) {
            return;
        }
        let sid = lease.peer().terms.sid.text();
        match (self.first_of(&learn.create), self.first_of(&sticky.lookup)) {
            (Some(session), _) => group.learn(&session, sid, true, self.now_of_groups()),
            (None, Some(session)) => group.learn(&session, sid, false, self.now_of_groups()),
            (None, None) => {}
        }
    }

    /// `sticky cookie`: the line that the answer will bear.
    fn write_cookie(&self, cookie: &StickyCookie, sid: &str, out: &mut Vec<u8>) {
        let facts = self.facts();
        out.extend_from_slice(b"Set-Cookie: ");
        let from = out.len();
        out.extend_from_slice(&cookie.name);
        out.push(b'=');
        out.extend_from_slice(sid.as_bytes());
        match cookie.expires {
            None => {}
            Some(CookieExpires::Max) => {
                out.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000");
            }
            Some(CookieExpires::After(after)) => {
                out.extend_from_slice(b"; expires=");
                self.worker.clock.write_cookie_time(self.now, after, out);
                out.extend_from_slice(b"; max-age=");
                write::decimal(out, after.as_secs());
            }
        }
        let mut attribute = |name: &[u8], value: &[u8]| {
            if !value.is_empty() {
                out.extend_from_slice(b"; ");
                out.extend_from_slice(name);
                out.extend_from_slice(value);
            }
        };
        attribute(
            b"domain=",
            &cookie.domain.as_ref().map(|domain| domain.to_bytes(&facts)).unwrap_or_default(),
        );
        attribute(b"", if cookie.httponly { b"httponly" } else { b"" });
        attribute(b"", if cookie.secure { b"secure" } else { b"" });
        let samesite = cookie.samesite.as_ref().map(|samesite| samesite.to_bytes(&facts)).unwrap_or_default();
        match samesite.is_empty() || is_samesite(&samesite) {
            true => attribute(b"samesite=", &samesite),
            false => attribute(b"samesite=", b"strict"),
        }
        attribute(b"path=", cookie.path.as_deref().unwrap_or_default());
        write::clean(&mut out[from..]);
        out.extend_from_slice(b"\r\n");
    }
}

/// For `$balancer_why`: what decided.
fn by_what(group: &Group, lease: Option<&Lease<'_>>, attempts: &Attempts) -> &'static str {
    let Some(lease) = lease else { return "none" };
    let terms = &lease.peer().terms;
    match () {
        () if attempts.wanted() == Some(terms.sid.text().as_bytes()) => "sticky",
        () if group.is_single() => "only",
        () if terms.tier == Tier::Backup => "backup",
        () => group.upstream().method.name(),
    }
}

/// When a session is learnt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Header,
    End,
}
