use proptest::prelude::*;

use super::*;
use crate::logic::dns::Record;

const SECOND: Duration = Duration::from_secs(1);

fn resolver(terms: Terms) -> Resolver<u32> {
    let mut id = 0;
    let ids = move || {
        id += 1;
        id
    };
    Resolver::new(terms, Box::new(ids))
}

fn terms() -> Terms {
    Terms { servers: 2, valid: None, ipv4: true, ipv6: false }
}

fn name(text: &str) -> Subject {
    Subject::new(What::Addresses, text).unwrap()
}

fn reply(id: u16, records: &[(u32, Data)]) -> Reply {
    let records = records.iter().map(|(ttl, data)| Record { ttl: *ttl, data: data.clone() }).collect();
    Reply { id, name: "a.b".into(), kind: Kind::A, code: 0, is_cut: false, records }
}

fn address(last: u8) -> Data {
    Data::Address([127, 0, 0, last].into())
}

#[test]
fn an_answer_holds_for_its_time_and_whoever_comes_meanwhile_asks_nobody() {
    let mut resolver = resolver(terms());
    assert_eq!(resolver.ask(&name("A.b."), 1, 30 * SECOND, SECOND), None);
    assert_eq!(resolver.ask(&name("a.b"), 2, 30 * SECOND, SECOND), None);
    assert_eq!(resolver.take_unsent().len(), 1);
    let told = resolver.on_reply(reply(1, &[(9, address(1)), (5, address(2))]), false, 2 * SECOND).unwrap();
    assert_eq!(told.iter().map(|(who, _)| *who).collect::<Vec<_>>(), [1, 2]);
    let (_, known) = resolver.ask(&name("a.b"), 3, 30 * SECOND, 6 * SECOND).unwrap();
    assert_eq!(known.as_ref().unwrap().until, 7 * SECOND, "the shortest time counts");
    assert_eq!(known.unwrap().uses, 1);
    assert_eq!(resolver.ask(&name("a.b"), 4, 30 * SECOND, 7 * SECOND), None);
    let queries = resolver.take_unsent();
    assert_eq!(queries[0].server, 1, "the next name server's turn");
}

#[test]
fn valid_wins_over_what_answers_say_and_failures_are_not_kept() {
    let mut resolver = resolver(Terms { valid: Some(60 * SECOND), ..terms() });
    resolver.ask(&name("a.b"), 1, 30 * SECOND, SECOND);
    let failed = Reply { code: 2, ..reply(1, &[]) };
    assert_eq!(resolver.on_reply(failed, false, SECOND), Some(vec![(1, Err(Failure::Code(2)))]));
    assert_eq!(resolver.ask(&name("a.b"), 1, 30 * SECOND, SECOND), None);
    let told = resolver.on_reply(reply(2, &[(1, address(1))]), false, SECOND).unwrap();
    assert_eq!(told[0].1.as_ref().unwrap().until, 61 * SECOND);
}

#[test]
fn what_nobody_asked_in_this_way_is_not_believed() {
    let mut resolver = resolver(terms());
    resolver.ask(&name("a.b"), 1, 30 * SECOND, SECOND);
    let good = reply(1, &[(1, address(1))]);
    for forged in [
        Reply { id: 2, ..good.clone() },
        Reply { kind: Kind::Aaaa, ..good.clone() },
        Reply { name: "a.c".into(), ..good.clone() },
    ] {
        assert_eq!(resolver.on_reply(forged, false, SECOND), None);
    }
    assert_eq!(resolver.on_reply(good.clone(), true, SECOND), None, "it was asked over UDP");
    assert_eq!(resolver.on_reply(good.clone(), false, SECOND).unwrap().len(), 1);
    assert_eq!(resolver.on_reply(good, false, SECOND), None, "once");
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_over_tcp() {
    let mut resolver = resolver(terms());
    resolver.ask(&name("a.b"), 1, 30 * SECOND, SECOND);
    resolver.take_unsent();
    let cut = Reply { is_cut: true, ..reply(1, &[]) };
    assert_eq!(resolver.on_reply(cut, false, SECOND), Some(vec![]));
    let queries = resolver.take_unsent();
    assert_eq!((queries[0].is_tcp, queries[0].server), (true, 0));
    assert_eq!(resolver.on_reply(reply(1, &[(1, address(1))]), true, SECOND).unwrap().len(), 1);
}

#[test]
fn a_silent_name_server_is_passed_over_and_who_waits_too_long_is_told() {
    let mut resolver = resolver(terms());
    resolver.ask(&name("a.b"), 1, 7 * SECOND, SECOND);
    resolver.take_unsent();
    assert_eq!(resolver.wakes_at(), Some(6 * SECOND));
    assert_eq!(resolver.on_time(6 * SECOND), []);
    assert_eq!(resolver.take_unsent()[0].server, 1);
    assert_eq!(resolver.wakes_at(), Some(7 * SECOND));
    assert_eq!(resolver.on_time(7 * SECOND), [(1, Err(Failure::TimedOut))]);
    assert_eq!(resolver.wakes_at(), None);
}

#[test]
fn both_families_are_waited_for() {
    let mut resolver = resolver(Terms { ipv6: true, ..terms() });
    resolver.ask(&name("a.b"), 1, 30 * SECOND, SECOND);
    assert_eq!(resolver.on_reply(reply(1, &[(5, address(1))]), false, SECOND), Some(vec![]));
    let none = Reply { kind: Kind::Aaaa, ..reply(2, &[]) };
    let told = resolver.on_reply(none, false, SECOND).unwrap();
    assert_eq!(told[0].1.as_ref().unwrap().found, Found::Addresses([IpAddr::from([127, 0, 0, 1])].into()));
}

#[test]
fn names_that_clients_invent_take_bounded_memory() {
    let mut resolver = resolver(terms());
    for number in 0..NAMES_MAX as u32 {
        assert_eq!(resolver.ask(&name(&format!("n{number}")), number, 30 * SECOND, SECOND), None);
    }
    assert!(resolver.ask(&name("one-more"), 1, 30 * SECOND, SECOND).is_some());
    let known = Reply { name: "n7".into(), ..reply(8, &[(60, address(1))]) };
    assert_eq!(resolver.on_reply(known, false, SECOND).unwrap().len(), 1);
    assert_eq!(resolver.ask(&name("one-more"), 1, 30 * SECOND, SECOND), None, "n7 made room");
}

/// What happens to a resolver.
#[derive(Debug, Clone)]
enum Event {
    Ask {
        name: u8,
        patience_ms: u64,
    },
    /// To the query that was sent so long ago.
    Reply {
        query: prop::sample::Index,
        code: u8,
        ttl: u32,
        last: u8,
        is_cut: bool,
        is_alias: bool,
    },
    Pass {
        ms: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..3u8, 0..9000u64).prop_map(|(name, patience_ms)| Event::Ask { name, patience_ms }),
        (any::<prop::sample::Index>(), 0..6u8, 0..4u32, any::<u8>(), any::<bool>(), any::<bool>()).prop_map(
            |(query, code, ttl, last, is_cut, is_alias)| {
                let code = code.saturating_sub(2);
                Event::Reply { query, code, ttl, last, is_cut: is_cut && code == 0, is_alias }
            }
        ),
        (0..3000u64).prop_map(|ms| Event::Pass { ms }),
    ]
}

