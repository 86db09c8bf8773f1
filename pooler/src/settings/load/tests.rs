use std::time::Duration;

use super::*;
use crate::settings::{Host, LoadBalanceHosts, PoolMode, ServerCheck, TABLE};

/// Files in memory; main.ini is the configuration.
fn load(main: &str, others: &[(&str, &str)]) -> Result<Settings, Errors> {
    let read = |path: &Path| {
        let name = path.to_str().expect("test paths are UTF-8");
        if name == "main.ini" {
            return Ok(main.to_string());
        }
        let found = others.iter().find(|(other, _)| *other == name);
        found.map(|(_, text)| (*text).to_string()).ok_or_else(|| "no such file".to_string())
    };
    Settings::load_with(Path::new("main.ini"), &read)
}

fn settings(main: &str) -> Settings {
    load(main, &[]).unwrap()
}

fn errors(main: &str) -> String {
    load(main, &[]).unwrap_err().to_string()
}

#[test]
fn every_default_is_read_and_shown_in_its_own_form() {
    let keys = Keys::default();
    for key in TABLE {
        let shown = key.show(&keys);
        let mut other = keys.clone();
        key.set(&mut other, shown.as_deref().unwrap_or("")).unwrap();
        assert_eq!(other, keys, "{}", key.name);
        assert!(!key.doc.is_empty(), "{}", key.name);
    }
    assert_eq!(keys.query_wait_timeout, Duration::from_secs(120));
    assert_eq!(keys.auth_user, None);
    assert_eq!(keys.unix_socket_mode.0, 0o777);
}

#[test]
fn the_files_that_are_expected_are_counted_as_pgbouncer_does() {
    let main = "[databases]\na = user=u pool_size=3\nb = pool_size=4\nc =\n[users]\nbob = pool_mode=session\n\
                [pgbouncer]\nauth_file = users.txt\nmax_client_conn = 100\ndefault_pool_size = 5\n";
    let read = load(main, &[("users.txt", "\"bob\" \"x\"\n\"eve\" \"y\"\n")]).unwrap();
    assert_eq!(read.files_expected(), 100 + 10 + 3 + 2 * 4 + 2 * 5);
}

#[test]
fn a_whole_file_is_read() {
    let main = "[databases]\n\
                p0 = host=10.0.0.1,10.0.0.2 port=6666 dbname=real user=u password='p w' pool_size=2 reserve_pool=3\n\
                p1 = host=/tmp pool_mode=transaction load_balance_hosts=disable timezone=UTC\n\
                p2 =\n\
                * = host=@abstract auth_user=checker\n\
                [users]\nbob = pool_mode=session max_user_connections=4 query_timeout=1.5\n\
                [peers]\n2 = host=/tmp port=1\n\
                [pgbouncer]\nlisten_addr = 127.0.0.1, ::1\nlisten_port = 6433\nauth_file = users.txt\n\
                admin_users = a, b\nserver_check_query =\nunix_socket_mode = 0700\nworker_threads = 3\n\
                pool_mode = session\npool_mode = statement\n";
    let read = load(main, &[("users.txt", "\"bob\" \"secret\"\nwrong\n")]).unwrap();
    let p0 = &read.databases["p0"];
    assert_eq!(p0.hosts, [Host::Tcp("10.0.0.1".into()), Host::Tcp("10.0.0.2".into())]);
    assert_eq!((p0.port, p0.dbname.as_str(), p0.user.as_deref()), (6666, "real", Some("u")));
    assert_eq!(p0.password.as_ref().map(crate::settings::Secret::expose), Some("p w"));
    assert_eq!(read.reserve_pool_size(p0, "x"), 3);
    let p1 = &read.databases["p1"];
    assert_eq!((p1.dbname.as_str(), p1.load_balance_hosts), ("p1", LoadBalanceHosts::Disable));
    assert_eq!(p1.startup, [("timezone", "UTC".to_string())]);
    assert_eq!(read.databases["p2"].host_text(), None);
    let auto = read.database("other").unwrap();
    assert_eq!((auto.name.as_str(), auto.dbname.as_str(), auto.auto), ("other", "other", true));
    assert_eq!(auto.hosts, [Host::Abstract("abstract".into())]);
    assert_eq!(read.auth_user(&auto), Some("checker"));
    assert_eq!(read.pool_mode(p1, "x"), PoolMode::Transaction);
    assert_eq!(read.pool_mode(p1, "bob"), PoolMode::Session);
    assert_eq!(read.pool_mode(p0, "x"), PoolMode::Statement, "the later line wins");
    assert_eq!(read.query_timeout("bob"), Duration::from_millis(1500));
    assert_eq!(read.server_check(), ServerCheck::Off);
    assert_eq!(read.listen_addr.list, ["127.0.0.1", "::1"]);
    assert!(read.is_admin("b") && !read.is_admin("a, b"));
    assert_eq!((read.peers[&2].port, read.keys.worker_threads), (1, 3));
    assert_eq!(read.credentials["bob"].expose(), "secret");
    assert_eq!(read.warnings.len(), 1, "{:?}", read.warnings);
}

