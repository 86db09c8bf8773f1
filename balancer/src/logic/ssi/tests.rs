use proptest::prelude::*;

use super::*;

fn named<'p>(piece: &'p Piece<'p>) -> (&'p [u8], &'p [u8]) {
    match piece {
        Piece::Text(text) => (b"text", text),
        Piece::Command(command) => (command.name, command.argument(b"a").unwrap_or_default()),
        Piece::Broken => (b"broken", b""),
    }
}

#[test]
fn commands_are_found_between_texts() {
    let page = br#"x<!--#one a="1" b='2'--><!--#two a="q\"-->" -->y<!-- no --><!--#-->z"#;
    let found = pieces(page);
    let shown: Vec<_> = found.iter().map(named).collect();
    let wanted: [(&[u8], &[u8]); 6] = [
        (b"text", b"x"),
        (b"one", b"1"),
        (b"two", b"q\"-->"),
        (b"text", b"y<!-- no -->"),
        (b"broken", b""),
        (b"text", b"z"),
    ];
    assert_eq!(shown, wanted);
}

#[test]
fn a_command_may_stand_apart_from_its_opening() {
    for page in ["<!--# one a=\"1\" -->", "<!--#\r\n\tone a='1'-->"] {
        assert_eq!(pieces(page.as_bytes()).iter().map(named).collect::<Vec<_>>(), [(&b"one"[..], &b"1"[..])]);
    }
}

#[test]
fn values_are_filled_in() {
    let mut values = |name: &[u8]| (name == b"a").then(|| b"1".to_vec());
    assert_eq!(expand(br"$a-${a}b-$b.\$a$", &mut values), b"1-1b-.$a$");
}

#[test]
fn conditions_compare_by_text_and_by_pattern() {
    let asked = condition(b"$a != /^x+$/").unwrap();
    assert_eq!((asked.left, asked.right), (&b"$a"[..], Some(Right { is_negated: true, text: b"/^x+$/" })));
    assert_eq!(condition(b" $a ").unwrap().right, None);
    assert_eq!(condition(b"=x"), None);
    assert!(is_equal(b"xx", b"/^x+$/") && !is_equal(b"y", b"/x/") && is_equal(b"a", b"a"));
    assert!(!is_equal(b"x", b"/(/"), "what is no pattern fits nothing");
}

proptest! {
    #[test]
    fn any_page_is_read_to_an_end_and_its_texts_are_its_own(page in "(<!--#|-->|[a-z =\"'\\\\]){0,30}") {
        for piece in pieces(page.as_bytes()) {
            if let Piece::Text(text) = piece {
                prop_assert!(memchr::memmem::find(page.as_bytes(), text).is_some());
            }
        }
        let _ = expand(page.as_bytes(), &mut |_| None);
        let _ = condition(page.as_bytes());
    }
}
