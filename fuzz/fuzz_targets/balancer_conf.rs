//! nginx.conf: read or refused with a place, in the world of the tests.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../balancer/tests/conf_world/mod.rs"]
#[allow(dead_code, reason = "each user takes what it needs")]
mod conf_world;

fuzz_target!(|text: &[u8]| {
    let included = b"server { listen 81; }\n".to_vec();
    let world = conf_world::Memory(
        [("/etc/nginx.conf".into(), text.to_vec()), ("/etc/more.conf".into(), included)].into(),
    );
    if let Err(error) = world.load() {
        assert!(!error.to_string().is_empty());
    }
});
