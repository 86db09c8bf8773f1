use proptest::prelude::*;

use super::*;
use crate::frame::HEAD_LEN;

/// A message's head and body.
fn taken_apart(wire: &[u8]) -> (Head, &[u8]) {
    let head = Head::parse(wire).unwrap().unwrap();
    assert_eq!(head.total_len(), wire.len());
    (head, &wire[HEAD_LEN..])
}

fn renamed_whole(wire: &[u8], name: &[u8]) -> Vec<u8> {
    let (head, body) = taken_apart(wire);
    let mut out = Vec::new();
    let renamed = rename(head, body, name, &mut out).unwrap().unwrap();
    out.extend(&body[renamed.replaced..]);
    out
}

#[test]
fn a_parse_is_read_and_renamed() {
    let mut wire = Vec::new();
    Parse { name: b"s1", query: b"select $1", types: &[0, 1, 0, 0, 0, 23] }.write_as(b"s1", &mut wire);
    let out = renamed_whole(&wire, b"PGBOUNCER_17");
    let read = Parse::from_body(taken_apart(&out).1).unwrap();
    assert_eq!(read, Parse { name: b"PGBOUNCER_17", query: b"select $1", types: &[0, 1, 0, 0, 0, 23] });
}

#[test]
fn a_bind_keeps_its_portal_and_parameters() {
    let mut wire = Vec::new();
    bind(&mut wire, "s1", &[Some(b"x"), None]);
    let out = renamed_whole(&wire, b"");
    let mut expected = Vec::new();
    bind(&mut expected, "", &[Some(b"x"), None]);
    assert_eq!(out, expected);
    assert_eq!(BindNames::parse(taken_apart(&wire).1).unwrap(), BindNames { portal: b"", statement: b"s1" });
}

#[test]
fn describe_and_close_name_what_they_are_about() {
    let mut wire = Vec::new();
    close(&mut wire, Target::Statement(b"a"));
    assert_eq!(Target::parse(taken_apart(&renamed_whole(&wire, b"bcd")).1), Ok(Target::Statement(b"bcd")));
    let mut wire = Vec::new();
    describe(&mut wire, Target::Portal(b"p"));
    let (head, body) = taken_apart(&wire);
    assert!(rename(head, body, b"x", &mut Vec::new()).is_err());
    assert!(Target::parse(b"Xname\0").is_err());
}

#[test]
fn a_renaming_waits_until_the_name_has_come_whole() {
    let mut wire = Vec::new();
    bind(&mut wire, "statement", &[Some(b"value")]);
    let (head, body) = taken_apart(&wire);
    for cut in 0..=body.len() {
        let mut out = Vec::new();
        match rename(head, &body[..cut], b"n", &mut out).unwrap() {
            None => assert!(cut < 11 && out.is_empty(), "at {cut}"),
            Some(renamed) => {
                assert!(cut >= 11);
                out.extend(&body[renamed.replaced..]);
                assert_eq!(BindNames::parse(taken_apart(&out).1).unwrap().statement, b"n");
            }
        }
    }
}

#[test]
fn a_name_that_never_ends_is_malformed() {
    let head = Head { kind: kind::PARSE, body_len: 3 };
    assert!(rename(head, b"abc", b"n", &mut Vec::new()).is_err());
}

#[test]
fn a_renaming_never_makes_a_message_too_long() {
    let head = Head { kind: kind::PARSE, body_len: i32::MAX as u32 - 4 };
    assert!(rename(head, b"a\0", b"longer", &mut Vec::new()).is_err());
}

#[test]
fn a_sasl_answer_is_read_again() {
    let mut wire = Vec::new();
    sasl_initial(&mut wire, "SCRAM-SHA-256", b"n,,n=,r=x");
    let read = parse_sasl_initial(taken_apart(&wire).1).unwrap();
    assert_eq!(read, (&b"SCRAM-SHA-256"[..], &b"n,,n=,r=x"[..]));
}

proptest! {
    #[test]
    fn any_body_is_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..60), kind in any::<u8>()) {
        let _ = Parse::from_body(&body);
        let _ = BindNames::parse(&body);
        let _ = Target::parse(&body);
        let _ = Execute::parse(&body);
        let _ = parse_query(&body);
        let _ = parse_sasl_initial(&body);
        for kind in [kind, b'P', b'B', b'D', b'C'] {
            for body_len in [0, 1, body.len() as u32, body.len() as u32 + 5] {
                let _ = rename(Head { kind, body_len }, &body, b"name", &mut Vec::new());
            }
        }
    }
}
