use super::*;
use proptest::prelude::*;

/// What a client sends, with the outcome that Postgres will give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Goes to the server.
    Parse {
        ok: bool,
    },
    /// The server knows it already: never sent.
    KnownParse,
    /// A Bind; `inject`: the pooler has to prepare the statement before it.
    Bind {
        ok: bool,
        inject: bool,
    },
    Describe,
    Execute(Run),
    Close,
    /// The pooler keeps the shared statement: never sent.
    KnownClose,
    Sync,
    Flush,
    Query(Run),
    FunctionCall,
    CopyData {
        ok: bool,
    },
    CopyDone,
    CopyFail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Rows,
    Empty,
    Suspended,
    Fails,
    CopyIn,
    CopyOut,
}

/// Postgres as far as the order of replies goes. `done` counts its work; replies are kinds of messages.
#[derive(Debug, Default)]
struct Postgres {
    skipping: bool,
    /// Some(extended) while COPY data is read.
    copy: Option<bool>,
    dead: bool,
}

impl Postgres {
    fn take(&mut self, ask: Ask) -> Vec<u8> {
        if self.dead {
            return vec![];
        }
        if let Some(extended) = self.copy {
            return self.take_in_copy(ask, extended);
        }
        if self.skipping && ask != Ask::Sync {
            return vec![];
        }
        match ask {
            Ask::Parse { ok: true } | Ask::KnownParse => vec![b'1'],
            Ask::Bind { ok: true, .. } => vec![b'2'],
            Ask::Parse { .. } | Ask::Bind { .. } => self.fail(),
            Ask::Describe => vec![b't', b'T'],
            Ask::Close | Ask::KnownClose => vec![b'3'],
            Ask::Flush | Ask::CopyData { .. } | Ask::CopyDone | Ask::CopyFail => vec![],
            Ask::Sync => {
                self.skipping = false;
                vec![b'Z']
            }
            Ask::Execute(run) => self.run(run, true),
            Ask::Query(run) => self.run(run, false),
            Ask::FunctionCall => vec![b'V', b'Z'],
        }
    }

    fn run(&mut self, run: Run, extended: bool) -> Vec<u8> {
        let mut out = match run {
            Run::Rows if extended => vec![b'D', b'D', b'C'],
            Run::Rows => vec![b'T', b'D', b'C', b'C'],
            Run::Empty => vec![b'I'],
            Run::Suspended if extended => vec![b'D', b's'],
            Run::Suspended => vec![b'C'],
            Run::CopyOut => vec![b'H', b'd', b'd', b'c', b'C'],
            Run::CopyIn => {
                self.copy = Some(extended);
                return vec![b'G'];
            }
            Run::Fails if extended => return self.fail(),
            Run::Fails => vec![b'D', b'E'],
        };
        if !extended {
            out.push(b'Z');
        }
        out
    }

    fn take_in_copy(&mut self, ask: Ask, extended: bool) -> Vec<u8> {
        let mut out = match ask {
            Ask::CopyData { ok: true } | Ask::Flush | Ask::Sync => return vec![],
            Ask::CopyDone => vec![b'C'],
            Ask::CopyData { .. } | Ask::CopyFail => {
                self.skipping = extended;
                vec![b'E']
            }
            _ => {
                self.dead = true;
                return vec![b'E'];
            }
        };
        self.copy = None;
        if !extended {
            out.push(b'Z');
        }
        out
    }

    fn fail(&mut self) -> Vec<u8> {
        self.skipping = true;
        vec![b'E']
    }
}

/// The pooler between a client and the model: what the server gets, and what the client sees.
#[derive(Default)]
struct Relay {
    queue: ReplyQueue,
    server: Postgres,
    /// Sent to the server, not yet worked on.
    to_server: VecDeque<Ask>,
    to_client: Vec<u8>,
}

impl Relay {
    fn client_sends(&mut self, ask: Ask) {
        match ask {
            Ask::KnownParse => self.queue.push_invented(Invented::ParseComplete),
            Ask::KnownClose => self.queue.push_invented(Invented::CloseComplete),
            Ask::Parse { .. } => self.queue.push(Owed::Parse(Fate::Forward, Target::Shared(2))),
            Ask::Bind { inject, .. } => {
                if inject {
                    self.queue.push(Owed::Parse(Fate::Swallow, Target::Shared(3)));
                    self.to_server.push_back(Ask::Parse { ok: true });
                }
                self.queue.push(Owed::Bind);
            }
            Ask::Describe => self.queue.push(Owed::Describe),
            Ask::Execute(_) => self.queue.push(Owed::Execute),
            Ask::Close => self.queue.push(Owed::Close(Fate::Forward, Target::Verbatim)),
            Ask::Sync => self.queue.push(Owed::Sync(Fate::Forward)),
            Ask::Query(_) => self.queue.push(Owed::Query(Fate::Forward)),
            Ask::FunctionCall => self.queue.push(Owed::FunctionCall),
            Ask::Flush => {}
            Ask::CopyDone | Ask::CopyFail => self.queue.push_copy_end(),
            Ask::CopyData { .. } => self.queue.push_copy_data(),
        }
        if !matches!(ask, Ask::KnownParse | Ask::KnownClose) {
            self.to_server.push_back(ask);
        }
        self.invent();
    }

