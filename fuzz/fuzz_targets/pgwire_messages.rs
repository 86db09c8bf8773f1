//! A run of messages from either side: every body is offered to every parser that could be asked to read it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgwire::frame::Frames;
use pgwire::{backend, frontend, report};

fuzz_target!(|bytes: &[u8]| {
    for frame in Frames::new(bytes) {
        let Ok(frame) = frame else { return };
        let body = frame.body;
        let _ = backend::parse_parameter_status(body);
        let _ = backend::parse_backend_key_data(body);
        let _ = backend::parse_negotiate_protocol_version(body);
        let _ = backend::parse_command_complete(body);
        let _ = backend::parse_row_description(body);
        let _ = backend::parse_data_row(body);
        let _ = frontend::parse_query(body);
        let _ = frontend::parse_password(body);
        let _ = frontend::parse_sasl_initial(body);
        let _ = frontend::Target::parse(body);
        if let Ok(read) = report::Received::parse(body) {
            let _ = read.summary();
        }
    }
});
