//! API requests on a fixed beat and streamed answers, while things are killed. What fails is told, and sent again.

use super::stage::{Room, Stage};
use crate::accounts::Account;
use crate::http::{Answer as HttpAnswer, Call, Client};
use crate::logic::content;
use crate::logic::fault::Fault;
use crate::logic::shape::{Message, Session};
use crate::logic::stats::Kind;
use crate::logic::tokens::{Answer, Phase};
use crate::users::{Until, follow};
use anyhow::Context;
use hyper::StatusCode;
use serde_json::json;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

const STREAM: &str = "/messages/stream/";
const RESUMED: &str = "/messages/stream/[id] (resumed)";
/// How often a request that failed is sent again, and after which pause.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(250);
/// A stream user's pause between an answer and the next question.
const READING: Duration = Duration::from_millis(200);
/// One API request in this many is a write.
const WRITE_EVERY: u64 = 4;

/// Opens a session; `visibility` is the contract's word.
pub async fn open_session(
    client: &mut Client,
    account: &Account,
    title: &str,
    visibility: &str,
) -> anyhow::Result<Rc<Room>> {
    let body = json!({"title": title, "visibility": visibility});
    let call = Call::post("/api/sessions", "/api/sessions", &body).bearer(&account.token());
    let session: Session = client.call(&call).await?.expect(StatusCode::CREATED)?.json()?;
    Ok(Rc::new(Room { id: session.id, ..Room::default() }))
}

/// One of `of` users who share the rate of requests.
pub async fn api_user(stage: Rc<Stage>, number: usize, of: usize) -> anyhow::Result<()> {
    let account = stage.account(number);
    let mut client = stage.client(number);
    let room = open_session(&mut client, &account, "chaos: API", "private")
        .await
        .context("cannot open a session")?;
    stage.sessions.borrow_mut().push(room.clone());
    let beat = Duration::from_secs_f64(of as f64 / stage.load.requests_per_s);
    let first = Instant::now() + beat.mul_f64(number as f64 / of as f64);
    for n in 0u32.. {
        // A slow answer does not thin the load out: the next request follows at once.
        tokio::select! {
            () = sleep_until(first + beat * n) => {}
            () = stage.ending.cancelled() => break,
        }
        let n = u64::from(n);
        let key = format!("a{number}-{n}");
        let messages = format!("/api/sessions/{}/messages", room.id);
        let call = match n % WRITE_EVERY {
            0 => {
                let text = content::message(7, u32::try_from(number)?, n);
                Call::post(
                    "/api/sessions/[id]/messages",
                    messages,
                    &json!({"content": text, "client_msg_id": key}),
                )
            }
            1 => Call::get("/api/users", "/api/users?limit=10"),
            2 => Call::get("/api/sessions", "/api/sessions?limit=20"),
            _ => {
                let after = room.acked.get().saturating_sub(10).max(0);
                Call::get("/api/sessions/[id]/messages", format!("{messages}?after={after}&limit=20"))
            }
        };
        let is_write = n % WRITE_EVERY == 0;
        let answer = serve(&stage, &mut client, &account, &call, is_write).await;
        if let Some(message) = answer.filter(|_| is_write).and_then(|answer| answer.json::<Message>().ok()) {
            room.on_ack(key, message.offset);
        }
    }
    Ok(())
}

/// Asks until it is served; every failure on the way is on record.
async fn serve(
    stage: &Stage,
    client: &mut Client,
    account: &Account,
    call: &Call,
    is_write: bool,
) -> Option<HttpAnswer> {
    for _ in 0..TRIES {
        let began = Instant::now();
        let answer = client.call(&call.clone().bearer(&account.token())).await;
        let bytes = answer.as_ref().map_or(0, |answer| answer.body.len());
        let verdict = answer.and_then(|answer| {
            // A write that is sent again may find itself stored.
            let good = answer.status == 200 || (is_write && answer.status == 201);
            if good { Ok(answer) } else { answer.expect(StatusCode::OK).map(|_| ()).and(Ok(answer)) }
        });
        stage.recorder.on_request(call.key, began, bytes, verdict.as_ref().err());
        match verdict {
            Ok(answer) => return Some(answer),
            Err(_) => sleep(PAUSE).await,
        }
    }
    stage.on_unserved();
    None
}

/// Asks one question after the other and reads each answer to its end, on another replica if need be.
pub async fn stream_user(stage: Rc<Stage>, number: usize) -> anyhow::Result<()> {
    let account = stage.account(number);
    let mut client = stage.client(number);
    let room = open_session(&mut client, &account, "chaos: streams", "private")
        .await
        .context("cannot open a session")?;
    stage.sessions.borrow_mut().push(room.clone());
    let mut last_offset = 0;
    for n in 0u64.. {
        if stage.ending.is_cancelled() {
            break;
        }
        let question = content::message(7, u32::try_from(number)?, n);
        match ask(&stage, &mut client, &account, (&room, &question, format!("s{number}-{n}")), last_offset)
            .await
        {
            Some(offset) => last_offset = offset,
            None => {
                stage.on_unserved();
                break;
            }
        }
        sleep(READING).await;
    }
    Ok(())
}

/// One question: asked with its key until the answer is whole, resumed wherever it was cut.
async fn ask(
    stage: &Stage,
    client: &mut Client,
    account: &Account,
    (room, question, key): (&Room, &str, String),
    last_offset: i64,
) -> Option<i64> {
    let body = json!({"session_id": room.id, "content": question, "client_msg_id": key});
    let mut answer = Answer::to(question.to_owned(), last_offset);
    for attempt in 0..TRIES {
        let call = match (answer.phase(), answer.stream_id()) {
            (Phase::Started, Some(stream)) => {
                let call = Call::get(RESUMED, format!("/messages/stream/{stream}"));
                match answer.last_event_id() {
                    Some(last) => call.header("last-event-id", last.to_owned()),
                    None => call,
                }
            }
            _ => {
                // Cut before the answer had a name: the same question with its key has the same answer.
                answer = Answer::to(question.to_owned(), last_offset);
                Call::post(STREAM, STREAM, &body)
            }
        };
        let call = call.of_kind(Kind::Stream).bearer(&account.token());
        let began = Instant::now();
        let verdict = follow(client, &call, &mut answer, Until::Done, |_| {}).await;
        let resumable = answer.phase() == Phase::Started && matches!(verdict, Err(Fault::Cut(_)));
        // A stream that is cut after its start and goes on elsewhere was served.
        let fault = verdict.as_ref().err().filter(|_| !resumable);
        stage.recorder.on_request(call.key, began, 0, fault);
        if verdict.is_ok() {
            if attempt > 0 {
                stage.streams_resumed.set(stage.streams_resumed.get() + 1);
            }
            stage.streams_whole.set(stage.streams_whole.get() + 1);
            room.on_ack(key, answer.last_offset() - 1);
            return Some(answer.last_offset());
        }
        client.close();
        sleep(PAUSE).await;
    }
    None
}
