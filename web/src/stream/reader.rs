//! Follows one stream from any token on, wherever it is made: in the buffer of this replica, in the record in Redis,
//! or in the stored answer, and moves from one to the other without losing or repeating a token.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::live::Outcome;
use super::record::{LEASE, State};
use super::{Streams, live::Live};
use crate::chat::StreamWatch;
use crate::error::Error;
use crate::logic::message::Message;
use crate::logic::tokens_out;

/// News of a stream made elsewhere come over the bus; this is for those that the bus loses.
const POLL_PERIOD: Duration = Duration::from_millis(400);
/// How often a reader tells the maker elsewhere that it listens.
const LISTENING_PERIOD: Duration = Duration::from_secs(1);
/// A stream without any news for this long will have none.
const STALL_MAX: Duration = Duration::from_secs(90);
/// How long a stream may go on when its replica drains, before the client is sent elsewhere.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// A question younger than this may be in the making elsewhere though Redis does not say so.
const QUESTION_AGE_MAX: Duration = Duration::from_secs(900);

/// One thing that a reader is told.
#[derive(Debug)]
pub enum Item {
    Token {
        i: usize,
        text: String,
    },
    Done {
        token_count: usize,
        answer: Box<Message>,
    },
    Failed {
        code: String,
        detail: String,
    },
    /// This replica goes away: resume elsewhere.
    Handover,
}

pub struct Reader {
    streams: Streams,
    question: Message,
    next: usize,
    ready: VecDeque<Item>,
    phase: Phase,
    moved: Instant,
    /// Where tokens came from that another maker may not repeat.
    followed: Option<Arc<Live>>,
    /// When the maker was last told that somebody listens here.
    told: Option<Instant>,
    watch: StreamWatch,
}

/// What is known of a stream that somebody wants to resume.
enum Found {
    There,
    /// Nobody answered the question, and nobody has entered that it does: it may be none.
    NotEntered,
    Gone,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Reading,
    Draining { until: Instant },
    Ended,
}

impl Reader {
    /// A reader of the answer to `question`, from token `next` on.
    pub fn new(streams: &Streams, question: Message, next: usize) -> Self {
        let watch = streams.shared.chat.watch_stream(question.id);
        Self {
            streams: streams.clone(),
            question,
            next,
            ready: VecDeque::new(),
            phase: Phase::Reading,
            moved: Instant::now(),
            followed: None,
            told: None,
            watch,
        }
    }

    /// The same, where the stream may not exist at all, or no more.
    ///
    /// # Errors
    /// Not found, or the database does not answer.
    pub async fn resume(streams: &Streams, question: Message, next: usize) -> Result<Self, Error> {
        let reader = Self::new(streams, question, next);
        // Redis may have lost all it had: a maker that lives enters its stream anew before its lease would have ended.
        let until = Instant::now() + LEASE;
        loop {
            // Made before the look, so that news in between are not missed.
            let news = reader.watch.news();
            match reader.find().await? {
                Found::There => break,
                Found::NotEntered if Instant::now() < until => {
                    let _ = tokio::time::timeout_at(until, or_poll(news)).await;
                }
                Found::NotEntered | Found::Gone => {
                    return Err(Error::not_found(
                        "there is no such stream, or it ended more than 10 minutes ago",
                    ));
                }
            }
        }
        Ok(reader)
    }

    /// Where the stream is as far as this replica can tell.
    async fn find(&self) -> Result<Found, Error> {
        let (streams, question) = (&self.streams, &self.question);
        if streams.find_live(question.id).is_some() {
            return Ok(Found::There);
        }
        let page = streams.shared.record.read(question.id, self.next).await;
        if page.as_ref().is_some_and(|page| page.state != State::Unknown) {
            return Ok(Found::There);
        }
        Ok(match streams.answer(question).await? {
            Some(answer) if age(&answer) <= streams.shared.settings.keep => Found::There,
            Some(_) => Found::Gone,
            None if age(question) > QUESTION_AGE_MAX => Found::Gone,
            // Redis is away.
            None if page.is_none() => Found::There,
            None => Found::NotEntered,
        })
    }

    pub fn stream_id(&self) -> uuid::Uuid {
        self.question.id
    }

