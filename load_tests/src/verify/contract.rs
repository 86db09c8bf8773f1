//! Every route and every frame of the contract, through the balancer: status, keys and types as the service's own
//! document says, and the monitoring answers as the documents show them. A route that is not driven fails the check.

mod frames;
mod logins;
mod routes;
mod upgrades;

use crate::accounts::Account;
use crate::http::{Answer, Call, Client};
use crate::logic::documents::{DIRECT_CONNECTIONS, Shape};
use crate::logic::problem::{self, Refusal};
use crate::logic::schema::{Document, Route};
use crate::site::{self, Site};
use anyhow::Context;
use http::HeaderMap;
use hyper::Method;
use serde_json::Value;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Routes of the contract that the document leaves out: it describes JSON and streams of events.
const BESIDES: &[(&str, &str)] = &[
    ("GET", "/"),
    ("GET", "/ops"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/ws/chat/session/{id}"),
];

const CONSISTENCY_TOKEN: &str = "x-consistency-token";

/// What is asked with POST and writes nothing to the database: a ticket is in Redis, and a query is explained.
const NO_WRITES: &[&str] = &["/api/auth/ws-ticket", "/api/v1/monitoring/analyze-query"];

/// One run through the contract, with what was driven so far and what was wrong.
struct Drive<'a> {
    site: &'a Site,
    client: Client,
    document: Document,
    driven: BTreeSet<Route>,
    /// Of the newest write: reads may be answered by a standby.
    seen: Option<String>,
    faults: Vec<String>,
}

/// An ended login is known to all replicas within this time.
const ENDED_LIMIT: Duration = Duration::from_secs(5);
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// A request of the drive: the template names the route, `place` is the path that is asked.
#[derive(Clone)]
struct Ask<'a> {
    method: Method,
    template: &'static str,
    place: String,
    token: Option<&'a str>,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
    /// Those that the refusal must name.
    wrong_fields: &'static [&'static str],
    /// The balancer answers, and no replica is asked.
    ends_at_balancer: bool,
}

pub async fn check(site: &Site) -> anyhow::Result<String> {
    let mut client = site.client();
    let call = Call::get("/openapi.json", "/openapi.json");
    let document: Value = client.call(&call).await?.expect(hyper::StatusCode::OK)?.json()?;
    let document = Document::new(document);
    let driven = BTreeSet::from([Route::new("GET", "/openapi.json")]);
    let mut drive = Drive { site, client, document, driven, seen: None, faults: Vec::new() };
    let people = site.accounts(2).await?;
    routes::drive(&mut drive, &people).await?;
    logins::drive(&mut drive).await?;
    upgrades::drive(&mut drive, &people).await?;
    let frames = frames::drive(&mut drive, &people).await?;
    routes::leave(&mut drive, &people).await?;
    drive.finish(frames)
}

impl<'a> Ask<'a> {
    fn new(method: Method, template: &'static str) -> Self {
        Self {
            method,
            template,
            place: template.to_owned(),
            token: None,
            headers: Vec::new(),
            body: None,
            wrong_fields: &[],
            ends_at_balancer: false,
        }
    }

    fn get(template: &'static str) -> Self {
        Self::new(Method::GET, template)
    }

    fn post(template: &'static str, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(Method::POST, template) }
    }

    /// Fills the next `{…}` of the template.
    fn at(mut self, value: &str) -> Self {
        if let (Some(begin), Some(end)) = (self.place.find('{'), self.place.find('}')) {
            self.place.replace_range(begin..=end, value);
        }
        self
    }

    fn query(mut self, query: &str) -> Self {
        self.place = format!("{}?{query}", self.place);
        self
    }

    fn of(mut self, token: &'a str) -> Self {
        self.token = Some(token);
        self
    }

