//! Authentication on both sides, and what may come before it.

use crate::script::Script;
use crate::world::Pooler;

async fn whoami(client: &tokio_postgres::Client) -> String {
    client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn each_method_lets_the_right_password_in_and_no_other() {
    for method in ["plain", "md5", "scram-sha-256"] {
        let pooler = Pooler::start(&format!("auth_type = {method}"));
        let client = pooler.client_as("alice", "password=alicepw").await.expect(method);
        assert_eq!(whoami(&client).await, "alice");
        for (user, password) in [("alice", "wrong"), ("alice", "''"), ("nobody_here", "x")] {
            let refused =
                pooler.client_as(user, &format!("password={password}")).await.map(|_| ()).unwrap_err();
            let error = refused.as_db_error().expect("Postgres' form of an error").clone();
            assert_eq!(error.code().code(), "28P01", "{method} {user}");
            assert!(error.message().contains("authentication failed"), "{}", error.message());
        }
    }
}

#[tokio::test]
async fn servers_are_logged_in_to_with_each_method() {
    let pooler = Pooler::start("");
    for user in ["scram_user", "md5_user", "plain_user"] {
        let client = pooler.client_as(user, "password=secret").await.expect(user);
        assert_eq!(whoami(&client).await, user);
    }
}

#[tokio::test]
async fn an_unknown_database_and_user_are_named() {
    let pooler = Pooler::start("");
    let refused = pooler.client_as("postgres", "dbname=nowhere").await.map(|_| ()).unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("nowhere"));
    let refused = pooler.client_as("stranger", "").await.map(|_| ()).unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("authentication failed"));
}

/// CVE-2021-3935: what was sent in clear must not be taken for encrypted.
#[test]
fn bytes_behind_an_ssl_request_close_the_connection() {
    let pooler = Pooler::start("");
    let mut script = Script::open(&pooler);
    let mut out = Vec::new();
    pgwire::startup::ssl_request(&mut out);
    pgwire::startup::startup(&mut out, 0, [("user", "postgres"), ("database", "postgres")]);
    script.send_bytes(&out);
    assert!(crate::world::drain(&mut script.stream).is_empty());
}

/// libpq of PostgreSQL 19 asks for 3.9999 and an extension, to see whether servers negotiate.
#[test]
fn a_newer_protocol_is_negotiated_down_once() {
    let pooler = Pooler::start("");
    let mut script = Script::open(&pooler);
    let mut out = Vec::new();
    let asked = [("user", "postgres"), ("database", "postgres"), ("_pq_.test_protocol_negotiation", "")];
    pgwire::startup::startup(&mut out, 9999, asked);
    script.send_bytes(&out);
    let replies = script.replies(1);
    assert!(replies.starts_with("v R S") && replies.ends_with("K Z"), "{replies}");
}

#[test]
fn what_is_no_startup_packet_is_refused() {
    let pooler = Pooler::start("");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 3], &[0, 0, 0, 8, 0, 2, 0, 0], &[0xff; 8]] {
        let mut script = Script::open(&pooler);
        script.send_bytes(bytes);
        crate::world::drain(&mut script.stream);
    }
    assert_eq!(Script::connect(&pooler).value("SELECT 'fine'"), "fine");
}

/// CVE-2026-107350: a second StartupMessage in the place of a SCRAM message.
#[test]
fn a_second_startup_message_during_scram_is_no_answer() {
    let pooler = Pooler::start("auth_type = scram-sha-256");
    let mut script = Script::open(&pooler);
    let mut out = Vec::new();
    pgwire::startup::startup(&mut out, 0, [("user", "alice"), ("database", "postgres")]);
    script.send_bytes(&out);
    assert_eq!(script.some_replies(1), "R");
    let mut again = Vec::new();
    pgwire::startup::startup(&mut again, 0, [("user", "postgres"), ("database", "postgres")]);
    script.send_bytes(&again);
    assert!(!script.last_error().is_empty());
}

#[test]
fn the_user_pgbouncer_over_the_unix_socket_needs_no_password() {
    let pooler = Pooler::start("auth_type = scram-sha-256");
    let folder = pooler.folder.path().display().to_string();
    let user = if nix::unistd::geteuid().is_root() { Some("postgres") } else { None };
    let mut command = std::process::Command::new(if user.is_some() { "runuser" } else { "psql" });
    if let Some(user) = user {
        command.args(["-u", user, "--", "psql"]);
    }
    let port = pooler.port.to_string();
    command.args(["-X", "-A", "-t", "-h", &folder, "-p", &port, "-U", "pgbouncer", "-d", "pgbouncer"]);
    let output =
        command.args(["-c", "SHOW VERSION"]).current_dir("/tmp").output().expect("psql is installed");
    let shown = String::from_utf8_lossy(&output.stdout).to_string();
    assert!(shown.contains("PgBouncer"), "{shown} {}", String::from_utf8_lossy(&output.stderr));
}
