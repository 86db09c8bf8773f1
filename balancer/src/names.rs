//! Asks name servers: the sockets and tasks of `logic/resolver.rs`, and the tasks that keep servers with `resolve` up to
//! date. They run beside the master; what they learn counts for all workers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use chassis::tasks::Tasks;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::conf::naming::{NamedServer, ResolverTerms};
use crate::conf::settings::Http;
use crate::control::changes::Change;
use crate::logic::changes::Edit;
use crate::logic::dns;
use crate::logic::resolver::{
    self, Answer, Counts, Failure, Found, Known, Located, Query, RESEND_AFTER, Subject, Target, What, targets,
};
use crate::running::Running;

/// A chain of names that is longer leads nowhere; nginx's number.
const ALIASES_MAX: usize = 50;
/// What no name server has is asked for again after so long, where `valid=` says nothing; nginx's number.
const FAILED_PAUSE: Duration = Duration::from_secs(10);
/// No name of an upstream is asked for more often.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// No message is longer than its length can say.
const MESSAGE_LEN_MAX: usize = 65535;

/// All resolvers of a configuration.
pub fn resolvers(http: &Http) -> Arc<[Arc<Resolver>]> {
    http.resolvers.iter().map(|terms| Arc::new(Resolver::new(terms.clone()))).collect()
}

/// One resolver, shared by all workers: one short lock when a name is asked for and when an answer comes.
#[derive(Debug)]
pub struct Resolver {
    terms: Arc<ResolverTerms>,
    state: Mutex<resolver::Resolver<oneshot::Sender<Answer>>>,
    /// There is something to send, or to wait for.
    changed: Arc<Notify>,
    started: Instant,
}

impl Resolver {
    fn new(terms: Arc<ResolverTerms>) -> Resolver {
        let state = resolver::Resolver::new(terms.for_logic(), Box::new(unforeseen));
        Resolver { terms, state: Mutex::new(state), changed: Arc::default(), started: Instant::now() }
    }

    pub fn terms(&self) -> &ResolverTerms {
        &self.terms
    }

    pub fn counts(&self) -> Counts {
        self.state().counts()
    }

    /// The addresses of a host, each time beginning with another, and how long they hold.
    pub async fn addresses(
        &self,
        host: &str,
        patience: Duration,
    ) -> Result<(Vec<IpAddr>, Duration), Failure> {
        let subject = Subject::new(What::Addresses, host).ok_or(Failure::NO_SUCH_NAME)?;
        let (known, until) = self.follow(subject, self.started.elapsed() + patience).await?;
        let Found::Addresses(found) = known.found else { return Err(Failure::NO_SUCH_NAME) };
        let mut addresses = found.to_vec();
        addresses.rotate_left(known.uses % found.len().max(1));
        Ok((addresses, until))
    }

    /// The servers of a service, and how long they hold.
    async fn services(
        &self,
        (service, host): (&str, &str),
        patience: Duration,
    ) -> Result<(Vec<Target>, Duration), Failure> {
        let subject = Subject::service(service, host).ok_or(Failure::NO_SUCH_NAME)?;
        let (known, until) = self.follow(subject, self.started.elapsed() + patience).await?;
        let Found::Services(found) = known.found else { return Err(Failure::NO_SUCH_NAME) };
        let located = found.iter().map(|service| async {
            let located = self.addresses(&service.name, patience).await;
            let holds = located.as_ref().map_or(until, |(_, until)| *until);
            let located: Located = (service.clone(), located.map(|(addresses, _)| addresses.into()));
            (located, holds)
        });
        let (located, holds): (Vec<Located>, Vec<Duration>) = join_all(located).await.into_iter().unzip();
        let until = holds.into_iter().fold(until, Duration::min);
        Ok((targets(located)?, until))
    }

    /// What a server with `resolve` is by now, and for how long.
    async fn find(
        &self,
        server: &NamedServer,
        patience: Duration,
    ) -> Result<(Vec<Target>, Duration), Failure> {
        if let Some(service) = &server.service {
            return self.services((service, &server.host), patience).await;
        }
        let (addresses, until) = self.addresses(&server.host, patience).await?;
        let target = |ip| Target {
            address: SocketAddr::new(ip, server.port),
            name: server.terms.server.clone(),
            weight: server.terms.weight,
            is_backup: false,
        };
        Ok((addresses.into_iter().map(target).collect(), until))
    }

