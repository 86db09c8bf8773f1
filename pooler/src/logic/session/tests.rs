//! Scripts of one session, and the law that pieces do not matter: the same bytes in any cut give the same bytes.

use std::cell::RefCell;

use super::*;
use crate::logic::statements::Registry;
use proptest::prelude::*;

fn rules(mode: Mode) -> Rules {
    let follows_statements = mode != Mode::Session;
    Rules { mode, follows_statements, message_len_max: 1 << 20, allows_simple_queries: true }
}

/// A session and the server it holds, with all that went either way.
struct World {
    session: Session,
    server: ServerState,
    registry: RefCell<Registry>,
    unread: Vec<u8>,
    unread_server: Vec<u8>,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl World {
    fn new(mode: Mode) -> World {
        let parameters = Arc::new(Parameters::default());
        World {
            session: Session::new(1, rules(mode), parameters.clone(), Arc::from([])),
            server: ServerState::new(parameters, 2),
            registry: RefCell::default(),
            unread: Vec::new(),
            unread_server: Vec::new(),
            to_server: Vec::new(),
            to_client: Vec::new(),
        }
    }

    fn client_sends(&mut self, bytes: &[u8]) -> ClientHalt {
        self.unread.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.unread);
        let (mut made, mut replies) = (Vec::new(), Vec::new());
        let mut flow = Flow::new(&input, &mut made);
        let intern = |query: &[u8], types: &[u8]| self.registry.borrow_mut().intern(query, types);
        let halt = self.session.on_client(&mut ClientSide {
            flow: &mut flow,
            server: &mut self.server,
            to_client: &mut replies,
            intern: &intern,
        });
        self.to_server.extend_from_slice(flow.output());
        self.unread = flow.rest().to_vec();
        self.to_client.extend(replies);
        halt
    }

    fn server_sends(&mut self, bytes: &[u8]) -> ServerHalt {
        self.unread_server.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.unread_server);
        let mut made = Vec::new();
        let mut flow = Flow::new(&input, &mut made);
        let halt = self.session.on_server(&mut ServerSide { flow: &mut flow, server: &mut self.server });
        self.to_client.extend_from_slice(flow.output());
        self.unread_server = flow.rest().to_vec();
        halt
    }

    fn sent(&mut self) -> String {
        kinds(&std::mem::take(&mut self.to_server))
    }

    fn received(&mut self) -> String {
        kinds(&std::mem::take(&mut self.to_client))
    }
}

fn kinds(mut bytes: &[u8]) -> String {
    let mut out = String::new();
    while let Some(head) = Head::parse(bytes).unwrap() {
        out.push(head.kind as char);
        bytes = &bytes[head.total_len()..];
    }
    out
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    written(|out| frontend::parse(out, name, sql))
}

fn bind(name: &str) -> Vec<u8> {
    written(|out| frontend::bind(out, name, &[Some(b"value")]))
}

