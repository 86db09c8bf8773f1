//! The tables of all programs side by side: what one program is given, what two have in common.

use std::collections::{BTreeMap, BTreeSet};

use chassis::settings::Setting;
use stack::logic::plan::{Files, Part, Plan, Secrets};
use stack::settings::{Overrides, Reader, SETTINGS as STACK, Settings};

// The tables alone: services are driven by process and socket, never imported.
#[path = "../../balancer/src/settings.rs"]
mod balancer;
#[path = "../../load_tests/src/settings.rs"]
mod load_tests;
#[path = "../../web/src/settings/table.rs"]
mod web;

fn tables() -> [&'static [Setting]; 4] {
    [STACK, web::SETTINGS, balancer::SETTINGS, load_tests::SETTINGS]
}

fn all() -> impl Iterator<Item = &'static Setting> {
    tables().into_iter().flatten()
}

/// A value that is a secret's own, such that the stack takes it and runs as without it.
fn secret_value(name: &str) -> String {
    match name {
        "DATABASE_URL" => "postgresql://u:DATABASE_URL-value@pgbouncer:6432/d".to_owned(),
        name if name.contains("URL") || name == "DATABASE_DIRECT_PRIMARY" => {
            format!("redis://u:{name}-value@h/1")
        }
        name => format!("{name}-value"),
    }
}

/// A plan of a stack whose starter's environment gives every secret of every table but these.
fn plan_without(left_out: &[&str]) -> Plan {
    let secrets: BTreeSet<&str> = all().filter(|s| s.kind.is_secret()).map(|s| s.name).collect();
    assert!(secrets.len() > 15, "{secrets:?}");
    let outer = |name: &str| {
        let is_given = secrets.contains(name) && !left_out.contains(&name);
        let is_file =
            name.strip_suffix("_FILE").is_some_and(|name| web::SETTINGS.iter().any(|s| s.name == name));
        match name {
            "PATH" => Some("/bin".to_owned()),
            _ if is_given => Some(secret_value(name)),
            // Of the stack's own table they would be opened.
            _ if is_file && !STACK.iter().any(|s| name.strip_suffix("_FILE") == Some(s.name)) => {
                Some(format!("/files/{name}"))
            }
            _ => None,
        }
    };
    let overrides = Overrides { read_replica: true, ..Overrides::default() };
    let settings = Settings::read(&BTreeMap::new(), &outer, overrides).expect("nothing is wrong with them");
    let made = STACK.iter().filter(|s| s.kind.is_secret()).map(|s| (s.name, secret_value(s.name)));
    let here = std::path::PathBuf::from("/s");
    let files = Files {
        programs: here.clone(),
        current: here.clone(),
        run: here.clone(),
        conf: here.clone(),
        data: here.clone(),
        postgres_bin: here.clone(),
        redis_server: here,
    };
    Plan { settings, secrets: Secrets(made.collect()), files }
}

fn parts() -> Vec<Part> {
    let plan = plan_without(&["REDIS_URL"]);
    let mut parts = plan.replicas(1);
    parts.push(plan.balancer());
    parts.extend([plan.pooler(), plan.postgres(), plan.standby(), plan.redis()].into_iter().flatten());
    assert_eq!(parts.len(), 6, "the whole stack");
    parts.extend(plan_without(&[]).replicas(1));
    parts
}

fn table_of(part: &Part) -> &'static [Setting] {
    match part.name.as_str() {
        "web-1" => web::SETTINGS,
        "balancer" => balancer::SETTINGS,
        _ => &[],
    }
}

#[test]
fn a_part_is_given_what_its_table_has_and_nothing_else() {
    for part in parts() {
        let table: BTreeSet<&str> = table_of(&part).iter().map(|setting| setting.name).collect();
        let foreign = |name: &&String| {
            !table.contains(name.as_str())
                && name.strip_suffix("_FILE").is_none_or(|name| !table.contains(name))
        };
        let foreign: Vec<&String> = part.env.keys().filter(foreign).collect();
        assert!(foreign.is_empty(), "{} is given {foreign:?}", part.name);
    }
}

#[test]
fn a_secret_reaches_only_parts_whose_table_has_it() {
    for part in parts() {
        for secret in all().filter(|setting| setting.kind.is_secret()) {
            let has_it = table_of(&part).iter().any(|own| own.name == secret.name);
            let value = format!("{}-value", secret.name);
            let told = part.env.iter().any(|(name, text)| {
                name == secret.name || text.contains(&value) || *name == format!("{}_FILE", secret.name)
            });
            assert!(has_it || !told, "{} is told {}", part.name, secret.name);
        }
    }
    let web = &parts()[6].env;
    for secret in web::SETTINGS.iter().filter(|setting| setting.kind.is_secret()) {
        assert!(web.contains_key(secret.name), "the web service lacks {}", secret.name);
    }
}

#[test]
fn who_reads_what_is_what_the_tables_say() {
    for setting in all() {
        for (reader, table) in [(Reader::Web, web::SETTINGS), (Reader::Balancer, balancer::SETTINGS)] {
            let has_it = table.iter().any(|own| own.name == setting.name);
            assert_eq!(reader.reads(setting.name), has_it, "{reader:?} and {}", setting.name);
        }
    }
}

#[test]
fn what_two_tables_have_is_one_setting() {
    for one in all() {
        for other in all().filter(|other| other.name == one.name) {
            assert_eq!((one.kind, one.doc), (other.kind, other.doc), "{}", one.name);
            // The stack always gives it to the balancer, which alone opens none.
            assert!(one.default == other.default || one.name == "BALANCER_OPS_PORT", "{}", one.name);
        }
    }
}
