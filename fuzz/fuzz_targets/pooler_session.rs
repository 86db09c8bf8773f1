//! Three clients over two servers: see the model.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../pooler/tests/mixing/model.rs"]
mod model;

fuzz_target!(|bytes: &[u8]| model::play(bytes));
