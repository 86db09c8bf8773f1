//! Field lines read in one go against a reading that takes one step after the other, as the rules have it.

use super::super::fields::{BadLine, NameKind, field_at};
use super::*;

/// What a line says: the line's end without its ending, where the next begins, and the field.
type Told = (usize, usize, Result<(Vec<u8>, Vec<u8>, NameKind), BadLine>);

/// The line at `from`, step by step: find its end, split it at the first colon, look at each half.
fn plainly(head: &[u8], from: usize) -> Option<Told> {
    let lf = from + head[from..].iter().position(|byte| *byte == b'\n')?;
    let text = &head[from..lf];
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    Some((from + text.len(), lf + 1, plain_field(text)))
}

fn plain_field(text: &[u8]) -> Result<(Vec<u8>, Vec<u8>, NameKind), BadLine> {
    let colon = text.iter().position(|byte| *byte == b':').ok_or(BadLine::Name)?;
    let (name, value) = (&text[..colon], &text[colon + 1..]);
    if name.is_empty() || name.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
        return Err(BadLine::Name);
    }
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let from = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !is_blank(byte)).map_or(from, |last| last + 1);
    if value.contains(&0) || value.contains(&b'\r') {
        return Err(BadLine::Value);
    }
    let odd: Vec<u8> =
        name.iter().copied().filter(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-').collect();
    let kind = match odd.iter().all(|byte| *byte == b'_') {
        true if odd.is_empty() => NameKind::Plain,
        true => NameKind::Underscore,
        false => NameKind::Odd,
    };
    Ok((name.to_vec(), value[from..to].to_vec(), kind))
}

fn at_once(head: &[u8], from: usize) -> Option<Told> {
    let (line, parsed) = field_at(head, from)?;
    assert_eq!(line.start, from);
    let told = parsed.map(|parsed| {
        let field = parsed.field;
        let name = field.name.of(head);
        assert_eq!(field.name.start as usize, from);
        assert_eq!((field.hash, field.known), (hash(name), Known::of(name)));
        (name.to_vec(), field.value.of(head).to_vec(), parsed.name_kind)
    });
    Some((line.end, line.next, told))
}

/// Both readings agree on the whole text, on all that it begins with, and from each of its bytes on.
fn agree(text: &[u8]) {
    for end in 0..=text.len() {
        assert_eq!(at_once(&text[..end], 0), plainly(&text[..end], 0), "{:?}", text[..end].escape_ascii());
    }
    for from in 0..=text.len() {
        assert_eq!(at_once(text, from), plainly(text, from), "{:?}", text[from..].escape_ascii().to_string());
    }
}

#[test]
fn lines_that_nearly_are_fields_are_read_alike() {
    for text in [
        &b"Host: a\r\n"[..],
        b"\r\n",
        b"\n",
        b"\r\r\n",
        b"X:\n",
        b"X: \t \r\n",
        b"X: a\tb\x01c \t\r\nY: b\r\n",
        b"X: a\rb\r\n",
        b"X: a\r\r\n",
        b"X: a\0\n",
        b"X: a\n\r\n",
        b"X : a\r\n",
        b": a\r\n",
        b"X\r\n: a\r\n",
        b" X: a\r\n",
        b"X_Y: a\r\nX_.: \xff\r\nX\xff:1\r\n",
        b"Content-Length: 1234567890123\r\nTransfer-Encoding:chunked\r\n",
    ] {
        agree(text);
    }
}

#[test]
fn known_names_are_known_in_any_case_and_no_others_are() {
    for name in [&b"Content-Length"[..], b"content-length", b"CONTENT-LENGTH"] {
        assert_eq!(Known::of(name), Known::ContentLength);
    }
    for name in
        [&b"content-lengti"[..], b"content\rlength", b"content-lengt", b"content-length1", b"Content_Length"]
    {
        assert_eq!(Known::of(name), Known::Other);
    }
}

const MARKS: [&[u8]; 11] = [b": ", b":", b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"_", b"-", b"\x7f"];

/// Bytes of which lines are made, any others between them, and long runs that fill whole words.
fn near_fields() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop::sample::select(&MARKS[..]).prop_map(<[u8]>::to_vec),
        "[A-Za-z0-9-]{1,20}".prop_map(String::into_bytes),
        Just(b"Transfer-Encoding".to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read_as_they_are_step_by_step(text in near_fields()) {
        agree(&text);
    }

    #[test]
    fn a_copied_field_is_written_as_from_its_parts(
        blanks in prop::sample::select(&["", " ", "\t", "  ", " \t"][..]),
        value in "([!-~]([ -~\t]{0,20}[!-~])?)?",
        end in prop::sample::select(&["\r\n", "\n", " \r\n", "\t\n", "  \r\n"][..]),
        next in prop::sample::select(&["", "\n", "\r\n", "Y: b\r\n"][..]),
    ) {
        let head = format!("X-Y:{blanks}{value}{end}{next}").into_bytes();
        let (_, parsed) = field_at(&head, 0).expect("a whole line");
        let mut out = b"kept".to_vec();
        write::copy(&mut out, &head, &parsed.expect("a field").field);
        prop_assert_eq!(String::from_utf8_lossy(&out), format!("keptX-Y: {value}\r\n"));
    }

    #[test]
    fn what_could_end_a_line_is_blank_and_nothing_else_changes(text in near_fields()) {
        let mut cleaned = text.clone();
        write::clean(&mut cleaned);
        let plain: Vec<u8> =
            text.iter().map(|byte| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { *byte }).collect();
        prop_assert_eq!(cleaned, plain);
    }
}
