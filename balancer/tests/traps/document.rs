//! docs/balancer-traps.md: each test that it names is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How many were reported: none may go missing from the table.
const VULNERABILITIES: usize = 44;

fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// Tests of our crate, as `FILE NAME`, where FILE is a path's end without `.rs`.
fn tests() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        rust_files(&crate_root().join(folder), &mut files);
    }
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let file = file.with_extension("").display().to_string();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let Some((before, rest)) = line.split_once("fn ") else { continue };
            if std::mem::take(&mut is_test) && matches!(before, "" | "async ") {
                let name = rest.split('(').next().unwrap();
                found.push((file.clone(), name.to_owned()));
            }
        }
    }
    found
}

/// Tests that the last cell of a table's row names: `` `file` name, name; `file` name ``.
fn named(row: &str) -> Vec<(String, String)> {
    let cell = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap();
    let mut found = Vec::new();
    let mut file = String::new();
    for (position, part) in cell.split('`').enumerate() {
        if position % 2 == 1 {
            part.clone_into(&mut file);
            continue;
        }
        for word in part.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if word.matches('_').count() >= 2 {
                found.push((file.clone(), word.to_owned()));
            }
        }
    }
    found
}

fn document() -> String {
    std::fs::read_to_string(crate_root().join("../docs/balancer-traps.md")).unwrap()
}

fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Trap ") && !line.starts_with("| | "))
}

#[test]
fn each_test_that_the_list_of_traps_names_is_there() {
    let tests = tests();
    let text = document();
    let is_there = |file: &str, name: &str| {
        tests.iter().any(|(path, test)| test == name && path.ends_with(&format!("/{file}")))
    };
    let mut count = 0;
    for row in rows(&text) {
        let named = named(row);
        assert!(!named.is_empty(), "no test is named: {row}");
        for (file, name) in named {
            assert!(is_there(&file, &name), "{file} has no test {name}");
            count += 1;
        }
    }
    assert!(count > 100, "only {count} tests were found in the document");
}

#[test]
fn each_vulnerability_has_one_line_of_its_own() {
    let text = document();
    let (_, table) = text.split_once("## Reported as vulnerabilities\n").unwrap();
    let table = table.split("\n## ").next().unwrap();
    let mut seen = BTreeSet::new();
    for row in rows(table) {
        let number = row.trim_start_matches("| ").split(' ').next().unwrap();
        assert!(number.starts_with("CVE-") || number.starts_with("GHSA"), "{row}");
        assert_eq!(row.matches("CVE-").count(), 1, "one line, one number: {row}");
        assert!(seen.insert(number), "{number} twice");
    }
    assert!(seen.len() >= VULNERABILITIES, "{} of them", seen.len());
    let (before, _) = text.split_once("## Reported as vulnerabilities\n").unwrap();
    for word in before.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
        assert!(!word.starts_with("CVE-") || seen.contains(word), "{word} has no line in the table");
    }
}

#[test]
fn a_name_that_is_wrong_is_seen() {
    let row = "| 1 A trap | `traps/room` a_test_that_is_not, an_other_one; see `docs` and CVE-1; `logic/x` this_is_it |";
    let words: Vec<String> = named(row).into_iter().map(|(file, name)| format!("{file} {name}")).collect();
    assert_eq!(words, ["traps/room a_test_that_is_not", "traps/room an_other_one", "logic/x this_is_it"]);
    let own = "each_test_that_the_list_of_traps_names_is_there";
    assert!(tests().iter().any(|(path, name)| name == own && path.ends_with("traps/document")));
    assert!(tests().iter().all(|(_, name)| name != "rust_files"), "what is no test is none");
}
