//! One run: set up accounts and rooms, let users come as planned, tick, stop them, hand back the figures.

use crate::accounts;
use crate::generator;
use crate::http::{Call, Client, Dialer};
use crate::logic::fault::Fault;
use crate::logic::mix::Role;
use crate::logic::plan::Plan;
use crate::logic::report::Generator;
use crate::logic::shape::Session;
use crate::logic::stats::{Key, Kind, Recent, Stats};
use crate::recorder::Recorder;
use crate::users::{Room, User, World};
use anyhow::Context;
use chassis::tasks::Tasks;
use hyper::StatusCode;
use serde_json::json;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

/// What a run shows while it goes on, each second.
pub trait Watch {
    fn on_setup(&mut self, accounts: usize, rooms: usize, took: Duration);
    fn on_second(&mut self, second: &Second<'_>);
}

/// The state of a run at one second.
#[derive(Debug)]
pub struct Second<'a> {
    pub at: Duration,
    pub users: u32,
    pub recent: Recent,
    pub stats: &'a Stats,
}

/// What a run found.
#[derive(Debug)]
pub struct Figures {
    pub stats: Stats,
    pub generator: Generator,
    /// Users that did not end by themselves.
    pub stuck: usize,
}

const RENEWAL: Key = Key { kind: Kind::Post, name: "/api/auth/refresh" };
/// Beyond the answer limit: what users need to notice the end, drain their room and say goodbye.
const STOP_SLACK: Duration = Duration::from_secs(10);

/// Runs the plan; must be called within a `LocalSet`.
pub async fn execute(plan: Plan, watch: &mut dyn Watch, stop: &CancellationToken) -> anyhow::Result<Figures> {
    let world = Rc::new(set_up(plan, watch).await?);
    let renewer = {
        let (world, client) = (world.clone(), Client::new(world.dialers[0].clone()));
        tokio::task::spawn_local(async move {
            let on_answer = |answer: Result<(), Fault>| {
                world.recorder.on_request(RENEWAL, Instant::now(), 0, answer.as_ref().err());
            };
            accounts::keep_fresh(world.accounts.clone(), client, on_answer).await;
        })
    };
    world.recorder.restart();
    let cpu_before = generator::cpu_time()?;
    admit(&world, watch, stop).await;
    let elapsed = world.recorder.now();
    let stuck = world.tasks.drain(world.plan.answer_limit + STOP_SLACK).await;
    renewer.abort();
    let generator = Generator { cpu: generator::cpu_time()?.saturating_sub(cpu_before), elapsed };
    Ok(Figures { stats: world.recorder.take_stats(), generator, stuck })
}

/// Starts users when they are due and ticks, until the time is over or the run is stopped.
async fn admit(world: &Rc<World>, watch: &mut dyn Watch, stop: &CancellationToken) {
    let plan = &world.plan;
    let began = Instant::now();
    let roles = plan.mix.roles(plan.arrival.users());
    let mut seats = [0u32; Role::ALL.len()];
    let mut next = 0;
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tick.tick().await;
    loop {
        tokio::select! {
            () = sleep_until(began + plan.arrival.due(next)), if next < plan.arrival.users() => {
                let role = roles[next as usize];
                let seat = &mut seats[role as usize];
                start(world, role, next, *seat);
                *seat += 1;
                next += 1;
            }
            _ = tick.tick() => {
                let at = world.recorder.now();
                let stats = world.recorder.stats();
                watch.on_second(&Second { at, users: world.recorder.running(), recent: stats.recent(at), stats: &stats });
            }
            () = sleep_until(began + plan.run_time) => return,
            () = stop.cancelled() => return,
        }
    }
}

fn start(world: &Rc<World>, role: Role, number: u32, seat: u32) {
    let user = User::new(number, seat, world.clone());
    let world = world.clone();
    world.tasks.clone().spawn_local("user", async move {
        world.recorder.on_user_start();
        user.run(role).await;
        world.recorder.on_user_end();
    });
}

async fn set_up(plan: Plan, watch: &mut dyn Watch) -> anyhow::Result<World> {
    let began = Instant::now();
    let dialer = Dialer::resolve(&plan.target, plan.answer_limit).await?;
    anyhow::ensure!(
        plan.sources == 0 || dialer.address.ip().is_loopback(),
        "--sources needs a loopback target"
    );
    let dialers: Vec<Rc<Dialer>> = match plan.sources {
        0 => vec![Rc::new(dialer)],
        count => (1..=count).map(|network| Rc::new(dialer.from_network(network))).collect(),
    };
    let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
    let mut client = Client::new(dialers[0].clone());
    let count = plan.accounts.min(plan.arrival.users());
    let accounts = accounts::register(&mut client, &run, count)
        .await
        .with_context(|| format!("cannot set up accounts at {}", plan.target))?;
    let roles = plan.mix.roles(plan.arrival.users());
    let members = roles.iter().filter(|role| **role == Role::Socket).count();
    let mut rooms = Vec::new();
    for n in 0..members.div_ceil(plan.room_size as usize) {
        let token = accounts[n % accounts.len()].token();
        let room = open_room(&mut client, &token, &format!("load test {run} room {n}")).await;
        rooms.push(Rc::new(room.context("cannot set up a room")?));
    }
    watch.on_setup(accounts.len(), rooms.len(), began.elapsed());
    Ok(World { run, plan, recorder: Recorder::start(), accounts, rooms, dialers, tasks: Tasks::new() })
}

async fn open_room(client: &mut Client, token: &str, title: &str) -> Result<Room, Fault> {
    let body = json!({"title": title, "visibility": "public"});
    let answer = client.call(&Call::post("/api/sessions", "/api/sessions", &body).bearer(token)).await?;
    let session: Session = answer.expect(StatusCode::CREATED)?.json()?;
    Ok(Room { id: session.id, acked: Cell::new(0) })
}
