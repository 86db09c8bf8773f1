//! SCRAM with a hostile peer on either side: no panic, no unbounded work, no success without the password.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgwire::auth::scram;

fuzz_target!(|bytes: &[u8]| {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let verifier = scram::Verifier::mock("user", b"process secret", 1);
    let mut server = scram::Server::new(verifier, scram::nonce([7; scram::NONCE_LEN]));
    if server.challenge(first).is_ok() {
        assert!(server.verify(second).is_err());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = scram::Verifier::parse(text);
    }
});
