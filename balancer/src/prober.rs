//! Active health checks: a task for each server that `health_check` names asks it again and again and tells its group.
//! They run beside the master; what they find counts for all workers at once. What a good answer is: logic/check.rs.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::tasks::Tasks;
use tokio::sync::watch;

use crate::buffer::{BUFFER_LEN, Buffer};
use crate::conf::check::{Asks, HealthCheck, Match};
use crate::conf::upstream::{Address, Duty, UpstreamId};
use crate::error::Error;
use crate::logic::check::{BODY_LEN_MAX, Mismatch, check_body, check_head};
use crate::logic::grpc;
use crate::logic::h1::{BadBody, BadResponse, BodyReader, Method, Piece, ResponseHead, hash, lines};
use crate::logic::health::Turn;
use crate::logic::proxy_protocol;
use crate::logic::upstreams::{Group, Set};
use crate::relay::attempt::{Dialing, open};
use crate::upstream_conns::Protocol;
use crate::wire::Wire;

/// The head of an answer to a check may be so long.
const HEAD_LEN_MAX: usize = 32 * 1024;

/// Looks after the checks of one generation after the other. A check goes on over generations that have it too.
#[derive(Debug)]
pub struct Prober {
    tasks: Tasks,
    /// Where each task finds what it checks by now; without it, the task ends.
    aims: HashMap<Target, watch::Sender<Aim>>,
}

/// One server under one check; servers that are there several times are told apart by their number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Target {
    group: Box<str>,
    server: Box<str>,
    address: Address,
    number: usize,
    check: usize,
}

/// What a target is in the present generation.
#[derive(Debug, Clone)]
struct Aim {
    check: HealthCheck,
    group: Arc<Group>,
    index: usize,
}

impl Prober {
    pub fn new(tasks: Tasks) -> Prober {
        Prober { tasks, aims: HashMap::new() }
    }

    /// Checks the servers of these groups from now on. To be called before requests come to them: a server that must
    /// pass a check first is closed when this returns.
    pub fn adopt(&mut self, checks: &[HealthCheck], upstreams: &Set, started: Instant) {
        for (place, group) in upstreams.groups().iter().enumerate() {
            group.keep_checks(checks.iter().filter(|check| check.group == UpstreamId(place)).count());
        }
        let mut before = std::mem::take(&mut self.aims);
        for check in checks {
            let group = upstreams.group(check.group);
            let wanted = |index: &usize| group.peers()[*index].terms.duty != Duty::Down;
            for index in (0..group.peers().len()).filter(wanted) {
                group.begin_checks(index, check.terms);
                let aim = Aim { check: check.clone(), group: group.clone(), index };
                let mut target = aim.target();
                while self.aims.contains_key(&target) {
                    target.number += 1;
                }
                let sender = match before.remove(&target) {
                    Some(sender) => {
                        sender.send_replace(aim);
                        sender
                    }
                    None => self.begin(aim, started),
                };
                self.aims.insert(target, sender);
            }
        }
    }

    fn begin(&self, aim: Aim, started: Instant) -> watch::Sender<Aim> {
        let (sender, aims) = watch::channel(aim);
        let tasks = self.tasks.clone();
        let mut probe = Probe { aims: aims.clone(), started };
        self.tasks.spawn("health check", async move {
            tokio::select! {
                () = probe.run() => {}
                () = gone(aims) => {}
                () = tasks.drain_started() => {}
            }
        });
        sender
    }

    pub fn stop(&mut self) {
        self.aims.clear();
    }
}

