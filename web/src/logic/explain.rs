//! Which statements may be explained, how their parameters are written, and what a plan suggests. Nothing is run here.

use std::collections::BTreeSet;

use serde_json::Value;

/// What may be done with a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement {
    /// It reads: it may be run to be timed.
    Reads,
    /// It writes: its plan may be shown, but it is never run.
    Writes,
}

/// Rows that a sequential scan must throw away before an index is worth a word.
const SCANNED_ROWS: f64 = 1000.0;

/// The query from its first word on. The white space and the comments before it are dropped, so that what is judged is
/// what Postgres gets.
///
/// # Errors
/// A comment that does not end.
pub fn without_lead(query: &str) -> Result<&str, &'static str> {
    let mut rest = query;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        if let Some(line) = rest.strip_prefix("--") {
            rest = line.find(['\n', '\r']).map_or("", |end| &line[end..]);
        } else if rest.starts_with("/*") {
            let len = comment_len(rest).ok_or("a comment of the query does not end; write */ behind it")?;
            rest = &rest[len..];
        } else {
            return Ok(rest);
        }
    }
}

/// The length of the comment that the text begins with. In Postgres they nest.
fn comment_len(text: &str) -> Option<usize> {
    let (bytes, mut at, mut depth) = (text.as_bytes(), 0, 0u32);
    loop {
        match bytes.get(at..at + 2)? {
            b"/*" => depth += 1,
            b"*/" if depth == 1 => return Some(at + 2),
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
}

/// Judges a statement by its first word, with which it begins: see [`without_lead`].
///
/// # Errors
/// What is allowed.
pub fn judge(query: &str) -> Result<Statement, &'static str> {
    let word: String = query.chars().take_while(char::is_ascii_alphabetic).collect();
    if query.contains('\0') {
        return Err("the query holds a NUL character; remove it");
    }
    match word.to_ascii_uppercase().as_str() {
        "SELECT" | "VALUES" | "TABLE" => Ok(Statement::Reads),
        // WITH may hide a write; the read-only transaction refuses to run it then.
        "WITH" => Ok(Statement::Reads),
        "INSERT" | "UPDATE" | "DELETE" | "MERGE" => Ok(Statement::Writes),
        _ => Err("only SELECT, WITH, VALUES, TABLE, INSERT, UPDATE, DELETE and MERGE can be explained"),
    }
}

/// What a query must not hold to be run, whatever its first word: a read-only transaction does not stop these.
///
/// # Errors
/// What is in the way.
pub fn judge_run(query: &str) -> Result<(), &'static str> {
    if words(query).contains("into") {
        return Err(
            "a query with the word INTO is never run; leave analyze out, or give the word as a parameter",
        );
    }
    if query.to_ascii_lowercase().contains("u&\"") {
        return Err("a query with U&\"…\" is never run: it hides the names of what it calls");
    }
    Ok(())
}

/// All that may name a function, in small letters: quotes, literals and comments are not looked at, so that nothing
/// can hide in them.
pub fn words(query: &str) -> BTreeSet<String> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
    query.split(|c| !is_of_word(c)).filter(|word| !word.is_empty()).map(str::to_ascii_lowercase).collect()
}

