use std::collections::BTreeSet;

use super::*;
use crate::logic::ports::{clashes, impossible, listening};
use crate::settings::Overrides;

fn plan_with(pairs: &[(&str, &str)], overrides: Overrides) -> Plan {
    let file = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let settings = Settings::read(&file, &|_| None, overrides).unwrap();
    let names = [
        "DB_PASSWORD",
        "SECRET_KEY",
        "REDIS_PASSWORD",
        "PGBOUNCER_ADMIN_PASSWORD",
        "PGBOUNCER_STATS_PASSWORD",
    ];
    let secrets = Secrets(names.map(|name| (name, format!("{name}@value"))).into());
    let files = Files {
        programs: "/s/release".into(),
        current: "/s/current".into(),
        run: "/s/run".into(),
        conf: "/s/conf".into(),
        data: "/s/data".into(),
        postgres_bin: "/pg/bin".into(),
        redis_server: "/usr/bin/redis-server".into(),
    };
    Plan { settings, secrets, files }
}

fn private() -> Plan {
    plan_with(&[], Overrides::default())
}

#[test]
fn a_replica_knows_its_name_its_ports_and_the_pooler() {
    let part = private().replica(3);
    assert_eq!(part.name, "web-3");
    assert_eq!(part.address, Endpoint::local(8003));
    assert_eq!(part.env["CONTAINER_NAME"], "web-3");
    assert_eq!((part.env["PORT"].as_str(), part.env["OPS_PORT"].as_str()), ("8003", "9203"));
    assert_eq!((part.env["DB_HOST"].as_str(), part.env["DB_PORT"].as_str()), ("127.0.0.1", "6432"));
    assert_eq!(part.env["ACTUAL_DB_PORT"], "15432");
    assert_eq!(part.env["DATABASE_POOLER"], "on");
    assert_eq!(
        part.env["DATABASE_URL_DIRECT"],
        "postgresql://arena_user:DB_PASSWORD%40value@127.0.0.1:15432/arena_db"
    );
    assert_eq!(part.env["DATABASE_URL"], "", "unset for the service, whatever the outer environment says");
    assert!(!part.env.contains_key("DB_READ_HOST"));
}

#[test]
fn secrets_are_on_no_command_line_and_only_the_web_service_gets_them() {
    let plan = plan_with(&[], Overrides { read_replica: true, ..Overrides::default() });
    let mut parts = plan.replicas(2);
    parts.extend([plan.balancer(), plan.pooler().unwrap(), plan.redis().unwrap(), plan.postgres().unwrap()]);
    parts.push(plan.standby().unwrap());
    for part in &parts {
        assert!(part.args.iter().all(|arg| !arg.contains("@value")), "{part:?}");
        let told = part.env.values().any(|value| value.contains("value"));
        assert_eq!(told, part.name.starts_with("web-"), "{}", part.name);
    }
}

#[test]
fn direct_runs_no_pooler_and_says_so_to_the_replicas() {
    let plan = plan_with(&[], Overrides { direct: true, ..Overrides::default() });
    assert!(plan.pooler().is_none());
    let env = plan.web_env();
    assert_eq!((env["DB_PORT"].as_str(), env["DATABASE_POOLER"].as_str()), ("15432", "off"));
    assert!(listening(&plan.settings, 1).iter().all(|one| one.part != "pooler"));
}

#[test]
fn reads_go_through_the_poolers_pool_of_the_private_standby() {
    let pooled = plan_with(&[], Overrides { read_replica: true, ..Overrides::default() });
    let env = pooled.web_env();
    assert_eq!((env["DB_READ_PORT"].as_str(), env["DB_READ_NAME"].as_str()), ("6432", "arena_db_standby"));
    assert_eq!(pooled.pooler_value("ACTUAL_DB_READ_PORT").as_deref(), Some("15433"));
    let direct = plan_with(&[], Overrides { read_replica: true, direct: true, ..Overrides::default() });
    let env = direct.web_env();
    assert_eq!((env["DB_READ_PORT"].as_str(), env["DB_READ_NAME"].as_str()), ("15433", "arena_db"));
    assert_eq!(private().pooler_value("ACTUAL_DB_READ_HOST"), None);
}

#[test]
fn the_operators_own_stores_are_not_started() {
    let pairs =
        [("ACTUAL_DB_HOST", "db.example"), ("REDIS_HOST", "cache.example"), ("DB_PASSWORD", "given-one")];
    let plan = plan_with(&pairs, Overrides::default());
    assert!(plan.postgres().is_none() && plan.redis().is_none() && plan.pooler().is_some());
    assert_eq!(plan.pooler_value("ACTUAL_DB_HOST").as_deref(), Some("db.example"));
    assert_eq!(plan.web_env()["REDIS_HOST"], "cache.example", "as it stands in config.env");
}

#[test]
fn the_url_keeps_its_parameters_and_gets_our_address() {
    let url = "postgresql://u:p@pgbouncer:6432/d?pgbouncer=true&connection_limit=3";
    let env = plan_with(&[("DATABASE_URL", url)], Overrides::default()).web_env();
    let expected = "postgresql://u:DB_PASSWORD%40value@127.0.0.1:6432/d?pgbouncer=true&connection_limit=3";
    assert_eq!(env["DATABASE_URL"], expected);
}

#[test]
fn the_balancer_keeps_root_only_for_a_low_port() {
    assert_eq!(private().balancer().identity, Identity::Unprivileged);
    let low = plan_with(&[("HTTP_PORT", "80")], Overrides::default());
    assert_eq!(low.balancer().identity, Identity::Starter);
}

#[test]
fn ports_that_nothing_can_listen_on_are_named_before_the_start() {
    let found =
        |pairs: &[(&str, &str)]| impossible(plan_with(pairs, Overrides::default()).settings.ports, 10);
    assert_eq!(found(&[("WEB_PORT_BASE", "65526")]), [""; 0], "the tenth replica has the last port");
    assert_eq!(
        found(&[("DB_PORT", "0"), ("WEB_PORT_BASE", "65527")]),
        [
            "DB_PORT: 0 is no port",
            "WEB_PORT_BASE: from 65527 on there are not 10 ports, the last one is 65535"
        ]
    );
}

#[test]
fn no_port_of_the_stack_may_be_0() {
    let settings = plan_with(&[], Overrides { read_replica: true, ..Overrides::default() }).settings;
    let names: BTreeSet<&str> = listening(&settings, 1).into_iter().map(|one| one.setting).collect();
    for name in names {
        let found = impossible(plan_with(&[(name, "0")], Overrides::default()).settings.ports, 1);
        assert_eq!(found, [format!("{name}: 0 is no port")]);
    }
}

#[test]
fn two_parts_on_one_port_are_named_before_the_start() {
    assert!(clashes(&listening(&private().settings, 10)).is_empty());
    let plan = plan_with(&[("HTTP_PORT", "8004")], Overrides::default());
    let found = clashes(&listening(&plan.settings, 10));
    assert_eq!(found, ["port 8004 is wanted by balancer and web-4: change HTTP_PORT or WEB_PORT_BASE"]);
}
