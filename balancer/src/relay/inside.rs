//! Requests that are made inside, on behalf of a client's: of some only the status counts, of others the body goes into
//! a page.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};
use std::time::Instant;

use tokio::time::Instant as TimerInstant;

use super::answer::Answer;
use super::download::Download;
use super::scratch::Scratch;
use super::story::Story;
use super::{After, Exchange, Step};
use crate::conf::guard::Assigned;
use crate::conf::template::Template;
use crate::conf::upstream::UpstreamId;
use crate::error::Error;
use crate::logic::h1::{Framing, Method, hash};
use crate::logic::upstreams::Lease;
use crate::upstream_conns::UpstreamConn;

const CONTENT_TYPE: (u32, &[u8]) = (hash(b"content-type"), b"content-type");

/// What is gathered of answers for one page.
pub const PAGE_LEN_MAX: usize = 16 * 1024 * 1024;
/// Requests may be made inside one another so deep. Each costs stack: less than nginx's 50.
const DEPTH_MAX: u32 = 20;
/// What pages put into one another multiplies: so many requests may come of one.
pub const MADE_MAX: u32 = 1000;

/// Why a request is made inside.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Inside {
    /// It is the client's own.
    #[default]
    No,
    /// Its status is asked for.
    Status,
    /// The body of its answer is wanted, as much as has come.
    Body(Vec<u8>),
}

impl<'a> Exchange<'a> {
    /// Runs a request without body at another place of this server. The variables of `set` are given what that request
    /// knows; its scratch has to be given back.
    pub(super) async fn run_inside(
        &mut self,
        (path, args): (Vec<u8>, Vec<u8>),
        inside: Inside,
        set: &[(Assigned, Template)],
    ) -> Box<Scratch> {
        let mut scratch = self.worker.spare.take();
        let head_len = self.scratch.story.request.len;
        scratch.inbound.extend(&self.scratch.inbound.unread()[..head_len]);
        scratch.story = self.scratch.story.inside(inside);
        scratch.upload.begin(Framing::None, 0);
        let mut sub = Exchange { down: &mut *self.down, scratch: &mut scratch, ..*self };
        let story = &mut sub.scratch.story;
        story.made_inside += 1;
        let routed = match story.depth > DEPTH_MAX || story.made_inside > MADE_MAX {
            false => sub.route_to(path, args),
            true => Err(Answer::page(500)),
        };
        Box::pin(sub.settle(Step::Moved(routed))).await;
        sub.now = Instant::now();
        let values: Vec<(Assigned, Vec<u8>)> =
            set.iter().map(|(to, value)| (*to, value.to_bytes(&sub.facts()))).collect();
        let now = sub.now;
        drop(sub);
        self.now = now;
        // What the client sent meanwhile is of its own request.
        let since = scratch.inbound.unread().get(head_len..).unwrap_or_default();
        self.scratch.inbound.extend(since);
        self.scratch.story.take_back(&mut scratch.story);
        values.into_iter().for_each(|(to, value)| self.assign(to, value));
        scratch
    }

    /// The body of the answer to a request that is made inside.
    pub(super) async fn fetch(&mut self, place: (Vec<u8>, Vec<u8>)) -> (u16, Vec<u8>) {
        let mut scratch = self.run_inside(place, Inside::Body(Vec::new()), &[]).await;
        let fetched = match std::mem::take(&mut scratch.story.inside) {
            Inside::Body(body) => (scratch.story.status, body),
            Inside::No | Inside::Status => (scratch.story.status, Vec::new()),
        };
        self.worker.spare.give_back(scratch);
        fetched
    }

    /// The answer to a request that is made inside: `body` is all that comes of it.
    pub(super) async fn collect(&mut self, status: u16, content_type: &[u8], body: Vec<u8>) {
        self.scratch.story.status = status;
        if self.scratch.story.inside == Inside::Status {
            return;
        }
        let made = match self.location.dress.makes_page(content_type) {
            true => Box::pin(self.make_page(&body)).await,
            false => body,
        };
        if let Inside::Body(collected) = &mut self.scratch.story.inside {
            collected.extend(made);
        }
    }

