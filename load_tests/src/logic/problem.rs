//! What every problem of the contract bears (RFC 9457), and where an answer bears less.

use crate::logic::keys;
use serde_json::Value;
use std::collections::BTreeSet;

/// An answer that refuses, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    pub status: u16,
    pub content_type: &'a str,
    /// The header's.
    pub request_id: Option<&'a str>,
    /// `None` where it is no JSON.
    pub body: Option<&'a Value>,
}

/// Everything that is wrong with it; `errors` must name these `fields` of the request, and no other.
pub fn faults(refusal: &Refusal<'_>, fields: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    if refusal.content_type != "application/problem+json" {
        faults.push(format!("a problem of type {:?}", refusal.content_type));
    }
    let null = Value::Null;
    let body = refusal.body.unwrap_or(&null);
    for name in ["type", "title", "detail", "instance", "request_id"] {
        if body[name].as_str().is_none_or(str::is_empty) {
            faults.push(format!("a problem without {name}"));
        }
    }
    if body["status"] != refusal.status {
        faults.push(format!("a problem that tells the status {} under {}", body["status"], refusal.status));
    }
    if body["request_id"].as_str() != refusal.request_id {
        let (told, header) = (&body["request_id"], refusal.request_id.unwrap_or("none"));
        faults.push(format!("a problem of the request {told}, which by its header is {header}"));
    }
    faults.extend(field_faults(body.get("errors"), fields));
    faults
}

/// A refusal that asks to come back says when, in whole seconds.
pub fn retry_after_faults(header: Option<&str>) -> Vec<String> {
    match header.map(str::parse::<u32>) {
        Some(Ok(1..)) => Vec::new(),
        _ => vec![format!("Retry-After is {}, and no number of seconds", header.unwrap_or("missing"))],
    }
}

fn field_faults(errors: Option<&Value>, fields: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let empty = Vec::new();
    let errors = match errors {
        None => &empty,
        Some(Value::Array(errors)) => errors,
        Some(other) => return vec![format!("errors are {other}, and no list")],
    };
    for error in errors {
        faults.extend(keys::faults("an error of a field", "field:string detail:string", error));
        if error["field"] == "" || error["detail"] == "" {
            faults.push(format!("an error of a field says nothing: {error}"));
        }
    }
    let named: BTreeSet<&str> = errors.iter().filter_map(|error| error["field"].as_str()).collect();
    let wanted: BTreeSet<&str> = fields.iter().copied().collect();
    if named != wanted {
        faults.push(format!("errors name the fields {named:?} in place of {wanted:?}"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn problem() -> Value {
        json!({"type": "urn:arena:problem:unprocessable", "title": "Unprocessable Entity", "status": 422,
            "detail": "too short", "instance": "/api/auth/register", "request_id": "r1",
            "errors": [{"field": "username", "detail": "too short"}, {"field": "password", "detail": "too short"}]})
    }

    fn told(body: &Value, fields: &[&str]) -> Vec<String> {
        let content_type = "application/problem+json";
        faults(&Refusal { status: 422, content_type, request_id: Some("r1"), body: Some(body) }, fields)
    }

    const BOTH: &[&str] = &["username", "password"];

    #[test]
    fn a_problem_as_the_contract_has_it_has_no_faults() {
        assert_eq!(told(&problem(), BOTH), Vec::<String>::new());
        let mut whole = problem();
        whole.as_object_mut().expect("an object").remove("errors");
        assert_eq!(told(&whole, &[]), Vec::<String>::new());
    }

    #[test]
    fn a_status_that_is_another_one_than_that_of_the_answer_is_told() {
        for status in [json!(400), json!("422"), json!(null)] {
            let mut wrong = problem();
            wrong["status"] = status.clone();
            let words = format!("a problem that tells the status {status} under 422");
            assert_eq!(told(&wrong, BOTH), [words]);
        }
    }

    #[test]
    fn errors_name_the_fields_that_are_wrong_and_say_why() {
        let named = |errors: Value| {
            let mut other = problem();
            other["errors"] = errors;
            told(&other, BOTH)
        };
        let username = || json!({"field": "username", "detail": "too short"});
        assert_eq!(named(json!([username()])).len(), 1, "one is left out");
        assert_eq!(named(json!([])).len(), 1);
        assert_eq!(named(json!("username")), ["errors are \"username\", and no list"]);
        assert_eq!(named(json!([username(), {"field": "password", "detail": ""}])).len(), 1);
        assert_eq!(
            named(json!([username(), {"field": "password"}])),
            ["an error of a field: detail is missing"]
        );
        assert_eq!(told(&problem(), &["username"]).len(), 1, "one is too much");
        assert_eq!(told(&problem(), &[]).len(), 1, "no field is wrong");
    }

    #[test]
    fn a_problem_without_one_of_its_members_is_told() {
        for name in ["type", "title", "detail", "instance"] {
            for missing in [json!(""), json!(null), json!(1)] {
                let mut wrong = problem();
                wrong[name] = missing;
                assert_eq!(told(&wrong, BOTH), [format!("a problem without {name}")]);
            }
        }
        let mut wrong = problem();
        wrong["request_id"] = json!("r2");
        assert_eq!(told(&wrong, BOTH), ["a problem of the request \"r2\", which by its header is r1"]);
        let html = Refusal { status: 502, content_type: "text/html", request_id: None, body: None };
        assert_eq!(faults(&html, &[]).len(), 7);
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        for header in [Some("1"), Some("300")] {
            assert_eq!(retry_after_faults(header), Vec::<String>::new());
        }
        for header in [None, Some("0"), Some("-1"), Some("1.5"), Some("soon"), Some("")] {
            assert_eq!(retry_after_faults(header).len(), 1, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn a_problem_under_another_status_never_passes(status in 400u16..600) {
            let body = problem();
            let content_type = "application/problem+json";
            let refusal = Refusal { status, content_type, request_id: Some("r1"), body: Some(&body) };
            prop_assert_eq!(faults(&refusal, BOTH).is_empty(), status == 422);
        }
    }
}
