//! Clients over servers, with a model of Postgres in each: whatever the clients send and however the messages are paced,
//! each client sees what it would see on a Postgres of its own, and a server that is given back owes nothing.
//! Bytes are the script: tests make them up, and so does the fuzzer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use pgwire::frame::{Frame, Frames, HEAD_LEN};
use pgwire::frontend::{self, BindNames, Parse, Target};
use pgwire::{Head, backend};
use pooler::logic::parameters::Parameters;
use pooler::logic::session::{
    ClientHalt, ClientSide, Flow, Mode, Rules, ServerHalt, ServerSide, ServerState, Session,
};
use pooler::logic::statements::Registry;

/// Postgres as far as statements and the order of replies go.
struct Postgres {
    named: BTreeMap<Vec<u8>, Vec<u8>>,
    unnamed: Option<Vec<u8>>,
    portal: Option<Vec<u8>>,
    status: u8,
    skipping: bool,
    is_batch_open: bool,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Postgres {
    fn new() -> Postgres {
        let (named, input, output) = (BTreeMap::new(), Vec::new(), Vec::new());
        Postgres {
            named,
            unnamed: None,
            portal: None,
            status: b'I',
            skipping: false,
            is_batch_open: false,
            input,
            output,
        }
    }

    /// Works on one message. False: there is none.
    fn work(&mut self) -> bool {
        let input = std::mem::take(&mut self.input);
        let Some(Ok(frame)) = Frames::new(&input).next().filter(|f| f.as_ref().is_ok_and(Frame::is_complete))
        else {
            self.input = input;
            return false;
        };
        self.take(frame.head.kind, frame.body);
        self.input = input[HEAD_LEN + frame.body.len()..].to_vec();
        true
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        self.is_batch_open = match kind {
            b'S' => false,
            b'Q' => self.is_batch_open && self.skipping,
            b'H' => self.is_batch_open,
            _ => true,
        };
        if self.skipping && kind != b'S' {
            return;
        }
        match kind {
            b'P' => self.parse(Parse::from_body(body).expect("a client of this model sends it whole")),
            b'B' => {
                let name = BindNames::parse(body).expect("whole").statement;
                match self.statement(name).cloned() {
                    Some(text) if self.allows(&text) => {
                        self.portal = Some(text);
                        self.say(b'2', b"");
                    }
                    _ => self.fail(true),
                }
            }
            b'D' => match Target::parse(body).expect("whole") {
                Target::Statement(name) => match self.statement(name).cloned() {
                    Some(text) => {
                        self.say(b't', &text);
                        self.say(b'n', b"");
                    }
                    None => self.fail(true),
                },
                Target::Portal(_) => self.fail(true),
            },
            b'C' => {
                match Target::parse(body).expect("whole") {
                    Target::Statement(b"") => self.unnamed = None,
                    Target::Statement(name) => drop(self.named.remove(name)),
                    Target::Portal(_) => self.portal = None,
                }
                self.say(b'3', b"");
            }
            b'E' => match self.portal.take() {
                Some(text) if self.allows(&text) => {
                    self.run(&text, true);
                }
                _ => self.fail(true),
            },
            b'S' => {
                self.skipping = false;
                self.ready();
            }
            b'Q' => {
                self.unnamed = None;
                self.portal = None;
                let text = frontend::parse_query(body).expect("whole").to_vec();
                if self.allows(&text) {
                    self.run(&text, false);
                } else {
                    self.fail(false);
                }
                self.ready();
            }
            b'H' => {}
            other => panic!("the pooler sent {other}"),
        }
    }

    fn parse(&mut self, parse: Parse<'_>) {
        let is_unnamed = parse.name.is_empty();
        if is_unnamed {
            self.unnamed = None;
        }
        if parse.query == b"bad" || self.named.contains_key(parse.name) {
            return self.fail(true);
        }
        if is_unnamed {
            self.unnamed = Some(parse.query.to_vec());
        } else {
            self.named.insert(parse.name.to_vec(), parse.query.to_vec());
        }
        self.say(b'1', b"");
    }

    fn statement(&self, name: &[u8]) -> Option<&Vec<u8>> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    fn allows(&self, text: &[u8]) -> bool {
        self.status != b'E' || text == b"commit"
    }

    fn run(&mut self, text: &[u8], extended: bool) {
        match text {
            b"bad" | b"boom" => return self.fail(extended),
            b"begin" => self.status = b'T',
            b"commit" => {
                self.status = b'I';
                self.portal = None;
            }
            b"DEALLOCATE ALL" => self.named.clear(),
            other => backend::data_row(&mut self.output, [Some(other)].into_iter()),
        }
        let tag = std::str::from_utf8(text).expect("texts of this model");
        backend::command_complete(&mut self.output, tag);
    }

    fn fail(&mut self, extended: bool) {
        self.skipping = extended;
        if self.status == b'T' {
            self.status = b'E';
        }
        self.say(b'E', b"SERROR\0C42601\0Mno\0\0");
    }

    fn ready(&mut self) {
        if self.status == b'I' {
            self.portal = None;
        }
        self.say(b'Z', &[self.status]);
    }

    fn say(&mut self, kind: u8, body: &[u8]) {
        self.output.extend(Head { kind, body_len: body.len() as u32 }.to_bytes());
        self.output.extend(body);
    }
}

/// A server connection: what the pooler knows of it, and the Postgres behind it.
struct Server {
    state: ServerState,
    postgres: Postgres,
}

struct Client {
    session: Session,
    alone: Postgres,
    held: Option<Server>,
    unread: Vec<u8>,
    got: Vec<u8>,
    is_gone: bool,
    /// Names that were parsed or closed since all was answered, and whether their batch has ended. A simple query
    /// closes the unnamed statement.
    fresh: BTreeMap<u8, bool>,
}

impl Client {
    /// The one liberty that the pooler takes: where a Parse, Close or query is skipped behind an error, what the next batch does
    /// with that name before it can know is done as if it had been carried out.
    fn may_meet_what_was_skipped(&self, byte: u8) -> bool {
        matches!(byte % 8, 0 | 1 | 5 | 6) && self.fresh.get(&name_index(byte)) == Some(&true)
    }

