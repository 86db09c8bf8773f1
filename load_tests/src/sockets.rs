//! What sockets cost one replica: memory of an idle one, CPU of a delivery, against bare writes of the same bytes.

mod bare;
mod idle;

pub use bare::{BareArgs, serve as serve_bare};

use crate::accounts::{self, Account};
use crate::args::PlaceArgs;
use crate::chaos::open_session;
use crate::generator;
use crate::http::{Call, Client, Dialer};
use crate::logic::content;
use crate::logic::durations;
use crate::logic::frames::Frame;
use crate::logic::room::RoomView;
use crate::processes::Process;
use crate::recorder::Recorder;
use crate::site::Site;
use crate::ws::{Incoming, Socket};
use anyhow::Context;
use bare::Bare;
use clap::Args;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use idle::Idle;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub struct SocketsArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Idle WebSockets at one replica
    #[arg(long, default_value_t = 5_000)]
    pub idle: usize,
    /// Members of the one large room
    #[arg(long, default_value_t = 500)]
    pub room: usize,
    /// Messages per second into the large room
    #[arg(long, default_value_t = 20.0)]
    pub rate: f64,
    /// Messages at once where they shall share writes
    #[arg(long, default_value_t = 10)]
    pub batch: u32,
    /// Rooms of two
    #[arg(long, default_value_t = 300)]
    pub pairs: usize,
    /// How long each of the three is measured
    #[arg(long, default_value = "15s", value_parser = durations::parse)]
    pub time: Duration,
    /// Most memory of an idle connection, in bytes
    #[arg(long, default_value_t = 16 * 1024)]
    pub idle_bytes_max: u64,
    /// Most CPU of a delivery, as a multiple of a bare write
    #[arg(long, default_value_t = 1.3)]
    pub ratio_max: f64,
    /// Most CPU of a delivery where messages share writes, in microseconds
    #[arg(long, default_value_t = 3.0)]
    pub shared_us_max: f64,
}

const ACCOUNTS: u32 = 50;
/// A message of the documents' size.
const CONTENT_LEN: usize = 256;
const CONNECT_PERIOD: Duration = Duration::from_millis(2);
const SETTLE: Duration = Duration::from_secs(3);
/// WebSocket frames of 126 bytes and up bear a head of four.
const FRAME_HEAD: usize = 4;

struct Bench {
    dialer: Rc<Dialer>,
    /// Another replica, where there is one: it takes the requests whose cost is none of a delivery's.
    elsewhere: Option<Rc<Dialer>>,
    people: Vec<Rc<Account>>,
    process: Process,
    run: String,
    recorder: Recorder,
}

/// One room's listeners.
struct Crowd {
    heard: Rc<Heard>,
    tasks: JoinSet<()>,
}

struct Heard {
    deliveries: Cell<u64>,
    frame_len: Cell<usize>,
    took_us: RefCell<Histogram<u64>>,
    faults: RefCell<Vec<String>>,
}

/// A measured stretch.
struct Cost {
    deliveries: u64,
    cpu: Duration,
    took: Duration,
    p99_ms: f64,
}

impl Cost {
    fn us_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.deliveries.max(1) as f64
    }

    fn tell(&self, what: &str) {
        println!(
            "{what}: {} deliveries, {:.0}/s, {:.2} µs CPU each, 99 % within {:.1} ms",
            self.deliveries,
            self.deliveries as f64 / self.took.as_secs_f64(),
            self.us_each(),
            self.p99_ms
        );
    }
}

