//! The answers of the chat service as typed values, and the checks every one of them must pass.

use crate::logic::fault::Fault;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;

/// The longest piece of a wrong answer that a report quotes.
const QUOTE_MAX: usize = 120;

/// Answer to registration and login.
#[derive(Debug, Clone, Deserialize)]
pub struct Login {
    pub user: User,
    pub access_token: String,
    pub expires_in: u64,
    pub refresh_token: String,
}

/// Answer to a refresh.
#[derive(Debug, Clone, Deserialize)]
pub struct Refreshed {
    pub access_token: String,
    pub expires_in: u64,
    pub refresh_token: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct User {
    pub id: String,
    pub username: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Session {
    pub id: String,
    pub title: String,
    pub visibility: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Message {
    pub id: String,
    pub session_id: String,
    pub offset: i64,
    pub role: String,
    pub author: Option<Author>,
    pub content: String,
    pub created_at: String,
    pub client_msg_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Author {
    pub username: String,
}

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub has_more: bool,
    pub next: Option<String>,
}

/// What `/db/connections/` says, as far as it is checked.
#[derive(Debug, Clone, Deserialize)]
pub struct DbConnections {
    pub container: String,
    pub timestamp: f64,
    pub connections: DbByName,
    pub pgbouncer: Value,
    pub recommendations: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct DbByName {
    pub default: DbFigures,
}

#[derive(Debug, Clone, Deserialize)]
pub struct DbFigures {
    pub total_connections: i64,
    pub active_connections: i64,
    pub idle_connections: i64,
    pub conn_max_age: i64,
    pub using_pgbouncer: bool,
    pub host: String,
    pub port: String,
}

/// What `/status/` says, as far as it is checked.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    pub container: String,
    pub websocket: OpenSockets,
}

#[derive(Debug, Clone, Deserialize)]
pub struct OpenSockets {
    pub connections: usize,
}

/// Reads a JSON answer; a wrong one is quoted up to a limit.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| {
        let rule = if error.is_data() { "a field is missing or of another type" } else { "not JSON" };
        Fault::shape(rule, format!("{error} in {}", quote(body)))
    })
}

/// The beginning of an answer, for a report.
pub fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let short: String = text.chars().take(QUOTE_MAX).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

/// The title of a problem document, or what stands there instead; never the whole body.
pub fn problem_title(body: &[u8]) -> String {
    let problem: Option<Value> = serde_json::from_slice(body).ok();
    let word = |key: &str| problem.as_ref()?.get(key)?.as_str().map(str::to_owned);
    match (word("title"), word("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(title), None) => title,
        _ if body.is_empty() => "empty body".to_owned(),
        _ => quote(body).lines().next().unwrap_or_default().to_owned(),
    }
}

/// A page holds no more than was asked for, says where to go on exactly when there is more, and repeats nothing.
pub fn check_page<T>(page: &Page<T>, limit: usize, id: impl Fn(&T) -> &str) -> Result<(), Fault> {
    if page.items.len() > limit {
        return Err(Fault::shape(
            "a page longer than its limit",
            format!("{} for {limit}", page.items.len()),
        ));
    }
    if page.has_more != page.next.is_some() {
        return Err(Fault::shape("has_more and next disagree", format!("has_more {}", page.has_more)));
    }
    let ids: BTreeSet<&str> = page.items.iter().map(&id).collect();
    if ids.len() < page.items.len() {
        return Err(Fault::order(
            "a page names one thing twice",
            format!("{} of {}", ids.len(), page.items.len()),
        ));
    }
    Ok(())
}

/// `/db/connections/` adds up and bears the documents' constants.
pub fn check_db_connections(answer: &DbConnections) -> Result<(), Fault> {
    let figures = &answer.connections.default;
    if figures.conn_max_age != 600 {
        return Err(Fault::shape("conn_max_age is not 600", figures.conn_max_age.to_string()));
    }
    if figures.port.parse::<u16>().is_err() {
        return Err(Fault::shape("port is no port in a string", figures.port.clone()));
    }
    let parts = figures.active_connections + figures.idle_connections;
    if figures.active_connections < 0 || figures.idle_connections < 0 || parts > figures.total_connections {
        let detail = format!("{parts} active and idle of {}", figures.total_connections);
        return Err(Fault::shape("connections do not add up", detail));
    }
    if answer.recommendations.is_empty() || answer.timestamp <= 0.0 {
        return Err(Fault::shape("no recommendation or no timestamp", answer.container.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn page(ids: &[&str], has_more: bool, next: Option<&str>) -> Page<String> {
        Page {
            items: ids.iter().map(|id| (*id).to_owned()).collect(),
            has_more,
            next: next.map(str::to_owned),
        }
    }

    #[test]
    fn a_good_page_passes_and_each_fault_is_named() {
        assert_eq!(check_page(&page(&["a", "b"], true, Some("x")), 2, |id| id), Ok(()));
        for (bad, rule) in [
            (page(&["a", "b", "c"], false, None), "a page longer than its limit"),
            (page(&["a"], true, None), "has_more and next disagree"),
            (page(&["a", "a"], false, None), "a page names one thing twice"),
        ] {
            let fault = check_page(&bad, 2, |id| id).expect_err(rule);
            assert!(fault.headline().contains(rule), "{fault}");
        }
    }

    #[test]
    fn the_documents_own_example_of_db_connections_passes() {
        let mut example = json!({
            "container": "web-1", "timestamp": 1_234_567_890.123,
            "connections": {"default": {"total_connections": 45, "active_connections": 8, "idle_connections": 37,
                "conn_max_age": 600, "using_pgbouncer": true, "host": "pgbouncer", "port": "6432"}},
            "pgbouncer": {"enabled": true, "port": "6432"}, "recommendations": ["Connection pool looks healthy."]
        });
        let read = |value: &Value| decode::<DbConnections>(value.to_string().as_bytes());
        assert_eq!(check_db_connections(&read(&example).expect("the example")), Ok(()));
        example["connections"]["default"]["idle_connections"] = json!(38);
        assert!(check_db_connections(&read(&example).expect("still typed")).is_err());
        example["connections"]["default"]["port"] = json!(6432);
        assert!(read(&example).is_err());
    }

    #[test]
    fn a_problem_is_told_by_its_title_and_html_by_its_first_line() {
        assert_eq!(
            problem_title(br#"{"title":"Conflict","status":409,"detail":"taken"}"#),
            "Conflict: taken"
        );
        assert_eq!(problem_title(b"<html>\n<body>502</body>"), "<html>");
        assert_eq!(problem_title(b""), "empty body");
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>) {
            let _ = decode::<Message>(&body);
            let _ = problem_title(&body);
            prop_assert!(quote(&body).chars().count() <= QUOTE_MAX + 1);
        }
    }
}
