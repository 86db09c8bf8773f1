//! Whether a test's configurations have a directive: the test's own text is looked at, with what it uses of its file.

use std::collections::HashSet;

use regex::Regex;

/// The text of a test with that of the functions and constants of its file that it comes to. `None`: no test is called so.
pub fn text_of(source: &str, test: &str) -> Option<String> {
    let begins = r"(?m)^(?:pub )?(?:async )?(?:fn|const|static|struct|enum|impl(?:<[^>]*>)?) (?:\w+ for )?(?<name>\w+)";
    let begins = Regex::new(begins).unwrap();
    let found = begins.captures_iter(source);
    let starts: Vec<(usize, &str)> =
        found.map(|found| (found.get_match().start(), found.name("name").unwrap().as_str())).collect();
    let item = |at: usize| {
        let end = starts.get(at + 1).map_or(source.len(), |(start, _)| *start);
        &source[starts[at].0..end]
    };
    let is_test = |at: usize| {
        let mut attributes = source[..starts[at].0].lines().rev().take_while(|line| line.starts_with("#["));
        attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    };
    let first = (0..starts.len()).find(|at| starts[*at].1 == test && is_test(*at))?;
    let words = Regex::new(r"\w+").unwrap();
    let (mut text, mut waiting, mut seen) = (String::new(), vec![first], HashSet::from([first]));
    while let Some(at) = waiting.pop() {
        text.push_str(item(at));
        let used: HashSet<&str> = words.find_iter(item(at)).map(|word| word.as_str()).collect();
        let more = (0..starts.len()).filter(|other| used.contains(starts[*other].1) && !is_test(*other));
        waiting.extend(more.filter(|other| seen.insert(*other)));
    }
    Some(text)
}

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

#[test]
fn a_test_is_told_from_its_neighbours() {
    let source = "fn config() -> &str {\n    \"a 1;\"\n}\n\n#[test]\n#[cfg(unix)]\nfn one() {\n    start(config());\n}\n\n\
                  #[test]\nfn other() {\n    start(\"b 1;\");\n}\n";
    let one = text_of(source, "one").unwrap();
    assert!(has_statement(&one, "a") && !has_statement(&one, "b"), "{one}");
    let other = text_of(source, "other").unwrap();
    assert!(has_statement(&other, "b") && !has_statement(&other, "a"), "{other}");
    assert_eq!(text_of(source, "config"), None, "it is no test");
    assert_eq!(text_of(source, "none"), None);
}
