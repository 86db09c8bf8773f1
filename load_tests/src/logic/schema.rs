//! What an OpenAPI document promises, and where an answer breaks the promise: a key too many, one too few, another type.
//! As much of JSON Schema as documents of utoipa use.

use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A method and the template of a path, without its trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub method: String,
    pub path: String,
}

/// The document of a service.
#[derive(Debug)]
pub struct Document {
    json: Value,
}

impl Route {
    pub fn new(method: &str, path: &str) -> Self {
        let trimmed = path.trim_end_matches('/');
        let path = if trimmed.is_empty() { "/" } else { trimmed };
        Self { method: method.to_uppercase(), path: path.to_owned() }
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Document {
    pub fn new(json: Value) -> Self {
        Self { json }
    }

    pub fn routes(&self) -> BTreeSet<Route> {
        let paths = self.json["paths"].as_object().into_iter().flatten();
        paths
            .flat_map(|(path, item)| {
                item.as_object().into_iter().flatten().map(|(method, _)| Route::new(method, path))
            })
            .collect()
    }

    /// What is wrong with an answer; `body` is `None` where it is no JSON.
    pub fn faults(&self, route: &Route, status: u16, kind: &str, body: Option<&Value>) -> Vec<String> {
        let Some(operation) = self.operation(route) else { return vec!["no such route".to_owned()] };
        let Some(answer) = operation["responses"].get(status.to_string()) else {
            return vec![format!("status {status} is not documented")];
        };
        let Some(content) = answer.get("content").and_then(Value::as_object) else {
            return if body.is_some() {
                vec!["a body where none is documented".to_owned()]
            } else {
                Vec::new()
            };
        };
        let kind = kind.split(';').next().unwrap_or_default().trim();
        // utoipa gives problems the type of all JSON; the contract gives them theirs.
        let kind =
            if kind == "application/problem+json" && status >= 400 { "application/json" } else { kind };
        let Some(media) = content.get(kind).or_else(|| content.get("application/problem+json")) else {
            return vec![format!("the type {kind:?} is not documented")];
        };
        let mut faults = Vec::new();
        if let Some(body) = body {
            self.compare(&media["schema"], body, "", &mut faults);
        }
        faults
    }

    fn operation(&self, route: &Route) -> Option<&Value> {
        let paths = self.json["paths"].as_object()?;
        let found = paths.iter().find(|(path, _)| Route::new(&route.method, path) == *route)?;
        found.1.get(route.method.to_lowercase())
    }

    fn compare(&self, schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        if let Some(name) = schema["$ref"].as_str() {
            let found = self.json.pointer(name.trim_start_matches('#'));
            return self.compare(found.unwrap_or(&Value::Null), value, place, faults);
        }
        for word in ["oneOf", "anyOf"] {
            if let Some(choices) = schema[word].as_array() {
                return self.compare_one(choices, value, place, faults);
            }
        }
        if let Some(parts) = schema["allOf"].as_array() {
            return self.compare_all(parts, value, place, faults);
        }
        if !is_of_type(&schema["type"], value) {
            faults.push(format!("{place}: {value} is no {}", schema["type"]));
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            faults.push(format!("{place}: {value} is none of {}", schema["enum"]));
        }
        if let Some(fields) = value.as_object() {
            self.compare_fields(&[schema], fields, place, faults);
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.compare(&schema["items"], item, &format!("{place}/{index}"), faults);
        }
    }

    /// One choice must fit; otherwise the faults of the nearest are told: of one with the right type, and with the fewest.
    fn compare_one(&self, choices: &[Value], value: &Value, place: &str, faults: &mut Vec<String>) {
        let tried = choices.iter().map(|choice| {
            let mut faults = Vec::new();
            self.compare(choice, value, place, &mut faults);
            (!is_of_type(&self.resolved(choice)["type"], value), faults)
        });
        let nearest =
            tried.min_by_key(|(is_other_type, faults)| (!faults.is_empty(), *is_other_type, faults.len()));
        faults.extend(nearest.map(|(_, faults)| faults).unwrap_or_default());
    }

    /// The parts of one object, whose keys are those of all parts together.
    fn compare_all(&self, parts: &[Value], value: &Value, place: &str, faults: &mut Vec<String>) {
        let parts: Vec<&Value> = parts.iter().map(|part| self.resolved(part)).collect();
        match value.as_object() {
            Some(fields) => self.compare_fields(&parts, fields, place, faults),
            None => faults.push(format!("{place}: {value} is no object")),
        }
    }

    fn compare_fields(
        &self,
        schemas: &[&Value],
        fields: &Map<String, Value>,
        place: &str,
        faults: &mut Vec<String>,
    ) {
        for required in schemas.iter().filter_map(|schema| schema["required"].as_array()).flatten() {
            if !required.as_str().is_some_and(|name| fields.contains_key(name)) {
                faults.push(format!("{place}: {required} is missing"));
            }
        }
        for (name, value) in fields {
            let place = format!("{place}/{name}");
            let known = schemas.iter().find_map(|schema| schema["properties"].get(name));
            let other = schemas.iter().find_map(|schema| schema.get("additionalProperties"));
            // Where no key is named, any is right.
            let is_open = schemas.iter().all(|schema| schema.get("properties").is_none());
            match known.or(other) {
                Some(schema) => self.compare(schema, value, &place, faults),
                None if is_open => {}
                None => faults.push(format!("{place}: is not documented")),
            }
        }
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let found = schema["$ref"].as_str().and_then(|name| self.json.pointer(name.trim_start_matches('#')));
        found.unwrap_or(schema)
    }
}

/// Whether a value is of a type, or of one of several; no type is any.
pub fn is_of_type(kind: &Value, value: &Value) -> bool {
    match kind {
        Value::Array(kinds) => kinds.iter().any(|kind| is_of_type(kind, value)),
        Value::String(kind) => match kind.as_str() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            _ => false,
        },
        // No type: anything.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Document {
        let user = json!({"type": "object", "required": ["id", "name"], "properties": {
            "id": {"type": "string"}, "name": {"type": ["string", "null"]}, "age": {"type": "integer"},
            "role": {"$ref": "#/components/schemas/Role"}, "any": {"type": ["object", "null"]}, "by_name": {"type": "object", "additionalProperties": {"type": "number"}}}});
        let more = json!({"allOf": [{"$ref": "#/components/schemas/User"},
            {"type": "object", "required": ["at"], "properties": {"at": {"type": "string"}}}]});
        let either = json!({"anyOf": [{"type": "null"}, {"$ref": "#/components/schemas/User"}]});
        let answer = |name: &str| json!({"content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}}});
        Document::new(json!({
            "paths": {
                "/users/": {"get": {"responses": {"200": answer("User"), "404": answer("Role"), "204": {"description": "gone"}}}},
                "/more": {"get": {"responses": {"200": answer("More")}}},
                "/either": {"get": {"responses": {"200": answer("Either")}}}},
            "components": {"schemas": {"User": user, "Role": {"type": "string", "enum": ["user", "admin"]}, "More": more, "Either": either}},
        }))
    }

    fn faults(path: &str, body: &Value) -> Vec<String> {
        document().faults(&Route::new("GET", path), 200, "application/json; charset=utf-8", Some(body))
    }

    #[test]
    fn an_answer_that_keeps_the_promise_has_no_faults() {
        for body in [
            json!({"id": "1", "name": null}),
            json!({"id": "1", "name": "a", "age": 3, "role": "admin", "by_name": {"x": 1.5}, "any": {"y": 1}}),
        ] {
            assert_eq!(faults("/users", &body), Vec::<String>::new());
        }
        assert_eq!(faults("/more", &json!({"id": "1", "name": "a", "at": "now"})), Vec::<String>::new());
        assert_eq!(faults("/either", &Value::Null), Vec::<String>::new());
    }

    #[test]
    fn each_way_of_breaking_it_is_told_with_its_place() {
        for (path, body, told) in [
            ("/users", json!({"id": "1"}), "\"name\" is missing"),
            ("/users", json!({"id": 1, "name": "a"}), "/id: 1 is no"),
            ("/users", json!({"id": "1", "name": "a", "age": 1.5}), "/age: 1.5 is no"),
            ("/users", json!({"id": "1", "name": "a", "shoe": 1}), "/shoe: is not documented"),
            ("/users", json!({"id": "1", "name": "a", "role": "cook"}), "/role: \"cook\" is none of"),
            ("/users", json!({"id": "1", "name": "a", "by_name": {"x": "y"}}), "/by_name/x: \"y\" is no"),
            ("/users", json!([]), ": [] is no"),
            ("/more", json!({"id": "1", "name": "a"}), "\"at\" is missing"),
            ("/more", json!({"id": "1", "name": "a", "at": "now", "in": 1}), "/in: is not documented"),
            ("/either", json!({"id": "1"}), "\"name\" is missing"),
        ] {
            let found = faults(path, &body);
            assert!(found.len() == 1 && found[0].contains(told), "{told}: {found:?}");
        }
    }

    #[test]
    fn a_status_a_type_or_a_body_that_is_not_documented_is_a_fault() {
        let (document, route) = (document(), Route::new("get", "/users/"));
        let of =
            |status, kind, body: Option<Value>| document.faults(&route, status, kind, body.as_ref()).len();
        assert_eq!(of(500, "application/json", None), 1);
        assert_eq!(of(200, "text/html", None), 1);
        assert_eq!(of(204, "", None), 0);
        assert_eq!(of(204, "application/json", Some(json!({}))), 1);
        assert_eq!(of(404, "application/problem+json", Some(json!("user"))), 0);
        assert_eq!(document.faults(&Route::new("PUT", "/users"), 200, "", None), ["no such route"]);
    }

    #[test]
    fn routes_are_named_without_their_trailing_slash() {
        let routes: Vec<String> = document().routes().iter().map(ToString::to_string).collect();
        assert_eq!(routes, ["GET /either", "GET /more", "GET /users"]);
        assert_eq!(Route::new("get", "/").path, "/");
    }
}