/// One parameter as an SQL literal of unknown type: Postgres gives it the type that the statement needs.
///
/// # Errors
/// What is allowed.
pub fn literal(value: &Value) -> Result<String, &'static str> {
    let text = match value {
        Value::Null => return Ok("NULL".to_owned()),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    if text.contains('\0') {
        return Err("a parameter holds a NUL character; remove it");
    }
    // E'' with doubled backslashes means the same whatever standard_conforming_strings says.
    Ok(format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
}

/// What the root of a plan costs.
pub fn cost(plan: &Value) -> Option<f64> {
    plan.pointer("/0/Plan/Total Cost").and_then(Value::as_f64)
}

/// How long the statement ran, where it was run.
pub fn execution_ms(plan: &Value) -> Option<f64> {
    plan.pointer("/0/Execution Time").and_then(Value::as_f64)
}

/// What the plan suggests to whoever wants it faster.
pub fn suggestions(plan: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(root) = plan.pointer("/0/Plan") {
        walk(root, &mut found);
    }
    found.dedup();
    found
}

fn walk(node: &Value, found: &mut Vec<String>) {
    let text = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| node.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let table = text("Relation Name");
    let scanned = number("Plan Rows").max(number("Rows Removed by Filter"));
    match text("Node Type") {
        "Seq Scan"
            if !text("Filter").is_empty()
                && (scanned >= SCANNED_ROWS || number("Total Cost") >= SCANNED_ROWS) =>
        {
            found.push(format!(
                "{table} is read from end to end for {}; an index on its columns may help",
                text("Filter")
            ));
        }
        "Sort" if text("Sort Space Type") == "Disk" => {
            found.push("a sort spills to disk; raise work_mem or sort by an index".to_owned());
        }
        "Nested Loop" if number("Actual Rows") > 100.0 * number("Plan Rows").max(1.0) => {
            found.push(
                "a nested loop meets many more rows than planned; run ANALYZE on its tables".to_owned(),
            );
        }
        _ => {}
    }
    for child in node.get("Plans").and_then(Value::as_array).into_iter().flatten() {
        walk(child, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn statements_are_told_by_their_first_word() {
        assert_eq!(judge("select 1"), Ok(Statement::Reads));
        assert_eq!(judge("with x as (select 1) table x"), Ok(Statement::Reads));
        assert_eq!(judge("Delete from t"), Ok(Statement::Writes));
        for refused in [
            "",
            " select 1",
            "DROP TABLE t",
            "EXPLAIN select 1",
            "/* x */ select 1",
            "COPY t TO PROGRAM 'x'",
            "SET x = 1",
        ] {
            assert!(judge(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn comments_and_white_space_before_a_statement_are_dropped() {
        for lead in
            ["", " \t\r\n", "-- x\n", "--\r", "/* x */", "/**/", "/* a /* b */ c */ -- d\n/*/**/*/ ", "/*é*/"]
        {
            let query = format!("{lead}SELECT 1 -- /* the rest stays");
            assert_eq!(without_lead(&query), Ok("SELECT 1 -- /* the rest stays"), "{query}");
        }
        for (query, rest) in
            [("-- SELECT 1", ""), ("/ * x */ SELECT 1", "/ * x */ SELECT 1"), ("- - x", "- - x")]
        {
            assert_eq!(without_lead(query), Ok(rest));
            assert!(judge(rest).is_err(), "{query}");
        }
        for endless in ["/*", "/*/", "/* x */ /* /* y */ SELECT 1"] {
            assert!(without_lead(endless).is_err(), "{endless}");
        }
    }

    #[test]
    fn nothing_that_may_write_hides_in_quotes_or_comments() {
        for refused in
            ["SELECT 1 INTO t", "select 1 /**/into t", "SELECT 'x' \"into\" FROM t", "SELECT U&\"\\0070\"(1)"]
        {
            assert!(judge_run(refused).is_err(), "{refused}");
        }
        assert_eq!(judge_run("SELECT count(*) FROM intos"), Ok(()));
        let found = words("SELECT pg_catalog.\"pg_Sleep\"/**/(1),x$y");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["1", "pg_catalog", "pg_sleep", "select", "x$y"]);
    }

    #[test]
    fn a_big_filtered_scan_suggests_an_index() {
        let plan = json!([{"Plan": {"Node Type": "Limit", "Total Cost": 12.5, "Plans": [
            {"Node Type": "Seq Scan", "Relation Name": "messages", "Filter": "(content ~~ 'x'::text)", "Plan Rows": 5000}
        ]}, "Execution Time": 3.25}]);
        assert_eq!(cost(&plan), Some(12.5));
        assert_eq!(execution_ms(&plan), Some(3.25));
        assert!(suggestions(&plan)[0].contains("index"));
        assert!(suggestions(&json!([])).is_empty());
    }

    proptest! {
        #[test]
        fn a_literal_never_ends_early(text in "[^\\x00]{0,40}") {
            let literal = literal(&Value::String(text)).unwrap();
            let inner = literal.strip_prefix("E'").and_then(|rest| rest.strip_suffix('\'')).unwrap();
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                if c == '\'' || c == '\\' {
                    prop_assert_eq!(chars.next(), Some(c), "{}", literal);
                }
            }
        }

        #[test]
        fn any_query_is_judged_without_panic(query in ".{0,60}") {
            let _ = without_lead(&query).map(judge);
        }
    }
}