    fn note_sent(&mut self, byte: u8) {
        if matches!(byte % 8, 3 | 4) {
            self.fresh.values_mut().for_each(|has_ended| *has_ended = true);
        }
        match byte % 8 {
            0 | 6 => drop(self.fresh.insert(name_index(byte), false)),
            4 => drop(self.fresh.insert(UNNAMED, false)),
            _ => {}
        }
    }
}

const UNNAMED: u8 = 0;

fn name_index(byte: u8) -> u8 {
    (byte >> 3) % 3
}

struct Pooler {
    idle: Vec<Server>,
    registry: RefCell<Registry>,
    parameters: Arc<Parameters>,
}

const STATEMENT_LIMIT: usize = 2;

impl Pooler {
    fn new() -> Pooler {
        let mut pooler = Pooler {
            idle: Vec::new(),
            registry: RefCell::default(),
            parameters: Arc::new(Parameters::default()),
        };
        pooler.idle = vec![pooler.server(), pooler.server()];
        pooler
    }

    fn server(&self) -> Server {
        Server {
            state: ServerState::new(self.parameters.clone(), STATEMENT_LIMIT),
            postgres: Postgres::new(),
        }
    }

    fn client(&self, id: u64) -> Client {
        let rules = Rules {
            mode: Mode::Transaction,
            follows_statements: true,
            message_len_max: 1 << 20,
            allows_simple_queries: true,
        };
        let session = Session::new(id, rules, self.parameters.clone(), Arc::from([]));
        let (alone, unread, got) = (Postgres::new(), Vec::new(), Vec::new());
        Client { session, alone, held: None, unread, got, is_gone: false, fresh: BTreeMap::new() }
    }

    /// What client.rs does with bytes of a client.
    fn feed(&mut self, client: &mut Client, bytes: &[u8]) {
        client.unread.extend(bytes);
        if client.is_gone {
            return;
        }
        let input = std::mem::take(&mut client.unread);
        let (mut made, mut replies, mut taken) = (Vec::new(), Vec::new(), 0);
        if client.held.is_none() {
            let mut flow = Flow::new(&input, &mut made);
            let halt = client.session.on_client_alone(&mut flow, &mut replies);
            taken = flow.taken();
            client.got.append(&mut replies);
            made.clear();
            if halt == ClientHalt::NeedServer {
                client.held = self.idle.pop();
            }
            client.is_gone = matches!(halt, ClientHalt::Refuse(_) | ClientHalt::Terminate);
        }
        if let Some(server) = &mut client.held {
            let mut flow = Flow::new(&input[taken..], &mut made);
            let intern = |query: &[u8], types: &[u8]| self.registry.borrow_mut().intern(query, types);
            let (state, to_client) = (&mut server.state, &mut replies);
            let mut side = ClientSide { flow: &mut flow, server: state, to_client, intern: &intern };
            let halt = client.session.on_client(&mut side);
            server.postgres.input.extend(flow.output());
            taken += flow.taken();
            client.got.append(&mut replies);
            client.is_gone = matches!(halt, ClientHalt::Refuse(_) | ClientHalt::Terminate);
        }
        client.unread = input[taken..].to_vec();
        self.release(client);
    }

