//! Active health checks: a task for each server that `health_check` names asks it again and again and tells its group.
//! They run beside the master; what they find counts for all workers at once. What a good answer is: logic/check.rs.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::tasks::Tasks;
use tokio_util::sync::CancellationToken;

use crate::buffer::{BUFFER_LEN, Buffer};
use crate::conf::check::HealthCheck;
use crate::conf::upstream::{Address, Duty, UpstreamId};
use crate::error::Error;
use crate::logic::check::{BODY_LEN_MAX, Mismatch, check_body, check_head};
use crate::logic::h1::{BadBody, BadResponse, BodyReader, Method, Piece, ResponseHead};
use crate::logic::health::Turn;
use crate::logic::proxy_protocol;
use crate::logic::upstreams::Group;
use crate::relay::attempt::{Dialing, open};
use crate::running::Running;
use crate::tls::connect::TlsPeer;
use crate::upstream_conns::Protocol;
use crate::wire::Wire;

/// The head of an answer to a check may be so long.
const HEAD_LEN_MAX: usize = 32 * 1024;

/// Looks after the checks of one generation after the other.
#[derive(Debug)]
pub struct Prober {
    tasks: Tasks,
    /// Ends the tasks of the present generation.
    ended: CancellationToken,
}

impl Prober {
    pub fn new(tasks: Tasks) -> Prober {
        Prober { tasks, ended: CancellationToken::new() }
    }

    /// Checks the servers of this generation from now on.
    pub fn adopt(&mut self, running: &Arc<Running>) {
        self.stop();
        self.ended = CancellationToken::new();
        let checks = &running.settings.http.checks;
        for (place, group) in running.upstreams.groups().iter().enumerate() {
            if checks.iter().all(|check| check.group != UpstreamId(place)) {
                group.end_checks();
            }
        }
        for check in checks {
            let group = running.upstreams.group(check.group);
            let wanted = |index: &usize| group.peers()[*index].terms.duty != Duty::Down;
            for index in (0..group.peers().len()).filter(wanted) {
                let probe =
                    Probe { check: check.clone(), group: group.clone(), index, started: running.started };
                let (ended, tasks) = (self.ended.clone(), self.tasks.clone());
                self.tasks.spawn("health check", async move {
                    tokio::select! {
                        () = probe.run() => {}
                        () = ended.cancelled() => {}
                        () = tasks.drain_started() => {}
                    }
                });
            }
        }
    }

    pub fn stop(&self) {
        self.ended.cancel();
    }
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
}

/// The checks of one server.
struct Probe {
    check: HealthCheck,
    group: Arc<Group>,
    index: usize,
    started: Instant,
}

impl Probe {
    async fn run(&self) {
        self.group.begin_checks(self.index, self.check.terms);
        let is_known = self.group.with_peers(|peers| peers[self.index].checks.checks > 0);
        if is_known {
            tokio::time::sleep(self.pause()).await;
        }
        loop {
            let checked = self.check().await;
            self.conclude(checked);
            tokio::time::sleep(self.pause()).await;
        }
    }

    fn pause(&self) -> Duration {
        let mut seed = [0; 4];
        // Without randomness checks come evenly, which is what no jitter means anyway.
        let drawn = getrandom::fill(&mut seed).map_or(0, |()| u32::from_ne_bytes(seed));
        self.check.interval + self.check.jitter.mul_f64(f64::from(drawn) / f64::from(u32::MAX))
    }

    fn conclude(&self, checked: Result<(), Failed>) {
        let now = self.started.elapsed();
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
        let tls = self.check.tls.clone().map(|tls| TlsPeer { tls, name: self.check.host.clone() });
        let protocol = Protocol { tls, ..Protocol::default() };
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
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: balancer/{} (health check)\r\nConnection: close\r\n\r\n",
            self.check.uri,
            self.check.host,
            env!("CARGO_PKG_VERSION")
        );
        let mut unsent = request.as_bytes();
        while !unsent.is_empty() {
            let len = poll_fn(|cx| wire.poll_write(cx, unsent)).await?;
            unsent = &unsent[len..];
        }
        let mut buffer = Buffer::default();
        let mut response = ResponseHead::default();
        loop {
            if !response.parse(buffer.unread(), HEAD_LEN_MAX)? {
                if read(wire, &mut buffer, HEAD_LEN_MAX).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            } else if (100..200).contains(&response.status) {
                // An interim answer is not the one that is asked for.
                buffer.consume(response.len);
                response.clear();
            } else {
                break;
            }
        }
        let rules = &self.check.matcher;
        check_head(rules, &response, &buffer.unread()[..response.len])?;
        if rules.body.is_some() {
            buffer.consume(response.len);
            check_body(rules, &read_body(wire, &mut buffer, &response).await?)?;
        }
        Ok(())
    }
}

async fn read(wire: &mut Wire, buffer: &mut Buffer, len_max: usize) -> io::Result<usize> {
    let len = poll_fn(|cx| wire.poll_read(cx, buffer.space(len_max))).await?;
    buffer.fill(len);
    Ok(len)
}

/// The body, or as much of it as is looked at.
async fn read_body(wire: &mut Wire, buffer: &mut Buffer, response: &ResponseHead) -> Result<Vec<u8>, Failed> {
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
    Ok(body)
}
