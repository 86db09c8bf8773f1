//! The startup parameter `options`: what is read can be written and is then read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgwire::options;

fuzz_target!(|text: &str| {
    let Ok(settings) = options::parse(text) else { return };
    assert!(settings.iter().all(|(name, _)| !name.is_empty()));
    let written = options::format(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    assert_eq!(options::parse(&written), Ok(settings));
});
