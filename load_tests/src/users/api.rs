//! A user of the JSON API: lists people, reads and writes its own session, and checks every answer against what it wrote.

use super::{Go, Outcome, User};
use crate::http::{Answer, Call};
use crate::logic::fault::Fault;
use crate::logic::own_session::OwnSession;
use crate::logic::shape::{self, Message, Page, Session, User as Person};
use hyper::StatusCode;
use serde_json::json;

#[derive(Debug, Clone, Copy)]
enum Task {
    People,
    Me,
    Sessions,
    Read,
    Post,
    Repeat,
}

/// People read more than they write.
const TASKS: [(Task, u32); 6] = [
    (Task::People, 3),
    (Task::Me, 2),
    (Task::Sessions, 2),
    (Task::Read, 4),
    (Task::Post, 3),
    (Task::Repeat, 1),
];
const PAGE: usize = 20;
const PEOPLE: usize = 10;
const MESSAGES: &str = "/api/sessions/[id]/messages";

/// What the user knows: its session, and the mark of its last write.
struct Writer {
    user: User,
    session: OwnSession,
    consistency_token: Option<String>,
}

pub async fn run(mut user: User) {
    let Some(created) = user.settle().await else { return };
    let session = OwnSession::new(created.id, user.world.plan.seed, user.number);
    let mut writer = Writer { user, session, consistency_token: None };
    let mut outcome = Outcome::Good;
    while writer.user.pause(outcome).await == Go::On {
        let task = writer.user.random.pick(&TASKS);
        let done = match task {
            Task::People => writer.people().await,
            Task::Me => writer.me().await,
            Task::Sessions => writer.sessions().await,
            Task::Read => writer.read().await,
            Task::Post => writer.post().await,
            Task::Repeat => writer.repeat().await,
        };
        outcome = if done.is_some() { Outcome::Good } else { Outcome::Failed };
    }
}

impl Writer {
    async fn people(&mut self) -> Option<()> {
        let call = Call::get("/api/users", format!("/api/users?limit={PEOPLE}"));
        self.user
            .ask(call, |answer| {
                let page: Page<Person> = answer.expect(StatusCode::OK)?.json()?;
                if page.items.is_empty() {
                    return Err(Fault::shape("a list of people without its reader", ""));
                }
                shape::check_page(&page, PEOPLE, |person| &person.id)
            })
            .await
    }

    async fn me(&mut self) -> Option<()> {
        let username = self.user.account.username.clone();
        self.user
            .ask(Call::get("/api/users/me", "/api/users/me"), |answer| {
                let person: Person = answer.expect(StatusCode::OK)?.json()?;
                if person.username == username {
                    Ok(())
                } else {
                    Err(Fault::shape("another user's profile", person.username))
                }
            })
            .await
    }

    async fn sessions(&mut self) -> Option<()> {
        let call = Call::get("/api/sessions", format!("/api/sessions?limit={PAGE}"));
        self.user
            .ask(call, |answer| {
                let page: Page<Session> = answer.expect(StatusCode::OK)?.json()?;
                if page.items.is_empty() {
                    return Err(Fault::order("the user's own session is missing from its list", ""));
                }
                shape::check_page(&page, PAGE, |session| &session.id)
            })
            .await
    }

    /// Reads a page that must show the newest own write: read-your-writes, whichever replica and database answer.
    async fn read(&mut self) -> Option<()> {
        let newest = self.session.stored();
        let after =
            if newest == 0 { 0 } else { newest - 1 - self.user.random.below(newest.min(PAGE as u64)) };
        let path = format!("/api/sessions/{}/messages?after={after}&limit={PAGE}", self.session.id);
        let mut call = Call::get(MESSAGES, path);
        if let Some(token) = &self.consistency_token {
            call = call.header("x-consistency-token", token.clone());
        }
        let session = &self.session;
        self.user
            .ask(call, |answer| {
                let page: Page<Message> = answer.expect(StatusCode::OK)?.json()?;
                shape::check_page(&page, PAGE, |message| &message.id)?;
                session.on_page(after, PAGE, &page)
            })
            .await
    }

    async fn post(&mut self) -> Option<()> {
        let (key, content) = self.session.on_send();
        let call = self.message_call(MESSAGES, &key, &content);
        let session = &mut self.session;
        let token = self
            .user
            .ask(call, |answer| {
                let (status, replayed, message) = stored(answer)?;
                session.on_posted(status, replayed, &message)?;
                Ok(answer.header("x-consistency-token").map(str::to_owned))
            })
            .await?;
        self.consistency_token = token.or(self.consistency_token.take());
        Some(())
    }

    /// Sends the newest message again: it must be told as a replay and stay one message.
    async fn repeat(&mut self) -> Option<()> {
        let newest = self.session.stored();
        if newest == 0 || !self.session.is_known() {
            return self.post().await;
        }
        let (key, content) = self.session.message(newest);
        let call = self.message_call("/api/sessions/[id]/messages (again)", &key, &content);
        let session = &self.session;
        self.user
            .ask(call, |answer| {
                let (status, replayed, message) = stored(answer)?;
                session.on_repeated(status, replayed, &message)
            })
            .await
    }

    fn message_call(&self, name: &'static str, key: &str, content: &str) -> Call {
        let body = json!({"content": content, "client_msg_id": key});
        Call::post(name, format!("/api/sessions/{}/messages", self.session.id), &body)
    }
}

fn stored(answer: &Answer) -> Result<(u16, bool, Message), Fault> {
    let replayed = answer.header("idempotency-replayed") == Some("true");
    if answer.status != StatusCode::OK.as_u16() {
        answer.expect(StatusCode::CREATED)?;
    }
    Ok((answer.status, replayed, answer.json()?))
}
