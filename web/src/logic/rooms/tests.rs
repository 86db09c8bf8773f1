use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

type Log = Rc<RefCell<Vec<Offset>>>;

const GAP_WAIT: Duration = Duration::from_millis(30);
const LIMITS: Limits = Limits { gap_wait: GAP_WAIT, pending_bytes_max: 64 * 1024 };

fn frame(offset: Offset) -> Rc<[u8]> {
    Rc::from(offset.to_string().into_bytes())
}

/// A room, its database and its clock. Members are their logs.
struct World {
    room: Room<Log, Rc<[u8]>>,
    stored: BTreeMap<Offset, Rc<[u8]>>,
    now: Instant,
    page_len: usize,
}

impl World {
    fn new(stored: Offset) -> Self {
        let rows = (1..=stored).map(|offset| (offset, frame(offset))).collect();
        Self { room: Room::new(LIMITS), stored: rows, now: Instant::now(), page_len: 3 }
    }

    fn last(&self) -> Offset {
        self.stored.keys().last().copied().unwrap_or(0)
    }

    fn store(&mut self) -> Offset {
        let offset = self.last() + 1;
        self.stored.insert(offset, frame(offset));
        offset
    }

    fn publish(&mut self, offset: Offset) {
        self.room.on_message(offset, frame(offset), self.now, &mut deliver);
    }

    fn compare(&mut self) {
        let last = self.last();
        self.room.on_position(last, self.now, &mut deliver);
    }

    fn rows(&self, after: Offset) -> Vec<(Offset, Rc<[u8]>)> {
        self.stored
            .range(after + 1..)
            .take(self.page_len)
            .map(|(offset, row)| (*offset, row.clone()))
            .collect()
    }

    fn repair_once(&mut self) -> bool {
        self.now += GAP_WAIT * 4;
        let Some(after) = self.room.next_read(self.now) else { return false };
        let rows = self.rows(after);
        self.room.on_rows(rows, self.now, &mut deliver);
        true
    }

    fn catch_up_once(&mut self, id: MemberId) -> bool {
        let Some(read) = self.room.next_catch_up(id) else { return false };
        let rows = self.rows(read.after);
        self.room.on_catch_up(id, read, rows, &mut deliver);
        true
    }
}

fn deliver(member: &Log, row: &Rc<[u8]>) {
    let text = std::str::from_utf8(row).expect("digits");
    member.borrow_mut().push(text.parse().expect("frames of this test are numbers"));
}

#[test]
fn a_gap_waits_before_it_asks_and_closes_by_itself_when_the_late_message_comes() {
    let mut world = World::new(0);
    world.compare();
    let log = Log::default();
    world.room.join(1, log.clone(), None);
    let late = world.store();
    let early = world.store();
    world.publish(early);
    assert!(log.borrow().is_empty());
    assert_eq!(world.room.next_read(world.now), None, "most gaps close by themselves");
    world.publish(late);
    assert_eq!(*log.borrow(), [1, 2]);
    world.now += GAP_WAIT;
    assert_eq!(world.room.next_read(world.now), None);
}

#[test]
fn a_lost_last_message_is_found_by_the_comparison() {
    let mut world = World::new(4);
    world.compare();
    let log = Log::default();
    world.room.join(1, log.clone(), None);
    world.store();
    world.compare();
    while world.repair_once() {}
    assert_eq!(*log.borrow(), [5]);
}

#[test]
fn a_message_that_comes_before_the_room_is_open_is_not_lost() {
    let mut world = World::new(2);
    let third = world.store();
    world.publish(third);
    assert_eq!(world.room.position(), None);
    world.room.on_position(2, world.now, &mut deliver);
    assert_eq!(world.room.position(), Some(3));
}

