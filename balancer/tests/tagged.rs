//! A slice of the tagged run (`examples/tagged`, ten million requests): no answer reaches another request than its own.

#[path = "../examples/tagged/client.rs"]
mod client;
#[path = "../examples/tagged/h2_client.rs"]
mod h2_client;
#[path = "../examples/tagged/h2_origin.rs"]
mod h2_origin;
#[path = "../examples/tagged/http.rs"]
mod http;
#[path = "../examples/tagged/origin.rs"]
mod origin;
#[path = "../examples/corpus/random.rs"]
#[allow(dead_code, reason = "the corpus needs more of it")]
mod random;
#[path = "../examples/tagged/run.rs"]
mod run;
#[path = "../examples/tagged/tally.rs"]
mod tally;
#[path = "../examples/tagged/ways.rs"]
mod ways;

use std::path::Path;

#[test]
fn disturbed_connections_give_no_answer_to_another_request() {
    const CLIENTS: u64 = 32;
    let tally = run::run(Path::new(env!("CARGO_BIN_EXE_balancer")), 20_000, 9112, CLIENTS);
    let (foreign, failed) = (tally.foreign.borrow(), tally.failed.borrow());
    assert!(foreign.is_empty(), "{} mixed up, the first: {}", foreign.len(), foreign[0]);
    assert!(failed.is_empty(), "{} hang, the first: {}", failed.len(), failed[0]);
    let faults = tally.faults(CLIENTS);
    assert!(faults.is_empty(), "{faults:#?}\n{:#?}, {:?} died", tally.outcomes.borrow(), tally.kills);
}
