use proptest::prelude::*;

use super::*;

/// A response to `question` with these records, as written.
fn response(question: &[u8], flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = question.to_vec();
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    message.extend(records.concat());
    message
}

/// A record of the name that was asked for.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 0x0c];
    record.extend(kind.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

#[test]
fn addresses_services_and_aliases_are_read() {
    let asked = question(7, "_http._tcp.Example.net", Kind::Srv).unwrap();
    // The target of the service is written by a jump into the question: `example.net`.
    let srv = record(33, 60, &[0, 1, 0, 0, 0x1f, 0x90, 3, b'W', b'w', b'W', 0xc0, 12 + 11]);
    let alias = record(5, 5, &[1, b'a', 0]);
    let reply = read(&response(&asked, 0x8180, &[srv, alias])).unwrap();
    assert_eq!((reply.id, &reply.name[..], reply.kind), (7, "_http._tcp.example.net", Kind::Srv));
    let service = Service { priority: 1, weight: 1, port: 8080, name: "www.example.net".into() };
    assert_eq!(reply.records[0], Record { ttl: 60, data: Data::Service(service) });
    assert_eq!(reply.records[1], Record { ttl: 5, data: Data::Alias("a".into()) });

    let asked = question(8, "a.b", Kind::A).unwrap();
    let reply = read(&response(&asked, 0x8180, &[record(1, u32::MAX, &[127, 0, 0, 1])])).unwrap();
    let address = IpAddr::from([127, 0, 0, 1]);
    assert_eq!(reply.records, [Record { ttl: 0, data: Data::Address(address) }], "a negative ttl is none");
}

#[test]
fn names_longer_than_a_datagram_of_1987_had_them_are_taken() {
    let long = [&"a".repeat(63)[..]; 4].join(".");
    let asked = question(1, &long, Kind::A).unwrap();
    assert_eq!(read(&response(&asked, 0x8180, &[])).unwrap().name, long);
    assert_eq!(question(1, &"a".repeat(64), Kind::A), None);
    assert_eq!(question(1, "a..b", Kind::A), None);
}

#[test]
fn what_is_no_answer_is_told_apart() {
    let asked = question(1, "a.b", Kind::A).unwrap();
    assert_eq!(read(&asked), Err(NoReply::NotAnAnswer), "a question");
    assert_eq!(read(&response(&asked, 0x8181, &[])), Err(NoReply::Failed), "a format error");
    assert_eq!(read(&response(&asked, 0x8183, &[])).unwrap().code, NAME_ERROR);
    assert!(read(&response(&asked, 0x8380, &[])).unwrap().is_cut);
    assert_eq!(read(&response(&asked, 0x8180, &[record(1, 1, &[1, 2, 3])])), Err(NoReply::Short));
}

#[test]
fn a_name_that_jumps_forward_or_in_circles_is_refused() {
    let asked = question(1, "a.b", Kind::A).unwrap();
    let at = asked.len() as u8 + 12;
    let circle = record(5, 1, &[0xc0, at]);
    assert_eq!(read(&response(&asked, 0x8180, &[circle])), Err(NoReply::Name));
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_an_end(message: Vec<u8>) {
        let _ = read(&message);
    }

    #[test]
    fn an_answer_that_is_cut_or_changed_anywhere_is_read_to_an_end(cut: prop::sample::Index, value: u8) {
        let asked = question(1, "www.example.net", Kind::Srv).unwrap();
        let srv = record(33, 60, &[0, 1, 0, 5, 0, 80, 1, b'x', 0xc0, 12]);
        let mut message = response(&asked, 0x8180, &[record(1, 1, &[1, 2, 3, 4]), srv]);
        let at = cut.index(message.len());
        message[at] = value;
        let _ = read(&message);
        let _ = read(&message[..at]);
    }

    #[test]
    fn a_question_comes_back_as_it_was_asked(name in "[a-z0-9_-]{1,63}(\\.[a-z0-9_-]{1,63}){0,5}", id: u16) {
        for kind in [Kind::A, Kind::Aaaa, Kind::Srv] {
            let reply = read(&response(&question(id, &name, kind).unwrap(), 0x8180, &[])).unwrap();
            prop_assert_eq!((reply.id, &reply.name, reply.kind), (id, &name, kind));
        }
    }
}