pub async fn run(
    args: &SocketsArgs,
    lookup: &dyn Fn(&str) -> Option<String>,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let site = Site::find(&args.place, lookup).await?;
    let replica = site.replicas.first().context("needs a replica and its pid: give --status")?;
    let mut client = site.client();
    let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    let elsewhere = match site.replicas.get(1) {
        Some(other) => Some(site.dialer_of(other).await?),
        None => None,
    };
    let bench = Rc::new(Bench {
        dialer: site.dialer_of(replica).await?,
        elsewhere,
        people: accounts::register(&mut client, &run, ACCOUNTS).await.context("cannot register")?,
        process: Process::of_replica(replica)?,
        run,
        recorder: Recorder::start(),
    });
    let faults = stop.run_until_cancelled(measure(&bench, args)).await.context("interrupted")??;
    println!("generator: {:.0} s of CPU", generator::cpu_time()?.as_secs_f64());
    for fault in &faults {
        println!("FAILED: {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(bench: &Rc<Bench>, args: &SocketsArgs) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    let each = bench.idle(args.idle).await?;
    println!("{} idle WebSockets: {each} bytes of RSS each", args.idle);
    if each > args.idle_bytes_max {
        faults.push(format!("{each} bytes for an idle connection, more than {}", args.idle_bytes_max));
    }
    let here = bench.dialer.clone();
    let there = bench.elsewhere.clone().unwrap_or_else(|| here.clone());
    let beat = Beat { period: Duration::from_secs_f64(1.0 / args.rate), batch: 1 };
    let (with_requests, _) = bench.room(args.room, beat, args.time, &here).await?;
    with_requests
        .tell(&format!("a room of {}, a message at a time, requests and storing included", args.room));
    let (spread, frame_len) = bench.room(args.room, beat, args.time, &there).await?;
    spread.tell("the same, requests at another replica");
    let bare = bench.bare(args, frame_len).await?;
    println!("bare writes of {} bytes: {bare:.2} µs CPU each", frame_len + FRAME_HEAD);
    let ratio = spread.us_each() / bare;
    let with_requests = with_requests.us_each() / bare;
    println!(
        "a delivery costs {ratio:.2} times a bare write, {with_requests:.2} times with requests and storing"
    );
    if ratio > args.ratio_max {
        faults.push(format!("{ratio:.2} times a bare write, more than {}", args.ratio_max));
    }
    let beat = Beat { period: beat.period * args.batch / 2, batch: args.batch };
    let (with_requests, _) = bench.room(args.room, beat, args.time, &here).await?;
    with_requests
        .tell(&format!("the same room, {} messages at a time, requests and storing included", args.batch));
    let (shared, _) = bench.room(args.room, beat, args.time, &there).await?;
    shared.tell("the same, requests at another replica");
    if shared.us_each() > args.shared_us_max {
        faults.push(format!("{:.2} µs where messages share writes", shared.us_each()));
    }
    bench.pairs(args.pairs, args.time).await?.tell(&format!("{} rooms of two", args.pairs));
    Ok(faults)
}

/// When messages are sent.
#[derive(Clone, Copy)]
struct Beat {
    period: Duration,
    batch: u32,
}

impl Bench {
    /// Memory that an idle connection takes.
    async fn idle(self: &Rc<Self>, count: usize) -> anyhow::Result<u64> {
        let mut client = Client::new(self.dialer.clone());
        // The first connections make the process take what it keeps.
        drop(self.sit(&mut client, 200).await?);
        sleep(SETTLE).await;
        let before = self.process.rss()?;
        let mut sockets = self.sit(&mut client, count).await?;
        sleep(SETTLE).await;
        let after = self.process.rss()?;
        sockets.expect_open(&mut client).await?;
        let each = after.saturating_sub(before) / sockets.count() as u64;
        drop(sockets);
        sleep(SETTLE).await;
        Ok(each)
    }

    /// Connections in rooms of 100 that nobody writes to.
    async fn sit(&self, client: &mut Client, count: usize) -> anyhow::Result<Idle> {
        let mut sockets = Idle::default();
        let mut room = String::new();
        for n in 0..count {
            let account = &self.people[n / 100 % self.people.len()];
            if n % 100 == 0 {
                room = open_session(client, account, "sockets: idle", "private").await?.id.clone();
            }
            sockets.add(Socket::open(&self.dialer, &room, &account.token(), None).await?.0);
            sleep(CONNECT_PERIOD).await;
        }
        Ok(sockets)
    }

    /// One large room whose messages are sent to `requests_at`; gives the cost and the length of a delivered frame.
    async fn room(
        self: &Rc<Self>,
        members: usize,
        beat: Beat,
        time: Duration,
        requests_at: &Rc<Dialer>,
    ) -> anyhow::Result<(Cost, usize)> {
        let mut client = Client::new(self.dialer.clone());
        let account = self.people[0].clone();
        let room = open_session(&mut client, &account, "sockets: one room", "private").await?.id.clone();
        let mut crowd = Crowd::new();
        for _ in 0..members {
            crowd.join(self, &room, &account).await?;
        }
        sleep(SETTLE).await;
        let rounds = (time.as_secs_f64() / beat.period.as_secs_f64()).ceil() as u32;
        let (cpu, began) = (self.process.cpu_time()?, Instant::now());
        let mut clients: Vec<Client> = (0..beat.batch).map(|_| Client::new(requests_at.clone())).collect();
        for round in 0..rounds {
            sleep_until(began + beat.period * round).await;
            let posts = clients.iter_mut().map(|client| self.post(client, &account, &room));
            join_all(posts).await.into_iter().collect::<Result<(), _>>()?;
        }
        crowd.wait(u64::from(rounds * beat.batch) * members as u64).await?;
        let cost = crowd.cost(self.process.cpu_time()?.saturating_sub(cpu), began.elapsed());
        Ok((cost, crowd.heard.frame_len.get()))
    }

    /// Many rooms of two, a message per second in each.
    async fn pairs(self: &Rc<Self>, count: usize, time: Duration) -> anyhow::Result<Cost> {
        let mut client = Client::new(self.dialer.clone());
        let mut crowd = Crowd::new();
        let mut rooms = Vec::new();
        for n in 0..count {
            let account = self.people[n % self.people.len()].clone();
            let room = open_session(&mut client, &account, "sockets: two", "private").await?.id.clone();
            crowd.join(self, &room, &account).await?;
            crowd.join(self, &room, &account).await?;
            rooms.push((room, account));
        }
        sleep(SETTLE).await;
        let (cpu, began) = (self.process.cpu_time()?, Instant::now());
        let sent = time.as_secs() as usize * count;
        for n in 0..sent {
            sleep_until(began + Duration::from_secs_f64(n as f64 / count as f64)).await;
            let (room, account) = &rooms[n % count];
            self.post(&mut client, account, room).await?;
        }
        crowd.wait(sent as u64 * 2).await?;
        Ok(crowd.cost(self.process.cpu_time()?.saturating_sub(cpu), began.elapsed()))
    }

    async fn post(&self, client: &mut Client, account: &Account, room: &str) -> anyhow::Result<()> {
        let mut text = content::stamped(&self.run, self.recorder.now(), "");
        text.extend(std::iter::repeat_n('x', CONTENT_LEN.saturating_sub(text.len())));
        let path = format!("/api/sessions/{room}/messages");
        let call = Call::post("message", path, &json!({"content": text})).bearer(&account.token());
        client.call(&call).await?.expect(hyper::StatusCode::CREATED)?;
        Ok(())
    }

    /// CPU of one bare write in microseconds, to as many sockets at the same rate.
    async fn bare(&self, args: &SocketsArgs, frame_len: usize) -> anyhow::Result<f64> {
        let rounds = (args.time.as_secs_f64() * args.rate).ceil() as u32;
        let period_us = (1e6 / args.rate) as u64;
        let bytes = frame_len + FRAME_HEAD;
        let bare = Bare::start(&BareArgs { sockets: args.room, bytes, rounds, period_us })?;
        let mut dialer = (*self.dialer).clone();
        dialer.address.set_port(bare.port);
        let mut readers = JoinSet::new();
        for _ in 0..args.room {
            let mut stream = dialer.connect().await?;
            readers.spawn_local(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
            });
        }
        while readers.join_next().await.is_some() {}
        Ok(bare.finish()?.as_secs_f64() * 1e6 / (f64::from(rounds) * args.room as f64))
    }
}

impl Crowd {
    fn new() -> Self {
        let heard = Heard {
            deliveries: Cell::new(0),
            frame_len: Cell::new(0),
            took_us: RefCell::new(Histogram::new(3).expect("three digits are allowed")),
            faults: RefCell::default(),
        };
        Self { heard: Rc::new(heard), tasks: JoinSet::new() }
    }

    async fn join(&mut self, bench: &Rc<Bench>, room: &str, account: &Account) -> anyhow::Result<()> {
        let (socket, welcome) = Socket::open(&bench.dialer, room, &account.token(), None).await?;
        let (heard, bench) = (self.heard.clone(), bench.clone());
        let view = RoomView::at(welcome.offset);
        self.tasks.spawn_local(async move {
            if let Err(fault) = heard.listen(socket, view, &bench).await {
                heard.faults.borrow_mut().push(fault.to_string());
            }
        });
        sleep(CONNECT_PERIOD).await;
        Ok(())
    }

    /// Waits until so many deliveries have come.
    async fn wait(&self, deliveries: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.heard.deliveries.get() < deliveries {
            if let Some(fault) = self.heard.faults.borrow().first() {
                anyhow::bail!("a member: {fault}");
            }
            let got = self.heard.deliveries.get();
            anyhow::ensure!(began.elapsed() < Duration::from_secs(20), "{got} of {deliveries} deliveries");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn cost(&self, cpu: Duration, took: Duration) -> Cost {
        let p99_ms = self.heard.took_us.borrow().value_at_quantile(0.99) as f64 / 1000.0;
        Cost { deliveries: self.heard.deliveries.get(), cpu, took, p99_ms }
    }
}

impl Heard {
    async fn listen(
        &self,
        mut socket: Socket,
        mut view: RoomView,
        bench: &Bench,
    ) -> Result<(), crate::logic::fault::Fault> {
        loop {
            let deadline = Instant::now() + Duration::from_secs(3600);
            match socket.next(deadline).await? {
                Incoming::Frame(Frame::Message(message)) => {
                    view.on_message(message.offset)?;
                    self.deliveries.set(self.deliveries.get() + 1);
                    self.frame_len.set(socket.last_len());
                    if let Some(sent) = content::stamp_of(&bench.run, &message.content) {
                        let took = bench.recorder.now().saturating_sub(sent);
                        // Three digits over any range: a value is never out of it.
                        let _ = self.took_us.borrow_mut().record(took.as_micros() as u64);
                    }
                }
                Incoming::Frame(_) => {}
                Incoming::Closed(close) => {
                    return Err(crate::logic::fault::Fault::Cut(format!("closed with {close}")));
                }
                Incoming::Nothing => return Ok(()),
            }
        }
    }
}