#[test]
fn a_member_that_resumes_gets_its_past_and_then_the_live_flow() {
    let mut world = World::new(8);
    world.compare();
    let log = Log::default();
    let joined = world.room.join(1, log.clone(), Some(2));
    assert_eq!(joined, Joined { offset: 8, resumed: true, catching_up: true });
    let ninth = world.store();
    world.publish(ninth);
    while world.catch_up_once(1) {}
    assert_eq!(*log.borrow(), [3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_since_beyond_the_room_is_not_honoured_and_harms_nothing() {
    let mut world = World::new(3);
    world.compare();
    let log = Log::default();
    let joined = world.room.join(1, log.clone(), Some(99));
    assert_eq!(joined, Joined { offset: 3, resumed: false, catching_up: false });
    let fourth = world.store();
    world.publish(fourth);
    assert_eq!(*log.borrow(), [4]);
}

#[test]
fn a_room_whose_tail_was_lost_goes_on_from_where_the_database_stands() {
    let mut world = World::new(10);
    world.compare();
    let gone = Log::default();
    world.room.join(1, gone.clone(), None);
    world.stored.split_off(&8);
    world.room.on_message(13, frame(13), world.now, &mut deliver);
    world.room.on_lost_tail(7);
    world.room.leave(1);
    let log = Log::default();
    let joined = world.room.join(2, log.clone(), Some(10));
    assert_eq!(joined, Joined { offset: 7, resumed: false, catching_up: false });
    for _ in 0..4 {
        let offset = world.store();
        world.publish(offset);
    }
    assert!(!world.repair_once(), "nothing of before is waited for");
    assert_eq!(*log.borrow(), [8, 9, 10, 11]);
    assert!(gone.borrow().is_empty());
}

#[test]
fn a_member_that_knows_more_than_this_replica_gets_nothing_twice() {
    let mut world = World::new(8);
    world.room.on_position(6, world.now, &mut deliver);
    world.compare();
    let log = Log::default();
    let joined = world.room.join(1, log.clone(), Some(8));
    assert_eq!(joined, Joined { offset: 8, resumed: true, catching_up: false });
    world.store();
    world.publish(9);
    while world.repair_once() {}
    assert_eq!(*log.borrow(), [9]);
}

#[test]
fn pruned_messages_stop_neither_the_room_nor_a_member_that_resumes() {
    let mut world = World::new(20);
    world.compare();
    let log = Log::default();
    world.room.join(1, log.clone(), Some(1));
    world.stored.retain(|offset, _| *offset == 4 || *offset >= 19);
    let mut reads = 0;
    while world.catch_up_once(1) {
        reads += 1;
        assert!(reads < 10);
    }
    assert_eq!(*log.borrow(), [4, 19, 20]);
    // The whole of a gap is gone: after some empty reads the room goes on.
    world.publish(25);
    reads = 0;
    while world.repair_once() {
        reads += 1;
        assert!(reads < 10);
    }
    assert_eq!(*log.borrow(), [4, 19, 20, 25]);
}

#[test]
fn a_member_whose_past_was_pruned_up_to_the_position_goes_live() {
    let mut world = World::new(5);
    world.compare();
    let log = Log::default();
    world.room.join(1, log.clone(), Some(1));
    // Stored, not yet published here; all that the member asked for is gone.
    world.store();
    world.stored.retain(|offset, _| *offset >= 6);
    assert!(world.catch_up_once(1));
    assert!(!world.catch_up_once(1));
    world.publish(6);
    assert_eq!(*log.borrow(), [6]);
}

#[test]
fn a_failed_read_is_tried_again_after_the_pause() {
    let mut world = World::new(0);
    world.compare();
    world.store();
    world.compare();
    world.now += GAP_WAIT;
    assert_eq!(world.room.next_read(world.now), Some(0));
    assert_eq!(world.room.next_read(world.now), None, "one read at a time");
    let pause = Duration::from_secs(1);
    assert_eq!(world.room.on_read_failed(world.now, pause), Some(world.now + pause));
    assert_eq!(world.room.next_read(world.now), None);
    assert_eq!(world.room.next_read(world.now + pause), Some(0));
}

#[test]
fn live_messages_beyond_the_pending_limit_are_read_again_not_lost() {
    let mut world = World::new(1);
    world.compare();
    let log = Log::default();
    world.room.join(1, log.clone(), Some(0));
    let big: Rc<[u8]> = Rc::from(format!("{:>30000}", 0).into_bytes());
    for _ in 0..9 {
        let offset = world.store();
        world.room.on_message(offset, big.clone(), world.now, &mut deliver_length);
    }
    while let Some(read) = world.room.next_catch_up(1) {
        let rows = world.rows(read.after);
        world.room.on_catch_up(1, read, rows, &mut deliver_length);
    }
    assert_eq!(log.borrow().len(), 10);
}

fn deliver_length(member: &Log, row: &Rc<[u8]>) {
    let length = Offset::try_from(row.len()).expect("short");
    member.borrow_mut().push(length);
}

#[derive(Debug, Clone)]
enum Event {
    Store { published: bool },
    PublishAgain(prop::sample::Index),
    Join { since: Option<prop::sample::Index> },
    Leave(prop::sample::Index),
    CatchUp(prop::sample::Index),
    Repair,
    Compare,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => any::<bool>().prop_map(|published| Event::Store { published }),
        6 => any::<prop::sample::Index>().prop_map(Event::PublishAgain),
        2 => any::<Option<prop::sample::Index>>().prop_map(|since| Event::Join { since }),
        1 => any::<prop::sample::Index>().prop_map(Event::Leave),
        4 => any::<prop::sample::Index>().prop_map(Event::CatchUp),
        2 => Just(Event::Repair),
        1 => Just(Event::Compare),
    ];
    prop::collection::vec(event, 0..120)
}

struct Seen {
    id: MemberId,
    start: Offset,
    log: Log,
    gone: bool,
}

fn apply(world: &mut World, members: &mut Vec<Seen>, event: Event) {
    match event {
        Event::Store { published } => {
            let offset = world.store();
            if published {
                world.publish(offset);
            }
        }
        // Late, out of order, or a second time: all the same to the room.
        Event::PublishAgain(index) if world.last() > 0 => {
            let offset = 1 + Offset::try_from(index.index(world.stored.len())).expect("small");
            world.publish(offset);
        }
        Event::Join { since } => {
            let since = since.map(|index| Offset::try_from(index.index(40)).expect("small"));
            let id = members.len() as MemberId;
            let log = Log::default();
            let joined = world.room.join(id, log.clone(), since);
            members.push(Seen {
                id,
                start: since.unwrap_or(joined.offset).min(joined.offset),
                log,
                gone: false,
            });
        }
        Event::Leave(index) if !members.is_empty() => {
            let member = index.get(members).id;
            world.room.leave(member);
            members[usize::try_from(member).expect("small")].gone = true;
        }
        Event::CatchUp(index) if !members.is_empty() => {
            let member = index.get(members).id;
            world.catch_up_once(member);
        }
        Event::Repair => {
            world.repair_once();
        }
        Event::Compare => world.compare(),
        Event::PublishAgain(_) | Event::Leave(_) | Event::CatchUp(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_member_sees_every_offset_exactly_once_in_order(stored in 0i64..12, events in events()) {
        let mut world = World::new(stored);
        world.compare();
        let mut members = Vec::new();
        for event in events {
            apply(&mut world, &mut members, event);
            for member in &members {
                let log = member.log.borrow();
                let unbroken = log.iter().zip(member.start + 1..).all(|(seen, due)| *seen == due);
                prop_assert!(unbroken, "member {} since {}: {:?}", member.id, member.start, log);
            }
        }
        // In the end, with the comparison as the only help, everybody has everything.
        world.compare();
        while world.repair_once() {}
        for member in members.iter().filter(|member| !member.gone) {
            while world.catch_up_once(member.id) {}
            let due: Vec<Offset> = (member.start + 1..=world.last()).collect();
            prop_assert_eq!(&*member.log.borrow(), &due);
        }
    }
}
