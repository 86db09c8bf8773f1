//! The routes, in an order in which each has what it needs. Not the event `error` of a stream: the built-in responder
//! never fails, so no request makes a stack that runs by its defaults send one; web/tests/stream.rs does.

use super::{Ask, Drive, People, fresh_name, text};
use crate::logic::{keys, sse};
use hyper::Method;
use serde_json::{Value, json};

/// The keys of a message in an event; here the contract promises no `ct`.
const MESSAGE: &str = "id:string session_id:string offset:integer role:string author:object|null content:string \
                       created_at:string client_msg_id:string|null ct?:string";

/// The events of an answer that goes well.
const EVENTS: &[(&str, &str)] = &[
    ("message", MESSAGE),
    ("start", "stream_id:string"),
    ("token", "i:integer text:string"),
    ("done", MESSAGE),
];

/// Everything but what ends accounts and sessions.
pub async fn drive(drive: &mut Drive<'_>, people: &People) -> anyhow::Result<()> {
    pages(drive).await?;
    refusals(drive).await?;
    accounts(drive).await?;
    people_and_sessions(drive, people).await?;
    messages(drive, people).await?;
    streams(drive, people).await?;
    monitoring(drive).await
}

async fn pages(drive: &mut Drive<'_>) -> anyhow::Result<()> {
    for path in ["/", "/ops", "/docs"] {
        let page = drive.ask(Ask::get(path), 200).await?;
        let kind = page.header("content-type").unwrap_or_default();
        anyhow::ensure!(kind.starts_with("text/html"), "{path} is {kind}");
        anyhow::ensure!(page.header("content-security-policy").is_some(), "{path} has no policy");
    }
    for path in ["/health", "/health/live", "/health/ready", "/status/", "/db/connections/"] {
        drive.ask(Ask::get(path), 200).await?;
    }
    Ok(())
}

async fn refusals(drive: &mut Drive<'_>) -> anyhow::Result<()> {
    drive.ask(Ask::get("/nowhere"), 404).await?;
    let method = drive.ask(Ask::new(Method::DELETE, "/api/auth/login"), 405).await?;
    anyhow::ensure!(method.header("allow") == Some("POST"), "405 without the methods that are allowed");
    drive.ask(Ask::get("/api/users/me"), 401).await?;
    drive.ask(Ask::post("/api/auth/login", json!([])).naming(&["body"]), 422).await?;
    let less = json!({"username": "somebody"});
    drive.ask(Ask::post("/api/auth/login", less).naming(&["password"]), 422).await?;
    let short = json!({"username": "", "password": "short", "display_name": "Ann"});
    drive.ask(Ask::post("/api/auth/register", short).naming(&["username", "password"]), 422).await?;
    let long = json!({"username": "x".repeat(200_000), "password": "x"});
    drive.ask(Ask::post("/api/auth/login", long), 413).await?;
    let longer = json!({"username": "x".repeat(1_100_000), "password": "x"});
    let longer = Ask { ends_at_balancer: true, ..Ask::post("/api/auth/login", longer) };
    drive.ask(longer, 413).await?;
    drive.ask(Ask::new(Method::POST, "/api/auth/login").header("content-type", "text/plain"), 415).await?;
    Ok(())
}

/// A person from registration to the end.
async fn accounts(drive: &mut Drive<'_>) -> anyhow::Result<()> {
    let name = fresh_name();
    let given = json!({"username": name, "password": "the first password"});
    let made = drive.ask(Ask::post("/api/auth/register", given.clone()), 201).await?;
    drive.ask(Ask::post("/api/auth/register", given.clone()), 409).await?;
    let wrong = json!({"username": name, "password": "another password"});
    drive.ask(Ask::post("/api/auth/login", wrong), 401).await?;
    let other = drive.ask(Ask::post("/api/auth/login", given), 200).await?;
    let refresh = json!({"refresh_token": text(&made, "/refresh_token")?});
    let renewed = drive.ask(Ask::post("/api/auth/refresh", refresh), 200).await?;
    let token = text(&renewed, "/access_token")?;
    let other = text(&other, "/access_token")?;

    let logins: Value = drive.ask(Ask::get("/api/auth/logins").of(&token), 200).await?.json()?;
    let items = logins["items"].as_array().cloned().unwrap_or_default();
    let foreign = items.iter().find(|login| login["current"] == false).and_then(|login| login["id"].as_str());
    let foreign = foreign.ok_or_else(|| anyhow::anyhow!("two logins were made, and only one is listed"))?;
    let end = Ask::new(Method::DELETE, "/api/auth/logins/{id}").at(foreign).of(&token);
    drive.ask(end, 204).await?;
    drive.is_ended(&other).await?;

    drive.ask(Ask::new(Method::POST, "/api/auth/ws-ticket").of(&token), 201).await?;
    drive.ask(Ask::get("/api/users").query("limit=2").of(&token), 200).await?;
    drive.ask(Ask::get("/api/users/me").of(&token), 200).await?;
    let renamed =
        Ask { body: Some(json!({"display_name": "Ann"})), ..Ask::new(Method::PATCH, "/api/users/me") };
    drive.ask(renamed.of(&token), 200).await?;
    let change = json!({"old": "the first password", "new": "the second password"});
    drive.ask(Ask::post("/api/users/me/password", change).of(&token), 204).await?;
    drive.ask(Ask::new(Method::DELETE, "/api/users/me").of(&token), 204).await?;
    drive.is_ended(&token).await?;
    Ok(())
}

