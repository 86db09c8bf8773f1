use std::collections::BTreeMap;

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn read_with(pairs: &[(&str, &str)]) -> Result<Settings, Errors> {
    let map: BTreeMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings::read(&|name| map.get(name).cloned(), "host-1")
}

#[test]
fn without_a_secret_key_the_error_says_what_to_do() {
    let error = read_with(&[]).unwrap_err().to_string();
    assert!(error.contains("SECRET_KEY: required") && error.contains("openssl rand"), "{error}");
    let error = read_with(&[("SECRET_KEY", "short")]).unwrap_err().to_string();
    assert!(error.contains("too short") && !error.contains("\"short\""), "{error}");
}

#[test]
fn every_problem_is_reported_at_once() {
    let error = read_with(&[("PORT", "many"), ("DB_PORT", "x")]).unwrap_err().to_string();
    assert!(error.contains("PORT") && error.contains("DB_PORT"), "{error}");
}

#[test]
fn a_pool_cannot_keep_more_open_than_it_may_open() {
    let error = read_with(&[("SECRET_KEY", KEY), ("DATABASE_POOL_MIN", "6")]).unwrap_err().to_string();
    assert!(error.contains("DATABASE_POOL_MIN: 6 is more than DATABASE_POOL_MAX, 5"), "{error}");
    let settings = read_with(&[("SECRET_KEY", KEY), ("DATABASE_POOL_MIN", "5")]).unwrap();
    assert_eq!((settings.database.pool_min, settings.database.pool_max), (5, 5));
}

#[test]
fn the_defaults_are_those_of_the_compose_file() {
    let settings = read_with(&[("SECRET_KEY", KEY)]).unwrap();
    assert_eq!(format!("{:?}", settings.database.primary), "arena_user@pgbouncer:6432/arena_db");
    assert!(settings.database.pooler.is_some());
    assert!(settings.database.reads.targets.is_empty());
    assert_eq!(settings.redis.address, "redis:6379");
    assert_eq!(&*settings.service.container, "host-1");
    assert!(settings.warnings.is_empty());
}

#[test]
fn debug_output_shows_no_secret() {
    let settings = read_with(&[
        ("SECRET_KEY", KEY),
        ("DB_PASSWORD", "geheim1"),
        ("REDIS_PASSWORD", "geheim2"),
        ("DATABASE_URL_DIRECT", "postgres://u:geheim3@h/d"),
        ("REDIS_SENTINELS", "s1"),
        ("REDIS_SENTINEL_PASSWORD", "geheim4"),
    ])
    .unwrap();
    let shown = format!("{settings:?}");
    assert!(!shown.contains("geheim") && !shown.contains(KEY), "{shown}");
    assert_eq!(settings.redis.url.reveal(), "redis://:geheim2@redis:6379/0");
}

#[test]
fn redis_is_one_server_or_behind_sentinels_or_a_cluster_but_not_two_of_them() {
    let redis = |pairs: &[(&str, &str)]| {
        let settings = read_with(&[&[("SECRET_KEY", KEY)], pairs].concat());
        settings.map(|settings| settings.redis).map_err(|errors| errors.to_string())
    };
    assert_eq!(redis(&[]).unwrap().layout, RedisLayout::Single);
    let sentinels = redis(&[("REDIS_SENTINELS", "s1:26379,s2:26379")]).unwrap().layout;
    let (url, places) = (Secret::new("redis://s1:26379"), vec!["s1:26379".to_owned(), "s2:26379".to_owned()]);
    let master = "mymaster".to_owned();
    assert_eq!(sentinels, RedisLayout::Sentinels(Sentinels { url, places, master }));
    let cluster = redis(&[("REDIS_CLUSTER", "a:1,b:2"), ("REDIS_URL", "rediss://u:p@elsewhere/0")]).unwrap();
    assert_eq!(cluster.layout, RedisLayout::Cluster(vec!["a:1".to_owned(), "b:2".to_owned()]));
    assert_eq!(cluster.address, "a:1, b:2");
    let error = redis(&[("REDIS_CLUSTER", "a:1"), ("REDIS_SENTINELS", "s1:26379")]).unwrap_err();
    assert!(error.contains("REDIS_SENTINELS") && error.contains("REDIS_CLUSTER"), "{error}");
    let error = redis(&[("REDIS_CLUSTER", "a:one")]).unwrap_err();
    assert!(error.contains("REDIS_CLUSTER: \"one\" is no port"), "{error}");
}