    fn server_works(&mut self) {
        let Some(ask) = self.to_server.pop_front() else { return };
        for kind in self.server.take(ask) {
            match self.queue.on_server(kind) {
                Verdict::Forward => self.to_client.push(kind),
                Verdict::Swallow => {}
                // A client that sends Sync into its COPY data: the server is closed, nobody else gets it.
                Verdict::OutOfStep if self.queue.is_uncertain() => return self.to_server.clear(),
                verdict => panic!("{verdict:?} for {:?}", kind as char),
            }
            self.invent();
        }
    }

    fn invent(&mut self) {
        while let Some(invented) = self.queue.next_invented() {
            self.to_client.push(match invented {
                Invented::ParseComplete => b'1',
                Invented::CloseComplete => b'3',
            });
        }
    }
}

fn run() -> impl Strategy<Value = Run> {
    prop_oneof![
        4 => Just(Run::Rows),
        1 => Just(Run::Empty),
        1 => Just(Run::Suspended),
        2 => Just(Run::Fails),
        2 => Just(Run::CopyIn),
        1 => Just(Run::CopyOut),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let mostly = proptest::bool::weighted(0.85);
    prop_oneof![
        2 => mostly.prop_map(|ok| Ask::Parse { ok }),
        3 => Just(Ask::KnownParse),
        4 => (mostly, any::<bool>()).prop_map(|(ok, inject)| Ask::Bind { ok, inject }),
        2 => Just(Ask::Describe),
        4 => run().prop_map(Ask::Execute),
        1 => Just(Ask::Close),
        2 => Just(Ask::KnownClose),
        4 => Just(Ask::Sync),
        1 => Just(Ask::Flush),
        2 => run().prop_map(Ask::Query),
        1 => Just(Ask::FunctionCall),
        2 => mostly.prop_map(|ok| Ask::CopyData { ok }),
        2 => Just(Ask::CopyDone),
        1 => Just(Ask::CopyFail),
    ]
}

/// A request other than COPY data kills a server in the middle of COPY: the script ends before it.
fn alive(mut asks: Vec<Ask>) -> Vec<Ask> {
    let mut server = Postgres::default();
    let end = asks.iter().position(|ask| {
        server.take(*ask);
        server.dead
    });
    asks.truncate(end.unwrap_or(asks.len()));
    asks
}

fn direct(asks: &[Ask]) -> Vec<u8> {
    let mut server = Postgres::default();
    asks.iter().flat_map(|ask| server.take(*ask)).collect()
}

fn relayed(asks: &[Ask], pace: &[u8]) -> Relay {
    let mut relay = Relay::default();
    let mut pace = pace.iter().cycle();
    for ask in asks {
        relay.client_sends(*ask);
        for _ in 0..*pace.next().unwrap_or(&1) {
            relay.server_works();
        }
    }
    while !relay.to_server.is_empty() {
        relay.server_works();
    }
    relay
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn a_client_sees_what_it_would_see_without_a_pooler(
        asks in proptest::collection::vec(ask(), 0..40),
        pace in proptest::collection::vec(0..4u8, 1..8),
    ) {
        let asks = alive(asks);
        let relay = relayed(&asks, &pace);
        if !relay.queue.is_uncertain() {
            prop_assert_eq!(&relay.to_client, &direct(&asks));
            let idle = !relay.server.skipping && relay.server.copy.is_none();
            prop_assert!(idle || !relay.queue.is_clear(), "a server with an open batch is not clear");
            prop_assert!(relay.queue.is_drained() || relay.server.copy.is_some());
        }
    }

    #[test]
    fn any_order_of_messages_is_survived(kinds in proptest::collection::vec(any::<u8>(), 0..60),
                                         asks in proptest::collection::vec(ask(), 0..20)) {
        let mut relay = Relay::default();
        for ask in asks {
            relay.client_sends(ask);
        }
        for kind in kinds {
            relay.queue.on_server(kind);
            while relay.queue.next_invented().is_some() {}
        }
    }
}

fn client_view(asks: &[Ask]) -> String {
    let relay = relayed(asks, &[0]);
    String::from_utf8(relay.to_client).unwrap()
}

/// pgbouncer#1555: the invented replies of a batch that no Sync ends must not stay for the next client.
#[test]
fn a_batch_of_parse_and_close_without_sync_leaves_nothing_behind() {
    let relay = relayed(&[Ask::KnownParse, Ask::KnownClose], &[1]);
    assert_eq!(relay.to_client, b"13");
    assert!(relay.queue.is_drained());
    assert!(!relay.queue.is_clear(), "no Sync yet: the server stays with this client");
    assert_eq!(client_view(&[Ask::KnownParse, Ask::KnownClose, Ask::Sync]), "13Z");
}

#[test]
fn after_an_error_nothing_is_invented_until_sync() {
    let asks = [Ask::Bind { ok: false, inject: false }, Ask::KnownParse, Ask::KnownClose, Ask::Sync];
    assert_eq!(client_view(&asks), "EZ");
    let late =
        [Ask::Bind { ok: false, inject: false }, Ask::Flush, Ask::KnownParse, Ask::Sync, Ask::KnownParse];
    let relay = relayed(&late, &[3]);
    assert_eq!(relay.to_client, b"EZ1");
}

#[test]
fn replies_before_an_error_are_still_invented_in_order() {
    let asks = [Ask::Describe, Ask::KnownParse, Ask::Bind { ok: false, inject: true }, Ask::Sync];
    assert_eq!(client_view(&asks), "tT1EZ");
}

#[test]
fn a_sync_sent_ahead_of_copy_data_is_ignored_by_the_server_and_by_us() {
    let asks = [
        Ask::Bind { ok: true, inject: false },
        Ask::Execute(Run::CopyIn),
        Ask::Sync,
        Ask::CopyData { ok: true },
        Ask::CopyDone,
        Ask::Sync,
    ];
    assert_eq!(client_view(&asks), "2GCZ");
    assert!(relayed(&asks, &[0]).queue.is_clear());
    assert!(relayed(&asks, &[1]).queue.is_clear());
}

#[test]
fn a_simple_query_in_a_batch_ends_the_batch() {
    let relay = relayed(&[Ask::Parse { ok: true }, Ask::Query(Run::Rows)], &[1]);
    assert_eq!(relay.to_client, b"1TDCCZ");
    assert!(relay.queue.is_clear());
}

#[test]
fn a_simple_query_after_an_error_in_a_batch_is_dropped_by_the_server() {
    let asks = [Ask::Parse { ok: false }, Ask::Query(Run::Rows), Ask::Sync, Ask::Query(Run::Rows)];
    assert_eq!(client_view(&asks), "EZTDCCZ");
}

#[test]
fn a_lost_parse_is_reported() {
    let mut queue = ReplyQueue::default();
    queue.push(Owed::Bind);
    queue.push(Owed::Parse(Fate::Forward, Target::Shared(7)));
    queue.push(Owed::Sync(Fate::Forward));
    assert_eq!(queue.on_server(b'E'), Verdict::Forward);
    assert_eq!(queue.take_lost(), vec![Lost::Parse(Target::Shared(7))]);
}

#[test]
fn changes_are_lost_with_their_requests_and_done_with_their_replies() {
    let mut queue = ReplyQueue::default();
    queue.push_invented(Invented::ParseComplete);
    queue.push_change(1);
    queue.push(Owed::Parse(Fate::Forward, Target::Unnamed));
    queue.push_change(2);
    queue.push_invented(Invented::CloseComplete);
    queue.push_change(3);
    queue.push(Owed::Sync(Fate::Forward));
    queue.push_invented(Invented::CloseComplete);
    queue.push_change(4);
    assert_eq!(queue.next_invented(), Some(Invented::ParseComplete));
    assert_eq!(queue.on_server(b'E'), Verdict::Forward);
    let lost = [Lost::Parse(Target::Unnamed), Lost::Unnamed(2), Lost::Change(3)];
    assert_eq!(queue.take_lost(), lost);
    assert_eq!(queue.on_server(b'Z'), Verdict::Forward);
    assert_eq!(queue.next_invented(), Some(Invented::CloseComplete));
    assert_eq!(queue.next_invented(), None);
    assert!(queue.is_drained() && !queue.has_lost());
}

#[test]
fn a_ready_that_nobody_asked_for_is_out_of_step() {
    assert_eq!(ReplyQueue::default().on_server(b'Z'), Verdict::OutOfStep);
    assert_eq!(ReplyQueue::default().on_server(b'D'), Verdict::OutOfStep);
}

#[test]
fn a_function_call_owes_one_ready() {
    assert_eq!(client_view(&[Ask::FunctionCall]), "VZ");
}
