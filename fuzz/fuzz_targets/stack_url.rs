//! DATABASE_URL: what is read can be written and is then read as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stack::logic::url::DatabaseUrl;

fuzz_target!(|text: &str| {
    let Ok(url) = DatabaseUrl::parse(text) else { return };
    assert!(url.port > 0 && !url.host.is_empty());
    assert_eq!(DatabaseUrl::parse(&url.to_text()), Ok(url));
});