    /// What is behind a name and all that it stands for.
    async fn follow(&self, mut subject: Subject, deadline: Duration) -> Result<(Known, Duration), Failure> {
        let mut until = Duration::MAX;
        for _ in 0..ALIASES_MAX {
            let known = self.ask(&subject, deadline).await?;
            until = until.min(known.until);
            match &known.found {
                Found::Alias(name) => subject = subject.at(name).ok_or(Failure::NO_SUCH_NAME)?,
                _ => return Ok((known, until)),
            }
        }
        Err(Failure::NO_SUCH_NAME)
    }

    async fn ask(&self, subject: &Subject, deadline: Duration) -> Answer {
        let (who, told) = oneshot::channel();
        let at_hand = self.state().ask(subject, who, deadline, self.started.elapsed());
        if let Some((_, answer)) = at_hand {
            return answer;
        }
        self.changed.notify_one();
        // Who should tell has ended with the process.
        told.await.unwrap_or(Err(Failure::TimedOut))
    }

    /// What is to be sent, and when to come again.
    fn turn(&self) -> (Vec<Query>, Option<Duration>) {
        let mut state = self.state();
        let ended = state.on_time(self.started.elapsed());
        let (unsent, wakes_at) = (state.take_unsent(), state.wakes_at());
        drop(state);
        tell(ended);
        (unsent, wakes_at)
    }

    /// True when the message is the answer that was waited for.
    fn on_message(&self, message: &[u8], is_tcp: bool) -> bool {
        let reply = match dns::read(message) {
            Ok(reply) => reply,
            Err(why) => {
                tracing::error!("{why}");
                return false;
            }
        };
        let told = self.state().on_reply(reply, is_tcp, self.started.elapsed());
        let is_awaited = told.is_some();
        tell(told.unwrap_or_default());
        self.changed.notify_one();
        is_awaited
    }

    /// A panic elsewhere leaves a state that is whole: each change is one call.
    fn state(&self) -> MutexGuard<'_, resolver::Resolver<oneshot::Sender<Answer>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // Its task looks, and ends.
        self.changed.notify_one();
    }
}

fn tell(ended: Vec<(oneshot::Sender<Answer>, Answer)>) {
    for (who, answer) in ended {
        // Who asked may have left.
        let _ = who.send(answer);
    }
}

/// Who could foresee the numbers of questions could forge answers.
fn unforeseen() -> u16 {
    let mut id = [0; 2];
    // Without randomness the port that each question is sent from still is one.
    let _ = getrandom::fill(&mut id);
    u16::from_ne_bytes(id)
}

/// Sends what is to be sent, until nobody knows the resolver any more.
async fn run(resolver: Weak<Resolver>, changed: Arc<Notify>) {
    while let Some(known) = resolver.upgrade() {
        let (queries, wakes_at) = known.turn();
        for query in queries {
            let server = known.terms.servers[query.server];
            tokio::spawn(carry(resolver.clone(), server, query));
        }
        let wakes_at = wakes_at.map(|at| tokio::time::Instant::from_std(known.started + at));
        drop(known);
        match wakes_at {
            Some(at) => {
                let _ = tokio::time::timeout_at(at, changed.notified()).await;
            }
            None => changed.notified().await,
        }
    }
}

/// One question to one name server, until it has answered or another is asked.
async fn carry(resolver: Weak<Resolver>, server: SocketAddr, query: Query) {
    let asked = async {
        match query.is_tcp {
            true => over_tcp(&resolver, server, &query.message).await,
            false => over_udp(&resolver, server, &query.message).await,
        }
    };
    if let Ok(Err(error)) = tokio::time::timeout(RESEND_AFTER, asked).await {
        tracing::error!("asking name server {server} failed: {error}");
    }
}

/// Each question goes out from a port of its own: one more thing that a forger would have to know.
async fn over_udp(resolver: &Weak<Resolver>, server: SocketAddr, message: &[u8]) -> io::Result<()> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut answer = vec![0; MESSAGE_LEN_MAX];
    loop {
        let len = socket.recv(&mut answer).await?;
        let Some(resolver) = resolver.upgrade() else { return Ok(()) };
        if resolver.on_message(&answer[..len], false) {
            return Ok(());
        }
    }
}