proptest! {
    /// Each who asks is answered exactly once, in time, and only with what a reply has said and still holds.
    #[test]
    fn nobody_is_forgotten_or_told_what_was_never_said(
        events in prop::collection::vec(event(), 1..80),
        ipv6: bool,
        valid in prop::option::of(0..5u64),
    ) {
        let valid = valid.map(Duration::from_secs);
        let mut resolver = resolver(Terms { servers: 3, valid, ipv4: true, ipv6 });
        let mut now = SECOND;
        let mut sent: Vec<Query> = Vec::new();
        let mut open: HashMap<u32, Duration> = HashMap::new();
        let mut said: Vec<IpAddr> = Vec::new();
        for (serial, event) in events.into_iter().enumerate() {
            let mut told = Vec::new();
            match event {
                Event::Ask { name: number, patience_ms } => {
                    let until = now + Duration::from_millis(patience_ms);
                    open.insert(serial as u32, until);
                    told.extend(resolver.ask(&name(&format!("n{number}")), serial as u32, until, now));
                }
                Event::Reply { query, code, ttl, last, is_cut, is_alias } if !sent.is_empty() => {
                    let query = query.get(&sent);
                    let mut answer = query.message.clone();
                    answer[2] = 0x80;
                    let mut reply = dns::read(&answer).unwrap();
                    (reply.code, reply.is_cut) = (code, is_cut);
                    let data = match is_alias {
                        true => Data::Alias("other".into()),
                        false => address(last),
                    };
                    said.extend((!is_alias).then_some(IpAddr::from([127, 0, 0, last])));
                    reply.records.push(Record { ttl, data });
                    told.extend(resolver.on_reply(reply, query.is_tcp, now).unwrap_or_default());
                }
                Event::Reply { .. } => {}
                Event::Pass { ms } => {
                    let until = now + Duration::from_millis(ms);
                    // As the talker does: awake whenever it was asked to be.
                    while let Some(at) = resolver.wakes_at().filter(|at| *at <= until) {
                        now = now.max(at);
                        told.extend(resolver.on_time(now));
                    }
                    now = until;
                }
            }
            sent.extend(resolver.take_unsent());
            for (who, answer) in told {
                let until = open.remove(&who);
                prop_assert!(until.is_some(), "{} was told twice", who);
                match answer {
                    Ok(Known { found: Found::Addresses(found), until, .. }) => {
                        prop_assert!(found.iter().all(|ip| said.contains(ip)));
                        prop_assert!(until <= now + 5 * SECOND, "no longer than it holds");
                    }
                    Err(Failure::TimedOut) => prop_assert!(until.is_some_and(|until| until <= now)),
                    _ => {}
                }
            }
            prop_assert!(open.values().all(|until| now < *until || resolver.wakes_at().is_some_and(|at| at <= *until)));
        }
        now += 60 * SECOND;
        let told = resolver.on_time(now);
        prop_assert_eq!(told.len(), open.len(), "all that wait are told in the end");
    }
}
