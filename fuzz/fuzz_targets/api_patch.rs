//! The body of a PATCH or POST to the balancer's API: a change of one server, or a reason why not.
#![no_main]

use balancer::logic::changes::patch_of;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| match patch_of(body) {
    Ok(patch) => assert!(patch.server.is_none_or(|server| body.len() > server.len())),
    Err(refusal) => assert!((400..500).contains(&refusal.status()) && !refusal.to_string().is_empty()),
});
