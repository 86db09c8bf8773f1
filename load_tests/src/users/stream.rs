//! A user who asks and reads the answer as it is made; every fifth time it loses the connection and resumes.

use super::{Go, Outcome, User};
use crate::http::{Call, Client};
use crate::logic::content;
use crate::logic::fault::Fault;
use crate::logic::shape;
use crate::logic::sse;
use crate::logic::stats::Kind;
use crate::logic::tokens::{Answer, Phase, Progress};
use http_body_util::BodyExt;
use hyper::{StatusCode, header};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const NAME: &str = "/messages/stream/";
const RESUMED: &str = "/messages/stream/[id] (resumed)";
/// Every such answer is cut after two tokens and resumed.
const RESUME_EVERY: u64 = 5;
const CUT_AFTER: u64 = 2;

/// Where reading stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    Done,
    Tokens(u64),
}

/// Sends a call that is answered by a stream and reads it. `on_token` hears when each token came, from the call on.
pub async fn follow(
    client: &mut Client,
    call: &Call,
    answer: &mut Answer,
    until: Until,
    mut on_token: impl FnMut(Duration),
) -> Result<(), Fault> {
    let began = Instant::now();
    let limit = client.dialer.limit;
    let response = client.open(&call.clone().header("accept", "text/event-stream".to_owned())).await?;
    let status = response.status();
    let kind = response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut body = response.into_body();
    if status != StatusCode::OK || !kind.starts_with("text/event-stream") {
        let told = timeout(limit, http_body_util::Limited::new(body, 64 * 1024).collect()).await;
        let told =
            told.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        client.close();
        if status == StatusCode::OK {
            return Err(Fault::shape("a stream that is no text/event-stream", kind));
        }
        return Err(Fault::Status { got: status.as_u16(), wanted: 200, title: shape::problem_title(&told) });
    }
    let mut parser = sse::Parser::default();
    loop {
        let late = |_| Fault::Late { what: "next event", limit };
        let Some(frame) = timeout(limit, body.frame()).await.map_err(late)? else { return answer.on_end() };
        let frame = frame.map_err(|error| Fault::Cut(crate::http::cause(&error)))?;
        let Ok(bytes) = frame.into_data() else { continue };
        for event in parser.on_bytes(&bytes)? {
            if answer.on_event(&event)? == Progress::Token {
                on_token(began.elapsed());
            }
        }
        if matches!(until, Until::Tokens(count) if answer.tokens() >= count && answer.phase() != Phase::Done)
        {
            // A connection with half a stream in it is of no further use.
            client.close();
            return Ok(());
        }
    }
}

pub async fn run(mut user: User) {
    let mut asked = 0;
    'session: loop {
        let Some(session) = user.settle().await else { return };
        let mut last_offset = 0;
        let mut outcome = Outcome::Good;
        while user.pause(outcome).await == Go::On {
            asked += 1;
            match user.ask_and_read(&session.id, asked, last_offset).await {
                Some(offset) => last_offset = offset,
                // What the session holds now is not known: the next question starts a new one.
                None => {
                    outcome = Outcome::Failed;
                    if user.pause(outcome).await == Go::Stop {
                        return;
                    }
                    continue 'session;
                }
            }
            outcome = Outcome::Good;
        }
        return;
    }
}

impl User {
    /// One question and its answer; gives the session's newest offset.
    async fn ask_and_read(&mut self, session: &str, n: u64, last_offset: i64) -> Option<i64> {
        let question = content::message(self.world.plan.seed, self.number, n);
        let body = json!({"session_id": session, "content": question, "client_msg_id": format!("q{}-{n}", self.number)});
        let mut answer = Answer::to(question, last_offset);
        let cut = n.is_multiple_of(RESUME_EVERY);
        let until = if cut { Until::Tokens(CUT_AFTER) } else { Until::Done };
        let call = Call::post(NAME, NAME, &body).of_kind(Kind::Stream);
        self.read_stream(call, &mut answer, until).await?;
        while answer.phase() != Phase::Done {
            let path = format!("/messages/stream/{}", answer.stream_id().unwrap_or_default());
            let last = answer.last_event_id().unwrap_or_default().to_owned();
            let call = Call::get(RESUMED, path).of_kind(Kind::Stream).header("last-event-id", last);
            self.read_stream(call, &mut answer, Until::Done).await?;
        }
        Some(answer.last_offset())
    }

    async fn read_stream(&mut self, call: Call, answer: &mut Answer, until: Until) -> Option<()> {
        let call = call.bearer(&self.account.token());
        let began = Instant::now();
        let mut last_token: Option<Duration> = None;
        let world = self.world.clone();
        let on_token = |at: Duration| {
            match last_token {
                None => world.recorder.on_span("first token of a stream", at, None),
                Some(before) => world.recorder.on_span("between two tokens", at - before, None),
            }
            last_token = Some(at);
        };
        let verdict = follow(&mut self.client, &call, answer, until, on_token).await;
        if verdict.is_err() {
            self.client.close();
        }
        self.world.recorder.on_request(call.key, began, 0, verdict.as_ref().err());
        verdict.ok()
    }
}
