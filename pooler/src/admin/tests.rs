use pgwire::backend::{parse_data_row, parse_row_description};
use pgwire::frame::Frames;
use pgwire::report::Received;

use super::facts::*;
use super::*;

fn query(rights: Rights, sql: &str) -> Action {
    let mut wire = Vec::new();
    frontend::query(&mut wire, sql);
    Console::new(rights).on_message(kind::QUERY, &wire[5..])
}

fn kinds(wire: &[u8]) -> String {
    Frames::new(wire).map(|frame| frame.unwrap().head.kind as char).collect()
}

fn error_text(wire: &[u8]) -> String {
    let frame = Frames::new(wire).next().unwrap().unwrap();
    Received::parse(frame.body).unwrap().summary()
}

fn reply(action: Action) -> Vec<u8> {
    match action {
        Action::Reply(reply) | Action::Close { reply, .. } => reply,
        Action::Run(command) => panic!("wants to run {command:?}"),
    }
}

#[test]
fn a_table_goes_from_its_columns_to_ready() {
    let show = Command::Show(Show::Lists);
    let Action::Run(command) = query(Rights::Stats, "show lists") else { panic!("refused") };
    assert_eq!(command, show);
    let facts = Facts { lists: Lists { pools: 3, ..Lists::default() }, ..Facts::default() };
    let wire = Console::new(Rights::Stats).answer(&command, &Outcome::Facts(Box::new(facts)));
    assert_eq!(kinds(&wire), format!("T{}CZ", "D".repeat(14)));
    let frames: Vec<_> = Frames::new(&wire).map(|frame| frame.unwrap().body).collect();
    assert_eq!(parse_row_description(frames[0]).unwrap(), [&b"list"[..], b"items"]);
    assert_eq!(parse_data_row(frames[4]).unwrap(), [Some(&b"pools"[..]), Some(b"3")]);
}

#[test]
fn every_show_has_as_many_values_as_columns() {
    let facts = Facts { settings: Some(std::sync::Arc::default()), ..Facts::default() };
    for name in ["pools", "stats", "config", "databases", "users", "totals", "version", "state", "fds", "mem"]
    {
        let Action::Run(command) = query(Rights::Admin, &format!("SHOW {name};")) else { panic!("{name}") };
        let wire = Console::new(Rights::Admin).answer(&command, &Outcome::Facts(Box::new(facts.clone())));
        let mut frames = Frames::new(&wire).map(|frame| frame.unwrap());
        let columns = parse_row_description(frames.next().unwrap().body).unwrap().len();
        for row in frames.filter(|frame| frame.head.kind == b'D') {
            assert_eq!(parse_data_row(row.body).unwrap().len(), columns, "{name}");
        }
    }
}

#[test]
fn a_user_who_may_only_look_changes_nothing() {
    let commands =
        ["KILL", "KILL_CLIENT 1", "kill_client x", "PAUSE", "RELOAD", "SET a=b", "SHUTDOWN", "SHOW FDS"];
    for sql in
        commands.iter().chain(&["SUSPEND", "enable", "DISABLE p0", "WAIT_CLOSE", "RECONNECT", "RESUME"])
    {
        let wire = reply(query(Rights::Stats, sql));
        assert_eq!(error_text(&wire), "ERROR admin access needed", "{sql}");
        assert_eq!(kinds(&wire), "EZ");
    }
}

#[test]
fn errors_use_the_known_words() {
    let said = |sql: &str| error_text(&reply(query(Rights::Admin, sql)));
    assert_eq!(said("foo"), "ERROR invalid command 'foo', use SHOW HELP;");
    assert_eq!(said("ENABLE"), "ERROR a database is required");
    assert_eq!(said("PAUSE pgbouncer"), "ERROR cannot pause admin db: pgbouncer");
    assert_eq!(said("KILL_CLIENT x"), "ERROR invalid client pointer supplied");
}

#[test]
fn the_extended_protocol_ends_the_connection() {
    let Action::Close { reply, .. } = Console::new(Rights::Admin).on_message(kind::PARSE, b"\0x\0\0\0")
    else {
        panic!("goes on")
    };
    assert_eq!(error_text(&reply), "ERROR extended query protocol not supported by admin console");
    assert_eq!(kinds(&reply), "EZE");
}

#[test]
fn a_refusal_has_its_code() {
    let console = Console::new(Rights::Admin);
    let wire = console.answer(&Command::Reload, &Outcome::Refused(Refusal::Reload));
    let body = Frames::new(&wire).next().unwrap().unwrap().body;
    assert!(Received::parse(body).unwrap().has_sqlstate("F0000"));
    let wire = console.answer(&Command::Kill(None), &Outcome::Done);
    assert_eq!(kinds(&wire), "CZ");
}

#[test]
fn help_and_played_parameters_need_no_facts() {
    assert_eq!(kinds(&reply(query(Rights::Stats, "SHOW HELP"))), "NCZ");
    assert_eq!(kinds(&reply(query(Rights::Stats, "SHOW timezone"))), "TDCZ");
    assert_eq!(kinds(&reply(query(Rights::Stats, "SET timezone='x'"))), "NCZ");
}