async fn gone(mut aims: watch::Receiver<Aim>) {
    while aims.changed().await.is_ok() {}
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Connect(Error),
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Head(#[from] BadResponse),
    #[error("{0}")]
    Body(#[from] BadBody),
    #[error("{0}")]
    Mismatch(#[from] Mismatch),
    #[error("{0}")]
    NotServing(#[from] grpc::NotServing),
}

/// One check of one server.
struct Probe {
    aims: watch::Receiver<Aim>,
    started: Instant,
}

impl Probe {
    async fn run(&mut self) {
        let aim = self.aims.borrow_and_update().clone();
        let is_known = aim.group.with_peers(|peers| peers[aim.index].checks.is_known(aim.check.terms.place));
        if is_known {
            self.pause().await;
        }
        loop {
            let aim = self.aims.borrow_and_update().clone();
            let checked = aim.check().await;
            // The server may have come to another group meanwhile.
            let aim = self.aims.borrow().clone();
            aim.conclude(checked, self.started.elapsed());
            self.pause().await;
        }
    }

    /// As long as the check says; it may say something else before that is over.
    async fn pause(&mut self) {
        let since = tokio::time::Instant::now();
        loop {
            let until = since + self.aims.borrow_and_update().check.pause();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                Ok(()) = self.aims.changed() => {}
            }
        }
    }
}

impl HealthCheck {
    fn pause(&self) -> Duration {
        let mut seed = [0; 4];
        // Without randomness checks come evenly, which is what no jitter means anyway.
        let drawn = getrandom::fill(&mut seed).map_or(0, |()| u32::from_ne_bytes(seed));
        self.interval + self.jitter.mul_f64(f64::from(drawn) / f64::from(u32::MAX))
    }
}

impl Aim {
    fn target(&self) -> Target {
        let peer = &self.group.peers()[self.index];
        Target {
            group: self.group.name().into(),
            server: peer.terms.server.clone(),
            address: peer.address.clone(),
            number: 0,
            check: self.check.terms.place,
        }
    }

    fn conclude(&self, checked: Result<(), Failed>, now: Duration) {
        let turn = self.group.on_check(self.index, checked.is_ok(), self.check.terms, now);
        let upstream = &self.group.peers()[self.index].name;
        let group = self.group.name();
        match (turn, &checked) {
            (Some(Turn::Unhealthy), Err(why)) => {
                tracing::warn!(%upstream, group, "peer is unhealthy while checking health: {why}");
            }
            (Some(Turn::Healthy), _) => tracing::info!(%upstream, group, "peer is healthy"),
            (_, Err(why)) => tracing::info!(%upstream, group, "health check failed: {why}"),
            (_, Ok(())) => {}
        }
    }

    async fn check(&self) -> Result<(), Failed> {
        let address = self.address();
        let protocol = Protocol { tls: self.check.tls.clone(), http2: self.check.is_http2 };
        // On nobody's behalf: the connection is our own business.
        let greeting = self.check.protocol.map(|version| proxy_protocol::header(version, None));
        let connecting = open(&address, Dialing { greeting, ..Dialing::default() }, &protocol);
        let connected = tokio::time::timeout(self.check.connect_timeout, connecting).await;
        let mut wire = connected.map_err(|_| Failed::Timeout)?.map_err(Failed::Connect)?;
        let answered = tokio::time::timeout(self.check.read_timeout, self.ask(&mut wire)).await;
        answered.map_err(|_| Failed::Timeout)?
    }

    fn address(&self) -> Address {
        match (&self.group.peers()[self.index].address, self.check.port) {
            (Address::Tcp(address), Some(port)) => Address::Tcp((address.ip(), port).into()),
            (address, _) => address.clone(),
        }
    }

    async fn ask(&self, wire: &mut Wire) -> Result<(), Failed> {
        let (line, rest) = match &self.check.asks {
            Asks::Page { uri, .. } => (format!("GET {uri}"), b"Connection: close\r\n\r\n".to_vec()),
            Asks::Grpc { service, .. } => {
                let body = grpc::request(service);
                let kind = "Content-Type: application/grpc\r\nTE: trailers\r\n";
                let fields = format!("{kind}Content-Length: {}\r\n\r\n", body.len());
                (format!("POST {}", grpc::PATH), [fields.as_bytes(), &body].concat())
            }
        };
        let request = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nUser-Agent: balancer/{} (health check)\r\n",
            self.check.host,
            env!("CARGO_PKG_VERSION")
        );
        let request = [request.as_bytes(), &rest].concat();
        let mut unsent = &request[..];
        while !unsent.is_empty() {
            let len = poll_fn(|cx| wire.poll_write(cx, unsent)).await?;
            unsent = &unsent[len..];
        }
        let mut buffer = Buffer::default();
        let response = read_head(wire, &mut buffer).await?;
        match &self.check.asks {
            Asks::Page { matcher, .. } => check_page(matcher, wire, &mut buffer, &response).await,
            Asks::Grpc { also_good, .. } => check_grpc(*also_good, wire, &mut buffer, &response).await,
        }
    }
}

async fn check_page(
    rules: &Match,
    wire: &mut Wire,
    buffer: &mut Buffer,
    response: &ResponseHead,
) -> Result<(), Failed> {
    check_head(rules, response, &buffer.unread()[..response.len])?;
    if rules.body.is_some() {
        buffer.consume(response.len);
        check_body(rules, &read_body(wire, buffer, response).await?.0)?;
    }
    Ok(())
}

/// The status stands behind the message, or in the head where there is none.
async fn check_grpc(
    also_good: u32,
    wire: &mut Wire,
    buffer: &mut Buffer,
    response: &ResponseHead,
) -> Result<(), Failed> {
    const STATUS: &[u8] = b"grpc-status";
    if response.status != 200 {
        return Err(Mismatch::Status.into());
    }
    let early = response.fields.find(buffer.unread(), hash(STATUS), STATUS);
    let early = early.map(|field| field.value.of(buffer.unread()).to_vec());
    buffer.consume(response.len);
    let (body, trailers) = read_body(wire, buffer, response).await?;
    let status = lines::first(&trailers, STATUS).or(early.as_deref());
    Ok(grpc::check(status, also_good, &body)?)
}

/// The head of the answer, at the front of the buffer.
async fn read_head(wire: &mut Wire, buffer: &mut Buffer) -> Result<ResponseHead, Failed> {
    let mut response = ResponseHead::default();
    loop {
        if !response.parse(buffer.unread(), HEAD_LEN_MAX)? {
            if read(wire, buffer, HEAD_LEN_MAX).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        } else if (100..200).contains(&response.status) {
            // An interim answer is not the one that is asked for.
            buffer.consume(response.len);
            response.clear();
        } else {
            return Ok(response);
        }
    }
}

async fn read(wire: &mut Wire, buffer: &mut Buffer, len_max: usize) -> io::Result<usize> {
    let len = poll_fn(|cx| wire.poll_read(cx, buffer.space(len_max))).await?;
    buffer.fill(len);
    Ok(len)
}

/// The body, or as much of it as is looked at, and what stands behind it.
async fn read_body(
    wire: &mut Wire,
    buffer: &mut Buffer,
    response: &ResponseHead,
) -> Result<(Vec<u8>, Vec<u8>), Failed> {
    let mut reader = BodyReader::new(response.framing(Method::Get));
    let mut body = Vec::new();
    while !reader.is_ended() && body.len() < BODY_LEN_MAX {
        match reader.next(buffer.unread())? {
            Piece::Data { start, end } => {
                body.extend_from_slice(&buffer.unread()[start..end]);
                buffer.consume(end);
            }
            Piece::More => {
                buffer.clear();
                if read(wire, buffer, BUFFER_LEN).await? == 0 {
                    reader.on_eof()?;
                }
            }
            Piece::End { .. } => break,
        }
    }
    body.truncate(BODY_LEN_MAX);
    Ok((body, reader.trailers().to_vec()))
}
