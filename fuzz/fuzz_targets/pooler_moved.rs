//! A client's record from the process that is taken over: read or refused, and what was read is written as it was meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pooler::logic::moving::MovedClient;

fuzz_target!(|bytes: &[u8]| {
    let Ok(client) = MovedClient::from_bytes(bytes) else { return };
    let written = client.to_bytes();
    assert_eq!(MovedClient::from_bytes(&written), Ok(client));
    assert!(MovedClient::from_bytes(&written[..written.len() - 1]).is_err());
});
