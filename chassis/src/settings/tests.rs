use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const TABLE: &[Setting] = &[
    Setting { name: "PORT", kind: Kind::Port, default: "8000", live: false, doc: "Where to listen." },
    Setting { name: "DEBUG", kind: Kind::Flag, default: "False", live: true, doc: "More in answers." },
    Setting { name: "WAIT", kind: Kind::Seconds, default: "2.5", live: true, doc: "How long to wait." },
    Setting { name: "TICK_MS", kind: Kind::Millis, default: "40", live: true, doc: "Pace." },
    Setting {
        name: "SIZE",
        kind: Kind::Count { min: 1, max: 5 },
        default: "5",
        live: false,
        doc: "Pool size.",
    },
    Setting { name: "MODE", kind: Kind::Choice(&["a", "b"]), default: "a", live: false, doc: "Which." },
    Setting { name: "HOSTS", kind: Kind::List, default: "", live: false, doc: "Allowed hosts." },
    Setting { name: "SECRET_KEY", kind: Kind::Secret, default: "", live: false, doc: "Signs tokens." },
    Setting { name: "OPS_ADDR", kind: Kind::Ip, default: "::1", live: false, doc: "Where operators ask." },
    Setting { name: "DATABASE_URL", kind: Kind::Url, default: "", live: false, doc: "Wins over DB_*." },
];

fn read_from(pairs: &[(&str, &str)]) -> Result<Values, Errors> {
    let map: BTreeMap<String, String> =
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    read(TABLE, &|name| map.get(name).cloned())
}

#[test]
fn every_default_is_a_valid_value_of_its_kind() {
    for setting in TABLE.iter().filter(|setting| !setting.default.is_empty()) {
        assert_eq!(setting.kind.check(setting.default), Ok(()), "{}", setting.name);
    }
}

#[test]
fn defaults_stand_where_nothing_is_given() {
    let values = read_from(&[("HOSTS", "")]).unwrap();
    assert_eq!(values.port("PORT"), 8000);
    assert!(!values.flag("DEBUG"));
    assert_eq!(values.duration("WAIT"), Duration::from_millis(2500));
    assert_eq!(values.duration("TICK_MS"), Duration::from_millis(40));
    assert_eq!(values.opt("SECRET_KEY"), None);
    assert!(!values.given("HOSTS"), "an empty value counts as unset");
}

#[test]
fn given_values_win_and_are_known_as_given() {
    let values = read_from(&[("PORT", "8000"), ("HOSTS", "a, b,,c "), ("DEBUG", "YES")]).unwrap();
    assert!(values.given("PORT") && !values.given("SIZE"));
    assert_eq!(values.list("HOSTS"), ["a", "b", "c"]);
    assert!(values.flag("DEBUG"));
}

#[test]
fn all_problems_are_reported_at_once_and_by_name() {
    let error =
        read_from(&[("PORT", "x"), ("SIZE", "6"), ("MODE", "c"), ("WAIT", "-1"), ("OPS_ADDR", "localhost")])
            .unwrap_err();
    assert_eq!(
        error.problems,
        [
            "PORT: \"x\" is no port number (0 to 65535)",
            "WAIT: \"-1\" is no number of seconds",
            "SIZE: \"6\" is no whole number from 1 to 5",
            "MODE: \"c\" is no choice of: a, b",
            "OPS_ADDR: \"localhost\" is no IP address",
        ]
    );
}

#[test]
fn a_secret_is_neither_in_an_error_nor_in_debug_output() {
    let error = read_from(&[("DATABASE_URL", "hunter2")]).unwrap_err().to_string();
    assert!(error.contains("DATABASE_URL") && !error.contains("hunter2"), "{error}");
    let values = read_from(&[("SECRET_KEY", "hunter2"), ("DATABASE_URL", "pg://u:hunter2@h/d")]).unwrap();
    assert!(!format!("{values:?}").contains("hunter2"));
}

#[test]
fn a_file_holds_the_value_where_the_name_ends_in_file() {
    let path = std::env::temp_dir().join(format!("chassis-secret-{}", std::process::id()));
    std::fs::write(&path, "s3cret\n").unwrap();
    let values = read_from(&[("SECRET_KEY_FILE", path.to_str().unwrap())]).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(values.text("SECRET_KEY"), "s3cret");
    let error = read_from(&[("SECRET_KEY_FILE", "/nowhere/at/all")]).unwrap_err().to_string();
    assert!(error.starts_with("SECRET_KEY_FILE: cannot read /nowhere/at/all"), "{error}");
}

#[test]
fn the_example_names_meaning_range_and_default() {
    let text = example(TABLE);
    assert!(text.contains("# Where to listen. [port number (0 to 65535)]\nPORT=8000\n"), "{text}");
    assert!(text.contains("# Signs tokens.\n#SECRET_KEY=\n"), "{text}");
    assert!(text.contains("# How long to wait. [number of seconds] (live)\nWAIT=2.5\n"), "{text}");
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,20}") {
        let pairs: Vec<(&str, &str)> = TABLE.iter().map(|setting| (setting.name, text.as_str())).collect();
        if let Ok(values) = read_from(&pairs) {
            values.port("PORT");
            values.flag("DEBUG");
            values.duration("WAIT");
            values.duration("TICK_MS");
            values.ip("OPS_ADDR");
            values.count("SIZE");
        }
    }
}