fn sentinels_with(pairs: &[(&str, &str)]) -> Result<Sentinels, String> {
    let settings =
        read_with(&[&[("SECRET_KEY", KEY)], pairs].concat()).map_err(|errors| errors.to_string())?;
    match settings.redis.layout {
        RedisLayout::Sentinels(sentinels) => Ok(sentinels),
        other => panic!("no Sentinels: {other:?}"),
    }
}

#[test]
fn sentinels_have_a_login_and_tls_of_their_own() {
    let url = |pairs: &[(&str, &str)]| {
        let all = [&[("REDIS_SENTINELS", "s1, [::1]:7"), ("REDIS_PASSWORD", "data")], pairs].concat();
        let sentinels = sentinels_with(&all).unwrap();
        assert_eq!(sentinels.places, ["s1:26379", "[::1]:7"]);
        sentinels.url.reveal().to_owned()
    };
    assert_eq!(url(&[]), "redis://s1:26379", "the password of Redis is not told to the Sentinels");
    assert_eq!(url(&[("REDIS_SENTINEL_PASSWORD", "p@ss")]), "redis://:p%40ss@s1:26379");
    let login = [("REDIS_SENTINEL_USER", "asker"), ("REDIS_SENTINEL_PASSWORD", "pw")];
    assert_eq!(url(&login), "redis://asker:pw@s1:26379");
    for (tls, of_redis, scheme) in [
        ("auto", ("REDIS_TLS", "true"), "rediss"),
        ("auto", ("REDIS_URL", "rediss://:data@redis"), "rediss"),
        ("auto", ("REDIS_URL", "redis://:data@redis"), "redis"),
        ("off", ("REDIS_TLS", "true"), "redis"),
        ("on", ("REDIS_TLS", "false"), "rediss"),
    ] {
        assert_eq!(url(&[("REDIS_SENTINEL_TLS", tls), of_redis]), format!("{scheme}://s1:26379"));
    }
}

#[test]
fn a_sentinel_is_a_place_and_a_password_in_it_is_not_repeated() {
    for place in ["redis://:geheim@s1:26379", "u:geheim@s1", "rediss://s1"] {
        let error = sentinels_with(&[("REDIS_SENTINELS", place)]).unwrap_err();
        assert!(error.contains("REDIS_SENTINELS: write each as HOST:PORT"), "{error}");
        assert!(!error.contains("geheim"), "{error}");
    }
    let error = sentinels_with(&[("REDIS_SENTINELS", "s1:many")]).unwrap_err();
    assert!(error.contains("REDIS_SENTINELS: \"many\" is no port"), "{error}");
}

#[test]
fn certificates_for_redis_are_good_for_something() {
    let with = |more: &[(&str, &str)]| {
        let given = [&[("SECRET_KEY", KEY), ("REDIS_TLS_CA", "PEM")], more].concat();
        read_with(&given).map(|_| ()).map_err(|errors| errors.to_string())
    };
    assert!(with(&[]).unwrap_err().contains("REDIS_TLS_CA: given, but nothing"));
    assert_eq!(with(&[("REDIS_TLS", "on")]), Ok(()));
    assert_eq!(with(&[("REDIS_URL", "rediss://h")]), Ok(()));
    assert_eq!(with(&[("REDIS_SENTINELS", "s1"), ("REDIS_SENTINEL_TLS", "on")]), Ok(()));
}

#[test]
fn a_cluster_has_no_other_database_than_0() {
    for (name, value) in [("REDIS_URL", "redis://u:p@h:6379/3?protocol=resp3"), ("REDIS_DB", "3")] {
        let with = |cluster| read_with(&[("SECRET_KEY", KEY), (name, value), ("REDIS_CLUSTER", cluster)]);
        assert!(with("").is_ok());
        let error = with("a:1").unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: asks for database 3")), "{error}");
        assert!(error.contains("REDIS_CLUSTER") && !error.contains("u:p"), "{error}");
    }
    for url in ["redis://h", "redis://h/", "redis://h:1/0", "redis://h?protocol=resp3", "redis://:pa/ss@h:1"]
    {
        assert!(
            read_with(&[("SECRET_KEY", KEY), ("REDIS_URL", url), ("REDIS_CLUSTER", "a:1")]).is_ok(),
            "{url}"
        );
    }
}

