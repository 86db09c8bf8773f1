//! An ident file: no map that is not written in it lets anybody in.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pooler::settings::Settings;

const INI: &str = "[pgbouncer]\nauth_type = hba\nauth_hba_file = hba\nauth_ident_file = ident\n";

fuzz_target!(|text: &str| {
    let load = |path: &Path| match path.to_str() {
        Some("pgbouncer.ini") => Ok(INI.to_string()),
        Some("hba") => Ok("local all all peer\n".to_string()),
        _ => Ok(text.to_string()),
    };
    let settings = Settings::load_with(Path::new("pgbouncer.ini"), &load).expect("a wrong line is a warning");
    assert!(settings.hba.maps.len() <= text.lines().count());
    assert!(!settings.hba.mapped_by("no map has this name: ,", "bob", |_| true));
    for entry in &settings.hba.maps {
        let user = entry.user.as_deref().unwrap_or("anybody");
        assert!(settings.hba.mapped_by(&entry.map, user, |name| name == entry.system_name));
    }
});
