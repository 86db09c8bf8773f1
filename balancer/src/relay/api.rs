//! `api`: reads a request's body, asks api.rs what it means, has the master make changes, answers in JSON.

use serde_json::Value;
use tokio::sync::oneshot;

use super::answer::Answer;
use super::{Exchange, Step};
use crate::api::{self, Ask, Call, Fault, Request, Verb};
use crate::conf::build::addresses_of;
use crate::conf::variables::{Facts as _, Variable};
use crate::control::changes::Change;
use crate::logic::changes::{Edit, Refusal};

const JSON: &str = "application/json";

impl Exchange<'_> {
    pub(super) async fn api(&mut self, writes: bool) -> Step {
        if let Err(error) = self.read_clients(true).await {
            return self.not_upstreams_fault(&error);
        }
        let answered = self.call_api(writes).await;
        let answer = answered.unwrap_or_else(|fault| {
            let mut id = Vec::new();
            self.facts().value(&Variable::RequestId, &mut id);
            typed(fault.status(), &fault.to_json(&String::from_utf8_lossy(&id)))
        });
        Step::Answer(answer)
    }

    async fn call_api(&mut self, writes: bool) -> Result<Answer, Fault> {
        let story = &self.scratch.story;
        let body = match self.scratch.upload.in_memory() {
            Some(body) => body,
            None if self.scratch.upload.is_empty() => &[],
            None => return Err(Fault::BodyTooLarge),
        };
        let path = String::from_utf8_lossy(&story.path).into_owned();
        let own = String::from_utf8_lossy(&self.location.path).into_owned();
        let query = String::from_utf8_lossy(self.args()).into_owned();
        let ask = Ask {
            method: self.verb(),
            path: path.strip_prefix(own.as_str()).unwrap_or(&path),
            query: &query,
            body,
            writes,
        };
        match api::call(&ask, self.running)? {
            Call::Answer(value) => Ok(typed(200, &value)),
            Call::Done => Ok(Answer::typed(204, JSON, Vec::new())),
            Call::Change { group, request } => self.change(group, request, path.trim_end_matches('/')).await,
        }
    }

    fn verb(&self) -> Verb {
        let head = self.scratch.inbound.unread();
        match self.scratch.story.request.method_span.of(head) {
            b"GET" | b"HEAD" => Verb::Get,
            b"POST" => Verb::Post,
            b"PATCH" => Verb::Patch,
            b"DELETE" => Verb::Delete,
            _ => Verb::Other,
        }
    }

    async fn change(&mut self, name: Box<str>, request: Request, path: &str) -> Result<Answer, Fault> {
        let (edit, shows) = match request {
            Request::Add { server, patch } => (add(server, patch).await?, Shows::New),
            Request::Edit(edit) => {
                let shows = match &edit {
                    Edit::Change { id, .. } => Shows::One(*id),
                    _ => Shows::All,
                };
                (edit, shows)
            }
        };
        let (done, changed) = oneshot::channel();
        let gone = |_| Fault::Refused(Refusal::StateFile("shutting down".into()));
        let change = Change { group: name.clone(), edit, done };
        self.running.changes.send(change).await.map_err(|_| gone(()))?;
        let next = changed.await.map_err(|_| gone(()))??;
        let group = next.upstreams.named(&name).ok_or(Refusal::UpstreamNotFound)?;
        Ok(match shows {
            Shows::All => typed(200, &api::all_servers(group)),
            Shows::One(id) => typed(200, &api::one_server(group, id)?),
            Shows::New => {
                let (id, server) = api::new_server(group).ok_or(Refusal::NoServer)?;
                self.scratch.story.answer.location = format!("{path}/{id}/").into_bytes();
                typed(201, &server)
            }
        })
    }
}

/// What the answer to a change shows.
enum Shows {
    All,
    One(u32),
    New,
}

/// Looks the server's name up, which may take long, away from the worker's own thread.
async fn add(server: Box<str>, patch: crate::logic::changes::Patch) -> Result<Edit, Fault> {
    let name = server.clone();
    let found = tokio::task::spawn_blocking(move || addresses_of(&name)).await;
    let addresses = found.ok().flatten().ok_or_else(|| Refusal::BadAddress(server.clone()))?;
    Ok(Edit::Add { server, addresses, patch })
}

fn typed(status: u16, value: &Value) -> Answer {
    Answer::typed(status, JSON, value.to_string().into_bytes())
}