async fn people_and_sessions(drive: &mut Drive<'_>, people: &People) -> anyhow::Result<()> {
    let (ann, bob) = (people[0].token(), people[1].token());
    let body = json!({"title": "contract", "visibility": "public", "slug": slug(people)});
    drive.ask(Ask::post("/api/sessions", body.clone()).of(&ann), 201).await?;
    drive.ask(Ask::post("/api/sessions", body).of(&ann), 409).await?;
    let read = drive.ask(Ask::get("/api/sessions").of(&ann), 200).await?;
    anyhow::ensure!(read.header("x-read-from").is_some(), "a read without X-Read-From");
    let room = "/api/sessions/{id}";
    drive.ask(Ask::get(room).at(&slug(people)).of(&ann), 200).await?;
    let renamed = Ask { body: Some(json!({"title": "the contract"})), ..Ask::new(Method::PATCH, room) };
    drive.ask(renamed.at(&slug(people)).of(&ann), 200).await?;
    let members = "/api/sessions/{id}/members";
    drive.ask(Ask::get(members).at(&slug(people)).of(&bob), 403).await?;
    drive.ask(Ask::new(Method::POST, "/api/sessions/{id}/join").at(&slug(people)).of(&bob), 200).await?;
    drive.ask(Ask::get(members).at(&slug(people)).of(&bob), 200).await?;
    let me: Value = drive.ask(Ask::get("/api/users/me").of(&bob), 200).await?.json()?;
    let bob_id = me["id"].as_str().unwrap_or_default();
    let member = "/api/sessions/{id}/members/{user_id}";
    let leave = Ask::new(Method::DELETE, member).at(&slug(people)).at(bob_id);
    drive.ask(leave.of(&bob), 204).await?;
    let add = Ask::post(members, json!({"username": people[1].username}));
    drive.ask(add.at(&slug(people)).of(&ann), 201).await?;
    drive.ask(Ask::get(room).at("no-such-session").of(&ann), 404).await?;
    Ok(())
}

async fn messages(drive: &mut Drive<'_>, people: &People) -> anyhow::Result<()> {
    let (path, token) = ("/api/sessions/{id}/messages", people[0].token());
    let say = |content: &str, key: &str| {
        Ask::post(path, json!({"content": content, "client_msg_id": key})).at(&slug(people))
    };
    drive.ask(say("one", "k1").of(&token), 201).await?;
    let again = drive.ask(say("one", "k1").of(&token), 200).await?;
    anyhow::ensure!(
        again.header("idempotency-replayed") == Some("true"),
        "a repeat does not say that it is one"
    );
    // No field is wrong: it is the key that was used.
    drive.ask(say("two", "k1").of(&token), 422).await?;
    let by_header = Ask::post(path, json!({"content": "two"})).at(&slug(people));
    drive.ask(by_header.header("idempotency-key", "k2").of(&token), 201).await?;
    for query in ["after=0&limit=1", "before=3"] {
        drive.ask(Ask::get(path).at(&slug(people)).query(query).of(&token), 200).await?;
    }
    drive.ask(Ask::get(path).at(&slug(people)).query("limit=101").naming(&["limit"]).of(&token), 422).await?;
    Ok(())
}

/// Both names of the routes of streams, and the keys of each event.
async fn streams(drive: &mut Drive<'_>, people: &People) -> anyhow::Result<()> {
    let token = people[0].token();
    let names = [
        ("/messages/stream/", "/messages/stream/{stream_id}"),
        ("/api/messages/stream/", "/api/messages/stream/{stream_id}"),
    ];
    for (asked, resumed) in names {
        let question = json!({"session_id": slug(people), "content": "Why?", "client_msg_id": asked});
        let answer = drive.ask(Ask::post(asked, question).of(&token), 200).await?;
        let events = sse::Parser::default().on_bytes(&answer.body)?;
        drive.faults.extend(event_faults(asked, &events));
        let start = events.iter().find(|event| event.name == "start").map(|event| event.data.as_str());
        let start: Value = serde_json::from_str(start.unwrap_or_default())?;
        let stream = start["stream_id"].as_str().unwrap_or_default().to_owned();
        let first = format!("{stream}:0");
        let resume = Ask::get(resumed).at(&stream).header("last-event-id", &first).of(&token);
        let rest = sse::Parser::default().on_bytes(&drive.ask(resume, 200).await?.body)?;
        let second = format!("{stream}:1");
        anyhow::ensure!(
            rest.first().and_then(|event| event.id.as_ref()) == Some(&second),
            "{resumed} after the first token does not begin with the second"
        );
        drive.ask(Ask::get(resumed).at(&uuid::Uuid::new_v4().to_string()).of(&token), 404).await?;
    }
    Ok(())
}