#[test]
fn what_stands_in_the_place_of_a_database_is_repeated_only_if_it_is_a_number() {
    for url in
        ["redis://:ge/heim@h:6379/3", "redis://h:6379/geheim", "redis://u:ge/heim@h/geheim/3", "redis://h/-1"]
    {
        let given = [("SECRET_KEY", KEY), ("REDIS_URL", url), ("REDIS_CLUSTER", "a:1")];
        let error = read_with(&given).unwrap_err().to_string();
        assert!(error.contains("REDIS_URL: asks for") && error.contains("only database 0"), "{error}");
        assert!(!error.contains("heim") && !error.contains("-1"), "{url}: {error}");
    }
}

#[test]
fn the_url_wins_and_a_contradiction_is_named() {
    let settings = read_with(&[
        ("SECRET_KEY", KEY),
        ("DATABASE_URL", "postgresql://u:p@db:5432/other?connection_limit=3&pool_timeout=20"),
        ("DB_HOST", "pgbouncer"),
        ("DATABASE_POOL_MAX", "20"),
    ])
    .unwrap();
    assert_eq!(format!("{:?}", settings.database.primary), "u@db:5432/other");
    assert_eq!(settings.database.pool_max, 3);
    assert_eq!(settings.database.pool_timeout, Duration::from_secs(20));
    assert!(settings.database.pooler.is_none());
    assert!(settings.warnings[0].contains("DATABASE_URL") && settings.warnings[0].contains("DB_HOST"));
}

#[test]
fn a_fallback_key_that_is_short_or_was_cut_at_a_comma_is_an_error_that_does_not_show_it() {
    let with = |name, keys| {
        read_with(&[("SECRET_KEY", KEY), (name, keys)]).map(|_| ()).map_err(|errors| errors.to_string())
    };
    let cut = "a key of the tests, cut at its comma and long enough";
    let told = with("SECRET_KEY_FALLBACKS", cut).unwrap_err();
    assert!(told.contains("SECRET_KEY_FALLBACKS") && told.contains("comma"), "{told}");
    assert!(!told.contains("of the tests"), "{told}");
    assert!(with("SECRET_KEY_PREVIOUS", "short").unwrap_err().contains("SECRET_KEY_PREVIOUS"));
    assert_eq!(with("SECRET_KEY_PREVIOUS", cut), Ok(()));
    assert_eq!(with("SECRET_KEY_FALLBACKS", &format!(" {KEY} ,,{KEY},")), Ok(()));
}

#[test]
fn migrations_bypass_the_pooler() {
    let by_host = read_with(&[("SECRET_KEY", KEY), ("ACTUAL_DB_HOST", "postgres")]).unwrap();
    assert_eq!(format!("{:?}", by_host.database.direct), "arena_user@postgres:5432/arena_db");
    let by_url = read_with(&[("SECRET_KEY", KEY), ("DATABASE_DIRECT_PRIMARY", "postgres://h/d")]).unwrap();
    assert_eq!(format!("{:?}", by_url.database.direct), "arena_user@h:5432/d");
}

#[test]
fn read_replicas_come_alone_numbered_or_by_url() {
    let one =
        read_with(&[("SECRET_KEY", KEY), ("DB_READ_HOST", "standby:5433"), ("DB_READ_USER", "ro")]).unwrap();
    assert_eq!(format!("{:?}", one.database.reads.targets), "[ro@standby:5433/arena_db]");
    let two = read_with(&[("SECRET_KEY", KEY), ("DB_READ_HOST_1", "a"), ("DB_READ_HOST_3", "b")]).unwrap();
    assert_eq!(two.database.reads.targets.len(), 2);
    let url =
        read_with(&[("SECRET_KEY", KEY), ("DATABASE_READ_URL", "postgres://pooler:6432/arena_db_standby")]);
    assert_eq!(
        format!("{:?}", url.unwrap().database.reads.targets),
        "[arena_user@pooler:6432/arena_db_standby]"
    );
}

#[test]
fn the_table_has_sound_defaults() {
    for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
        let given = |name: &str| (name == setting.name).then(|| setting.default.to_owned());
        assert!(chassis::settings::read(SETTINGS, &given).is_ok(), "{}", setting.name);
    }
}
