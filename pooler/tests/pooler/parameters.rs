//! Settings that follow the client.

use crate::script::{Batch, Script};
use crate::world::Pooler;

#[test]
fn a_setting_follows_its_client_and_stays_away_from_others() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut berlin =
        Script::connect_with(&pooler, &[("TimeZone", "Europe/Berlin"), ("application_name", "b")]);
    let mut plain = Script::connect(&pooler);
    for _ in 0..3 {
        assert_eq!(berlin.value("SHOW TimeZone"), "Europe/Berlin");
        assert_eq!(berlin.value("SHOW application_name"), "b");
        assert_ne!(plain.value("SHOW TimeZone"), "Europe/Berlin");
        assert_eq!(plain.value("SHOW application_name"), "");
    }
    berlin.send(Batch::new().query("SET TimeZone = 'Asia/Tokyo'"));
    assert!(berlin.replies(1).ends_with('Z'));
    assert_ne!(plain.value("SHOW TimeZone"), "Asia/Tokyo");
    assert_eq!(berlin.value("SHOW TimeZone"), "Asia/Tokyo", "seen in its ParameterStatus");
}

/// What sqlx and Django send: accepted, and kept per client, though Postgres does not report them.
#[test]
fn options_of_the_documented_list_are_kept_per_client() {
    let pooler = Pooler::start("default_pool_size = 1\nignore_startup_parameters = extra_float_digits");
    let options = "-c statement_timeout=30000 -c search_path=pg_catalog --lock-timeout=7000";
    let mut client = Script::connect_with(&pooler, &[("options", options), ("extra_float_digits", "2")]);
    let mut plain = Script::connect(&pooler);
    for _ in 0..2 {
        assert_eq!(client.value("SHOW statement_timeout"), "30s");
        assert_eq!(client.value("SHOW search_path"), "pg_catalog");
        assert_eq!(client.value("SHOW lock_timeout"), "7s");
        assert_eq!(plain.value("SHOW statement_timeout"), "0");
        assert_eq!(plain.value("SHOW search_path"), "\"$user\", public");
    }
}

#[test]
fn a_value_in_another_spelling_is_set_once_and_not_in_each_transaction() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect_with(&pooler, &[("DateStyle", "ISO"), ("client_encoding", "utf-8")]);
    let pid = client.value("SELECT pg_backend_pid()");
    client.value("SELECT 1");
    let last = format!("SELECT query FROM pg_stat_activity WHERE pid = {pid}");
    assert_eq!(crate::world::postgres().query(&last).unwrap(), "SELECT 1", "no SET came after it");
    assert_eq!(client.value("SHOW DateStyle"), "ISO, MDY");
}

#[test]
fn a_value_that_postgres_refuses_ends_the_client_before_its_query_runs() {
    let pooler = Pooler::start("default_pool_size = 1");
    let mut client = Script::connect_with(&pooler, &[("TimeZone", "Nowhere/Land")]);
    client.send(Batch::new().query("CREATE TABLE must_not_exist ()"));
    assert!(client.last_error().contains("Nowhere/Land"));
    let made = crate::world::postgres().query("SELECT to_regclass('must_not_exist') IS NULL");
    assert_eq!(made.unwrap(), "t");
}

#[test]
fn unknown_startup_parameters_are_refused_by_name() {
    let pooler = Pooler::start("");
    for (name, value, text) in [
        ("enable_seqscan", "off", "unsupported startup parameter: enable_seqscan"),
        ("options", "-c enable_seqscan=off", "unsupported startup parameter in options: enable_seqscan"),
        ("options", "-x", "unsupported options startup parameter"),
    ] {
        let mut script = Script::open(&pooler);
        let mut out = Vec::new();
        pgwire::startup::startup(
            &mut out,
            0,
            [("user", "postgres"), ("database", "postgres"), (name, value)],
        );
        script.send_bytes(&out);
        assert!(script.last_error().contains(text), "{name}={value}");
    }
}

#[test]
fn whoever_debugs_reads_what_is_set_and_how_the_server_spells_it() {
    let pooler = Pooler::start("verbose = 1");
    let mut client = Script::connect_with(&pooler, &[("options", "-c DateStyle=ISO")]);
    client.value("SELECT 1");
    client.value("SELECT 1");
    pooler.wait_for_log("varcache_set_canonical: setting DateStyle to its canonical version ISO -> ISO, MDY");
    assert_eq!(pooler.log().matches("varcache_apply: SET DateStyle='ISO';").count(), 1);
}

#[test]
fn servers_show_where_a_client_sits() {
    let pooler = Pooler::start("application_name_add_host = 1");
    let port = |script: &Script| script.stream.local_addr().unwrap().port();
    let mut named = Script::connect_with(&pooler, &[("application_name", "shop")]);
    let shown = format!("shop - 127.0.0.1:{}", port(&named));
    assert_eq!(named.value("SHOW application_name"), shown);
    let mut nameless = Script::connect(&pooler);
    let shown = format!("app - 127.0.0.1:{}", port(&nameless));
    assert_eq!(nameless.value("SHOW application_name"), shown);
}