    fn naming(mut self, wrong_fields: &'static [&'static str]) -> Self {
        self.wrong_fields = wrong_fields;
        self
    }

    fn route(&self) -> Route {
        Route::new(self.method.as_str(), self.template)
    }

    /// What goes out; `seen` is the consistency token of the newest write.
    fn call(&self, seen: Option<&String>) -> Call {
        let mut call =
            Call::of_method(self.method.clone(), self.template, self.place.clone(), self.body.as_ref());
        if let Some(token) = self.token {
            call = call.bearer(token);
        }
        let seen = seen.map(|seen| (CONSISTENCY_TOKEN, seen.clone()));
        for (name, value) in self.headers.iter().cloned().chain(seen) {
            call = call.header(name, value);
        }
        call
    }

    fn is_write(&self) -> bool {
        self.method != Method::GET && !NO_WRITES.contains(&self.template)
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl Drive<'_> {
    /// Asks, and compares the answer with the document; gives it.
    async fn ask(&mut self, ask: Ask<'_>, wanted: u16) -> anyhow::Result<Answer> {
        self.ask_for(ask, &[wanted]).await
    }

    /// The same where one of several statuses is right.
    async fn ask_for(&mut self, ask: Ask<'_>, wanted: &[u16]) -> anyhow::Result<Answer> {
        let route = ask.route();
        let answer = self.client.call(&ask.call(self.seen.as_ref())).await;
        let answer = answer.with_context(|| route.to_string())?;
        let title = crate::logic::shape::problem_title(&answer.body);
        anyhow::ensure!(
            wanted.contains(&answer.status),
            "{route} answered {} instead of {wanted:?}: {title}",
            answer.status
        );
        self.seen = answer.header(CONSISTENCY_TOKEN).map(str::to_owned).or(self.seen.take());
        let faults = self.answer_faults(&ask, &answer);
        self.faults.extend(faults.into_iter().map(|fault| format!("{route} {}: {fault}", answer.status)));
        self.driven.insert(route);
        Ok(answer)
    }

    /// What is wrong with an answer whose status is right.
    fn answer_faults(&self, ask: &Ask<'_>, answer: &Answer) -> Vec<String> {
        let (route, status) = (ask.route(), answer.status);
        let mut faults = Vec::new();
        let wanted_headers: &[&str] =
            if ask.ends_at_balancer { &["x-request-id"] } else { &["x-request-id", "x-served-by"] };
        for name in wanted_headers {
            if answer.header(name).is_none() {
                faults.push(format!("without {name}"));
            }
        }
        if ask.is_write() && status < 300 {
            faults.extend(token_faults(&answer.headers));
        }
        let content_type = answer.header("content-type").unwrap_or_default();
        let json: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if status >= 400 {
            let request_id = answer.header("x-request-id");
            let refusal = Refusal { status, content_type, request_id, body: json.as_ref() };
            faults.extend(problem::faults(&refusal, ask.wrong_fields));
        }
        let is_besides = BESIDES.iter().any(|(method, path)| Route::new(method, path) == route);
        // An unknown route, or a method that a route has not, is in no document.
        let is_unknown = status == 404 || status == 405;
        if self.document.routes().contains(&route) || !(is_besides || is_unknown) {
            faults.extend(self.document.faults(&route, status, content_type, json.as_ref()));
        }
        if let (200, Some(shape), Some(json)) = (status, self.shape_of(ask.template), &json) {
            faults.extend(shape.faults(json));
        }
        faults
    }

    /// Asks with a token whose login has ended, until the replica that answers knows it.
    async fn is_ended(&mut self, token: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let ask = Ask::get("/api/users/me").of(token);
        while began.elapsed() < ENDED_LIMIT {
            if self.ask(ask.clone(), 401).await.is_ok() {
                return Ok(());
            }
            sleep(LOOK_PERIOD).await;
        }
        self.ask(ask, 401).await.map(drop).context("a token whose login has ended")
    }

    fn shape_of(&self, path: &str) -> Option<&'static Shape> {
        let is_direct = self.site.route == site::Route::Direct;
        if is_direct && path == DIRECT_CONNECTIONS.path { Some(&DIRECT_CONNECTIONS) } else { Shape::of(path) }
    }

    fn finish(mut self, frames: usize) -> anyhow::Result<String> {
        let mut wanted = self.document.routes();
        wanted.extend(BESIDES.iter().map(|(method, path)| Route::new(method, path)));
        for route in wanted.difference(&self.driven) {
            self.faults.push(format!("{route} was not driven: this check must learn it"));
        }
        anyhow::ensure!(self.faults.is_empty(), "{}", self.faults.join("; "));
        Ok(format!("{} routes and {frames} kinds of frames, key by key", wanted.len()))
    }
}

/// The answer to a write bears its token twice: as a header, and as a cookie that no script can read.
fn token_faults(headers: &HeaderMap) -> Vec<String> {
    let token = headers.get(CONSISTENCY_TOKEN).and_then(|token| token.to_str().ok());
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return vec![format!("a write without {CONSISTENCY_TOKEN}")];
    };
    let bears_it = |line: &str| {
        let mut parts = line.split(';').map(str::trim);
        let value = parts.next().and_then(|pair| pair.split_once('=')).map(|(_, value)| value);
        value == Some(token) && parts.any(|part| part.eq_ignore_ascii_case("HttpOnly"))
    };
    let mut cookies = headers.get_all("set-cookie").iter().filter_map(|line| line.to_str().ok());
    if cookies.any(bears_it) {
        return Vec::new();
    }
    vec![format!("a write without its {CONSISTENCY_TOKEN} in an HttpOnly cookie")]
}