/// Events that are missing, not in place here, or of another form than the contract's; each fault once.
fn event_faults(asked: &str, events: &[sse::Event]) -> Vec<String> {
    let mut faults = Vec::new();
    for event in events {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        match EVENTS.iter().find(|(name, _)| *name == event.name) {
            Some((name, line)) => faults.extend(keys::faults(&format!("{asked}: event {name}"), line, &data)),
            None => faults.push(format!("{asked}: an event {:?}: {data}", event.name)),
        }
    }
    let missing = EVENTS.iter().filter(|(name, _)| !events.iter().any(|event| event.name == *name));
    faults.extend(missing.map(|(name, _)| format!("{asked}: no event {name}")));
    faults.sort();
    faults.dedup();
    faults
}

async fn monitoring(drive: &mut Drive<'_>) -> anyhow::Result<()> {
    let Some(admin) = drive.site.admin_token.clone() else { anyhow::bail!("needs ADMIN_TOKEN") };
    for path in [
        "/api/admin/monitoring/connections/health",
        "/api/admin/monitoring/connections/pool",
        "/api/admin/monitoring/connections/alerts",
        "/api/v1/monitoring/pool-stats",
        "/api/v1/monitoring/admin/metrics",
    ] {
        drive.ask(Ask::get(path), 401).await?;
        drive.ask(Ask::get(path).of(&admin), 200).await?;
    }
    for path in ["/api/admin/monitoring/database/slow-queries", "/api/v1/monitoring/slow-queries"] {
        drive.ask(Ask::get(path).query("threshold_ms=0").of(&admin), 200).await?;
    }
    let analyze = "/api/v1/monitoring/analyze-query";
    let query = json!({"query": "SELECT * FROM messages WHERE session_id = $1"});
    drive.ask(Ask::post(analyze, query).of(&admin), 200).await?;
    let run = json!({"query": "SELECT count(*) FROM users", "analyze": true});
    drive.ask(Ask::post(analyze, run).of(&admin), 200).await?;
    let forbidden = Ask::post(analyze, json!({"query": "DROP TABLE users"})).naming(&["query"]);
    drive.ask(forbidden.of(&admin), 422).await?;
    Ok(())
}

/// What ends a session and logs out, when nothing needs them any more.
pub async fn leave(drive: &mut Drive<'_>, people: &People) -> anyhow::Result<()> {
    let token = people[0].token();
    let session = || Ask::new(Method::DELETE, "/api/sessions/{id}").at(&slug(people));
    drive.ask(session().of(&people[1].token()), 403).await?;
    drive.ask(session().of(&token), 204).await?;
    drive.ask(Ask::new(Method::POST, "/api/auth/logout").of(&token), 204).await?;
    drive.is_ended(&token).await?;
    Ok(())
}

/// The session of this run.
pub fn slug(people: &People) -> String {
    people[0].username.replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &Value) -> sse::Event {
        sse::Event { name: name.to_owned(), data: data.to_string(), id: None }
    }

    fn answer() -> Vec<sse::Event> {
        let message = |role: &str, author: Value| {
            json!({"id": "m", "session_id": "s", "offset": 1, "role": role, "author": author, "content": "x",
                "created_at": "2026-01-01T00:00:00Z", "client_msg_id": null})
        };
        let mut question = message("user", json!({"id": "u"}));
        question["ct"] = json!("t");
        vec![
            event("message", &question),
            event("start", &json!({"stream_id": "s"})),
            event("token", &json!({"i": 0, "text": "x"})),
            event("token", &json!({"i": 1, "text": "y"})),
            event("done", &message("assistant", Value::Null)),
        ]
    }

    #[test]
    fn an_answer_as_the_contract_has_it_has_no_faults() {
        assert_eq!(event_faults("ask", &answer()), Vec::<String>::new());
    }

    #[test]
    fn each_event_is_checked_for_its_keys_and_types() {
        let mut events = answer();
        events[3] = event("token", &json!({"i": "1", "text": "y"}));
        events[4].data = events[4].data.replace("\"offset\":1", "\"offset\":\"1\"");
        let told = ["ask: event done: offset is no integer", "ask: event token: i is no integer"];
        assert_eq!(event_faults("ask", &events), told);
    }

    #[test]
    fn an_event_that_is_missing_or_out_of_place_is_told() {
        let mut events = answer();
        *events.last_mut().expect("done") = event("error", &json!({"title": "Bad Gateway"}));
        let told = ["ask: an event \"error\": {\"title\":\"Bad Gateway\"}", "ask: no event done"];
        assert_eq!(event_faults("ask", &events), told);
    }
}