#[test]
fn all_problems_are_told_at_once_with_file_and_line() {
    let main = "[databases]\np0 = host\np1 = pool_size=x\npgbouncer = host=a\n[pgbouncer]\ndefault_pol_size = 3\n\
                auth_type = kerberos\nquery_timeout = soon\n[other]\na = b\n";
    let text = errors(main);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 7, "{text}");
    assert_eq!(lines[0], "main.ini:2: expected key=value at \"host\"");
    assert!(lines[1].starts_with("main.ini:3: pool_size: expected a whole number"), "{}", lines[1]);
    assert!(lines[2].contains("reserved"));
    assert_eq!(
        lines[3],
        "main.ini:6: unknown parameter \"default_pol_size\"; did you mean default_pool_size?"
    );
    assert!(lines[4].starts_with("main.ini:7: auth_type: expected one of any, trust"));
    assert!(lines[6].starts_with("main.ini:10: there is no section [other]"));
}

#[test]
fn a_comment_behind_a_value_is_refused_with_a_hint() {
    for line in ["max_client_conn = 100 # many", "admin_users = bob # the boss", "pool_mode = session ; x"] {
        let text = errors(&format!("[pgbouncer]\n{line}\n"));
        assert!(text.starts_with("main.ini:2:") && text.contains("line of their own"), "{text}");
    }
    let text = errors("[databases]\np0 = host=a # first\n[pgbouncer]\n");
    assert!(text.contains("line of their own"), "{text}");
    let read = settings(
        "[pgbouncer]\nauth_query = select a #> b from x\nserver_reset_query = DISCARD ALL ; SELECT 1\n",
    );
    assert_eq!(read.auth_query, "select a #> b from x");
}

#[test]
fn a_network_is_no_listen_address() {
    let text = errors("[pgbouncer]\nlisten_addr = 10.0.0.0/8\n");
    assert!(text.contains("use 10.0.0.0 for one interface or * for all"), "{text}");
}

#[test]
fn a_file_without_the_main_section_is_refused() {
    assert_eq!(errors("[databases]\n"), "main.ini: the section [pgbouncer] is missing");
}

#[test]
fn set_changes_live_keys_only() {
    let old = settings("[pgbouncer]\n");
    let new = old.with_set("default_pool_size", "7").unwrap();
    assert_eq!((new.default_pool_size, new.version), (7, old.version + 1));
    assert_eq!(old.with_set("listen_port", "1").unwrap_err(), SetError::AtStart("listen_port".into()));
    assert!(matches!(old.with_set("nonsense", "1"), Err(SetError::Unknown(_))));
    assert!(matches!(old.with_set("default_pool_size", "-1"), Err(SetError::Value { .. })));
    assert!(matches!(old.with_set("auth_type", "hba"), Err(SetError::Value { .. })), "there is no HBA file");
    assert!(matches!(old.with_set("auth_dbname", "pgbouncer"), Err(SetError::Value { .. })));
}

#[test]
fn hba_and_ident_files_are_read_when_they_are_used() {
    let main = "[pgbouncer]\nauth_type = hba\nauth_hba_file = hba.conf\nauth_ident_file = ident.conf\n";
    let files =
        [("hba.conf", "host all all 10.0.0.0/8 cert map=m\nnonsense\n"), ("ident.conf", "m cn bob\n")];
    let read = load(main, &files).unwrap();
    assert_eq!((read.hba.rules.len(), read.hba.maps.len(), read.warnings.len()), (1, 1, 1));
    let text = load(main, &files[..1]).unwrap_err().to_string();
    assert_eq!(text, "main.ini:4: ident.conf: no such file");
}

#[test]
fn the_shortest_deadline_of_anybody_counts() {
    let shortest = |text: &str| settings(text).client_deadlines().filter(|limit| !limit.is_zero()).min();
    assert_eq!(shortest("[pgbouncer]\n"), Some(Duration::from_secs(5)), "query_wait_notify");
    let of_user = "[users]\nu = transaction_timeout=0.5\n[pgbouncer]\n";
    assert_eq!(shortest(of_user), Some(Duration::from_millis(500)));
    let of_pattern = "[databases]\n* = query_wait_timeout=2\n[pgbouncer]\n";
    assert_eq!(shortest(of_pattern), Some(Duration::from_secs(2)));
    assert!(!settings("[pgbouncer]\n").closes_idle_clients());
    assert!(settings("[users]\nu = client_idle_timeout=9\n[pgbouncer]\n").closes_idle_clients());
}

#[test]
fn user_limits_win_over_database_limits_as_in_pgbouncer() {
    let read = settings(
        "[databases]\na = pool_size=3 max_db_connections=0 query_wait_timeout=9 server_lifetime=0\n\
         [users]\nu = pool_size=0 query_wait_timeout=0 client_idle_timeout=0\n\
         [pgbouncer]\nmax_db_connections = 5\nclient_idle_timeout = 8\n",
    );
    let a = &read.databases["a"];
    assert_eq!((read.pool_size(a, "u"), read.pool_size(a, "x")), (0, 3));
    assert_eq!(read.max_db_connections(a), 5);
    assert_eq!(read.query_wait_timeout(a, "u"), Duration::ZERO);
    assert_eq!(read.query_wait_timeout(a, "x"), Duration::from_secs(9));
    assert_eq!(read.client_idle_timeout("u"), Duration::from_secs(8));
    assert_eq!(read.server_lifetime(a), Duration::from_secs(3600));
}