    /// The same where the answer comes from an upstream.
    pub(super) async fn collect_from(
        &mut self,
        mut conn: UpstreamConn,
        lease: Lease<'_>,
        id: Option<UpstreamId>,
    ) -> Step {
        let status = self.scratch.story.response.status;
        let mut download = Download::of(self);
        let collected = self.read_whole(&mut conn, &mut download).await;
        self.now = Instant::now();
        self.end_attempt();
        if collected.is_ok() {
            self.part_with(conn, &lease, (id, &download));
        }
        match collected {
            Ok(body) => {
                self.end_lease(lease, self.answered());
                let head = self.scratch.from_upstream.unread();
                let field = self.scratch.story.response.fields.find(head, CONTENT_TYPE.0, CONTENT_TYPE.1);
                let content_type = field.map_or(Vec::new(), |field| field.value.of(head).to_vec());
                self.collect(status, &content_type, body).await;
            }
            Err(error) => {
                self.log(&error, Some(&lease));
                let ending = self.ending(Some(&error));
                self.end_lease(lease, ending);
                self.scratch.story.status = 502;
            }
        }
        Step::Ended(After::Close)
    }

    async fn read_whole(
        &mut self,
        conn: &mut UpstreamConn,
        download: &mut Download,
    ) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        self.scratch.sink.begin(Framing::UntilClose, super::sink::Coding::Plain);
        let timeout = self.location.proxy.read_timeout;
        let Exchange { down, scratch, .. } = self;
        down.deadline.set(TimerInstant::now(), timeout);
        poll_fn(|cx| {
            loop {
                let mut moved = download.take_in(cx, conn, scratch, usize::MAX);
                body.extend_from_slice(scratch.to_downstream.unsent());
                scratch.to_downstream.clear();
                if body.len() > PAGE_LEN_MAX {
                    return Poll::Ready(Err(too_long()));
                }
                if let Some(ended) = download.ended() {
                    return Poll::Ready(ended);
                }
                // The answer may have begun before its request was out.
                scratch.poll_upload(cx, down, &mut conn.wire)?;
                moved |= std::mem::take(&mut scratch.upload.moved);
                if !moved {
                    ready!(down.deadline.poll(cx));
                    return Poll::Ready(Err(Error::BodyTimeout));
                }
                down.deadline.set(TimerInstant::now(), timeout);
            }
        })
        .await?;
        Ok(body)
    }
}

pub fn too_long() -> Error {
    Error::Coding(io::Error::other("a page is too long to be made"))
}

impl Story {
    /// The story of a request that is made inside: the same head, no body.
    fn inside(&mut self, inside: Inside) -> Story {
        let mut sub = Story {
            request: self.request.clone(),
            started: self.started,
            host: self.host.clone(),
            path: self.path.clone(),
            args: self.args.clone(),
            inside,
            depth: self.depth + 1,
            ..Story::default()
        };
        sub.request.framing = Framing::None;
        sub.as_get = true;
        if self.request.method != Method::Get {
            sub.request.method = Method::Other;
        }
        // Variables are one set for the request and all that it asks inside.
        sub.take_back(self);
        sub
    }

    /// What both have in common goes over.
    fn take_back(&mut self, other: &mut Story) {
        self.user = std::mem::take(&mut other.user);
        self.memory = std::mem::take(&mut other.memory);
        self.captures = other.captures.take();
        self.client = other.client.take();
        self.made_inside = other.made_inside;
        self.limited_requests = other.limited_requests;
        self.limited_connections = other.limited_connections;
        self.places = std::mem::take(&mut other.places);
    }

    pub fn is_sub(&self) -> bool {
        self.inside != Inside::No
    }
}