async fn over_tcp(resolver: &Weak<Resolver>, server: SocketAddr, message: &[u8]) -> io::Result<()> {
    let mut socket = TcpStream::connect(server).await?;
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    socket.write_all(&[&len.to_be_bytes(), message].concat()).await?;
    loop {
        let len = socket.read_u16().await?;
        let mut answer = vec![0; len.into()];
        socket.read_exact(&mut answer).await?;
        let Some(resolver) = resolver.upgrade() else { return Ok(()) };
        if resolver.on_message(&answer, true) {
            return Ok(());
        }
    }
}

/// Looks after the resolvers and the named servers of one configuration after the other.
#[derive(Debug)]
pub struct Names {
    tasks: Tasks,
    /// Ends the tasks that keep servers of the present configuration.
    ended: CancellationToken,
    pending: Arc<Pending>,
}

/// Servers whose names have not been looked up once.
#[derive(Debug, Default)]
struct Pending {
    count: AtomicUsize,
    progress: Notify,
}

impl Names {
    pub fn new(tasks: Tasks) -> Names {
        Names { tasks, ended: CancellationToken::new(), pending: Arc::default() }
    }

    /// Serves this configuration from now on. Resolvers of earlier ones go on while requests know them.
    pub fn adopt(&mut self, running: &Arc<Running>) {
        self.ended.cancel();
        self.ended = CancellationToken::new();
        self.pending = Arc::default();
        for resolver in running.resolvers.iter() {
            tokio::spawn(run(Arc::downgrade(resolver), resolver.changed.clone()));
        }
        for group in running.upstreams.groups() {
            let naming = group.upstream().naming;
            let Some(resolver) = naming.resolver.map(|id| &running.resolvers[id.0]) else { continue };
            for server in &group.upstream().named {
                self.pending.count.fetch_add(1, Relaxed);
                let keeper = Keeper {
                    resolver: resolver.clone(),
                    timeout: naming.timeout,
                    group: group.name().into(),
                    server: server.clone(),
                    changes: running.changes.clone(),
                };
                let (ended, tasks, pending) = (self.ended.clone(), self.tasks.clone(), self.pending.clone());
                self.tasks.spawn("named server", async move {
                    tokio::select! {
                        () = keeper.run(&pending) => {}
                        () = ended.cancelled() => {}
                        () = tasks.drain_started() => {}
                    }
                });
            }
        }
    }

    pub fn are_pending(&self) -> bool {
        self.pending.count.load(Relaxed) > 0
    }

    pub async fn progressed(&self) {
        self.pending.progress.notified().await;
    }
}

/// Keeps the addresses of one server with `resolve`.
struct Keeper {
    resolver: Arc<Resolver>,
    timeout: Duration,
    group: Box<str>,
    server: NamedServer,
    changes: mpsc::Sender<Change>,
}

impl Keeper {
    async fn run(&self, pending: &Pending) {
        let mut is_first = true;
        loop {
            let pause = self.look_up().await;
            if is_first {
                pending.count.fetch_sub(1, Relaxed);
                pending.progress.notify_one();
                is_first = false;
            }
            let Some(pause) = pause else { return };
            tokio::time::sleep(pause.max(PAUSE_MIN)).await;
        }
    }

    /// Asks, has the group changed, and says when to ask again; `None`: the group does not know the server any more.
    async fn look_up(&self) -> Option<Duration> {
        let found = self.resolver.find(&self.server, self.timeout).await;
        if let Err(failure) = &found {
            let host = &self.server.host;
            match &self.server.service {
                Some(service) => {
                    tracing::error!("service {service} of {host} could not be resolved ({failure})");
                }
                None => tracing::error!("{host} could not be resolved ({failure})"),
            }
        }
        let (targets, pause) = match found {
            Ok((targets, until)) => (targets, until.saturating_sub(self.resolver.started.elapsed())),
            Err(Failure::NO_SUCH_NAME) => (Vec::new(), self.resolver.terms.valid.unwrap_or(FAILED_PAUSE)),
            // A name server in trouble says nothing about the servers that were known.
            Err(_) => return Some(self.timeout),
        };
        let (done, changed) = oneshot::channel();
        let edit = Edit::Resolve { server: self.server.clone(), targets };
        let change = Change { group: self.group.clone(), edit, done };
        self.changes.send(change).await.ok()?;
        changed.await.ok()?.ok()?;
        Some(pause)
    }
}
