//! Makes one answer: asks the responder, cuts what comes into tokens, stores the whole; and beside it records and
//! shows the tokens. Both go on when the client that asked has gone.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use uuid::Uuid;

use super::Streams;
use super::live::{Live, Outcome};
use super::record::{LEASE_RENEWAL, Lost};
use crate::error::Error;
use crate::logic::message::{self, Message, Role};
use crate::logic::tokens_out::Splitter;
use crate::responder::{Pieces, Prompt, ResponderError, Turn};
use crate::store::messages::NewMessage;

/// The messages before the question that the responder is told.
const HISTORY_LEN: i64 = 20;
/// An answer that was made is stored even if the database is away for some time.
const STORE_TRIES: u32 = 8;
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// Runs one answer from the question to the stored message.
///
/// # Errors
/// This replica stood still, and another one makes the answer now: nothing more is said or stored here.
pub async fn run(
    streams: &Streams,
    live: &Live,
    maker: Uuid,
    question: Message,
    known_len: usize,
) -> Result<(), Lost> {
    let stream = question.id;
    let telling = tell(streams, live, stream, maker, known_len);
    let producing = produce(streams, live, question, maker, known_len);
    let made = async { tokio::try_join!(producing, telling) };
    tokio::select! {
        ended = made => ended.map(|_| ()),
        // Having cut it off, it leaves the end to the others.
        ended = async { watch_listeners(streams, live, stream).await; std::future::pending().await } => ended,
    }
}

async fn produce(
    streams: &Streams,
    live: &Live,
    question: Message,
    maker: Uuid,
    known_len: usize,
) -> Result<(), Lost> {
    let stored = match say(streams, live, &question, known_len).await {
        Ok(text) => {
            // Of two answers that differ, the one whose tokens are shown is stored.
            if !streams.shared.responder.is_repeatable() {
                streams.shared.record.renew(question.id, maker).await?;
            }
            store(streams, &question, &text).await.map_err(Failure::from)
        }
        Err(failure) => Err(failure),
    };
    let outcome = match stored {
        Ok(answer) => {
            let answer = Message { ct: streams.shared.databases.token().await, ..answer };
            streams.shared.chat.publish(&answer);
            Outcome::Done(Box::new(answer))
        }
        Err(failure) => {
            tracing::warn!(stream = %question.id, "no answer: {}", failure.cause);
            Outcome::Failed { code: failure.code.into(), detail: failure.detail }
        }
    };
    live.finish(outcome);
    Ok(())
}

/// Why there is no answer, for clients and for the log.
struct Failure {
    code: &'static str,
    detail: String,
    cause: String,
}

impl From<ResponderError> for Failure {
    fn from(error: ResponderError) -> Self {
        let detail = "the responder did not give a whole answer; ask again".into();
        Self { code: "responder-failed", detail, cause: error.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: error.code(), detail: error.detail(), cause: error.to_string() }
    }
}

/// The whole text of the answer.
async fn say(
    streams: &Streams,
    live: &Live,
    question: &Message,
    known_len: usize,
) -> Result<String, Failure> {
    let responder = &streams.shared.responder;
    if known_len > 0 && !responder.is_repeatable() {
        return Err(Failure {
            code: "responder-failed",
            detail: "the replica that made this answer is gone; ask again".into(),
            cause: "its maker died, and the responder would say something else now".into(),
        });
    }
    let turns = history(streams, question).await?;
    let mut pieces = responder.answer(Prompt { turns, known_len });
    let mut splitter = Splitter::default();
    let (mut text, mut left) = (String::new(), message::CONTENT_JSON_LEN_MAX);
    while let Some(piece) = or_unheard(live, next_piece(live, &mut pieces)).await? {
        // Postgres cannot store NUL, and a token must be the same in the stream and in the stored answer.
        let said = piece?.replace('\0', "");
        let piece = message::within_json_len(&said, left);
        left -= message::json_len(piece);
        text.push_str(piece);
        splitter.push(piece).into_iter().for_each(|token| live.push(token));
        if piece.len() < said.len() {
            break;
        }
    }
    if let Some(token) = splitter.finish() {
        live.push(token);
    }
    if text.trim().is_empty() {
        return Err(ResponderError::Empty.into());
    }
    Ok(text)
}

/// The next piece, once those who take the answer are not too far behind: until then the responder is not asked for it.
async fn next_piece(live: &Live, pieces: &mut Pieces) -> Option<Result<String, ResponderError>> {
    live.keep_pace().await;
    pieces.next().await
}

