//! An HBA file: its rules are applied to clients of each kind; a line that cannot be read lets nobody in.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pooler::logic::hba::Facts;
use pooler::settings::Settings;

const INI: &str = "[pgbouncer]\nauth_type = hba\nauth_hba_file = hba\nauth_ident_file = ident\n";

fuzz_target!(|text: &str| {
    let load = |path: &Path| match path.to_str() {
        Some("pgbouncer.ini") => Ok(INI.to_string()),
        Some("hba") => Ok(text.to_string()),
        Some("ident") => Ok("map system all\n".to_string()),
        Some("names") => Ok("bob, \"all\" @more\n".to_string()),
        _ => Err("no such file".to_string()),
    };
    let settings = Settings::load_with(Path::new("pgbouncer.ini"), &load).expect("a wrong line is a warning");
    let addresses =
        [None, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), Some(IpAddr::V6(Ipv6Addr::from(0xffff_7f00_0001)))];
    for address in addresses {
        for (tls, replication) in [(false, false), (true, false), (false, true)] {
            let facts = Facts { address, tls, replication, database: "db", user: "bob" };
            if let Some(rule) = settings.hba.find(&facts) {
                assert!(rule.line >= 1 && rule.line <= text.lines().count());
            }
        }
    }
});
