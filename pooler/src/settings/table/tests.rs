use super::*;
use crate::settings::Settings;

/// Every key of PgBouncer (1.25.2 and what followed): its default as SHOW CONFIG prints it, whether SET and RELOAD change
/// it, and a value other than the default.
const KEYS: &[(&str, Option<&str>, Changes, &str)] = {
    use Changes::{AtStart, Live};
    &[
        // timeouts
        ("autodb_idle_timeout", Some("3600"), Live, "7"),
        ("cancel_wait_timeout", Some("10"), Live, "7"),
        ("client_idle_timeout", Some("0"), Live, "7"),
        ("client_login_timeout", Some("60"), Live, "7.5"),
        ("dns_max_ttl", Some("15"), Live, "7"),
        ("dns_nxdomain_ttl", Some("15"), Live, "7"),
        ("dns_zone_check_period", Some("0"), Live, "7"),
        ("idle_transaction_timeout", Some("0"), Live, "0.5"),
        ("pool_idle_timeout", Some("0"), Live, "7"),
        ("query_timeout", Some("0"), Live, "7"),
        ("query_wait_notify", Some("5"), Live, "7"),
        ("query_wait_timeout", Some("120"), Live, "7"),
        ("reserve_pool_timeout", Some("5"), Live, "7"),
        ("server_check_delay", Some("30"), Live, "7"),
        ("server_connect_timeout", Some("15"), Live, "7"),
        ("server_idle_timeout", Some("600"), Live, "7"),
        ("server_lifetime", Some("3600"), Live, "7"),
        ("server_login_retry", Some("15"), Live, "7"),
        ("stats_period", Some("60"), Live, "7"),
        ("suspend_timeout", Some("10"), Live, "7"),
        ("transaction_timeout", Some("0"), Live, "7"),
        // pools and limits
        ("default_pool_size", Some("20"), Live, "7"),
        ("max_client_conn", Some("100"), Live, "7"),
        ("max_db_client_connections", Some("0"), Live, "7"),
        ("max_db_connections", Some("0"), Live, "7"),
        ("max_packet_size", Some("2147483647"), Live, "7000"),
        ("max_prepared_statements", Some("200"), Live, "7"),
        ("max_user_client_connections", Some("0"), Live, "7"),
        ("max_user_connections", Some("0"), Live, "7"),
        ("min_pool_size", Some("0"), Live, "7"),
        ("pool_mode", Some("session"), Live, "statement"),
        ("reserve_pool_size", Some("0"), Live, "7"),
        ("server_round_robin", Some("0"), Live, "1"),
        // authentication
        ("admin_users", Some(""), Live, "a, b"),
        ("auth_dbname", None, Live, "a"),
        ("auth_file", None, Live, "users.txt"),
        ("auth_hba_file", Some(""), Live, "hba.conf"),
        ("auth_ident_file", None, Live, "ident.conf"),
        ("auth_query", Some(AUTH_QUERY), Live, "SELECT $1, 'x'"),
        ("auth_type", Some("md5"), Live, "trust"),
        ("auth_user", None, Live, "a"),
        ("scram_iterations", Some("4096"), Live, "7000"),
        ("stats_users", Some(""), Live, "a,b"),
        // server hygiene
        ("server_check_query", Some("<empty>"), Live, "SELECT 1"),
        ("server_fast_close", Some("0"), Live, "1"),
        ("server_reset_query", Some("DISCARD ALL"), Live, "RESET ALL"),
        ("server_reset_query_always", Some("0"), Live, "1"),
        // network
        ("listen_addr", Some(""), AtStart, "127.0.0.1"),
        ("listen_backlog", Some("128"), AtStart, "7"),
        ("listen_port", Some("6432"), AtStart, "7"),
        ("peer_id", Some("0"), Live, "7"),
        ("pkt_buf", Some("4096"), AtStart, "7000"),
        ("resolv_conf", Some(""), AtStart, "/x"),
        ("sbuf_loopcnt", Some("5"), Live, "7"),
        ("so_reuseport", Some("0"), AtStart, "1"),
        ("tcp_defer_accept", Some("1"), Live, "0"),
        ("tcp_keepalive", Some("1"), Live, "0"),
        ("tcp_keepcnt", Some("0"), Live, "7"),
        ("tcp_keepidle", Some("0"), Live, "7"),
        ("tcp_keepintvl", Some("0"), Live, "7"),
        ("tcp_socket_buffer", Some("0"), Live, "7000"),
        ("tcp_user_timeout", Some("0"), Live, "7"),
        ("unix_socket_dir", Some("/tmp"), AtStart, "@x"),
        ("unix_socket_group", Some(""), AtStart, "x"),
        ("unix_socket_mode", Some("0777"), AtStart, "448"),
        // TLS
        ("client_tls13_ciphers", None, Live, "TLS_AES_128_GCM_SHA256"),
        ("client_tls_ca_file", Some(""), Live, "x"),
        ("client_tls_cert_file", Some(""), Live, "x"),
        ("client_tls_ciphers", Some("default"), Live, "secure"),
        ("client_tls_dheparams", Some("auto"), Live, "legacy"),
        ("client_tls_ecdhcurve", Some("auto"), Live, "none"),
        ("client_tls_key_file", Some(""), Live, "x"),
        ("client_tls_protocols", Some("secure"), Live, "all"),
        ("client_tls_sslmode", Some("disable"), Live, "verify-full"),
        ("server_tls13_ciphers", None, Live, "TLS_AES_128_GCM_SHA256"),
        ("server_tls_ca_file", Some(""), Live, "x"),
        ("server_tls_cert_file", Some(""), Live, "x"),
        ("server_tls_ciphers", Some("default"), Live, "secure"),
        ("server_tls_key_file", Some(""), Live, "x"),
        ("server_tls_protocols", Some("secure"), Live, "all"),
        ("server_tls_sslmode", Some("prefer"), Live, "allow"),
        // parameters
        ("application_name_add_host", Some("0"), Live, "1"),
        ("disable_pqexec", Some("0"), AtStart, "1"),
        ("ignore_startup_parameters", Some(""), Live, "extra_float_digits"),
        ("login_notify_message", Some(""), Live, "hello; # you"),
        ("track_extra_parameters", Some("IntervalStyle"), AtStart, "search_path"),
        // log and process
        ("job_name", Some("pgbouncer"), AtStart, "x"),
        ("log_connections", Some("1"), Live, "0"),
        ("log_disconnections", Some("1"), Live, "0"),
        ("log_pooler_errors", Some("1"), Live, "0"),
        ("log_stats", Some("1"), Live, "0"),
        ("logfile", Some(""), Live, "x.log"),
        ("pidfile", Some(""), AtStart, "x.pid"),
        ("syslog", Some("0"), Live, "1"),
        ("syslog_facility", Some("daemon"), Live, "local3"),
        ("syslog_ident", Some("pgbouncer"), Live, "x"),
        ("user", None, AtStart, "nobody"),
        ("verbose", None, Live, "2"),
        // Not part of this list's trials: it names the file itself, and LDAP is not offered.
        ("conffile", None, Live, ""),
        ("auth_ldap_options", None, Live, ""),
    ]
};

