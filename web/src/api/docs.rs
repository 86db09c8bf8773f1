//! The OpenAPI document, made from the handlers, and its rendered page.

use axum::Router;
use axum::body::Bytes;
use axum::response::{Html, IntoResponse as _};
use axum::routing::get;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::api::{auth, members, messages, sessions, users};
use crate::app::App;
use crate::monitoring::{admin, connections, health, queries, status, totals};
use crate::stream::serve;

#[derive(OpenApi)]
#[openapi(
    info(title = "Arena", description = "Chat over HTTP, server-sent events and WebSockets. Errors are \
        application/problem+json. Lists are paged: send `next` of one page as `after` of the next. \
        The answer to a write bears X-Consistency-Token; a read that carries it never sees an older state. It is missing \
        where the database took the write and did not answer the question for its position, as while it ends: the write \
        counts, and the same again (with its key) is told with a token."),
    paths(
        auth::register, auth::login, auth::refresh, auth::logout, auth::ws_ticket, auth::logins, auth::end_login,
        users::list, users::me, users::change, users::remove, users::password,
        sessions::list, sessions::create, sessions::get, sessions::change, sessions::remove,
        members::join, members::list, members::add, members::remove,
        messages::list, messages::create, serve::ask, serve::resume,
        health::health, health::live, health::ready, status::status, connections::connections,
        admin::health, admin::pool, admin::alerts, admin::pool_stats,
        queries::slow, queries::analyze, totals::totals,
    ),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// Second names of routes: what the documents called them, or what begins with `/api/` as the others do.
const ALIASES: [(&str, &str); 3] = [
    ("/api/admin/monitoring/database/slow-queries", "/api/v1/monitoring/slow-queries"),
    ("/api/messages/stream/", "/messages/stream/"),
    ("/api/messages/stream/{stream_id}", "/messages/stream/{stream_id}"),
];

/// The document as JSON.
pub fn document() -> Value {
    let mut document = serde_json::to_value(Document::openapi()).expect("the document is plain data");
    let paths = document["paths"].as_object_mut().expect("a document has paths");
    for (alias, path) in ALIASES {
        add_alias(paths, alias, path);
    }
    for (path, methods) in paths {
        let methods = methods.as_object_mut().expect("a path has methods");
        for (method, operation) in methods {
            add_shared_answers(path, method, operation);
            name_uniquely(operation);
        }
    }
    // What is said with a pooler is also, with more, what is said without: not one of the two, but one at least.
    let pooler = document["components"]["schemas"]["PgBouncer"].as_object_mut();
    if let Some(pooler) = pooler
        && let Some(forms) = pooler.remove("oneOf")
    {
        pooler.insert("anyOf".to_owned(), forms);
    }
    document
}

/// Handlers of several modules share a name, and no two operations may.
fn name_uniquely(operation: &mut Value) {
    let tag = operation["tags"][0].as_str().expect("each operation has a tag");
    let id = operation["operationId"].as_str().expect("each operation has an id");
    operation["operationId"] = format!("{tag}_{id}").into();
}

/// The same operations under another path, and under other ids, as no two may share one.
fn add_alias(paths: &mut Map<String, Value>, alias: &str, path: &str) {
    let mut methods = paths[path].clone();
    for operation in methods.as_object_mut().expect("a path has methods").values_mut() {
        let id = operation["operationId"].as_str().expect("each operation has an id");
        operation["operationId"] = format!("{id}_alias").into();
        operation["description"] = format!("The same as `{path}`.").into();
    }
    paths.insert(alias.to_owned(), methods);
}

/// What the layers and extractors may answer in place of any handler; and the type that every problem is sent as.
fn add_shared_answers(path: &str, method: &str, operation: &mut Value) {
    let limited = path.starts_with("/api/") || path.starts_with("/messages/");
    let has_body = operation.get("requestBody").is_some();
    let health = path.starts_with("/health");
    let shared = [
        (has_body, "413", "the body is too long"),
        (has_body, "415", "the body is no JSON"),
        (has_body || (limited && method == "get"), "422", "a field, parameter or header is wrong"),
        (limited, "429", "too many requests; see Retry-After"),
        (!health, "503", "busy, or something it stands on is away; see Retry-After"),
    ];
    let answers = operation["responses"].as_object_mut().expect("an operation has responses");
    for (_, status, description) in shared.into_iter().filter(|(may_be, ..)| *may_be) {
        answers.entry(status).or_insert_with(|| {
            let schema = json!({"$ref": "#/components/schemas/Problem"});
            json!({"description": description, "content": {"application/json": {"schema": schema}}})
        });
    }
    for (status, answer) in answers {
        if let Some(content) = answer.get_mut("content").and_then(Value::as_object_mut)
            && status.starts_with(['4', '5'])
            && let Some(problem) = content.remove("application/json")
        {
            content.insert("application/problem+json".into(), problem);
        }
    }
}

/// `/openapi.json`, and `/docs`, which is made from it without a script, so that it needs nothing from elsewhere. Both
/// are made once: anybody may ask for them.
pub fn routes() -> Router<App> {
    let document = document();
    let page = Bytes::from(crate::logic::docs_page::render(&document));
    let text = Bytes::from(serde_json::to_vec(&document).expect("the document is plain data"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
    let json = async move || ([(CONTENT_TYPE, "application/json")], text.clone()).into_response();
    let html = async move || ([(CONTENT_SECURITY_POLICY, policy)], Html(page.clone())).into_response();
    Router::new().route("/openapi.json", get(json)).route("/docs", get(html))
}
