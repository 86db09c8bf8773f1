//! Whether the source of a test has a configuration in which a directive stands.

use regex::Regex;

/// Whether some text of the source has the directive as a statement: not its name as a word of Rust, of a path or of a
/// sentence.
pub fn has_statement(source: &str, directive: &str) -> bool {
    let statement = Regex::new(&format!(r"(?:^|[{{}};\n])\s*{directive}(?:\s[^;{{}}]*)?[;{{]")).unwrap();
    texts(source).iter().any(|text| statement.is_match(text))
}

/// What stands between quotes, with line ends for `\n` and without those that are escaped.
fn texts(source: &str) -> Vec<String> {
    let token = Regex::new(
        r##"(?sx) //[^\n]* | '(?:[^'\\]|\\.)' | r\#"(?<hashed>.*?)"\# | r"(?<raw>[^"]*)" | "(?<plain>(?:[^"\\]|\\.)*)" "##,
    )
    .unwrap();
    let found = token.captures_iter(source).filter_map(|found| {
        let raw = found.name("hashed").or_else(|| found.name("raw")).map(|text| text.as_str().to_owned());
        raw.or_else(|| Some(unescaped(found.name("plain")?.as_str())))
    });
    found.collect()
}

fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\\n", "").replace("\\\"", "\"")
}

#[test]
fn a_directive_is_told_from_a_word() {
    let shown = [
        r#"start("status 200;")"#,
        r#"start("match m { status 200-399; }")"#,
        r##"start(r#"server {{ status {}; "a" }}"#)"##,
        "start(\"http { }\\n\\\n    status 200;\")",
    ];
    for source in shown {
        assert!(has_statement(source, "status"), "{source}");
    }
    let not_shown = [
        r#"match x { status; } assert_eq!(answer["status"], 1); // "status 200;""#,
        r#"assert!(is_so, "status of it"); get("/status;x")"#,
        r#"start("add_header status 200; ssl_status {}")"#,
    ];
    for source in not_shown {
        assert!(!has_statement(source, "status"), "{source}");
    }
}