    /// The next item; `None` after the last.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Phase::Draining { until } = self.phase
                && Instant::now() >= until
            {
                self.ready.clear();
                self.end(Item::Handover);
            }
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            match self.phase {
                Phase::Ended => return None,
                Phase::Reading | Phase::Draining { .. } => self.look().await,
            }
        }
    }

    /// Looks where the stream is now; fills `ready`, or waits for news.
    async fn look(&mut self) {
        if self.moved.elapsed() > STALL_MAX {
            let detail = "the answer did not go on; ask again".to_owned();
            return self.end(Item::Failed { code: "stalled".into(), detail });
        }
        if self.followed.as_ref().is_some_and(|live| live.lost.is_cancelled()) {
            let detail = "another replica makes this answer anew; ask again".to_owned();
            return self.end(Item::Failed { code: "responder-failed".into(), detail });
        }
        match self.streams.find_live(self.question.id).filter(|live| !live.lost.is_cancelled()) {
            Some(live) => self.look_here(&live).await,
            None => self.look_elsewhere().await,
        }
    }

    async fn look_here(&mut self, live: &Arc<Live>) {
        let news = live.news();
        let (tokens, outcome) = live.page(self.next);
        let found = !tokens.is_empty() || outcome.is_some();
        if !tokens.is_empty() && !self.streams.shared.responder.is_repeatable() {
            self.followed = Some(Arc::clone(live));
        }
        self.take(tokens.iter().map(ToString::to_string));
        let news = async {
            tokio::select! {
                () = news => {}
                () = live.lost.cancelled() => {}
            }
        };
        match outcome {
            Some(Outcome::Done(answer)) => self.finish(*answer),
            Some(Outcome::Failed { code, detail }) => self.end(Item::Failed { code, detail }),
            None if found => {}
            None => wait(&mut self.phase, &self.streams, news).await,
        }
    }

    async fn look_elsewhere(&mut self) {
        let streams = self.streams.clone();
        if self.told.is_none_or(|told| told.elapsed() >= LISTENING_PERIOD) {
            self.told = Some(Instant::now());
            streams.shared.record.listen(self.question.id).await;
        }
        // Made before the look, so that news in between are not missed.
        let page = {
            let news = self.watch.news();
            let page = streams.shared.record.read(self.question.id, self.next).await;
            let idle =
                page.as_ref().is_some_and(|page| page.tokens.is_empty() && page.state == State::Making);
            if idle {
                wait(&mut self.phase, &streams, or_poll(news)).await;
                return;
            }
            page.unwrap_or_default()
        };
        match page.state {
            State::Making => self.take(page.tokens),
            State::Failed { code, detail } => {
                self.take(page.tokens);
                self.end(Item::Failed { code, detail });
            }
            // The stored answer has all tokens, also those that the record lost.
            State::Done | State::Unknown => match streams.answer(&self.question).await {
                Ok(Some(answer)) => self.finish(answer),
                Ok(None) | Err(_) => wait(&mut self.phase, &streams, tokio::time::sleep(POLL_PERIOD)).await,
            },
        }
    }

    fn take(&mut self, tokens: impl IntoIterator<Item = String>) {
        for text in tokens {
            self.ready.push_back(Item::Token { i: self.next, text });
            self.next += 1;
            self.moved = Instant::now();
        }
    }

    fn finish(&mut self, answer: Message) {
        let tokens = tokens_out::split(&answer.content);
        let token_count = tokens.len();
        self.take(tokens.into_iter().skip(self.next));
        self.end(Item::Done { token_count, answer: Box::new(answer) });
    }

    fn end(&mut self, last: Item) {
        self.ready.push_back(last);
        self.phase = Phase::Ended;
    }
}

/// Waits for news, or for the drain to begin or to run out.
async fn wait(phase: &mut Phase, streams: &Streams, news: impl Future<Output = ()>) {
    match *phase {
        Phase::Reading => tokio::select! {
            () = news => {}
            () = streams.shared.draining.cancelled() => {
                *phase = Phase::Draining { until: Instant::now() + DRAIN_GRACE };
            }
        },
        Phase::Draining { until } => {
            let _ = tokio::time::timeout_at(until, news).await;
        }
        Phase::Ended => {}
    }
}

async fn or_poll(news: impl Future<Output = ()>) {
    let _ = tokio::time::timeout(POLL_PERIOD, news).await;
}

fn age(message: &Message) -> Duration {
    (OffsetDateTime::now_utc() - message.created_at).try_into().unwrap_or_default()
}
