//! Writes, each read a moment later with its token through any replica, over standbys that lag: no read may be stale,
//! and what a standby could have answered a standby should answer.

mod loss;
mod sampler;

use crate::accounts::{self, Account};
use crate::args::PlaceArgs;
use crate::chaos::open_session;
use crate::http::{Call, Client, Dialer};
use crate::logic::durations;
use crate::logic::fault::Fault;
use crate::logic::fleet::{self, Address};
use crate::logic::lag::Lag;
use crate::logic::positions::Track;
use crate::logic::random::Random;
use crate::logic::shape::{Message, Page};
use crate::recorder::Recorder;
use crate::site::Site;
use anyhow::Context;
use clap::Args;
use hyper::StatusCode;
use sampler::{Role, Shared};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub struct ReadsArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// A standby that the replicas read from; repeat for each
    #[arg(long = "standby", value_name = "HOST:PORT", value_parser = fleet::parse_address, required = true)]
    pub standbys: Vec<Address>,
    /// Writes, each of which is read once
    #[arg(long, default_value_t = 200_000)]
    pub writes: u32,
    /// Writes per second
    #[arg(long, default_value_t = 400.0)]
    pub rate: f64,
    /// A read follows its write after 0 to this time
    #[arg(long, default_value = "4s", value_parser = durations::parse)]
    pub age: Duration,
    /// Greatest lag that is given to the standbys (needs a superuser); 0: they are left alone
    #[arg(long, default_value = "2s", value_parser = durations::parse)]
    pub lag: Duration,
    /// Least percentage of the reads a standby could have answered that one must have answered
    #[arg(long, default_value_t = 90.0)]
    pub by_standby: f64,
    /// Run when half of the writes are made: a clean stop of the primary and a promotion
    #[arg(long, value_name = "COMMAND")]
    pub switch_over: Option<String>,
    /// Run after the reads: keeps the remaining standby from receiving
    #[arg(long, value_name = "COMMAND", requires = "fail_over")]
    pub cut_off: Option<String>,
    /// Run then: ends the primary and promotes that standby
    #[arg(long, value_name = "COMMAND", requires = "cut_off")]
    pub fail_over: Option<String>,
    /// Makes a run repeatable
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

const WRITERS: u32 = 40;
const TOKEN: &str = "x-consistency-token";
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);
/// Positions older than this tell nothing of the moment.
const FRESH: Duration = Duration::from_millis(100);

/// What all writers and readers share.
struct Run {
    people: Vec<Rc<Account>>,
    sessions: Vec<String>,
    replicas: Vec<Rc<Dialer>>,
    recorder: Rc<Recorder>,
    primary: Shared,
    standbys: Vec<Shared>,
    reads: RefCell<Vec<Read>>,
    failed_tries: Cell<u64>,
    /// Writes that were answered well, but without a token.
    untold: Cell<u64>,
    faults: RefCell<Vec<Fault>>,
}

/// A write and what a read of it must bear.
struct Wrote {
    writer: usize,
    session: String,
    id: String,
    offset: i64,
    token: String,
    /// The first try.
    sent: Duration,
    answered: Duration,
}

/// A read that was answered in full.
struct Read {
    sent: Duration,
    wrote: Duration,
    began: Duration,
    by_standby: bool,
}

/// What goes on beside the work; ends when it is dropped.
struct Helpers {
    samplers: JoinSet<()>,
    lags: JoinSet<anyhow::Result<()>>,
}

