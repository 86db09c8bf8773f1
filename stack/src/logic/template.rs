//! Fills `${NAME}` placeholders of a configuration template. Knows no file and no environment.

/// A template that cannot be filled. `line` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("line {line}: ${{{name}}} has no value")]
    Missing { line: usize, name: String },
    #[error("line {line}: \"${{\" without a closing brace")]
    Open { line: usize },
    #[error("line {line}: the value of ${{{name}}} holds a line break")]
    LineBreak { line: usize, name: String },
}

/// Replaces each `${NAME}` by its value.
///
/// `${NAME?}` marks a line that stands only where `NAME` has a value: it is empty otherwise, so that lines keep their
/// numbers and an error in the filled file can be found in the template.
/// Comment lines (`;` or `#` first) stay as they are, so a template can explain its placeholders.
///
/// # Errors
/// A placeholder without a value, one that is not closed, or a value that would add a line to the file.
pub fn fill(template: &str, value_of: &dyn Fn(&str) -> Option<String>) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(template.len());
    for (index, line) in template.lines().enumerate() {
        if line.starts_with([';', '#']) {
            out.push_str(line);
            out.push('\n');
        } else {
            out.push_str(&fill_line(line, index + 1, value_of)?.unwrap_or_default());
            out.push('\n');
        }
    }
    Ok(out)
}

fn fill_line(
    line: &str,
    number: usize,
    value_of: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, TemplateError> {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let end = after.find('}').ok_or(TemplateError::Open { line: number })?;
        let name = after[..end].trim_end_matches('?');
        match value_of(name).filter(|value| !value.is_empty()) {
            Some(value) if value.contains(['\n', '\r']) => {
                return Err(TemplateError::LineBreak { line: number, name: name.to_owned() });
            }
            Some(value) => out.push_str(&value),
            None if after[..end].ends_with('?') => return Ok(None),
            None => return Err(TemplateError::Missing { line: number, name: name.to_owned() }),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// One line of `userlist.txt`: both words quoted, a quote inside doubled.
pub fn userlist_line(user: &str, password: &str) -> String {
    format!("\"{}\" \"{}\"\n", user.replace('"', "\"\""), password.replace('"', "\"\""))
}

/// A value inside a connection string of an ini file: in single quotes, a quote inside doubled.
pub fn ini_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A value as an SQL literal.
pub fn sql_literal(value: &str) -> String {
    // E'' only where a backslash asks for it: a plain literal is right under every server setting then.
    let doubled = value.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// A name as an SQL identifier.
pub fn sql_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// One line of a libpq password file: a colon or backslash inside a field is escaped.
pub fn pgpass_line(host: &str, port: u16, user: &str, password: &str) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    format!("{}:{port}:*:{}:{}\n", escape(host), escape(user), escape(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            "BAD" => Some("x\ny = z".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn placeholders_are_filled_and_comments_stay() {
        let text = fill("; ${NOT_READ}\nx = ${A}-${A}\n", &values).unwrap();
        assert_eq!(text, "; ${NOT_READ}\nx = one-one\n");
    }

    #[test]
    fn a_line_with_an_optional_placeholder_is_empty_when_it_has_no_value() {
        assert_eq!(fill("a = ${EMPTY?}\nb = ${A?}\nc = ${NONE?}\n", &values).unwrap(), "\nb = one\n\n");
    }

    #[test]
    fn what_cannot_be_filled_is_named_with_its_line() {
        let missing = fill("x\ny = ${NONE}\n", &values).unwrap_err();
        assert_eq!(missing, TemplateError::Missing { line: 2, name: "NONE".to_owned() });
        assert_eq!(fill("y = ${A", &values).unwrap_err(), TemplateError::Open { line: 1 });
    }

    #[test]
    fn a_value_cannot_smuggle_in_a_line() {
        let error = fill("y = ${BAD}", &values).unwrap_err();
        assert_eq!(error, TemplateError::LineBreak { line: 1, name: "BAD".to_owned() });
    }

    #[test]
    fn quotes_inside_values_are_doubled_or_escaped() {
        assert_eq!(userlist_line("a", "p\"q"), "\"a\" \"p\"\"q\"\n");
        assert_eq!(ini_quoted("it's"), "'it''s'");
        assert_eq!(sql_literal("it's"), "'it''s'");
        assert_eq!(sql_literal("a\\'b"), "E'a\\\\''b'");
        assert_eq!(sql_name("a\"b"), "\"a\"\"b\"");
        assert_eq!(pgpass_line("h", 5432, "u", "a:b\\c"), "h:5432:*:u:a\\:b\\\\c\n");
    }
}
