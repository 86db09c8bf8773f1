//! pgbouncer.ini: read or refused with reasons, and every value that was taken reads its own form again.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pooler::settings::{Settings, TABLE};

fuzz_target!(|text: &str| {
    let load = |path: &Path| match path.to_str() {
        Some("pgbouncer.ini") => Ok(text.to_string()),
        Some("more.ini") => Ok("[databases]\nmore = host=127.0.0.1\n[pgbouncer]\n".to_string()),
        _ => Err("no such file".to_string()),
    };
    match Settings::load_with(Path::new("pgbouncer.ini"), &load) {
        Err(errors) => assert!(!errors.0.is_empty()),
        Ok(settings) => {
            for key in TABLE {
                let Some(shown) = key.show(&settings.keys) else { continue };
                let mut again = settings.keys.clone();
                assert_eq!(key.set(&mut again, &shown), Ok(()), "{} = {shown}", key.name);
                assert_eq!(key.show(&again), Some(shown), "{}", key.name);
            }
        }
    }
});
