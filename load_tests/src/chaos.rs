//! A crowd of members, API users and streams, a blow to the stack under it, and the proof that nothing was lost.

mod blow;
mod gap;
mod member;
mod stage;
mod traffic;

pub use blow::Case;
pub use traffic::open_session;

use crate::accounts;
use crate::args::PlaceArgs;
use crate::generator;
use crate::http::Call;
use crate::logic::durations;
use crate::logic::fault::Fault;
use crate::logic::member_log::Stored;
use crate::logic::stats::Stats;
use crate::logic::table;
use crate::site::Site;
use crate::stored;
use anyhow::Context;
use clap::Args;
use member::Member;
use serde_json::json;
use stage::{Blow, Load, Room, Seat, Stage, WITHIN_BLOW};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub struct ChaosArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// What happens to the stack
    #[arg(long, value_enum)]
    pub case: Case,
    /// WebSockets
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub sockets: u32,
    /// Rooms that they sit in
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rooms: u32,
    /// Messages per second, over all rooms
    #[arg(long, default_value_t = 100.0)]
    pub messages: f64,
    /// Streamed answers at the same time
    #[arg(long, default_value_t = 50)]
    pub streams: u32,
    /// API requests per second
    #[arg(long, default_value_t = 200.0)]
    pub requests: f64,
    /// Time before the blow, and after it when all is well again
    #[arg(long, default_value = "20s", value_parser = durations::parse)]
    pub calm: Duration,
    /// How long Redis stands still
    #[arg(long, default_value = "10s", value_parser = durations::parse)]
    pub frozen: Duration,
    /// Loopback networks to come from, so that ip_hash spreads the sockets
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=250))]
    pub sources: u8,
    /// Longest 99th percentile of delivery while nothing is being killed; 0: not judged
    #[arg(long, default_value = "100ms", value_parser = durations::parse)]
    pub delivery_p99: Duration,
    /// Longest delivery of a message sent within the blow, and longest time after it until all members have caught up; 0: not judged
    #[arg(long, default_value = "10s", value_parser = durations::parse)]
    pub caught_up: Duration,
}