    /// What client.rs does with bytes of a server.
    fn deliver(&mut self, client: &mut Client) -> bool {
        let Some(server) = &mut client.held else { return false };
        if client.is_gone || server.postgres.output.is_empty() {
            return false;
        }
        let input = std::mem::take(&mut server.postgres.output);
        let mut made = Vec::new();
        let mut flow = Flow::new(&input, &mut made);
        let halt = client.session.on_server(&mut ServerSide { flow: &mut flow, server: &mut server.state });
        assert_eq!(halt, ServerHalt::Input, "Postgres made no mistake");
        assert!(flow.rest().is_empty());
        client.got.extend(flow.output());
        self.release(client);
        true
    }

    fn release(&mut self, client: &mut Client) {
        let Some(mut server) = client.held.take() else { return };
        if client.is_gone || server.state.is_spent() {
            return self.idle.push(self.server());
        }
        if !server.state.is_free() || client.session.is_sending_message() {
            client.held = Some(server);
            return;
        }
        // A Flush asks for nothing.
        while server.postgres.input.first() == Some(&b'H') {
            server.postgres.work();
        }
        assert!(
            server.postgres.input.is_empty() && server.postgres.output.is_empty(),
            "released with a debt"
        );
        assert_eq!((server.postgres.status, server.postgres.skipping), (b'I', false));
        self.idle.push(server);
    }
}

fn message(byte: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let name = ["", "a", "b"][usize::from(name_index(byte))];
    let text = ["x", "y", "z", "boom", "bad", "begin", "commit"][usize::from(byte / 24) % 7];
    match byte % 8 {
        0 => frontend::parse(&mut out, name, text),
        1 => frontend::bind(&mut out, name, &[]),
        2 => frontend::execute(&mut out, 0),
        3 => frontend::sync(&mut out),
        4 => frontend::query(&mut out, text),
        5 => frontend::describe(&mut out, Target::Statement(name.as_bytes())),
        6 => frontend::close(&mut out, Target::Statement(name.as_bytes())),
        _ => frontend::flush(&mut out),
    }
    out
}

/// Until nothing moves any more.
fn settle(pooler: &mut Pooler, clients: &mut [Client]) {
    loop {
        let mut moved = false;
        for client in clients.iter_mut() {
            moved |= client.held.as_mut().is_some_and(|server| server.postgres.work());
            moved |= pooler.deliver(client);
            let before = client.unread.len();
            pooler.feed(client, b"");
            moved |= client.unread.len() != before;
        }
        if !moved {
            return;
        }
    }
}

/// Plays a script.
pub fn play(bytes: &[u8]) {
    let mut pooler = Pooler::new();
    let mut clients = [pooler.client(1), pooler.client(2), pooler.client(3)];
    let mut bytes = bytes.iter().copied();
    while let Some(byte) = bytes.next() {
        let client = &mut clients[usize::from(byte >> 4) % 3];
        match byte % 16 {
            0..8 => {
                let (index, byte) = (usize::from(byte >> 4) % 3, bytes.next().unwrap_or(3));
                if clients[index].may_meet_what_was_skipped(byte) {
                    settle(&mut pooler, &mut clients);
                    if !clients[index].unread.is_empty() {
                        continue;
                    }
                    clients[index].fresh.clear();
                }
                let (client, sent) = (&mut clients[index], message(byte));
                client.note_sent(byte);
                client.alone.input.extend(&sent);
                let (first, second) = sent.split_at(usize::from(byte % 8) % sent.len());
                pooler.feed(client, first);
                pooler.feed(client, second);
            }
            8..11 => drop(client.held.as_mut().map(|server| server.postgres.work())),
            11..14 => drop(pooler.deliver(client)),
            14 => pooler.feed(client, b""),
            _ => {
                // Sent alone: a pooler learns of it when it is done.
                settle(&mut pooler, &mut clients);
                let mut sent = Vec::new();
                frontend::query(&mut sent, "DEALLOCATE ALL");
                let client = &mut clients[usize::from(byte >> 4) % 3];
                if !client.unread.is_empty() || (client.held.is_none() && pooler.idle.is_empty()) {
                    continue;
                }
                client.alone.input.extend(&sent);
                pooler.feed(client, &sent);
                settle(&mut pooler, &mut clients);
            }
        }
    }
    settle(&mut pooler, &mut clients);
    for client in &mut clients {
        while client.alone.work() {}
        let wants_server = client.alone.status != b'I' || client.alone.is_batch_open;
        assert!(
            wants_server || client.held.is_none() || !client.unread.is_empty(),
            "an idle client holds a server"
        );
        let (got, expected) = (shown(&client.got), shown(&client.alone.output));
        if client.is_gone || !client.unread.is_empty() {
            assert!(expected.starts_with(&got), "{got} is no beginning of {expected}");
        } else {
            assert_eq!(got, expected);
        }
    }
}

/// Messages by kind, with what they hold.
fn shown(bytes: &[u8]) -> String {
    let frames = Frames::new(bytes).map(|frame| frame.expect("whole messages"));
    let text = |frame: Frame<'_>| format!("{}{} ", frame.head.kind as char, frame.body.escape_ascii());
    frames.map(text).collect()
}
