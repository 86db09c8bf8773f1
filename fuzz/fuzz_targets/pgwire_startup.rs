//! A startup packet, whole and cut short: the packet is the same or is not there yet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgwire::startup;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((packet, used))) = startup::parse(bytes) else { return };
    assert!(used <= bytes.len());
    assert!(matches!(startup::parse(&bytes[..used - 1]), Ok(None) | Err(_)));
    if let startup::Packet::Startup(startup) = packet {
        for (name, value) in &startup.parameters {
            if name == "options" {
                let _ = pgwire::options::parse(value);
            }
        }
    }
});
