use proptest::prelude::*;

use super::*;
use crate::frame::{HEAD_LEN, Head};
use crate::report::Received;

fn body_of(wire: &[u8], kind: u8) -> &[u8] {
    let head = Head::parse(wire).unwrap().unwrap();
    assert_eq!((head.kind, head.total_len()), (kind, wire.len()));
    &wire[HEAD_LEN..]
}

#[test]
fn a_ready_for_query_with_more_bytes_is_read() {
    assert_eq!(TransactionStatus::parse(b"I\x01more"), Ok(TransactionStatus::Idle));
    assert_eq!(TransactionStatus::parse(b"E"), Ok(TransactionStatus::Failed));
    assert!(TransactionStatus::parse(b"").is_err());
    assert!(TransactionStatus::parse(b"x").is_err());
}

#[test]
fn the_console_table_is_read_again() {
    let mut wire = Vec::new();
    row_description(&mut wire, &[("database", ColumnType::Text), ("maxwait", ColumnType::Int4)]);
    assert_eq!(parse_row_description(body_of(&wire, b'T')).unwrap(), [&b"database"[..], b"maxwait"]);
    let mut wire = Vec::new();
    data_row(&mut wire, [Some(&b"p0"[..]), None].into_iter());
    assert_eq!(parse_data_row(body_of(&wire, b'D')).unwrap(), [Some(&b"p0"[..]), None]);
}

#[test]
fn login_messages_are_read_again() {
    let mut wire = Vec::new();
    authentication_sasl(&mut wire, &["SCRAM-SHA-256"]);
    let Ok(Authentication::Sasl { mechanisms }) = Authentication::parse(body_of(&wire, b'R')) else {
        panic!("not SASL")
    };
    assert!(offers_mechanism(mechanisms, "SCRAM-SHA-256") && !offers_mechanism(mechanisms, "SCRAM"));
    let mut wire = Vec::new();
    authentication_md5(&mut wire, [1, 2, 3, 4]);
    assert_eq!(
        Authentication::parse(&wire[HEAD_LEN..]),
        Ok(Authentication::Md5Password { salt: [1, 2, 3, 4] })
    );
    let mut wire = Vec::new();
    parameter_status(&mut wire, "TimeZone", "GMT");
    assert_eq!(parse_parameter_status(body_of(&wire, b'S')), Ok((&b"TimeZone"[..], &b"GMT"[..])));
    let key = CancelKey { process_id: 5, secret: vec![1, 2, 3, 4] };
    let mut wire = Vec::new();
    backend_key_data(&mut wire, &key);
    assert_eq!(parse_backend_key_data(body_of(&wire, b'K')), Ok(key));
    let mut wire = Vec::new();
    negotiate_protocol_version(&mut wire, 0, &["_pq_.x"]);
    assert_eq!(body_of(&wire, b'v'), b"\0\x03\0\0\0\0\0\x01_pq_.x\0");
}

#[test]
fn a_zero_byte_in_a_text_does_not_end_it_early() {
    let mut wire = Vec::new();
    error(&mut wire, &Report::error("08P01", "a\0b"));
    assert_eq!(Received::parse(body_of(&wire, b'E')).unwrap().message, Some(&b"ab"[..]));
}

proptest! {
    #[test]
    fn any_body_is_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Authentication::parse(&body);
        let _ = parse_parameter_status(&body);
        let _ = parse_backend_key_data(&body);
        let _ = parse_row_description(&body);
        let _ = parse_data_row(&body);
        let _ = parse_command_complete(&body);
        let _ = parse_negotiate_protocol_version(&body);
        let _ = TransactionStatus::parse(&body);
    }
}