fn text(answer: &Answer, pointer: &str) -> anyhow::Result<String> {
    let json: Value = answer.json()?;
    let found = json.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("no text at {pointer}"))
}

type People = [Rc<Account>];

/// A name that nobody has.
fn fresh_name() -> String {
    format!("contract_{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::PlaceArgs;
    use axum::Router;
    use axum::routing::post;
    use clap::Parser;
    use serde_json::json;
    use tokio::task::LocalSet;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        place: PlaceArgs,
    }

    /// A stack that takes one POST without a word about consistency, and refuses another one by a problem that lacks something.
    async fn forgetful() -> Site {
        let answer = (http::StatusCode::CREATED, [("x-request-id", "r"), ("x-served-by", "web-1")]);
        let problem = (
            http::StatusCode::UNPROCESSABLE_ENTITY,
            [("x-request-id", "r"), ("x-served-by", "web-1"), ("content-type", "application/problem+json")],
            json!({"type": "t", "title": "T", "status": 400, "detail": "d", "instance": "/x", "request_id": "r"})
                .to_string(),
        );
        let router = Router::new()
            .route("/rooms", post(async move || answer))
            .route("/people", post(async move || problem));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let args = Line::parse_from(["verify", "--balancer", &format!("http://{address}")]).place;
        Site::find(&args, &|_| None).await.expect("nobody is asked")
    }

    fn drive(site: &Site) -> Drive<'_> {
        let made = json!({"responses": {"201": {"description": "made"}}});
        let refused = json!({"responses": {"422": {"content": {"application/json": {"schema": {}}}}}});
        let document =
            Document::new(json!({"paths": {"/rooms": {"post": made}, "/people": {"post": refused}}}));
        Drive {
            site,
            client: site.client(),
            document,
            driven: BTreeSet::new(),
            seen: None,
            faults: Vec::new(),
        }
    }

    #[tokio::test]
    async fn each_write_that_is_driven_is_looked_at_for_its_token() {
        let work = async {
            let site = forgetful().await;
            let mut drive = drive(&site);
            drive.ask(Ask::post("/rooms", json!({})), 201).await.expect("the status that is wanted");
            assert_eq!(drive.faults, ["POST /rooms 201: a write without x-consistency-token"]);
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test]
    async fn each_refusal_that_is_driven_is_looked_at_for_its_status_and_its_fields() {
        let work = async {
            let site = forgetful().await;
            let mut drive = drive(&site);
            let ask = Ask::post("/people", json!({})).naming(&["username"]);
            drive.ask_for(ask.clone(), &[401, 422]).await.expect("one of the statuses that are wanted");
            assert_eq!(
                drive.faults,
                [
                    "POST /people 422: a problem that tells the status 400 under 422",
                    "POST /people 422: errors name the fields {} in place of {\"username\"}",
                ]
            );
            drive.ask(ask, 401).await.expect_err("another status");
        };
        LocalSet::new().run_until(work).await;
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    #[test]
    fn a_write_bears_its_token_as_header_and_as_a_cookie_that_no_script_reads() {
        let token = ("x-consistency-token", "t1");
        let cookie = ("set-cookie", "consistency=t1; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
        let sticky = ("set-cookie", "route=web-1; HttpOnly");
        let told = |lines: &[_]| token_faults(&headers(lines));
        assert_eq!(told(&[token, sticky, cookie]), Vec::<String>::new());
        assert_eq!(told(&[cookie]), ["a write without x-consistency-token"]);
        for other in
            [sticky, ("set-cookie", "consistency=t0; HttpOnly"), ("set-cookie", "consistency=t1; Path=/")]
        {
            assert_eq!(
                told(&[token, other]),
                ["a write without its x-consistency-token in an HttpOnly cookie"],
                "{other:?}"
            );
        }
        assert_eq!(told(&[token]).len(), 1);
    }

    #[test]
    fn what_changes_rows_is_a_write_and_nothing_else() {
        let body = || json!({});
        assert!(Ask::post("/api/auth/register", body()).is_write());
        assert!(Ask::post("/messages/stream/", body()).is_write());
        assert!(Ask::new(Method::DELETE, "/api/sessions/{id}").is_write());
        assert!(!Ask::get("/api/sessions").is_write());
        assert!(!Ask::post("/api/auth/ws-ticket", body()).is_write());
        assert!(!Ask::post("/api/v1/monitoring/analyze-query", body()).is_write());
    }
}
