//! The OpenAPI document as one HTML page without scripts. Everything that comes from the document is escaped.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{max-width:60rem;margin:0 auto;padding:1rem}\
details{border:1px solid #8886;border-radius:.4rem;margin:.4rem 0;padding:.4rem .8rem}\
summary{cursor:pointer}code,pre{font:14px/1.4 ui-monospace,monospace}\
pre{background:#8882;padding:.6rem;border-radius:.4rem;overflow:auto}\
.method{display:inline-block;min-width:4rem;font-weight:700}\
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}";

/// Schemas are followed this deep; deeper ones are named.
const DEPTH_MAX: usize = 6;

/// The whole page.
pub fn render(document: &Value) -> String {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let mut page = String::with_capacity(64 * 1024);
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main>\
         <h1>{title} <small>{version}</small></h1><p>{about}</p>\
         <p><a href=\"/openapi.json\">openapi.json</a></p>",
        title = escape(text("/info/title")),
        version = escape(text("/info/version")),
        about = escape(text("/info/description")),
    );
    for (tag, operations) in by_tag(document) {
        let _ = write!(page, "<h2>{}</h2>", escape(tag));
        for (method, path, operation) in operations {
            write_operation(&mut page, document, (method, path), operation);
        }
    }
    page.push_str("</main></body></html>");
    page
}

type Operations<'a> = Vec<(&'a str, &'a str, &'a Value)>;

fn by_tag(document: &Value) -> BTreeMap<&str, Operations<'_>> {
    let mut found: BTreeMap<&str, Operations<'_>> = BTreeMap::new();
    for (path, item) in object(document.get("paths")) {
        for (method, operation) in object(Some(item)) {
            if let Some(tag) = operation.pointer("/tags/0").and_then(Value::as_str) {
                found.entry(tag).or_default().push((method, path, operation));
            }
        }
    }
    found
}

fn write_operation(page: &mut String, document: &Value, (method, path): (&str, &str), operation: &Value) {
    let summary = operation.get("summary").and_then(Value::as_str).unwrap_or_default();
    let _ = write!(
        page,
        "<details><summary><code><span class=\"method\">{}</span> {}</code> {}</summary>",
        escape(&method.to_uppercase()),
        escape(path),
        escape(summary)
    );
    if operation.get("security").and_then(Value::as_array).is_some_and(|list| list.iter().all(is_empty)) {
        page.push_str("<p>Needs no token.</p>");
    }
    let parameters = operation.get("parameters").and_then(Value::as_array);
    for parameter in parameters.into_iter().flatten() {
        let field = |key: &str| escape(parameter.get(key).and_then(Value::as_str).unwrap_or_default());
        let _ = write!(
            page,
            "<p><code>{}</code> in {}: {}</p>",
            field("name"),
            field("in"),
            field("description")
        );
    }
    if let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema") {
        let _ = write!(page, "<h3>Body</h3><pre>{}</pre>", escape(&sketch(document, schema, 0)));
    }
    page.push_str("<h3>Answers</h3><table>");
    for (status, answer) in object(operation.get("responses")) {
        let about = answer.get("description").and_then(Value::as_str).unwrap_or_default();
        let schema = object(answer.get("content")).next().and_then(|(_, content)| content.get("schema"));
        let body = schema.map(|schema| sketch(document, schema, 0)).unwrap_or_default();
        let _ = write!(
            page,
            "<tr><th>{}</th><td>{}<pre>{}</pre></td></tr>",
            escape(status),
            escape(about),
            escape(&body)
        );
    }
    page.push_str("</table></details>");
}

fn is_empty(requirement: &Value) -> bool {
    requirement.as_object().is_some_and(Map::is_empty)
}

/// A schema in the form of the JSON that it describes.
fn sketch(document: &Value, schema: &Value, depth: usize) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let short = name.rsplit('/').next().unwrap_or(name);
        let target = name.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        return match target {
            Some(_) if short == "Problem" => "problem+json".to_owned(),
            Some(target) if depth < DEPTH_MAX => sketch(document, target, depth),
            _ => short.to_owned(),
        };
    }
    for union in ["oneOf", "allOf", "anyOf"] {
        if let Some(parts) = schema.get(union).and_then(Value::as_array) {
            let parts: Vec<String> = parts.iter().map(|part| sketch(document, part, depth + 1)).collect();
            return parts.join(if union == "allOf" { " & " } else { " | " });
        }
    }
    if let Some(items) = schema.get("items") {
        return format!("[{}, …]", sketch(document, items, depth));
    }
    if schema.get("properties").is_some() {
        return sketch_object(document, schema, depth);
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    type_name(schema)
}

fn sketch_object(document: &Value, schema: &Value, depth: usize) -> String {
    if depth >= DEPTH_MAX {
        return "{…}".to_owned();
    }
    let indent = "  ".repeat(depth + 1);
    let mut text = String::from("{\n");
    for (name, property) in object(schema.get("properties")) {
        let about = property.get("description").and_then(Value::as_str);
        let about = about.map(|about| format!("  // {}", about.replace('\n', " "))).unwrap_or_default();
        let _ = writeln!(text, "{indent}{name}: {},{about}", sketch(document, property, depth + 1));
    }
    text.push_str(&"  ".repeat(depth));
    text.push('}');
    text
}

fn type_name(schema: &Value) -> String {
    let base = match schema.get("type") {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    };
    match schema.get("format").and_then(Value::as_str) {
        Some(format) => format!("{base} ({format})"),
        None => base,
    }
}

fn object(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operation_is_shown_with_its_body_and_answers() {
        let document = json!({
            "info": {"title": "T", "version": "1"},
            "paths": {"/x": {"post": {"tags": ["a"], "summary": "Do <it>", "requestBody": {"content":
                {"application/json": {"schema": {"$ref": "#/components/schemas/B"}}}},
                "responses": {"200": {"description": "fine"}}}}},
            "components": {"schemas": {"B": {"properties": {"n": {"type": "integer", "description": "a number"}}}}}
        });
        let page = render(&document);
        assert!(
            page.contains("POST")
                && page.contains("Do &lt;it&gt;")
                && page.contains("n: integer,  // a number")
        );
    }

    #[test]
    fn a_schema_that_holds_itself_ends() {
        let document = json!({"components": {"schemas": {"A": {"properties": {"a": {"$ref": "#/components/schemas/A"}}}}}});
        assert!(sketch(&document, &json!({"$ref": "#/components/schemas/A"}), 0).contains("A"));
    }

    proptest! {
        #[test]
        fn nothing_that_is_escaped_opens_a_tag(text in ".{0,50}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
        }
    }
}