pub async fn run(
    args: &ReadsArgs,
    lookup: &dyn Fn(&str) -> Option<String>,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let site = Rc::new(Site::find(&args.place, lookup).await?);
    let run = Rc::new(set_up(&site, args).await?);
    let mut helpers = start_helpers(&site, &run, args)?;
    let work = async {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS as usize {
            writers.spawn_local(write_and_read(run.clone(), site.client(), args_of(args), writer));
        }
        let half = Duration::from_secs_f64(f64::from(args.writes) / args.rate / 2.0);
        if let Some(switch_over) = &args.switch_over {
            sleep(half).await;
            println!("switching over after {:.0} s", half.as_secs_f64());
            command(switch_over).await?;
        }
        while let Some(ended) = writers.join_next().await {
            ended?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        done = stop.run_until_cancelled(work) => done.context("interrupted")??,
        failed = helpers.failure() => return Err(failed),
    }
    let mut faults = judge(&run, args);
    if let (Some(cut_off), Some(fail_over)) = (&args.cut_off, &args.fail_over) {
        match loss::check(&run, &site, cut_off, fail_over).await {
            Ok(told) => println!("{told}"),
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    drop(helpers);
    for fault in faults.iter().take(10) {
        println!("FAILED: {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The plan of one writer.
#[derive(Clone, Copy)]
struct Beat {
    count: u32,
    period: Duration,
    age: Duration,
    seed: u64,
}

fn args_of(args: &ReadsArgs) -> Beat {
    Beat {
        count: args.writes / WRITERS,
        period: Duration::from_secs_f64(f64::from(WRITERS) / args.rate),
        age: args.age,
        seed: args.seed,
    }
}

async fn set_up(site: &Site, args: &ReadsArgs) -> anyhow::Result<Run> {
    let mut client = site.client();
    let name = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    let people = accounts::register(&mut client, &name, WRITERS).await.context("cannot register")?;
    let mut sessions = Vec::new();
    for owner in &people {
        sessions.push(open_session(&mut client, owner, "reads", "private").await?.id.clone());
    }
    let mut replicas = Vec::new();
    for replica in &site.replicas {
        replicas.push(site.dialer_of(replica).await?);
    }
    anyhow::ensure!(!replicas.is_empty(), "needs the replicas' own addresses: give --status or --replica");
    Ok(Run {
        people,
        sessions,
        replicas,
        recorder: Rc::new(Recorder::start()),
        primary: Rc::new(RefCell::new(Track::default())),
        standbys: args.standbys.iter().map(|_| Rc::new(RefCell::new(Track::default()))).collect(),
        reads: RefCell::default(),
        failed_tries: Cell::new(0),
        untold: Cell::new(0),
        faults: RefCell::default(),
    })
}

fn start_helpers(site: &Rc<Site>, run: &Rc<Run>, args: &ReadsArgs) -> anyhow::Result<Helpers> {
    let primary =
        site.postgres.clone().context("needs Postgres' own address: give --status or --postgres")?;
    let (mut samplers, mut lags) = (JoinSet::new(), JoinSet::new());
    let recorder = || run.recorder.clone();
    samplers.spawn_local(sampler::sample(
        site.clone(),
        primary,
        Role::Primary,
        recorder(),
        run.primary.clone(),
    ));
    for (n, (at, track)) in args.standbys.iter().zip(&run.standbys).enumerate() {
        let (site, at, track) = (site.clone(), at.clone(), track.clone());
        samplers.spawn_local(sampler::sample(site.clone(), at.clone(), Role::Standby, recorder(), track));
        if !args.lag.is_zero() {
            lags.spawn_local(sampler::vary_lag(site, at, args.lag, args.seed + n as u64));
        }
    }
    let (people, client) = (run.people.clone(), site.client());
    samplers.spawn_local(accounts::keep_fresh(people, client, |_| {}));
    Ok(Helpers { samplers, lags })
}

impl Helpers {
    /// All of them go on for as long as the trial lasts: one that ends has failed.
    async fn failure(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(lag) = self.lags.join_next() => lag.map_err(anyhow::Error::from).and_then(|given| given),
            Some(sampler) = self.samplers.join_next() => sampler.map_err(anyhow::Error::from),
        };
        ended.err().unwrap_or_else(|| anyhow::anyhow!("a helper of the trial has ended"))
    }
}

/// One writer: writes on its beat; each write is read after its own time, so that reads and writes mix.
async fn write_and_read(run: Rc<Run>, mut client: Client, beat: Beat, writer: usize) {
    let mut random = Random::of_user(beat.seed, u32::try_from(writer).unwrap_or(0));
    let first = Instant::now() + beat.period.mul_f64(writer as f64 / f64::from(WRITERS));
    let mut readers = JoinSet::new();
    for n in 0..beat.count {
        sleep_until(first + beat.period * n).await;
        match run.write(&mut client, writer as u32).await {
            Ok(wrote) => {
                let age = Duration::from_micros(random.below(beat.age.as_micros() as u64 + 1));
                let replica = run.replicas[random.below(run.replicas.len() as u64) as usize].clone();
                readers.spawn_local(run.clone().read(wrote, age, replica));
            }
            Err(fault) => run.faults.borrow_mut().push(fault),
        }
        while readers.try_join_next().is_some() {}
    }
    while readers.join_next().await.is_some() {}
}

impl Run {
    fn account(&self, writer: usize) -> &Account {
        &self.people[writer % self.people.len()]
    }

    /// Stores a message, trying again while the database changes hands.
    async fn write(&self, client: &mut Client, number: u32) -> Result<Wrote, Fault> {
        let sent = self.recorder.now();
        let writer = number as usize % self.people.len();
        let session = self.sessions[writer].clone();
        let key = uuid::Uuid::new_v4().simple().to_string();
        let body = json!({"content": "written to be read", "client_msg_id": key});
        let path = format!("/api/sessions/{session}/messages");
        let mut last = Fault::Connect("never tried".to_owned());
        for _ in 0..TRIES {
            let call = Call::post("write", path.clone(), &body).bearer(&self.account(writer).token());
            let (fault, counter) = match client.call(&call).await {
                Ok(answer) if matches!(answer.status, 200 | 201) && answer.header(TOKEN).is_some() => {
                    let message: Message = answer.json()?;
                    let token = answer.header(TOKEN).unwrap_or_default().to_owned();
                    let answered = self.recorder.now();
                    let Message { id, offset, .. } = message;
                    return Ok(Wrote { writer, session, id, offset, token, sent, answered });
                }
                // While the primary ends it may answer a write and not the question for its position any more: the same
                // again is told with a token.
                Ok(answer) if matches!(answer.status, 200 | 201) => {
                    (Fault::shape("a write without a token", ""), &self.untold)
                }
                Ok(answer) => {
                    let other = || Fault::shape("an answer that is neither 200 nor 201", "");
                    (answer.expect(StatusCode::CREATED).err().unwrap_or_else(other), &self.failed_tries)
                }
                Err(fault) => (fault, &self.failed_tries),
            };
            counter.set(counter.get() + 1);
            last = fault;
            sleep(PAUSE).await;
        }
        Err(last)
    }

    /// Reads the write back `age` later. A refusal is no stale read: it is asked again.
    async fn read(self: Rc<Self>, wrote: Wrote, age: Duration, replica: Rc<Dialer>) {
        sleep(age).await;
        let path = format!("/api/sessions/{}/messages?after={}&limit=1", wrote.session, wrote.offset - 1);
        let mut client = Client::new(replica);
        for _ in 0..TRIES {
            let call = Call::get("read", path.clone())
                .bearer(&self.account(wrote.writer).token())
                .header(TOKEN, wrote.token.clone());
            let began = self.recorder.now();
            let answer = client.call(&call).await;
            let answer = answer.and_then(|answer| answer.expect(StatusCode::OK).map(|_| ()).and(Ok(answer)));
            if let Ok(answer) = answer {
                let by_standby = answer.header("x-read-from").is_some_and(|from| from != "primary");
                match answer.json::<Page<Message>>() {
                    Ok(page) if page.items.first().is_some_and(|message| message.id == wrote.id) => {
                        let read = Read { sent: wrote.sent, wrote: wrote.answered, began, by_standby };
                        self.reads.borrow_mut().push(read);
                    }
                    Ok(_) => {
                        let detail = format!("offset {} after {} ms", wrote.offset, age.as_millis());
                        self.faults.borrow_mut().push(Fault::order("a stale read", detail));
                    }
                    Err(fault) => self.faults.borrow_mut().push(fault),
                }
                return;
            }
            self.failed_tries.set(self.failed_tries.get() + 1);
            sleep(PAUSE).await;
        }
        self.faults.borrow_mut().push(Fault::order("a write was never read", wrote.offset.to_string()));
    }
}

fn judge(run: &Run, args: &ReadsArgs) -> Vec<String> {
    let mut faults: Vec<String> = run.faults.borrow().iter().map(ToString::to_string).collect();
    let reads = run.reads.borrow();
    let standbys: Vec<_> = run.standbys.iter().map(|track| track.borrow()).collect();
    let (mut able, mut taken, mut by_standby) = (0u32, 0u32, 0u32);
    for read in reads.iter() {
        by_standby += u32::from(read.by_standby);
        let Some(bound) = run.primary.borrow().bound_of_write(read.wrote) else { continue };
        if standbys.iter().any(|track| track.had(bound, read.began, FRESH)) {
            able += 1;
            taken += u32::from(read.by_standby);
        }
    }
    let share = 100.0 * f64::from(taken) / f64::from(able.max(1));
    println!(
        "{} writes read back, {} stale or wrong, {} tries refused, {} writes answered without a token; \
         {by_standby} answered by a standby; of {able} that a standby surely had, {share:.1} %",
        reads.len(),
        faults.len(),
        run.failed_tries.get(),
        run.untold.get()
    );
    if share < args.by_standby {
        faults.push(format!("{share:.1} % by a standby, less than {} %", args.by_standby));
    }
    faults.extend(lag_faults(run, args, &reads));
    if (reads.len() as u32) < args.writes / WRITERS * WRITERS {
        faults.push(format!("only {} of {} reads", reads.len(), args.writes));
    }
    faults
}

/// Whether the standbys were behind as much as they were to be, and reads met them so: else no read could be stale.
fn lag_faults(run: &Run, args: &ReadsArgs, reads: &[Read]) -> Vec<String> {
    let mut faults = Vec::new();
    let primary = run.primary.borrow();
    for (at, track) in args.standbys.iter().zip(&run.standbys) {
        let (mut lag, track) = (Lag::of_up_to(args.lag), track.borrow());
        for found in reads.iter().filter_map(|read| track.lag(&primary, read.wrote, FRESH)) {
            lag.on_write(found);
        }
        println!("standby {}:{}: {lag}", at.host, at.port);
        faults.extend(lag.faults().iter().map(|fault| format!("standby {}:{}: {fault}", at.host, at.port)));
    }
    let lacked = |read: &&Read| {
        let floor = primary.reached(read.sent);
        floor.is_some_and(|floor| run.standbys.iter().any(|it| it.borrow().lacked(floor, read.began, FRESH)))
    };
    let at_risk = reads.iter().filter(lacked).count();
    println!("{at_risk} reads began while a standby surely lacked what they asked for");
    if at_risk == 0 && !args.lag.is_zero() {
        faults.push("no read began while a standby lacked its write: nothing is shown".to_owned());
    }
    faults
}

async fn command(text: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-c", text]).status().await?;
    anyhow::ensure!(status.success(), "`{text}` ended with {status}");
    Ok(())
}
