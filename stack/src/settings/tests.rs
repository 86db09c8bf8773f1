use super::*;
use crate::logic::addresses::{Place, Route, Standby};

fn read_with(pairs: &[(&str, &str)], overrides: Overrides) -> Result<Settings, Errors> {
    let file = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings::read(&file, &|_| None, overrides)
}

#[test]
fn without_a_config_env_the_stack_is_private_and_pooled() {
    let settings = read_with(&[], Overrides::default()).unwrap();
    assert_eq!(settings.ports.http, 8080);
    assert_eq!(settings.ports.pooler, 6432);
    assert_eq!(settings.replicas, 10);
    assert_eq!(settings.topology.primary, Place::Ours);
    assert_eq!(settings.topology.redis, Place::Ours);
    assert_eq!(settings.topology.route, Route::Pooled);
    assert_eq!(settings.topology.standby, Standby::None);
    assert!(settings.secrets.0.is_empty());
}

#[test]
fn the_environment_wins_over_the_file() {
    let file = [("HTTP_PORT", "8081"), ("LOG_LEVEL", "debug"), ("DEBUG", "True")];
    let file = file.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let outer = |name: &str| match name {
        "HTTP_PORT" => Some("8082".to_owned()),
        "DEBUG" => Some(String::new()),
        "LOG_LEVEL" => Some("warn".to_owned()),
        _ => None,
    };
    let settings = Settings::read(&file, &outer, Overrides::default()).unwrap();
    assert_eq!(settings.ports.http, 8082);
    let web = settings.told.of(Reader::Web);
    assert_eq!(web["LOG_LEVEL"], "warn");
    assert_eq!(web["DEBUG"], "True", "an empty variable counts as unset");
    assert!(!web.contains_key("HTTP_PORT"), "the web service does not read it");
}

#[test]
fn an_empty_line_of_the_file_counts_as_unset() {
    let settings = read_with(&[("DB_NAME", ""), ("DB_USER", "")], Overrides::default()).unwrap();
    let named = read_with(&[], Overrides::default()).unwrap();
    assert_eq!(settings.database, named.database);
}

#[test]
fn a_placeholder_is_no_secret() {
    let pairs =
        [("DB_PASSWORD", "your_password"), ("SECRET_KEY", "a-key-of-one's-own"), ("REDIS_PASSWORD", "")];
    let settings = read_with(&pairs, Overrides::default()).unwrap();
    assert_eq!(settings.secrets.0.keys().copied().collect::<Vec<_>>(), ["SECRET_KEY"]);
    assert!(!format!("{settings:?}").contains("a-key-of"), "secrets are not shown");
}

#[test]
fn the_url_names_database_user_and_password() {
    let url = "postgresql://u:p%40ss@pgbouncer:6444/other?pgbouncer=true";
    let settings = read_with(&[("DATABASE_URL", url)], Overrides::default()).unwrap();
    assert_eq!((settings.database.user.as_str(), settings.database.name.as_str()), ("u", "other"));
    assert_eq!(settings.ports.pooler, 6444);
    assert_eq!(settings.topology.route, Route::Pooled);
    assert_eq!(settings.secrets.0["DB_PASSWORD"], "p@ss");
}

#[test]
fn names_that_some_part_could_not_read_are_told() {
    for name in ["a b;c", "-d", "o'x", "a\"b", &"n".repeat(64)] {
        let problems =
            read_with(&[("DB_NAME", name), ("DB_USER", name)], Overrides::default()).unwrap_err().problems;
        let told = |setting: &str| problems.iter().any(|problem| problem.starts_with(setting));
        assert!(told("DB_NAME: ") && told("DB_USER: "), "{name}: {problems:?}");
    }
    assert!(read_with(&[("DB_NAME", "größe-1.a")], Overrides::default()).is_ok());
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let pairs = [
        ("HTTP_PORT", "many"),
        ("REDIS_PORT", "x"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("DB_READ_HOST", "pgbouncer"),
    ];
    let problems = read_with(&pairs, Overrides::default()).unwrap_err().problems;
    for name in ["HTTP_PORT: ", "REDIS_PORT: ", "DATABASE_URL: ", "DB_READ_HOST="] {
        let count = problems.iter().filter(|problem| problem.starts_with(name)).count();
        assert_eq!(count, 1, "{name} in {problems:?}");
    }
    assert!(!problems.concat().contains("hunter2"), "{problems:?}");
}

#[test]
fn the_operators_database_lacks_nothing_but_its_password() {
    let own = |password| {
        read_with(&[("ACTUAL_DB_HOST", "db.example"), ("DB_PASSWORD", password)], Overrides::default())
    };
    assert_eq!(own("their-own").unwrap().lacking(), None);
    let lacking = own("your_password").unwrap().lacking().unwrap();
    assert!(lacking.starts_with("DB_PASSWORD: ") && lacking.contains("db.example:5432"), "{lacking}");
}

#[test]
fn the_table_has_sound_defaults() {
    for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
        let given = |name: &str| (name == setting.name).then(|| setting.default.to_owned());
        assert_eq!(read_all(SETTINGS, &given).1, [""; 0], "{}", setting.name);
    }
}

#[test]
fn a_url_through_the_pooler_that_its_container_could_not_serve_is_told() {
    let told = |url: &str| {
        let file = [("DATABASE_URL", url), ("DB_NAME", "d"), ("DB_USER", "u"), ("DB_PASSWORD", "p")];
        let file = file.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let problems = unknown_to_the_pooler(&file, &|_| None);
        problems
            .iter()
            .filter_map(|text| text.split_once(':'))
            .map(|(name, _)| name.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(told("postgresql://v:q@pgbouncer:6432/e"), ["DB_NAME", "DB_USER", "DB_PASSWORD"]);
    assert_eq!(told("postgresql://u:p@pooler:6432/e"), ["DB_NAME"]);
    assert_eq!(told("postgresql://u:p@pgbouncer:6432/d"), [""; 0]);
    assert_eq!(told("postgresql://v:q@db.example/e"), [""; 0]);
}