fn sync() -> Vec<u8> {
    written(frontend::sync)
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn ready(status: TransactionStatus) -> Vec<u8> {
    written(|out| backend::ready_for_query(out, status))
}

#[test]
fn a_known_statement_is_not_parsed_again() {
    let mut w = World::new(Mode::Transaction);
    w.client_sends(&[parse("a", "q"), sync()].concat());
    assert_eq!(w.sent(), "PS");
    w.server_sends(&[written(backend::parse_complete), ready(TransactionStatus::Idle)].concat());
    assert_eq!(w.received(), "1Z");
    w.client_sends(&[parse("b", "q"), bind("b"), sync()].concat());
    assert_eq!(w.sent(), "BS");
    assert_eq!(w.received(), "1", "invented at once: nothing is before it");
}

#[test]
fn another_server_is_given_the_statement_before_the_bind() {
    let mut w = World::new(Mode::Transaction);
    w.client_sends(&[parse("a", "q"), sync()].concat());
    w.sent();
    w.server_sends(&[written(backend::parse_complete), ready(TransactionStatus::Idle)].concat());
    w.received();
    w.server = ServerState::new(w.session.parameters.clone(), 2);
    w.client_sends(&[bind("a"), sync()].concat());
    assert_eq!(w.sent(), "PBS");
    w.server_sends(
        &[written(backend::parse_complete), written(backend::bind_complete), ready(TransactionStatus::Idle)]
            .concat(),
    );
    assert_eq!(w.received(), "2Z", "our own Parse is answered to nobody");
    assert!(w.server.is_free());
}

#[test]
fn the_parameters_are_given_to_a_server_before_anything_else() {
    let mut w = World::new(Mode::Transaction);
    let wanted = w.session.parameters.with("TimeZone", "UTC", true).unwrap();
    w.session.parameters = Arc::new(wanted);
    let mut out = Vec::new();
    assert!(w.session.on_link(&mut w.server, &mut out), "the first time the client waits for it");
    assert_eq!(kinds(&out), "Q");
    w.server_sends(
        &[
            written(|out| backend::command_complete(out, "SET")),
            written(|out| backend::parameter_status(out, "TimeZone", "UTC")),
            ready(TransactionStatus::Idle),
        ]
        .concat(),
    );
    assert_eq!(w.received(), "", "nobody but us has asked");
    assert!(Arc::ptr_eq(&w.session.parameters, &w.server.parameters));
    assert!(!w.session.on_link(&mut w.server, &mut out));
    let mut other = ServerState::new(Arc::new(Parameters::default()), 2);
    assert!(!w.session.on_link(&mut other, &mut out), "the second time nobody waits");
}

#[test]
fn a_ready_with_more_in_it_is_taken() {
    let mut w = World::new(Mode::Transaction);
    w.client_sends(&written(|out| frontend::query(out, "q")));
    assert_eq!(w.server_sends(&[b'Z', 0, 0, 0, 9, b'I', 1, 2, 3, 4]), ServerHalt::Input);
    assert!(w.server.is_free());
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_head() {
    let mut w = World::new(Mode::Transaction);
    assert!(matches!(w.client_sends(&[b'Q', 0x7f, 0, 0, 0]), ClientHalt::Refuse(_)));
}

#[test]
fn a_simple_query_is_refused_where_it_is_disallowed() {
    let mut w = World::new(Mode::Transaction);
    w.session.set_rules(Rules { allows_simple_queries: false, ..rules(Mode::Transaction) });
    assert_eq!(w.client_sends(&[parse("", "q"), sync()].concat()), ClientHalt::Input);
    let halt = w.client_sends(&written(|out| frontend::query(out, "q")));
    assert!(matches!(halt, ClientHalt::Refuse(refusal) if refusal.text == "PQexec disallowed"));
    assert_eq!(w.sent(), "PS");
}

#[test]
fn a_client_alone_is_answered_where_no_server_is_needed() {
    let mut w = World::new(Mode::Transaction);
    let late = [written(|out| frontend::copy_fail(out, "late")), sync(), parse("a", "q")].concat();
    let (mut made, mut replies) = (Vec::new(), Vec::new());
    let mut flow = Flow::new(&late, &mut made);
    assert_eq!(w.session.on_client_alone(&mut flow, &mut replies), ClientHalt::NeedServer);
    assert_eq!(kinds(&replies), "Z");
    assert_eq!(kinds(flow.rest()), "P");
}

fn client_message() -> impl Strategy<Value = Vec<u8>> {
    let name = "[ab]?";
    prop_oneof![
        (name, "[xyz]{1,3}").prop_map(|(n, q)| parse(&n, &q)),
        Just(bind("")),
        "[a-z]{0,400}".prop_map(|q| written(|out| frontend::query(out, &q))),
        Just(written(|out| frontend::execute(out, 0))),
        Just(sync()),
        Just(written(frontend::flush)),
        name.prop_map(|n| written(|out| frontend::close(out, frontend::Target::Statement(n.as_bytes())))),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|body| {
            let mut out = Head { kind: b'd', body_len: body.len() as u32 }.to_bytes().to_vec();
            out.extend(body);
            out
        }),
    ]
}

fn server_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(|body| {
            written(|out| backend::data_row(out, [Some(body.as_slice())].into_iter()))
        }),
        1 => Just(written(|out| backend::command_complete(out, "SELECT 1"))),
        1 => ("[a-z]{1,5}", "[a-z]{0,5}").prop_map(|(n, v)| written(|out| backend::parameter_status(out, n, v))),
        1 => Just(written(|out| backend::row_description(out, &[("a", backend::ColumnType::Text)]))),
    ]
}

