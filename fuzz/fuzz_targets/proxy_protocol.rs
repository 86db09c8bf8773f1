//! The header of the PROXY protocol, in one piece and byte by byte: the same address, and the same bytes left over.
#![no_main]

use balancer::logic::proxy_protocol::{Broken, Header, Reader};
use libfuzzer_sys::fuzz_target;

/// The header and how many bytes it took; None: it has not ended.
fn read(bytes: &[u8], step: usize) -> Option<Result<(Header, usize), Broken>> {
    let (mut reader, mut used) = (Reader::default(), 0);
    while !reader.is_whole() {
        let next = &bytes[used..bytes.len().min(used + step)];
        if next.is_empty() {
            return None;
        }
        match reader.wants(next) {
            Err(broken) => return Some(Err(broken)),
            Ok(wanted) => {
                assert!(wanted > 0, "the reader waits for nothing");
                reader.take(&next[..wanted]);
                used += wanted;
            }
        }
    }
    Some(reader.into_header().map(|header| (header, used)))
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, 256);
    let pieces = read(bytes, 1);
    // A line that is too long is told apart from one that has not ended as soon as that can be seen.
    if whole.is_some() && pieces.is_some() {
        assert_eq!(whole, pieces);
    }
    let Some(Ok((header, used))) = whole else { return };
    assert!(used <= bytes.len());
    for name in ["alpn", "authority", "ssl_verify", "ssl_cn", "0xae", "ssl_0x2a"] {
        assert!(header.tlv(name).is_none_or(|value| value.len() <= used));
    }
});
