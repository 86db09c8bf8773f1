//! What a name server may send: read to an end, and a name that was read can be asked for again.
#![no_main]

use balancer::logic::dns::{Kind, question, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(reply) = read(bytes) else { return };
    if let Some(mut asked) = question(reply.id, &reply.name, Kind::A).filter(|_| !reply.name.contains('\\')) {
        asked[2] |= 0x80;
        assert_eq!(read(&asked).map(|again| again.name), Ok(reply.name));
    }
});