/// Gives the bytes in pieces of these lengths, over and over.
fn pieces(bytes: &[u8], lens: &[usize], mut give: impl FnMut(&[u8])) {
    let mut lens = lens.iter().cycle();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((*lens.next().unwrap_or(&1)).min(rest.len()));
        give(piece);
        rest = behind;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn what_a_client_sends_may_come_in_any_pieces(
        messages in proptest::collection::vec(client_message(), 0..12),
        lens in proptest::collection::vec(1usize..40, 1..6),
        is_session in any::<bool>(),
    ) {
        let mode = if is_session { Mode::Session } else { Mode::Transaction };
        let bytes = messages.concat();
        let (mut whole, mut cut) = (World::new(mode), World::new(mode));
        let halt = whole.client_sends(&bytes);
        let mut last = ClientHalt::Input;
        pieces(&bytes, &lens, |piece| {
            if last == ClientHalt::Input {
                last = cut.client_sends(piece);
            }
        });
        prop_assert_eq!(halt, last);
        prop_assert_eq!(whole.to_server, cut.to_server);
        prop_assert_eq!(whole.to_client, cut.to_client);
    }

    #[test]
    fn what_a_server_sends_may_come_in_any_pieces(
        messages in proptest::collection::vec(server_message(), 0..12),
        lens in proptest::collection::vec(1usize..40, 1..6),
    ) {
        let mut bytes = messages.concat();
        bytes.extend(ready(TransactionStatus::Idle));
        let (mut whole, mut cut) = (World::new(Mode::Transaction), World::new(Mode::Transaction));
        for w in [&mut whole, &mut cut] {
            w.client_sends(&written(|out| frontend::query(out, "q")));
        }
        whole.server_sends(&bytes);
        let mut free_before_end = 0;
        pieces(&bytes, &lens, |piece| {
            cut.server_sends(piece);
            free_before_end += usize::from(cut.server.is_free());
        });
        prop_assert_eq!(&whole.to_client, &bytes);
        prop_assert_eq!(&cut.to_client, &bytes);
        prop_assert!(cut.server.is_free() && free_before_end == 1);
    }

    /// Whatever either side makes up: the pieces do not matter, a server that owes a ReadyForQuery is not free, and no
    /// client is told of one that it did not ask for.
    #[test]
    fn hostile_bytes_mean_the_same_in_any_pieces_and_free_no_server_that_owes(
        from_client in hostile(client_message()),
        from_server in hostile(server_message()),
        lens in proptest::collection::vec(1usize..40, 1..6),
    ) {
        let (mut whole, mut cut) = (World::new(Mode::Transaction), World::new(Mode::Transaction));
        let mut halts = (whole.client_sends(&from_client), ClientHalt::Input);
        pieces(&from_client, &lens, |piece| {
            if halts.1 == ClientHalt::Input {
                halts.1 = cut.client_sends(piece);
            }
        });
        prop_assert_eq!(halts.0, halts.1);
        let mut halts = (whole.server_sends(&from_server), ServerHalt::Input);
        pieces(&from_server, &lens, |piece| {
            if halts.1 == ServerHalt::Input {
                halts.1 = cut.server_sends(piece);
            }
        });
        prop_assert_eq!(halts.0, halts.1);
        prop_assert_eq!(&whole.to_server, &cut.to_server);
        prop_assert_eq!(&whole.to_client, &cut.to_client);
        for w in [&whole, &cut] {
            let asked = count(&w.to_server, b"QSF");
            let told = count(&w.to_client, b"Z");
            prop_assert!(told <= asked || w.server.queue.is_uncertain());
            prop_assert!(told == asked || !w.server.is_free(), "{} of {} are owed", asked - told, asked);
        }
    }
}

/// Messages as they should be, and among them anything else.
fn hostile(message: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..60);
    let empty = any::<u8>().prop_map(|kind| Head { kind, body_len: 0 }.to_bytes().to_vec());
    let ready = prop_oneof![Just(ready(TransactionStatus::Idle)), Just(ready(TransactionStatus::Failed))];
    let one = prop_oneof![6 => message, 3 => ready, 2 => empty, 1 => noise];
    proptest::collection::vec(one, 0..12).prop_map(|messages| messages.concat())
}

/// How many messages are of one of these kinds; the last may be cut short.
fn count(bytes: &[u8], kinds: &[u8]) -> usize {
    let (mut rest, mut found) = (bytes, 0);
    while let Ok(Some(head)) = Head::parse(rest) {
        found += usize::from(kinds.contains(&head.kind));
        rest = rest.get(head.total_len()..).unwrap_or_default();
    }
    found
}
