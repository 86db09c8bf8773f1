//! One streamed answer, checked event by event: question stored, tokens complete and in order, answer stored whole.

use crate::logic::fault::Fault;
use crate::logic::shape::{self, Message};
use crate::logic::sse::Event;
use serde::Deserialize;

/// How far an answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Asked,
    Stored,
    Started,
    Done,
}

/// What an event meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Question,
    Start,
    Token,
    Done,
}

/// The reader of one streamed answer. A resumed stream goes on with the same reader.
#[derive(Debug, Clone)]
pub struct Answer {
    question: String,
    phase: Phase,
    question_offset: i64,
    stream_id: Option<String>,
    tokens: u64,
    text: String,
    last_event_id: Option<String>,
    last_offset: i64,
}

#[derive(Deserialize)]
struct Start {
    stream_id: String,
}

#[derive(Deserialize)]
struct Token {
    i: u64,
    text: String,
}

impl Answer {
    /// A question that is about to be asked in a session nobody else writes to, after offset `last_offset`.
    pub fn to(question: String, last_offset: i64) -> Self {
        Self {
            question,
            phase: Phase::Asked,
            question_offset: last_offset,
            stream_id: None,
            tokens: 0,
            text: String::new(),
            last_event_id: None,
            last_offset,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    pub fn stream_id(&self) -> Option<&str> {
        self.stream_id.as_deref()
    }

    /// What a resumption gives as Last-Event-ID.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The newest offset of the session that this answer has told.
    pub fn last_offset(&self) -> i64 {
        self.last_offset
    }

    pub fn on_event(&mut self, event: &Event) -> Result<Progress, Fault> {
        let progress = self.on_next(event)?;
        // Not of what was refused: a resumption must ask for it again.
        if event.id.is_some() {
            self.last_event_id.clone_from(&event.id);
        }
        Ok(progress)
    }

    /// The stream ended.
    pub fn on_end(&self) -> Result<(), Fault> {
        match self.phase {
            Phase::Done => Ok(()),
            phase => Err(Fault::Cut(format!("the stream ended while {phase:?}"))),
        }
    }

    fn on_next(&mut self, event: &Event) -> Result<Progress, Fault> {
        let data = event.data.as_bytes();
        match (event.name.as_str(), self.phase) {
            ("message", Phase::Asked) => self.on_question(&shape::decode(data)?),
            ("start", Phase::Stored) => {
                self.stream_id = Some(shape::decode::<Start>(data)?.stream_id);
                self.phase = Phase::Started;
                Ok(Progress::Start)
            }
            ("token", Phase::Started) => self.on_token(&shape::decode(data)?, event.id.as_deref()),
            ("done", Phase::Started) => self.on_done(&shape::decode(data)?),
            ("error", _) => {
                Err(Fault::shape("the stream ended with an error event", shape::problem_title(data)))
            }
            (name, phase) => Err(Fault::order("an event out of turn", format!("{name} while {phase:?}"))),
        }
    }

    fn on_question(&mut self, message: &Message) -> Result<Progress, Fault> {
        if message.content != self.question || message.role != "user" {
            return Err(Fault::order("another question came back", format!("offset {}", message.offset)));
        }
        self.check_next(message.offset)?;
        self.question_offset = message.offset;
        self.phase = Phase::Stored;
        Ok(Progress::Question)
    }

    fn on_token(&mut self, token: &Token, id: Option<&str>) -> Result<Progress, Fault> {
        if token.i != self.tokens {
            let rule = if token.i > self.tokens { "a token was left out" } else { "a token came twice" };
            return Err(Fault::order(rule, format!("{} for {}", token.i, self.tokens)));
        }
        let expected = format!("{}:{}", self.stream_id.as_deref().unwrap_or_default(), token.i);
        if id != Some(expected.as_str()) {
            return Err(Fault::shape("a token's id is not STREAM:i", id.unwrap_or("none")));
        }
        self.tokens += 1;
        self.text.push_str(&token.text);
        Ok(Progress::Token)
    }

    fn on_done(&mut self, message: &Message) -> Result<Progress, Fault> {
        if message.role != "assistant" {
            return Err(Fault::shape("the answer's role is not assistant", message.role.clone()));
        }
        if message.content != self.text {
            let detail = format!("{} bytes streamed, {} stored", self.text.len(), message.content.len());
            return Err(Fault::order("the tokens are not the stored answer", detail));
        }
        self.check_next(message.offset)?;
        self.phase = Phase::Done;
        Ok(Progress::Done)
    }

    fn check_next(&mut self, offset: i64) -> Result<(), Fault> {
        let expected = self.last_offset + 1;
        self.last_offset = offset;
        if offset == expected {
            return Ok(());
        }
        Err(Fault::order("an offset is not the next one", format!("{offset} for {expected}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn event(name: &str, data: serde_json::Value, id: Option<String>) -> Event {
        Event { name: name.into(), data: data.to_string(), id }
    }

    fn message(role: &str, offset: i64, content: &str) -> serde_json::Value {
        json!({"id": "m", "session_id": "s", "offset": offset, "role": role, "author": null, "content": content,
               "created_at": "2026-01-01T00:00:00Z", "client_msg_id": null})
    }

    fn script(tokens: &[&str]) -> Vec<Event> {
        let mut events = vec![
            event("message", message("user", 4, "why"), None),
            event("start", json!({"stream_id": "x"}), None),
        ];
        for (i, text) in tokens.iter().enumerate() {
            events.push(event("token", json!({"i": i, "text": text}), Some(format!("x:{i}"))));
        }
        events.push(event("done", message("assistant", 5, &tokens.concat()), None));
        events
    }

    fn run(events: &[Event]) -> Result<Answer, Fault> {
        let mut answer = Answer::to("why".into(), 3);
        for event in events {
            answer.on_event(event)?;
        }
        answer.on_end().map(|()| answer)
    }

    #[test]
    fn a_whole_answer_passes() {
        let answer = run(&script(&["be", "cause"])).expect("a good script");
        assert_eq!((answer.tokens(), answer.last_offset(), answer.last_event_id()), (2, 5, Some("x:1")));
    }

    #[test]
    fn an_error_event_is_told_with_its_title() {
        let mut events = script(&["a"]);
        events[2] = event("error", json!({"title": "Responder away", "status": 503}), None);
        assert!(run(&events).expect_err("an error").to_string().contains("Responder away"));
    }

    #[test]
    fn what_is_refused_is_not_resumed_behind() {
        let mut answer = Answer::to("why".into(), 3);
        let events = script(&["a", "b", "c", "d"]);
        for event in &events[..4] {
            answer.on_event(event).expect("a good script");
        }
        for wrong in [&events[5], &events[2]] {
            assert!(answer.on_event(wrong).is_err(), "left out, or come twice");
            assert_eq!(answer.last_event_id(), Some("x:1"));
        }
    }

    #[test]
    fn an_answer_that_is_not_its_tokens_is_wrong() {
        let mut events = script(&["a", "b"]);
        *events.last_mut().expect("done") = event("done", message("assistant", 5, "ac"), None);
        assert!(run(&events).is_err());
        *events.last_mut().expect("done") = event("done", message("assistant", 6, "ab"), None);
        assert!(run(&events).is_err(), "an offset left out");
    }

    proptest! {
        #[test]
        fn leaving_out_doubling_or_swapping_an_event_never_passes(len in 2usize..8, at in 0usize..10, change in 0u8..3) {
            let words: Vec<String> = (0..len).map(|i| format!("t{i} ")).collect();
            let mut events = script(&words.iter().map(String::as_str).collect::<Vec<_>>());
            let at = at.min(events.len() - 2);
            match change {
                0 => { events.remove(at); }
                1 => events.insert(at, events[at].clone()),
                _ => events.swap(at, at + 1),
            }
            prop_assert!(run(&events).is_err());
        }
    }
}
