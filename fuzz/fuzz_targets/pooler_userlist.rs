//! The list of users: never more users than lines, and no password in what is printed of the settings.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pooler::settings::Settings;

fuzz_target!(|text: &str| {
    let load = |path: &Path| match path.to_str() {
        Some("pgbouncer.ini") => Ok("[pgbouncer]\nauth_file = users.txt\n".to_string()),
        _ => Ok(text.to_string()),
    };
    let settings = Settings::load_with(Path::new("pgbouncer.ini"), &load).expect("a wrong line is a warning");
    let lines = text.lines().count();
    assert!(settings.credentials.len() + settings.warnings.len() <= lines);
    for (user, secret) in &settings.credentials {
        assert!(!user.is_empty());
        let printed = format!("{secret:?}");
        assert!(secret.expose().len() < 24 || !printed.contains(secret.expose()));
    }
});
