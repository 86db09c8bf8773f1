//! A slice of the generated corpus (`examples/corpus`, which runs it by the million): do we and the servers behind us
//! agree on where each request and each answer ends?

#[path = "../examples/corpus/answers.rs"]
mod answers;
#[path = "../examples/corpus/client.rs"]
mod client;
#[path = "../examples/corpus/drive.rs"]
mod drive;
#[path = "../examples/corpus/hostile.rs"]
mod hostile;
#[path = "../examples/corpus/origins.rs"]
mod origins;
#[path = "../examples/corpus/random.rs"]
mod random;
#[path = "../examples/corpus/requests.rs"]
mod requests;
#[path = "../examples/corpus/run.rs"]
mod run;
#[path = "../examples/corpus/world.rs"]
mod world;

use std::path::Path;

use drive::Plan;

/// Enough for each kind to come about a hundred times.
const CASES: u64 = 3000;
/// Connections end only where a case says so.
const KEEPS: &str = "keepalive_requests 1000000000;";

fn assert_agreement(origin: &str) {
    let plan = Plan { seed: 9112, first: 1, count: CASES, threads: 4, directives: KEEPS };
    let tally = run::run(Path::new(env!("CARGO_BIN_EXE_balancer")), origin, plan);
    assert_eq!(tally.outcomes.values().sum::<u64>() + tally.faults_len as u64, CASES, "each case is counted");
    assert_eq!(tally.faults_len, 0, "{}", tally.faults.join("\n"));
}

#[test]
fn requests_are_refused_or_end_where_nginx_says() {
    assert_agreement("nginx");
}

#[test]
fn requests_are_refused_or_end_where_hyper_says() {
    assert_agreement("hyper");
}

#[test]
fn answers_pass_whole_or_are_visibly_broken() {
    assert_agreement("answers");
}

/// Else it would pass: of each pair of answers the second would never be asked for.
#[test]
fn a_balancer_that_ends_each_connection_after_one_answer_does_not_pass() {
    for origin in ["hyper", "answers"] {
        let plan = Plan { seed: 9112, first: 1, count: 300, threads: 4, directives: "keepalive_requests 1;" };
        let tally = run::run(Path::new(env!("CARGO_BIN_EXE_balancer")), origin, plan);
        assert!(tally.faults_len > 50, "{origin}: {} faults in {:?}", tally.faults_len, tally.outcomes);
        let ends = |fault: &String| fault.contains("ended behind it") || fault.contains("ends for nothing");
        assert!(tally.faults.iter().any(ends), "{origin}: {:?}", tally.faults);
    }
}
