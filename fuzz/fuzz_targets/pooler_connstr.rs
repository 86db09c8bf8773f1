//! The connection string of a database, a user or a peer.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pooler::settings::Settings;

fuzz_target!(|text: &str| {
    let line = text.lines().next().unwrap_or_default();
    for section in ["databases", "users", "peers"] {
        let ini = format!("[pgbouncer]\n[{section}]\n1 = {line}\n");
        let load = |_: &Path| Ok(ini.clone());
        let read = Settings::load_with(Path::new("pgbouncer.ini"), &load);
        let Err(errors) = read else { continue };
        assert!(errors.0.iter().all(|problem| problem.line == 3));
    }
});
