//! Every route and every frame of the contract, through the balancer: status, keys and types as the service's own
//! document says, and the monitoring answers as the documents show them. A route that is not driven fails the check.

mod frames;
mod routes;

use crate::accounts::Account;
use crate::http::{Answer, Call, Client};
use crate::logic::documents::{DIRECT_CONNECTIONS, Shape};
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

    fn is_write(&self) -> bool {
        self.method != Method::GET && !NO_WRITES.contains(&self.template)
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl Drive<'_> {
    /// Asks, and compares the answer with the document; gives its body.
    async fn ask(&mut self, ask: Ask<'_>, wanted: u16) -> anyhow::Result<Answer> {
        let route = Route::new(ask.method.as_str(), ask.template);
        let is_write = ask.is_write();
        let mut call =
            Call::of_method(ask.method.clone(), ask.template, ask.place.clone(), ask.body.as_ref());
        if let Some(token) = ask.token {
            call = call.bearer(token);
        }
        if let Some(seen) = &self.seen {
            call = call.header(CONSISTENCY_TOKEN, seen.clone());
        }
        for (name, value) in ask.headers {
            call = call.header(name, value);
        }
        let answer = self.client.call(&call).await.with_context(|| route.to_string())?;
        let title = crate::logic::shape::problem_title(&answer.body);
        anyhow::ensure!(
            answer.status == wanted,
            "{route} answered {} instead of {wanted}: {title}",
            answer.status
        );
        self.seen = answer.header(CONSISTENCY_TOKEN).map(str::to_owned).or(self.seen.take());
        let mut faults = Vec::new();
        let wanted_headers: &[&str] =
            if ask.ends_at_balancer { &["x-request-id"] } else { &["x-request-id", "x-served-by"] };
        for name in wanted_headers {
            if answer.header(name).is_none() {
                faults.push(format!("without {name}"));
            }
        }
        if is_write && wanted < 300 {
            faults.extend(token_faults(&answer.headers));
        }
        let kind = answer.header("content-type").unwrap_or_default();
        let json: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if wanted >= 400 {
            faults.extend(problem_faults(kind, json.as_ref()));
        }
        let is_besides = BESIDES.iter().any(|(method, path)| Route::new(method, path) == route);
        // An unknown route, or a method that a route has not, is in no document.
        let is_unknown = wanted == 404 || wanted == 405;
        if self.document.routes().contains(&route) || !(is_besides || is_unknown) {
            faults.extend(self.document.faults(&route, answer.status, kind, json.as_ref()));
        }
        if let (200, Some(shape), Some(json)) = (wanted, self.shape_of(ask.template), &json) {
            faults.extend(shape.faults(json));
        }
        self.faults.extend(faults.into_iter().map(|fault| format!("{route} {wanted}: {fault}")));
        self.driven.insert(route);
        Ok(answer)
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

/// What every problem must have (RFC 9457 and the contract).
fn problem_faults(kind: &str, body: Option<&Value>) -> Vec<String> {
    let mut faults = Vec::new();
    if kind != "application/problem+json" {
        faults.push(format!("a problem of type {kind:?}"));
    }
    let null = Value::Null;
    let body = body.unwrap_or(&null);
    for name in ["type", "title", "detail", "instance", "request_id"] {
        if body[name].as_str().is_none_or(str::is_empty) {
            faults.push(format!("a problem without {name}"));
        }
    }
    faults
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

    /// A stack that answers one POST, with its request's id and nothing about consistency.
    async fn forgetful() -> Site {
        let answer = (http::StatusCode::CREATED, [("x-request-id", "r"), ("x-served-by", "web-1")]);
        let router = Router::new().route("/rooms", post(async move || answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let args = Line::parse_from(["verify", "--balancer", &format!("http://{address}")]).place;
        Site::find(&args, &|_| None).await.expect("nobody is asked")
    }

    #[tokio::test]
    async fn each_write_that_is_driven_is_looked_at_for_its_token() {
        let work = async {
            let site = forgetful().await;
            let promised =
                json!({"paths": {"/rooms": {"post": {"responses": {"201": {"description": "made"}}}}}});
            let mut drive = Drive {
                site: &site,
                client: site.client(),
                document: Document::new(promised),
                driven: BTreeSet::new(),
                seen: None,
                faults: Vec::new(),
            };
            drive.ask(Ask::post("/rooms", json!({})), 201).await.expect("the status that is wanted");
            assert_eq!(drive.faults, ["POST /rooms 201: a write without x-consistency-token"]);
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
