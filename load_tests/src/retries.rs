//! Many writes, of which a share is sent twice or cut off in the middle: none may be stored twice, none lost.

use crate::accounts::{self, Account};
use crate::args::PlaceArgs;
use crate::chaos::open_session;
use crate::http::{Call, Client, Dialer};
use crate::logic::fault::Fault;
use crate::logic::random::Random;
use crate::logic::shape::Message;
use crate::site::Site;
use crate::stored;
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub struct RetriesArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Messages to store
    #[arg(long, default_value_t = 100_000)]
    pub posts: u32,
    /// Percentage of them that is sent again or cut off
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub trouble: u8,
    /// Requests at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub clients: u32,
    /// Sessions that they go to
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub sessions: u32,
    /// Makes a run repeatable
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

const ACCOUNTS: u32 = 20;
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);
/// A request that is cut off is so within this time: before, while and after it is stored.
const CUT_WITHIN_US: u64 = 15_000;

/// What happens to one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Sent again when it is answered.
    Twice,
    /// Its connection is cut off within the request or before the answer; then it is sent again.
    Cut,
}

#[derive(Debug, Default)]
struct Ledger {
    sessions: Vec<String>,
    acks: RefCell<Vec<(usize, String, i64)>>,
    next: Cell<u32>,
    twice: Cell<u32>,
    cut: Cell<u32>,
    /// Cut off and stored all the same: found by the next try.
    cut_and_stored: Cell<u32>,
    failed_tries: Cell<u32>,
    faults: RefCell<Vec<Fault>>,
}

/// Exit code 1 when a message was stored twice, lost, or left a gap.
pub async fn run(
    args: &RetriesArgs,
    lookup: &dyn Fn(&str) -> Option<String>,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let site = Site::find(&args.place, lookup).await?;
    let postgres = stored::connect(&site).await?;
    let mut client = site.client();
    let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    let people = accounts::register(&mut client, &run, ACCOUNTS).await.context("cannot register")?;
    let mut ledger = Ledger::default();
    for n in 0..args.sessions as usize {
        let owner = &people[n % people.len()];
        let session = open_session(&mut client, owner, "retries", "private").await?;
        ledger.sessions.push(session.id.clone());
    }
    let ledger = Rc::new(ledger);
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for _ in 0..args.clients {
        let writer = Writer {
            ledger: ledger.clone(),
            people: people.clone(),
            dialer: site.dialer.clone(),
            client: site.client(),
        };
        writers.spawn_local(writer.run(args.posts, args.trouble, args.seed));
    }
    let renewal = accounts::keep_fresh(people, client, |_| {});
    tokio::select! {
        () = async { while writers.join_next().await.is_some() {} } => {}
        () = renewal => {}
        () = stop.cancelled() => anyhow::bail!("interrupted"),
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} writes in {seconds:.0} s ({:.0}/s): {} sent twice, {} cut off ({} of them had been stored), {} tries failed",
        args.posts,
        f64::from(args.posts) / seconds,
        ledger.twice.get(),
        ledger.cut.get(),
        ledger.cut_and_stored.get(),
        ledger.failed_tries.get()
    );
    judge(&ledger, &postgres, args.posts).await
}

async fn judge(ledger: &Ledger, postgres: &tokio_postgres::Client, posts: u32) -> anyhow::Result<ExitCode> {
    let mut faults: Vec<String> = ledger.faults.borrow().iter().map(ToString::to_string).collect();
    let mut all = Vec::new();
    for session in &ledger.sessions {
        // Gaps and doubles end it here, with their names.
        all.push(stored::session(postgres, session).await?);
    }
    let found: usize = all.iter().map(crate::logic::member_log::Stored::keys).sum();
    if found != posts as usize {
        faults.push(format!("{found} messages are stored, {posts} were sent"));
    }
    let acks = ledger.acks.borrow();
    faults.extend(acks.iter().filter_map(|(session, key, offset)| {
        all[*session].check_ack(key, *offset).err().map(|fault| fault.to_string())
    }));
    for fault in faults.iter().take(10) {
        println!("FAILED: {fault}");
    }
    if !faults.is_empty() {
        println!("FAILED: {} faults", faults.len());
        return Ok(ExitCode::FAILURE);
    }
    println!("OK: {found} stored, {} acknowledged, none twice, none lost, no gap", acks.len());
    Ok(ExitCode::SUCCESS)
}

