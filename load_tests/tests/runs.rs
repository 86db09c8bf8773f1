//! Whole runs against a model of the service: a right one passes, and each way of being wrong is found.

mod model;

use clap::Parser;
use load_tests::args::Cli;
use load_tests::run::{self, Figures, Second, Watch};
use model::{Flaw, Model};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

struct Silent;

impl Watch for Silent {
    fn on_setup(&mut self, _accounts: usize, _rooms: usize, _took: Duration) {}
    fn on_second(&mut self, _second: &Second<'_>) {}
}

fn in_local_set<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

fn figures(flaw: Flaw, flags: &str) -> Figures {
    in_local_set(async {
        let model = Model::start(flaw, 3).await;
        let host = format!("--host=http://{}", model.balancer);
        let args = ["load_tests", &host, "--seed=1"].into_iter().chain(flags.split_whitespace());
        let plan = Cli::parse_from(args).load.plan(1).expect("good flags");
        run::execute(plan, &mut Silent, &CancellationToken::new()).await.expect("the run can be set up")
    })
}

fn headlines(flaw: Flaw, flags: &str) -> Vec<String> {
    figures(flaw, flags).stats.faults().map(|(_, headline, _)| headline.to_owned()).collect()
}

const API: &str = "--scenario api -u 8 -r 100 -t 1500ms --wait 1ms..5ms";
const STREAM: &str = "--scenario stream -u 3 -r 100 -t 2500ms --wait 1ms --timeout 3s";
const SOCKET: &str = "--scenario ws -u 6 -r 100 -t 1500ms --wait 5ms..20ms --room-size 3 --timeout 3s";

#[track_caller]
fn finds(flaw: Flaw, flags: &str, words: &str) {
    let found = headlines(flaw, flags);
    assert!(found.iter().any(|headline| headline.contains(words)), "{words:?} is not among {found:?}");
}

#[test]
fn a_service_that_keeps_its_contract_passes_with_every_kind_of_user() {
    let figures =
        figures(Flaw::None, "--scenario mixed -u 20 -r 100 -t 3s --wait 5ms..20ms --sources 3 --room-size 2");
    let faults: Vec<_> = figures.stats.faults().collect();
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(figures.stuck, 0);
    let asked = |name: &str| {
        figures.stats.entries().any(|(key, entry)| key.name.contains(name) && entry.requests > 0)
    };
    for name in
        ["/api/users", "(again)", "(resumed)", "first token", "message.send", "another member", "to welcome"]
    {
        assert!(
            asked(name),
            "no {name} among {:?}",
            figures.stats.entries().map(|(key, _)| key).collect::<Vec<_>>()
        );
    }
}

#[test]
fn an_error_status_is_found() {
    finds(Flaw::Error500, API, "status 500, expected 200: Internal error");
}

#[test]
fn a_stale_read_is_found() {
    finds(Flaw::StaleRead, API, "a stored message is missing");
}

#[test]
fn a_message_stored_twice_is_found() {
    finds(Flaw::StoresTwice, API, "a repeated message was not told as a replay");
}

#[test]
fn an_offset_that_is_left_out_is_found_by_readers_and_members() {
    finds(Flaw::OffsetGap, API, "an offset is not the next one");
    finds(Flaw::OffsetGap, SOCKET, "an offset was left out");
}

#[test]
fn a_lost_delivery_is_found() {
    finds(Flaw::LosesDelivery, SOCKET, "an offset was left out");
}

#[test]
fn a_doubled_delivery_is_found() {
    finds(Flaw::DeliversTwice, SOCKET, "an offset came twice or late");
}

#[test]
fn an_ack_for_another_offset_is_found() {
    finds(Flaw::WrongAck, SOCKET, "ack and delivery name different offsets");
}

#[test]
fn a_resumption_that_forgets_is_found() {
    finds(Flaw::ForgetsOnResume, SOCKET, "an offset was left out");
}

#[test]
fn a_lost_token_is_found() {
    finds(Flaw::LosesToken, STREAM, "a token was left out");
}

#[test]
fn a_repeated_token_is_found() {
    finds(Flaw::RepeatsToken, STREAM, "a token came twice");
}

#[test]
fn an_answer_stored_otherwise_than_streamed_is_found() {
    finds(Flaw::StoresOtherAnswer, STREAM, "the tokens are not the stored answer");
}

fn verify(flaw: Flaw, check: &str) -> ExitCode {
    verify_of(4, flaw, check)
}

fn verify_of(replicas: u64, flaw: Flaw, check: &str) -> ExitCode {
    in_local_set(async {
        let model = Model::start(flaw, replicas).await;
        let mut args = vec!["load_tests".to_owned(), "verify".to_owned(), format!("--only={check}")];
        args.extend([
            "--users=20".to_owned(),
            "--run-time=2s".to_owned(),
            format!("--balancer=http://{}", model.balancer),
        ]);
        args.extend(
            model
                .replicas
                .iter()
                .enumerate()
                .map(|(n, address)| format!("--replica=web-{}={address}", n + 1)),
        );
        load_tests::run(Cli::parse_from(args), &|_| None).await.expect("the checks can be run")
    })
}

#[test]
fn verify_passes_a_good_stack_of_one_replica() {
    assert_eq!(verify_of(1, Flaw::None, "containers,sticky,rooms,kill,stream"), ExitCode::SUCCESS);
}

#[test]
fn verify_passes_a_good_stack() {
    assert_eq!(verify(Flaw::None, "containers,sticky,rooms,stream,load"), ExitCode::SUCCESS);
}

#[test]
fn verify_fails_what_is_wrong() {
    for (flaw, check) in [
        (Flaw::OneReplica, "containers"),
        (Flaw::NoPooler, "containers"),
        (Flaw::NotSticky, "sticky"),
        (Flaw::LosesDelivery, "rooms"),
        (Flaw::BuffersStream, "stream"),
        (Flaw::Error500, "load"),
        (Flaw::None, "kill"),
        (Flaw::None, "console"),
    ] {
        assert_eq!(verify(flaw, check), ExitCode::FAILURE, "{flaw:?} {check}");
    }
}

/// With a status as the stack prints it when it was started without a pooler.
fn verify_direct(flaw: Flaw) -> ExitCode {
    in_local_set(async {
        let model = Model::start(flaw, 2).await;
        let replica = |(n, address): (usize, _)| json!({"name": format!("web-{}", n + 1), "url": format!("http://{address}"), "pid": 1});
        let replicas: Vec<Value> = model.replicas.iter().enumerate().map(replica).collect();
        let status =
            json!({"url": format!("http://{}", model.balancer), "pooler": null, "replicas": replicas});
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("status.json");
        std::fs::write(&path, status.to_string()).expect("the status is written");
        let args = ["load_tests", "verify", "--only=containers,console", "--status"].map(Into::into);
        let args = args.into_iter().chain([path.into_os_string()]);
        load_tests::run(Cli::parse_from(args), &|_| None).await.expect("the checks can be run")
    })
}

#[test]
fn verify_expects_no_pooler_where_the_status_names_none() {
    assert_eq!(verify_direct(Flaw::NoPooler), ExitCode::SUCCESS);
    assert_eq!(verify_direct(Flaw::None), ExitCode::FAILURE, "using_pgbouncer is true all the same");
}

#[test]
fn a_run_writes_locusts_files_and_its_exit_code_tells_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let prefix = folder.path().join("results/run");
    let json = folder.path().join("run.json");
    let run = |flaw| {
        in_local_set(async {
            let model = Model::start(flaw, 1).await;
            let host = format!("--host=http://{}", model.balancer);
            let (csv, json) = (format!("--csv={}", prefix.display()), format!("--json={}", json.display()));
            let args = [
                "load_tests",
                &host,
                &csv,
                &json,
                "--headless",
                "--scenario=api",
                "-u4",
                "-t2500ms",
                "--wait=10ms",
            ];
            load_tests::run(Cli::parse_from(args), &|_| None).await.expect("the run can be set up")
        })
    };
    assert_eq!(run(Flaw::Error500), ExitCode::FAILURE);
    assert_eq!(run(Flaw::None), ExitCode::SUCCESS);
    let read = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", prefix.display())).expect(suffix);
    assert!(read("_stats.csv").contains(",Aggregated,"));
    assert_eq!(read("_stats_history.csv").lines().count(), 3, "a header and two seconds");
    assert_eq!(read("_failures.csv").lines().count(), 1, "a header");
    assert_eq!(read("_exceptions.csv").lines().count(), 1, "a header");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).expect("the report"))
            .expect("the report is JSON");
    assert_eq!(report["failure_count"], 0);
    assert_eq!(report["plan"]["users"], 4);
}

#[test]
fn nothing_that_listens_is_an_error_that_says_where() {
    let error = in_local_set(async {
        let cli = Cli::parse_from(["load_tests", "--host=http://127.0.0.1:1", "-t1s"]);
        load_tests::run(cli, &|_| None).await.expect_err("nothing listens there")
    });
    let told = format!("{error:#}");
    assert!(told.contains("127.0.0.1:1") && told.contains("connection refused"), "{told}");
}