/// Stops waiting for the next piece when nobody has listened for too long: the responder may cost money.
async fn or_unheard<T>(live: &Live, next: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        next = next => Ok(next),
        () = live.unheard.cancelled() => Err(Failure {
            code: "unheard",
            detail: "nobody listened any more; ask again".into(),
            cause: "nobody listened any more".into(),
        }),
    }
}

/// Ends an answer that cannot be made again and to which nobody listens: no reader of its stream here or on another
/// replica, and nobody in the room.
async fn watch_listeners(streams: &Streams, live: &Live, stream: Uuid) {
    if streams.shared.responder.is_repeatable() {
        return;
    }
    let (chat, record) = (&streams.shared.chat, &streams.shared.record);
    let mut heard = Instant::now();
    loop {
        tokio::time::sleep(LEASE_RENEWAL).await;
        if chat.is_watched(stream) || record.is_heard(stream).await || chat.is_inhabited(live.session).await {
            heard = Instant::now();
        } else if heard.elapsed() >= streams.shared.settings.unheard_max {
            return live.unheard.cancel();
        }
    }
}

async fn history(streams: &Streams, question: &Message) -> Result<Vec<Turn>, Error> {
    let before = question.offset + 1;
    let messages = streams.shared.store.messages().before(question.session_id, before, HISTORY_LEN).await?;
    let mut turns: Vec<Turn> =
        messages.into_iter().map(|message| Turn { role: message.role, content: message.content }).collect();
    // Pruned or not, the question itself is what is answered.
    if turns.last().is_none_or(|turn| turn.content != question.content) {
        turns.push(Turn { role: Role::User, content: question.content.clone() });
    }
    Ok(turns)
}

/// Stores the answer under the question's key. Doing it twice stores it once, so it may be tried again.
async fn store(streams: &Streams, question: &Message, text: &str) -> Result<Message, Error> {
    let key = message::answer_key(question.id);
    let new = NewMessage {
        session_id: question.session_id,
        author: None,
        role: Role::Assistant,
        content: text,
        client_msg_id: Some(&key),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match streams.shared.store.messages().append(new).await {
            Ok(appended) => return Ok(appended.message),
            // Another maker was faster, and its responder says other things: its answer counts.
            Err(Error::IdempotencyMismatch) => {
                let stored = streams.shared.store.messages().by_key(question.session_id, None, &key).await?;
                return stored.ok_or_else(|| Error::not_found("the answer was removed"));
            }
            Err(error) if error.status().is_server_error() && tries < STORE_TRIES => {
                tokio::time::sleep(STORE_PAUSE * tries).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Records tokens in Redis and shows them to the room as they come; those that come while Redis is asked share the
/// next question.
async fn tell(
    streams: &Streams,
    live: &Live,
    stream: Uuid,
    maker: Uuid,
    known_len: usize,
) -> Result<(), Lost> {
    let (record, chat) = (&streams.shared.record, &streams.shared.chat);
    let (mut recorded, mut shown) = (known_len, known_len);
    let mut renewed = Instant::now();
    loop {
        let news = live.news();
        let (tokens, outcome) = live.page(recorded);
        if !tokens.is_empty() {
            let start = recorded;
            let appended = record.append(stream, maker, start, &tokens).await?;
            if appended.is_none() && !chat.is_watched(stream) {
                // Redis is away and nobody reads here: the others get the answer when it is stored.
                live.pass(start + tokens.len());
            }
            // Less than `start` when Redis lost all it had: then everything is recorded again.
            let (before, after) = appended.unwrap_or((start, start));
            recorded = after;
            // What another maker recorded, it has shown.
            shown = shown.max(before);
            for (token, i) in tokens.iter().zip(start..).filter(|(_, i)| *i >= shown) {
                chat.token(live.session, stream, i, token);
            }
            shown = shown.max(start + tokens.len());
        }
        if let Some(outcome) = outcome {
            if !record.finish(stream, maker, &outcome).await {
                return Ok(());
            }
            match outcome {
                Outcome::Done(answer) => chat.stream_done(live.session, stream, answer.offset),
                Outcome::Failed { code, detail } => chat.stream_failed(live.session, stream, &code, &detail),
            }
            return Ok(());
        }
        let waited = tokio::time::timeout_at(renewed + LEASE_RENEWAL, news).await;
        if waited.is_err() || renewed.elapsed() >= LEASE_RENEWAL {
            record.renew(stream, maker).await?;
            renewed = Instant::now();
        }
    }
}
