//! config.env: each line is a value with its place, or a problem that repeats nothing of it.
#![no_main]

use std::path::Path;

use chassis::settings::EnvFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let file = EnvFile::parse(text, Path::new("config.env"));
    let lines = text.lines().count();
    assert!(file.values.len() + file.problems.len() <= lines);
    for (key, value) in &file.values {
        assert!(!key.is_empty() && !value.contains('\n'));
        assert!(file.places.contains_key(key));
    }
    let problems = file.problems.len();
    assert_eq!(file.into_values().is_err(), problems > 0);
});