struct Writer {
    ledger: Rc<Ledger>,
    people: Vec<Rc<Account>>,
    dialer: Rc<Dialer>,
    client: Client,
}

impl Writer {
    async fn run(mut self, posts: u32, trouble: u8, seed: u64) {
        loop {
            let n = self.ledger.next.get();
            if n >= posts {
                return;
            }
            self.ledger.next.set(n + 1);
            let mut random = Random::of_user(seed, n);
            let trouble = match random.below(100) {
                percent if percent >= u64::from(trouble) => Trouble::None,
                percent if percent % 2 == 0 => Trouble::Twice,
                _ => Trouble::Cut,
            };
            if let Err(fault) = self.write(n, trouble, &mut random).await {
                self.ledger.faults.borrow_mut().push(fault);
            }
        }
    }

    async fn write(&mut self, n: u32, trouble: Trouble, random: &mut Random) -> Result<(), Fault> {
        let session = n as usize % self.ledger.sessions.len();
        let account = self.people[session % self.people.len()].clone();
        let path = format!("/api/sessions/{}/messages", self.ledger.sessions[session]);
        let key = format!("r-{n}");
        let body = json!({"content": format!("message {n}"), "client_msg_id": key});
        if trouble == Trouble::Cut {
            self.ledger.cut.set(self.ledger.cut.get() + 1);
            cut_off(&self.dialer, &path, &account.token(), &body.to_string(), random).await;
        }
        let call = || Call::post("/api/sessions/[id]/messages", path.clone(), &body).bearer(&account.token());
        let (message, replayed) = self.until_answered(call()).await?;
        match trouble {
            Trouble::None => {}
            Trouble::Cut => {
                let stored = self.ledger.cut_and_stored.get() + u32::from(replayed);
                self.ledger.cut_and_stored.set(stored);
            }
            Trouble::Twice => {
                self.ledger.twice.set(self.ledger.twice.get() + 1);
                let (again, replayed) = self.until_answered(call()).await?;
                if !replayed || again != message {
                    return Err(Fault::order("a repeated write was not told as a replay", key));
                }
            }
        }
        self.ledger.acks.borrow_mut().push((session, key, message.offset));
        Ok(())
    }

    /// The stored message, and whether it had been stored before.
    async fn until_answered(&mut self, call: Call) -> Result<(Message, bool), Fault> {
        let mut last = Fault::Connect("never tried".to_owned());
        for _ in 0..TRIES {
            match self.client.call(&call).await {
                Ok(answer) if matches!(answer.status, 200 | 201) => {
                    return Ok((answer.json()?, answer.header("idempotency-replayed") == Some("true")));
                }
                Ok(answer) => {
                    last = answer.expect(hyper::StatusCode::CREATED).err().unwrap_or(last);
                }
                Err(fault) => last = fault,
            }
            self.ledger.failed_tries.set(self.ledger.failed_tries.get() + 1);
            sleep(PAUSE).await;
        }
        Err(last)
    }
}

/// Sends the request, or the beginning of it, and drops the connection before an answer is read.
async fn cut_off(dialer: &Dialer, path: &str, token: &str, body: &str, random: &mut Random) {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        dialer.authority,
        body.len()
    );
    let bytes = request.as_bytes();
    // One in four ends within the request itself.
    let len = if random.below(4) == 0 { random.below(bytes.len() as u64) as usize } else { bytes.len() };
    let Ok(mut stream) = dialer.connect().await else { return };
    // Whatever becomes of it: the write is sent again.
    if stream.write_all(&bytes[..len]).await.is_ok() {
        sleep(Duration::from_micros(random.below(CUT_WITHIN_US))).await;
    }
}
