//! Answers of our own: `return`, built-in pages, redirects, and `error_page`, which sends a request elsewhere first.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::sink::Coding;
use super::{After, Exchange, pages};
use crate::conf::location::{ErrorAnswer, LingeringMode, Return, ReturnBody};
use crate::error::Error;
use crate::headers::{Delivery, write_status};
use crate::logic::ending::Trouble;
use crate::logic::h1::{Framing, Method, Version, hash, write};

/// Who was too slow is not held long once that is said; Apache's number.
const SHORT_LINGERING: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    /// The built-in page of the status.
    Page,
    Text(Vec<u8>),
    /// The same with a type of its own.
    Typed(&'static str, Vec<u8>),
    /// `Location`, with the built-in page.
    Redirect(Vec<u8>),
    /// 444: no answer at all.
    Close,
}

impl Answer {
    pub fn page(status: u16) -> Answer {
        Answer { status, body: Body::Page }
    }

    pub fn typed(status: u16, content_type: &'static str, text: Vec<u8>) -> Answer {
        Answer { status, body: Body::Typed(content_type, text) }
    }

    pub fn redirect(status: u16, to: Vec<u8>) -> Answer {
        Answer { status, body: Body::Redirect(to) }
    }
}

/// Whether `error_page` may bring another answer in place of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorPages {
    MayLead,
    /// nginx: a page that fails itself does not lead to another one, unless `recursive_error_pages` says so.
    AreSpent,
}

/// What an answer of our own says.
struct Contents {
    content_type: Vec<u8>,
    /// The value of `Location`; empty: none.
    location: Vec<u8>,
    body: Vec<u8>,
}