/// Keys that PgBouncer does not have.
const OURS: &[&str] = &["metrics_listen_addr", "metrics_listen_port", "worker_busy", "worker_threads"];

fn tried() -> impl Iterator<Item = (&'static Key, &'static str)> {
    let listed = KEYS.iter().filter(|(.., sample)| !sample.is_empty());
    listed.map(|(name, .., sample)| (Key::find(name).unwrap(), *sample))
}

fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ini");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn no_key_of_pgbouncer_is_missing_or_differs() {
    for (name, default, changes, _) in KEYS {
        let key = Key::find(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!((key.default, key.changes), (*default, *changes), "{name}");
    }
    let known: Vec<&str> = KEYS.iter().map(|(name, ..)| *name).collect();
    let more: Vec<&str> = TABLE.iter().map(|key| key.name).filter(|name| !known.contains(name)).collect();
    assert_eq!(more, OURS);
}

#[test]
fn every_key_is_taken_from_the_file() {
    for (key, sample) in tried() {
        let (_folder, path) = file(&format!("[pgbouncer]\n{} = {sample}\n", key.name));
        let read = Settings::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(key.show(&read.keys).as_deref(), Some(sample), "{}", key.name);
        assert_ne!(key.default, Some(sample), "{} is not tried with another value", key.name);
    }
}

#[test]
fn set_and_reload_change_what_is_live_and_nothing_else() {
    for (key, sample) in tried() {
        let (_folder, path) = file("[pgbouncer]\n");
        let old = Settings::load(&path).unwrap();
        std::fs::write(&path, format!("[pgbouncer]\n{} = {sample}\n", key.name)).unwrap();
        let reloaded = old.reload().unwrap();
        let shown = key.show(&reloaded.keys);
        match key.changes {
            Changes::Live => {
                assert_eq!(shown.as_deref(), Some(sample), "RELOAD of {}", key.name);
                let set = old.with_set(key.name, sample).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(key.show(&set.keys).as_deref(), Some(sample), "SET of {}", key.name);
            }
            Changes::AtStart => {
                assert_eq!(shown, key.show(&old.keys), "RELOAD of {}", key.name);
                assert!(reloaded.warnings.iter().any(|warning| warning.contains(key.name)), "{}", key.name);
                assert!(old.with_set(key.name, sample).is_err(), "SET of {}", key.name);
            }
        }
    }
}

#[test]
fn a_value_that_makes_no_sense_is_an_error_with_file_and_line() {
    let typed = TABLE.iter().filter(|key| {
        let default = key.default.unwrap_or("");
        default.parse::<f64>().is_ok()
            || matches!(key.name, "auth_type" | "pool_mode" | "client_tls_sslmode" | "verbose")
    });
    let mut count = 0;
    for key in typed {
        let (_folder, path) = file(&format!("; first\n[pgbouncer]\n{} = nonsense\n", key.name));
        let errors = Settings::load(&path).unwrap_err().to_string();
        let expected = format!("{}:3: {}: ", path.display(), key.name);
        assert!(errors.starts_with(&expected), "{errors}");
        count += 1;
    }
    assert!(count > 50, "only {count} keys were tried");
}

#[test]
fn pam_is_refused_with_what_to_use_instead() {
    let key = Key::find("auth_type").unwrap();
    let what = key.set(&mut Keys::default(), "pam").unwrap_err();
    assert!(what.contains("pam is not offered") && what.contains("scram-sha-256"), "{what}");
}
