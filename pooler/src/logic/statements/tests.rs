use super::*;
use proptest::prelude::*;

#[test]
fn the_same_text_is_shared_and_other_types_are_another_statement() {
    let mut registry = Registry::default();
    let a = registry.intern(b"select $1", &[0, 0]);
    let b = registry.intern(b"select $1", &[0, 0]);
    let c = registry.intern(b"select $1", &[0, 1, 0, 0, 0, 23]);
    assert!(Arc::ptr_eq(&a, &b));
    assert_ne!(a.id, c.id);
    assert_eq!(a.name, "PGBOUNCER_1");
}

#[test]
fn texts_that_nobody_uses_are_dropped_and_their_numbers_never_used_again() {
    let mut registry = Registry::default();
    for n in 0..10_000u32 {
        registry.intern(&n.to_be_bytes(), &[]);
    }
    assert!(registry.by_hash.len() <= 2048);
    assert_eq!(registry.intern(b"x", &[]).id, 10_001);
}

#[test]
fn a_name_is_taken_until_it_is_closed() {
    let mut registry = Registry::default();
    let mut client = ClientStatements::default();
    let shared = registry.intern(b"q", &[]);
    assert!(client.insert(b"s", shared.clone()).is_some());
    assert!(client.insert(b"s", shared.clone()).is_none());
    assert!(client.remove(b"s").is_some());
    assert!(client.insert(b"s", shared).is_some());
}

#[test]
fn a_failed_batch_takes_its_changes_back_the_last_one_first() {
    let mut registry = Registry::default();
    let mut client = ClientStatements::default();
    let (one, two) = (registry.intern(b"1", &[]), registry.intern(b"2", &[]));
    client.insert(b"kept", one.clone());
    client.on_batch_end();
    let inserted = client.insert(b"two", one.clone()).expect("the name is free");
    let removed = client.remove(b"kept").expect("it was given");
    let again = client.insert(b"kept", two).expect("the name is free again");
    for change in [again, removed, inserted] {
        client.undo(change);
    }
    assert!(client.get(b"two").is_none());
    assert_eq!(client.get(b"kept").map(|shared| shared.id), Some(one.id));
}

#[test]
fn a_change_of_an_earlier_batch_is_not_taken_back() {
    let mut client = ClientStatements::default();
    let change = client.insert(b"s", Registry::default().intern(b"q", &[])).expect("the name is free");
    client.on_batch_end();
    client.undo(change);
    assert!(client.get(b"s").is_some());
}

#[test]
fn the_unnamed_statement_before_a_lost_one_counts_again() {
    let mut client = ClientStatements::default();
    let (first, _) = client.remember_unnamed(1, b"first");
    client.on_batch_end();
    let (_, change) = client.remember_unnamed(1, b"second");
    client.undo(change);
    assert_eq!(client.unnamed(), Some((first, &b"first"[..])));
    let change = client.close_unnamed();
    assert_eq!(client.unnamed(), None);
    client.undo(change);
    assert_eq!(client.unnamed(), Some((first, &b"first"[..])));
}

#[test]
fn what_an_earlier_batch_may_have_failed_to_do_is_in_doubt_until_it_is_answered() {
    let mut registry = Registry::default();
    let (one, two) = (registry.intern(b"1", &[]), registry.intern(b"2", &[]));
    let mut server = ServerStatements::new(1);
    server.insert(&one);
    assert_eq!(server.touch(one.id), Presence::Sure, "in its own batch both are carried out or none");
    server.on_sync();
    assert_eq!(server.touch(one.id), Presence::InDoubt);
    server.on_settled();
    assert_eq!(server.touch(one.id), Presence::Sure);
    server.on_settled();
    server.insert(&two);
    assert_eq!(server.evict().map(|shared| shared.id), Some(one.id));
    assert_eq!(server.touch(one.id), Presence::InDoubt, "its Close may be dropped");
    server.on_lost_parse(two.id);
    server.on_lost_close(one.id);
    server.on_settled();
    assert_eq!((server.touch(one.id), server.touch(two.id)), (Presence::Sure, Presence::InDoubt));
}

#[test]
fn an_unnamed_statement_of_an_unanswered_batch_is_nobodys() {
    let (mut client, mut server) = (ClientStatements::default(), ServerStatements::new(1));
    let (token, _) = client.remember_unnamed(1, b"P");
    server.set_unnamed(Some(token));
    assert_eq!(server.unnamed_now(), Some(token));
    server.on_sync();
    assert_eq!(server.unnamed_now(), Some(UnnamedToken::UNKNOWN));
    server.on_settled();
    assert_eq!(server.unnamed_now(), Some(token));
}

proptest! {
    #[test]
    fn the_cache_stays_within_its_limit_and_never_drops_what_the_batch_uses(
        limit in 1usize..6,
        batches in proptest::collection::vec(proptest::collection::vec(0u8..12, 1..5), 1..30),
    ) {
        let mut registry = Registry::default();
        let texts: Vec<_> = (0..12u8).map(|n| registry.intern(&[n], &[])).collect();
        let mut server = ServerStatements::new(limit);
        let mut on_server = std::collections::HashSet::new();
        for batch in batches {
            let mut used = std::collections::HashSet::new();
            for n in batch {
                let shared = &texts[n as usize];
                let is_there = server.touch(shared.id) == Presence::Sure;
                prop_assert_eq!(is_there, on_server.contains(&shared.id));
                if !on_server.contains(&shared.id) {
                    on_server.insert(shared.id);
                    server.insert(shared);
                    while let Some(evicted) = server.evict() {
                        prop_assert!(!used.contains(&evicted.id) && evicted.id != shared.id);
                        on_server.remove(&evicted.id);
                    }
                }
                used.insert(shared.id);
            }
            prop_assert!(server.len() <= limit.max(used.len()) + 4);
            server.on_settled();
        }
    }
}