impl Exchange<'_> {
    pub(super) fn returned(&self, answer: &Return) -> Answer {
        let body = match &answer.body {
            ReturnBody::Page => Body::Page,
            ReturnBody::Text(text) => Body::Text(text.to_bytes(&self.facts())),
            ReturnBody::Redirect(to) => Body::Redirect(to.to_bytes(&self.facts())),
            ReturnBody::Close => Body::Close,
        };
        Answer { status: answer.status, body }
    }

    /// `stub_status`, in nginx's words.
    pub(super) fn stub_status(&self) -> Answer {
        if !matches!(self.scratch.story.method(), Method::Get | Method::Head) {
            return Answer::page(405);
        }
        let metrics = &self.running.metrics;
        let now = metrics.connections();
        let accepted = metrics.connections_accepted.load(Relaxed);
        let dropped = metrics.connections_dropped.load(Relaxed);
        let requests = metrics.requests.load(Relaxed) + metrics.requests_active.load(Relaxed);
        let text = format!(
            "Active connections: {} \nserver accepts handled requests\n {} {accepted} {requests} \n\
             Reading: {} Writing: {} Waiting: {} \n",
            now.active,
            accepted + dropped,
            now.reading,
            now.writing,
            now.waiting
        );
        Answer::typed(200, "text/plain", text.into_bytes())
    }

    /// An intercepted 401 still has to say how to answer it.
    pub(super) fn keep_challenges(&mut self) {
        let head = self.scratch.from_upstream.unread();
        let story = &mut self.scratch.story;
        for field in story.response.fields.all(head, hash(b"www-authenticate"), b"www-authenticate") {
            write::field(&mut story.answer.challenges, field.name.of(head), field.value.of(head));
        }
    }

    pub(super) fn has_error_page(&self, status: u16) -> bool {
        self.location.error_pages.iter().any(|page| page.statuses.contains(&status))
    }

    /// `error_page`: moves the request to where its page comes from. `Err` gives the answer back to be sent as it is.
    pub(super) fn error_page(
        &mut self,
        answer: Answer,
        pages: &mut ErrorPages,
    ) -> Result<Result<(), Answer>, Answer> {
        // Whatever comes in its place, and with which status.
        if is_fatal(answer.status) {
            self.scratch.story.request.keep_alive = false;
        }
        let is_plain = matches!(answer.body, Body::Page | Body::Redirect(_))
            && *pages == ErrorPages::MayLead
            && self.may_move();
        let Some(page) =
            self.location.error_pages.iter().find(|page| is_plain && page.statuses.contains(&answer.status))
        else {
            return Err(answer);
        };
        if !self.location.recursive_error_pages {
            *pages = ErrorPages::AreSpent;
        }
        if let Body::Redirect(to) = &answer.body {
            self.scratch.story.answer.location.clone_from(to);
        }
        let target = page.target.to_bytes(&self.facts());
        let status = match page.answer {
            // nginx: a page for 494 to 497, which no client knows, comes with 400.
            ErrorAnswer::Same => Some(pages::sent_status(answer.status)),
            ErrorAnswer::Status(status) => Some(status),
            ErrorAnswer::OfTarget => None,
        };
        match target.first() {
            Some(b'@') => {
                self.scratch.story.status_override = status;
                Ok(self.route_named(&target))
            }
            Some(b'/') => {
                self.scratch.story.status_override = status;
                self.scratch.story.as_get = true;
                Ok(self.route_inside(&target))
            }
            _ => {
                let status =
                    status.filter(|status| matches!(status, 301 | 302 | 303 | 307 | 308)).unwrap_or(302);
                Err(Answer::redirect(status, target))
            }
        }
    }

    /// Sends it, and reads away what is left of the request's body.
    pub(super) async fn answer(&mut self, answer: Answer) -> After {
        if self.scratch.story.is_sub() {
            let status = answer.status;
            let Contents { content_type, body, .. } = self.contents(answer, status);
            self.collect(status, &content_type, body).await;
            return After::Close;
        }
        if matches!(answer.body, Body::Close) {
            self.scratch.story.status = 444;
            return After::Close;
        }
        let answer = match answer.status < 400 && !self.is_body_sound() {
            true => Answer::page(400),
            false => answer,
        };
        self.scratch.to_downstream.clear();
        let delivery = self.write_answer(answer);
        let mut data = std::mem::take(&mut self.scratch.to_downstream.data);
        let sent = match self.finish_page(&mut data).await {
            Ok(()) => self.write_paced(&data).await,
            failed => failed,
        };
        self.scratch.to_downstream.data = data;
        self.scratch.to_downstream.clear();
        match sent {
            Err(error) => {
                self.log(&error, None);
                After::Close
            }
            Ok(()) => {
                self.scratch.story.is_complete = true;
                self.after_answer(&delivery).await
            }
        }
    }

    pub(super) async fn after_answer(&mut self, delivery: &Delivery) -> After {
        let Some(idle_time) = delivery.keep_alive else { return self.close_gently() };
        if !self.scratch.upload.has_begun() {
            self.scratch.upload.begin(self.scratch.story.request.framing, 0);
        }
        if self.discard_body().await {
            After::KeepAlive(idle_time)
        } else {
            After::Linger(self.location.lingering.clone())
        }
    }

    /// Closes at once when nothing of the client's can be under way.
    pub(super) fn close_gently(&self) -> After {
        let story = &self.scratch.story;
        let is_all_read = self.scratch.inbound.len() == story.request.len
            && (story.request.framing == Framing::None
                || self.scratch.upload.has_begun() && self.scratch.upload.is_read());
        let mut lingering = self.location.lingering.clone();
        if story.trouble.get() == Some(Trouble::ClientLate) {
            lingering.time = lingering.time.min(SHORT_LINGERING);
        }
        match lingering.mode {
            LingeringMode::On if is_all_read => After::Close,
            _ => After::Linger(lingering),
        }
    }

    fn write_answer(&mut self, answer: Answer) -> Delivery {
        // An error on the way to an error's page is what the client gets to know.
        let status = match (self.scratch.story.status_override.take(), &answer.body) {
            (Some(status), Body::Text(_)) => status,
            (Some(status), Body::Page) if answer.status < 300 => status,
            _ => answer.status,
        };
        let sent_status = pages::sent_status(status);
        self.scratch.story.status = sent_status;
        self.scratch.story.answer.is_ours = true;
        let Contents { content_type, location, body } = self.contents(answer, status);
        let has_no_body = matches!(sent_status, 204 | 304);
        let keep_alive = self.keep_alive().filter(|_| !is_fatal(status));
        let mut delivery = Delivery { framing: Framing::Length(body.len() as u64), keep_alive };
        let mut out = std::mem::take(&mut self.scratch.to_downstream.data);
        if self.scratch.story.request.version != Version::Http09 {
            out.extend_from_slice(b"HTTP/1.1 ");
            write_status(sent_status, &mut out);
            out.extend_from_slice(b"\r\n");
            self.write_own_server_and_date(true, true, &mut out);
            if !has_no_body {
                if !content_type.is_empty() {
                    write::field(&mut out, b"Content-Type", &content_type);
                }
                write::content_length(&mut out, body.len() as u64);
            }
            if !location.is_empty() {
                write::field(&mut out, b"Location", &location);
            }
            out.extend_from_slice(&self.scratch.story.answer.challenges);
            self.write_unsatisfied(&mut out);
            delivery = self.finish_head(delivery, &mut out);
        } else {
            self.scratch.sink.begin(Framing::UntilClose, Coding::Plain);
        }
        self.scratch.story.sent_head_len = out.len() as u64;
        if self.scratch.story.request.method != Method::Head && !has_no_body {
            let trailers = self.trailer_lines();
            let sink = &mut self.scratch.sink;
            // Packing what is in memory into memory cannot fail.
            let _ = sink.push(&body, &mut out).and_then(|()| sink.finish(&trailers, &mut out));
        }
        let story = &mut self.scratch.story;
        story.kept_alive = delivery.keep_alive.is_some();
        story.answer.content_type = content_type;
        story.answer.location = location;
        story.answer.content_length = (!has_no_body).then_some(body.len() as u64);
        self.scratch.to_downstream.data = out;
        delivery
    }

    fn contents(&mut self, answer: Answer, status: u16) -> Contents {
        let mut content_type = match self.scratch.story.carried_type.take() {
            Some(carried) => carried,
            None => {
                let by_name = self.location.files.types.of(&self.scratch.story.path);
                by_name.unwrap_or(&self.location.default_type).to_vec()
            }
        };
        let mut location = Vec::new();
        let body = match answer.body {
            Body::Text(text) => {
                location = std::mem::take(&mut self.scratch.story.answer.location);
                text
            }
            Body::Typed(own_type, text) => {
                content_type = own_type.into();
                location = std::mem::take(&mut self.scratch.story.answer.location);
                text
            }
            Body::Page | Body::Close => {
                content_type = b"text/html".to_vec();
                self.page_of(answer.status)
            }
            Body::Redirect(to) => {
                content_type = b"text/html".to_vec();
                location = self.absolute(to);
                self.page_of(status)
            }
        };
        Contents { content_type, location, body }
    }

    fn page_of(&self, status: u16) -> Vec<u8> {
        pages::page(status, self.software()).unwrap_or_default()
    }

    /// nginx completes a redirect that begins with `/` (`absolute_redirect`).
    pub fn absolute(&self, to: Vec<u8>) -> Vec<u8> {
        if !self.location.absolute_redirect || to.first() != Some(&b'/') {
            return to;
        }
        let story = &self.scratch.story;
        let local = self.down.wire.local_addr().map(|local| local.ip().to_canonical().to_string());
        let host: &[u8] = match self.location.server_name_in_redirect {
            true => self.server.name.as_bytes(),
            false if story.host.is_empty() => local.as_deref().unwrap_or(&self.server.name).as_bytes(),
            false => &story.host,
        };
        let scheme = self.down.scheme();
        let mut url = [scheme, b"://", host].concat();
        let usual = if self.down.arrival.tls.is_some() { 443 } else { 80 };
        let port = self.down.wire.local_addr().map_or(usual, |local| local.port());
        if self.location.port_in_redirect && port != usual {
            url.push(b':');
            write::decimal(&mut url, u64::from(port));
        }
        url.extend_from_slice(&to);
        url
    }

    pub(super) fn log(&self, error: &Error, lease: Option<&crate::logic::upstreams::Lease<'_>>) {
        super::record::log(self, error, lease);
    }
}

/// After these nginx closes the connection: where the next request begins is in doubt, or we are. After 421 too: the same
/// request is right on another connection (RFC 9110, section 15.5.20).
fn is_fatal(status: u16) -> bool {
    matches!(status, 400 | 413 | 414 | 421 | 494..=498 | 500 | 501)
}