const ACCOUNTS: u32 = 50;
const API_USERS: usize = 40;
/// Sockets are opened at this rate: a crowd that comes at once is another trial.
const CONNECT_PERIOD: Duration = Duration::from_millis(4);
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Plays one case; exit code 1 when something was lost, doubled, out of order or failed that must not.
pub async fn run(
    args: &ChaosArgs,
    lookup: &dyn Fn(&str) -> Option<String>,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let site = Site::find(&args.place, lookup).await?;
    // Asked first: without the database nothing could be proved at the end.
    let postgres = stored::connect(&site).await?;
    let stage = Rc::new(set_up(&site, args).await?);
    let mut crowd = start(&stage).await?;
    let play = play(&site, &stage, args);
    let told = stop.run_until_cancelled(play).await.context("interrupted")?;
    let mut faults = match told {
        Ok(told) => {
            println!("{told}");
            settle(&stage, &postgres, &mut crowd).await?
        }
        // What was seen until then says why.
        Err(error) => vec![format!("{error:#}")],
    };
    report(&stage);
    faults.extend(judge(&stage, args));
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    Ok(if faults.is_empty() {
        println!("OK: nothing lost, nothing twice, all in order");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn set_up(site: &Site, args: &ChaosArgs) -> anyhow::Result<Stage> {
    let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    let mut client = site.client();
    let accounts = accounts::register(&mut client, &run, ACCOUNTS).await.context("cannot register")?;
    anyhow::ensure!(
        site.dialer.address.ip().is_loopback(),
        "processes are killed: the stack must be on this machine"
    );
    let dialers = (1..=args.sources).map(|network| Rc::new(site.dialer.from_network(network))).collect();
    let mut rooms: Vec<Rc<Room>> = Vec::new();
    for n in 0..args.rooms as usize {
        let owner = &accounts[n % accounts.len()];
        rooms.push(traffic::open_session(&mut client, owner, "chaos: a room", "public").await?);
    }
    let mut seats = Vec::new();
    for n in 0..args.sockets as usize {
        let room = rooms[n % rooms.len()].clone();
        let join = Call::post("join", format!("/api/sessions/{}/join", room.id), &json!({}));
        let answer = client.call(&join.bearer(&accounts[n % accounts.len()].token())).await?;
        anyhow::ensure!(answer.status / 100 == 2, "join answered {}", answer.status);
        seats.push(Rc::new(Seat { room, ..Seat::default() }));
    }
    let load = Load {
        sockets: args.sockets as usize,
        rooms: args.rooms as usize,
        messages_per_s: args.messages,
        streams: args.streams as usize,
        requests_per_s: args.requests,
    };
    println!("{} accounts, {} rooms, {} members", accounts.len(), load.rooms, load.sockets);
    Ok(Stage { accounts, dialers, rooms, seats, ..Stage::new(run, load, args.case.harm(&site.replicas)) })
}

type Crowd = JoinSet<anyhow::Result<()>>;

async fn start(stage: &Rc<Stage>) -> anyhow::Result<Crowd> {
    let mut crowd = Crowd::new();
    for number in 0..stage.load.sockets {
        let member = Member::new(stage.clone(), number);
        crowd.spawn_local(async move {
            member.run().await;
            Ok(())
        });
        sleep(CONNECT_PERIOD).await;
    }
    wait("all members are connected", || stage.connected() == stage.seats.len()).await?;
    for number in 0..API_USERS {
        crowd.spawn_local(traffic::api_user(stage.clone(), number, API_USERS));
    }
    for number in 0..stage.load.streams {
        crowd.spawn_local(traffic::stream_user(stage.clone(), number));
        // Not in step: answers take a second or two.
        sleep(CONNECT_PERIOD * 5).await;
    }
    let (accounts, client) = (stage.accounts.clone(), stage.client(0));
    let over = stage.over.clone();
    crowd.spawn_local(async move {
        over.run_until_cancelled(accounts::keep_fresh(accounts, client, |_| {})).await;
        Ok(())
    });
    Ok(crowd)
}

/// Calm, blow, calm; gives words about the blow.
async fn play(site: &Site, stage: &Stage, args: &ChaosArgs) -> anyhow::Result<String> {
    sleep(args.calm).await;
    let began = stage.recorder.now();
    stage.blow.set(Blow { began: Some(began), ..Blow::default() });
    println!("the blow: {:?}", args.case);
    let doomed = stage.doomed();
    let told = blow::strike(args.case, site, stage, args.frozen).await?;
    let targets = stage.acked_now();
    let struck = Instant::now();
    wait("all members have caught up", || doomed.are_back() && stage.is_level(&targets))
        .await
        .with_context(|| stage.laggards(&targets))?;
    let level = struck.elapsed();
    stage.blow.set(Blow { level: Some(level), ..stage.blow.get() });
    blow::healed(site).await?;
    let healed = struck.elapsed();
    // What was sent before everybody was back belongs to the blow.
    wait("all members are connected again", || stage.connected() == stage.seats.len()).await?;
    sleep(Duration::from_secs(2)).await;
    stage.blow.set(Blow { healed: Some(stage.recorder.now()), ..stage.blow.get() });
    sleep(args.calm).await;
    Ok(format!(
        "{told}; all {} members had caught up {} ms after it, all replicas were healthy after {:.1} s",
        stage.seats.len(),
        level.as_millis(),
        healed.as_secs_f64()
    ))
}

/// Lets everything in flight come to its end, then compares all logs and acknowledgements with the database.
async fn settle(
    stage: &Stage,
    postgres: &tokio_postgres::Client,
    crowd: &mut Crowd,
) -> anyhow::Result<Vec<String>> {
    stage.ending.cancel();
    wait("everything sent is acknowledged", || stage.pending() == 0).await?;
    let others = stage.load.streams + API_USERS;
    for _ in 0..others {
        crowd.join_next().await.context("a user is missing")???;
    }
    let mut rooms = Vec::new();
    for room in &stage.rooms {
        rooms.push(stored::session(postgres, &room.id).await?);
    }
    let seat_rooms = |n: usize| &rooms[n % rooms.len()];
    let targets: Vec<i64> = (0..stage.seats.len()).map(|n| seat_rooms(n).last()).collect();
    let level = wait("every member has the last message", || stage.is_level(&targets)).await;
    stage.over.cancel();
    let mut faults: Vec<String> = level.err().map(|error| error.to_string()).into_iter().collect();
    let checks = stage.seats.iter().enumerate().map(|(n, seat)| seat.log.borrow().check(seat_rooms(n)));
    tell(&mut faults, "members' logs", checks.collect());
    let mut acks = Vec::new();
    for (room, stored) in stage.rooms.iter().zip(&rooms) {
        acks.extend(check_acks(room, stored));
    }
    let sessions = stage.sessions.take();
    for room in &sessions {
        acks.extend(check_acks(room, &stored::session(postgres, &room.id).await?));
    }
    tell(&mut faults, "acknowledged messages", acks);
    let sent: usize = rooms.iter().map(Stored::keys).sum();
    println!("{sent} messages of members are stored");
    Ok(faults)
}

fn check_acks(room: &Room, stored: &Stored) -> Vec<Result<(), Fault>> {
    room.acks.borrow().iter().map(|(key, offset)| stored.check_ack(key, *offset)).collect()
}

fn tell(faults: &mut Vec<String>, what: &str, checks: Vec<Result<(), Fault>>) {
    let wrong: Vec<&Fault> = checks.iter().filter_map(|check| check.as_ref().err()).collect();
    println!("{what}: {} compared with the database, {} differ", checks.len(), wrong.len());
    if let Some(first) = wrong.first() {
        faults.push(format!("{} of {} {what}, first: {first}", wrong.len(), checks.len()));
    }
}

fn report(stage: &Stage) {
    let stats = stage.recorder.stats();
    println!("\n{}\n{}", table::requests(&stats, stage.recorder.now()), table::percentiles(&stats));
    println!("{}", table::faults(&stats));
    println!(
        "{} streams whole, {} of them resumed or asked again; never served: {}",
        stage.streams_whole.get(),
        stage.streams_resumed.get(),
        stage.unserved.get()
    );
    println!("what befell the members' connections: {}", stage.incidents.borrow().summary());
    if let Some(slowest_ms) = slowest_within_blow_ms(&stats) {
        println!("the slowest delivery of a message sent within the blow took {slowest_ms:.0} ms");
    }
    let environment = generator::environment();
    println!("{} cores, {}", environment.cores, environment.cpu);
}

/// What the case must keep beyond the logs.
fn judge(stage: &Stage, args: &ChaosArgs) -> Vec<String> {
    let mut faults = Vec::new();
    let stats = stage.recorder.stats();
    if stage.unserved.get() > 0 {
        faults.push(format!("{} requests were never served", stage.unserved.get()));
    }
    // A member or stream that met one came back to a clean run: the logs do not show it.
    for (key, headline, seen) in stats.disorders() {
        faults.push(format!("{} times {headline}, {}, first: {}", seen.count, key.name, seen.example));
    }
    // Who is killed cannot answer; who is told to end must lose no request.
    if args.case == Case::Rolling && stats.failures() > 0 {
        faults.push(format!("{} requests failed", stats.failures()));
    }
    faults.extend(stage.incidents.borrow().faults());
    faults.extend(late_faults(stage.blow.get().level, slowest_within_blow_ms(&stats), args.caught_up));
    let limit_ms = args.delivery_p99.as_secs_f64() * 1000.0;
    for (key, entry) in stats.entries() {
        let calm = key.name.starts_with("delivery") && key.name != WITHIN_BLOW;
        if let Some(p99) = entry.percentile_ms(0.99).filter(|p99| calm && limit_ms > 0.0 && *p99 > limit_ms) {
            faults.push(format!("{}: 99 % within {p99:.0} ms, more than {limit_ms:.0}", key.name));
        }
    }
    faults
}

/// Everybody has what was sent within the blow in bounded time: messages that came an hour later would be lost to people.
fn late_faults(level: Option<Duration>, slowest_ms: Option<f64>, limit: Duration) -> Vec<String> {
    let limit_ms = limit.as_secs_f64() * 1000.0;
    let level_ms = level.map(|level| level.as_secs_f64() * 1000.0);
    let times = [
        ("all members had caught up", level_ms),
        ("the slowest message sent within the blow was delivered", slowest_ms),
    ];
    let late = times.into_iter().filter_map(|(what, took_ms)| {
        let took_ms = took_ms.filter(|took_ms| limit_ms > 0.0 && *took_ms > limit_ms)?;
        Some(format!("{what} after {took_ms:.0} ms, more than {limit_ms:.0}"))
    });
    late.collect()
}

fn slowest_within_blow_ms(stats: &Stats) -> Option<f64> {
    let (_, within) = stats.entries().find(|(key, _)| key.name == WITHIN_BLOW)?;
    Some(within.max_ms())
}

async fn wait(what: &str, holds: impl Fn() -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    while !holds() {
        anyhow::ensure!(
            began.elapsed() < SETTLE_LIMIT,
            "waited {} s in vain until {what}",
            SETTLE_LIMIT.as_secs()
        );
        sleep(ASK_EVERY).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::close::Close;
    use crate::logic::fleet::Replica;
    use crate::logic::incidents::Incident;
    use crate::logic::stats::{Key, Kind};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        chaos: ChaosArgs,
    }

    fn stage(case: &str) -> Stage {
        let load = Load { sockets: 0, rooms: 0, messages_per_s: 1.0, streams: 0, requests_per_s: 1.0 };
        let replica = |n: u32| Replica { name: format!("web-{n}"), url: String::new(), pid: None };
        let replicas: Vec<Replica> = (1..=4).map(replica).collect();
        Stage::new("test".to_owned(), load, arguments(case).case.harm(&replicas))
    }

    fn arguments(case: &str) -> ChaosArgs {
        Line::parse_from(["chaos", "--case", case]).chaos
    }

    fn judged(stage: &Stage, case: &str) -> Vec<String> {
        judge(stage, &arguments(case))
    }

    const CASES: [&str; 5] = ["rolling", "kill", "redis-empty", "redis-frozen", "commit-gap"];
    const STREAM: Key = Key { kind: Kind::Stream, name: "a stream" };

    #[test]
    fn a_wrong_order_fails_every_case_wherever_it_was_seen() {
        for case in CASES {
            let (member, stream) = (stage(case), stage(case));
            let twice = Fault::order("an offset came twice or late", "7 came for 8");
            member.on_delivery(Duration::ZERO, Some(&twice));
            let left_out = Fault::order("a token was left out", "5 for 3");
            stream.recorder.on_request(STREAM, Instant::now(), 0, Some(&left_out));
            for (stage, words) in [(member, "7 came for 8"), (stream, "a token was left out")] {
                let faults = judged(&stage, case);
                assert!(faults.iter().any(|fault| fault.contains(words)), "{case}: {faults:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_fails_only_where_nobody_is_killed() {
        for case in CASES {
            let stage = stage(case);
            let cut = Fault::Cut("reset".to_owned());
            stage.recorder.on_request(STREAM, Instant::now(), 0, Some(&cut));
            assert_eq!(judged(&stage, case).is_empty(), case != "rolling", "{case}");
        }
    }

    /// The cases in which this is no fault, when it befalls a member of each replica within the blow.
    fn excused(served_by: &str, incident: &Incident) -> Vec<&'static str> {
        let is_excused = |case: &&str| {
            let stage = stage(case);
            stage.blow.set(Blow { began: Some(Duration::ZERO), ..Blow::default() });
            stage.on_incident(served_by, incident);
            judged(&stage, case).is_empty()
        };
        CASES.into_iter().filter(is_excused).collect()
    }

    fn closed(code: u16, reason: &str) -> Incident {
        Incident::Closed(Close { code, reason: reason.to_owned() })
    }

    #[test]
    fn what_befalls_a_connection_passes_only_in_the_case_that_explains_it() {
        let cut = Incident::Cut("reset".to_owned());
        let refused = Incident::Refused { code: "unavailable".to_owned(), detail: String::new() };
        let none: [&str; 0] = [];
        assert_eq!(excused("web-1", &cut), ["commit-gap"]);
        assert_eq!(excused("web-2", &cut), ["kill"]);
        assert_eq!(excused("web-4", &cut), none);
        assert_eq!(excused("web-1", &closed(1012, r#"{"retry_after_ms":50}"#)), ["rolling"]);
        assert_eq!(excused("web-1", &closed(1012, "")), none);
        assert_eq!(excused("web-1", &closed(4408, "too slow")), none);
        assert_eq!(excused("web-1", &refused), none);
    }

    #[test]
    fn a_connection_that_ends_in_calm_fails_every_case() {
        for case in CASES {
            for blow in [
                Blow::default(),
                Blow { began: Some(Duration::ZERO), level: None, healed: Some(Duration::ZERO) },
            ] {
                let stage = stage(case);
                stage.blow.set(blow);
                stage.on_incident("web-1", &closed(1012, r#"{"retry_after_ms":50}"#));
                assert_eq!(judged(&stage, case).len(), 1, "{case} {blow:?}");
            }
        }
    }

    #[test]
    fn a_frame_of_a_wrong_form_fails_every_case() {
        for case in CASES {
            let stage = stage(case);
            let frames = Key { kind: Kind::Socket, name: "frames" };
            stage.recorder.on_request(frames, Instant::now(), 0, Some(&Fault::shape("not JSON", "x")));
            assert!(!judged(&stage, case).is_empty(), "{case}");
        }
    }

    #[test]
    fn who_gets_a_message_of_the_blow_too_late_fails_it() {
        let limit = Duration::from_secs(10);
        let told = |level_s: u64, slowest_ms: f64, limit: Duration| {
            late_faults(Some(Duration::from_secs(level_s)), Some(slowest_ms), limit).len()
        };
        assert_eq!((told(9, 9_000.0, limit), told(11, 9_000.0, limit), told(9, 11_000.0, limit)), (0, 1, 1));
        assert_eq!(told(11, 11_000.0, limit), 2);
        assert_eq!(told(11, 11_000.0, Duration::ZERO), 0);
        assert_eq!(late_faults(None, None, limit), Vec::<String>::new());
    }

    #[test]
    fn the_slowest_delivery_of_the_blow_is_found_and_judged() {
        let stage = stage("kill");
        assert_eq!(slowest_within_blow_ms(&stage.recorder.stats()), None);
        for took in [20, 11] {
            stage.recorder.on_span(WITHIN_BLOW, Duration::from_secs(took), None);
        }
        stage.recorder.on_span("delivery, after the blow", Duration::from_millis(1), None);
        assert_eq!(slowest_within_blow_ms(&stage.recorder.stats()), Some(20_000.0));
        assert_eq!(judged(&stage, "kill").len(), 1);
    }
}
