//! The codec against the ways in which requests and answers have been misread: every case also split at every byte.

mod fields_at_once;
mod requests;
mod responses;

use proptest::prelude::*;

use super::target::{normalise, safe_target};
use super::*;

/// Parses as if each byte came alone, and in one piece: both must agree.
fn request(text: &[u8]) -> Result<Option<RequestHead>, Refusal> {
    let limits = Limits::default();
    let mut whole = RequestHead::default();
    let at_once = whole.parse(text, &limits);
    let mut split = RequestHead::default();
    let mut in_pieces = Ok(false);
    for end in 0..=text.len() {
        in_pieces = split.parse(&text[..end], &limits);
        if in_pieces != Ok(false) {
            break;
        }
    }
    assert_eq!(at_once, in_pieces, "split at every byte: {}", String::from_utf8_lossy(text));
    assert_eq!(whole.len, split.len);
    at_once.map(|complete| complete.then_some(whole))
}

fn refused(text: &str) -> u16 {
    match request(text.as_bytes()) {
        Err(refusal) => refusal.status(),
        Ok(head) => panic!("accepted {text:?}: {head:?}"),
    }
}

fn accepted(text: &str) -> RequestHead {
    request(text.as_bytes()).expect("a valid head").expect("a whole head")
}

/// All data of a body, by every way of cutting the input into two.
fn body(framing: Framing, text: &[u8]) -> Result<(Vec<u8>, Vec<u8>, usize), BadBody> {
    let whole = body_in_pieces(framing, &[text]);
    for cut in 0..=text.len() {
        assert_eq!(whole, body_in_pieces(framing, &[&text[..cut], &text[cut..]]), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(whole, body_in_pieces(framing, &bytes));
    whole
}

fn body_in_pieces(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, usize), BadBody> {
    let mut reader = BodyReader::new(framing);
    let (mut data, mut used_in_all) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        loop {
            match reader.next(&piece[at..])? {
                Piece::Data { start, end } => {
                    data.extend_from_slice(&piece[at + start..at + end]);
                    at += end;
                }
                Piece::More => {
                    at = piece.len();
                    break;
                }
                Piece::End { used } => {
                    at += used;
                    break;
                }
            }
        }
        used_in_all += at;
        if reader.is_ended() {
            return Ok((data, reader.trailers().to_vec(), used_in_all));
        }
    }
    reader.on_eof().map(|()| (data, Vec::new(), used_in_all))
}

#[test]
fn chunks_end_where_they_say() {
    assert_eq!(body(Framing::Chunked, b"3\r\nabc\r\n0\r\n\r\nGET"), Ok((b"abc".to_vec(), vec![], 13)));
    assert_eq!(
        body(Framing::Chunked, b"A;x=\"y\"\r\n0123456789\r\n0 ; z\r\n\r\n").map(|b| b.0),
        Ok(b"0123456789".to_vec())
    );
    assert_eq!(body(Framing::Chunked, b"0\r\nX-T: 1\r\n\r\n").map(|b| b.1), Ok(b"X-T: 1\r\n".to_vec()));
}

#[test]
fn chunk_framing_that_could_be_read_in_two_ways_is_refused() {
    for text in [
        &b"3\nabc\r\n0\r\n\r\n"[..],
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\rXabc\r\n0\r\n\r\n",
        b"\r\n3\r\nabc\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"-1\r\n",
        b";x\r\n",
        b"8000000000000000\r\n",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3 4\r\nabc\r\n0\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\nX: a\n\r\n",
        b"0\r\n\n",
    ] {
        assert!(body(Framing::Chunked, text).is_err(), "{:?}", String::from_utf8_lossy(text));
    }
    let long = [b"3;".as_slice(), &[b'a'; 5000], b"\r\nabc\r\n0\r\n\r\n"].concat();
    assert_eq!(body_in_pieces(Framing::Chunked, &[&long]), Err(BadBody::ChunkLineTooLong));
    let trailers = [b"0\r\n".as_slice(), &b"X: aaaaaaaaaa\r\n".repeat(600), b"\r\n"].concat();
    assert_eq!(body_in_pieces(Framing::Chunked, &[&trailers]), Err(BadBody::TrailersTooLarge));
}

#[test]
fn a_cut_body_is_never_a_whole_one() {
    assert_eq!(body(Framing::Length(5), b"abc"), Err(BadBody::Truncated));
    assert_eq!(body(Framing::Chunked, b"3\r\nabc\r\n"), Err(BadBody::Truncated));
    assert_eq!(body(Framing::Chunked, b"3\r\nabc\r\n0\r\n"), Err(BadBody::Truncated));
    assert_eq!(body(Framing::UntilClose, b"abc").map(|b| b.0), Ok(b"abc".to_vec()));
    assert_eq!(body(Framing::Length(3), b"abcdef").map(|b| b.2), Ok(3));
    assert_eq!(body(Framing::None, b"abc").map(|b| b.2), Ok(0));
}

#[test]
fn paths_are_normalised_as_nginx_does() {
    for (path, normal) in [
        ("/", "/"),
        ("", "/"),
        ("/a/b", "/a/b"),
        ("/a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/a/b/", "/a/b/"),
        ("/%61%2Fb", "/a/b"),
        ("/%2e%2e/..a/...", ""),
        ("/a/%2e%2E/b", "/b"),
        ("/a//../b", "/b"),
        ("/a%3Fb", "/a?b"),
        ("/..", ""),
        ("..", ""),
        ("../b", ""),
        ("%2e%2e%2Fb", ""),
        ("a/../../b", ""),
        ("/%00", ""),
        ("/%4", ""),
        ("/%zz", ""),
    ] {
        let mut out = b"kept".to_vec();
        let result = normalise(path.as_bytes(), true, &mut out);
        match normal {
            "" if !path.is_empty() => assert_eq!(result, Err(Refusal::Target), "{path}"),
            _ => {
                assert_eq!(result, Ok(()), "{path}");
                assert_eq!(String::from_utf8_lossy(&out[4..]), normal, "{path}");
            }
        }
    }
    let mut out = Vec::new();
    normalise(b"/a//b", false, &mut out).expect("valid");
    assert_eq!(out, b"/a//b");
}

#[test]
fn a_rendered_value_cannot_end_its_line() {
    let mut out = Vec::new();
    write::field(&mut out, b"X", b"a\r\nInjected: 1\0");
    assert_eq!(out, b"X: a  Injected: 1 \r\n");
}

#[test]
fn numbers_are_written_in_full() {
    let mut out = Vec::new();
    write::content_length(&mut out, u64::MAX);
    write::content_length(&mut out, 0);
    write::chunk(&mut out, &[b'x'; 26]);
    write::last_chunk(&mut out, b"T: 1\r\n");
    let text = format!(
        "Content-Length: 18446744073709551615\r\nContent-Length: 0\r\n1a\r\n{}\r\n0\r\nT: 1\r\n\r\n",
        "x".repeat(26)
    );
    assert_eq!(String::from_utf8_lossy(&out), text);
}

/// Text that is near enough to HTTP to reach deep into the parsers.
fn near_http() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"5\r\nabcde\r\n".to_vec()),
        Just(b"0\r\n\r\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_read_alike_whole_and_split(text in near_http()) {
        let _ = request(&text);
        let _ = body(Framing::Chunked, &text);
        let _ = body(Framing::Length(7), &text);
        let mut whole = ResponseHead::default();
        let at_once = whole.parse(&text, 4096);
        let mut split = ResponseHead::default();
        let in_pieces = (0..=text.len()).map(|end| split.parse(&text[..end], 4096)).find(|r| *r != Ok(false));
        prop_assert_eq!(at_once, in_pieces.unwrap_or(Ok(false)));
    }

    #[test]
    fn what_we_write_we_read_back(
        fields in proptest::collection::vec(("[A-Za-z][A-Za-z0-9-]{0,20}", "[!-~]([ -~]{0,20}[!-~])?"), 0..20),
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8),
    ) {
        let mut text = b"PUT /x HTTP/1.1\r\nHost: a\r\n".to_vec();
        let special = ["host", "content-length", "transfer-encoding", "expect"];
        let fields: Vec<_> = fields.into_iter().filter(|(n, _)| !special.contains(&n.to_ascii_lowercase().as_str())).collect();
        for (name, value) in &fields {
            write::field(&mut text, name.as_bytes(), value.as_bytes());
        }
        text.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        let head = request(&text).expect("valid").expect("whole");
        for (field, (name, value)) in head.fields.list[1..].iter().zip(&fields) {
            prop_assert_eq!(field.name.of(&text), name.as_bytes());
            prop_assert_eq!(field.value.of(&text), value.as_bytes());
            prop_assert_eq!(field.hash, hash(name.as_bytes()));
        }
        let mut framed = Vec::new();
        chunks.iter().for_each(|data| write::chunk(&mut framed, data));
        write::last_chunk(&mut framed, b"");
        let (data, _, used) = body(Framing::Chunked, &framed).expect("valid");
        prop_assert_eq!((data, used), (chunks.concat(), framed.len()));
    }

    #[test]
    fn a_target_that_a_page_or_an_origin_names_never_climbs(target in "[a./%2eEfF?]{0,30}") {
        if let Some((path, _)) = safe_target(target.as_bytes()) {
            let text = String::from_utf8_lossy(&path);
            prop_assert!(!text.is_empty() && text.split('/').all(|segment| segment != ".."), "{}", text);
        }
    }

    #[test]
    fn a_normal_path_never_leaves_the_root(path in "/[a./%2eEfF]{0,30}") {
        let mut out = Vec::new();
        if normalise(path.as_bytes(), true, &mut out).is_ok() {
            prop_assert_eq!(out[0], b'/');
            let text = String::from_utf8_lossy(&out);
            prop_assert!(!text.contains("//") && !text.split('/').any(|s| s == ".." || s == "."), "{}", text);
        }
    }
}
