//! One attempt at one server: connect, send the request, receive the head of the answer.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::Instant as TimerInstant;

use super::Exchange;
use super::aside::aside;
use super::scratch::Scratch;
use super::story::Outcome;
use super::upload::Progress;
use crate::buffer::BUFFER_LEN;
use crate::conf::location::Action;
use crate::conf::proxy::{ProxyPass, Target, Version as ProxyVersion};
use crate::conf::upstream::Address;
use crate::error::Error;
use crate::http2::asked::Asked;
use crate::logic::h1::target::split_port;
use crate::logic::h1::{BadResponse, Known, Version, fields};
use crate::logic::proxy_protocol;
use crate::logic::upstreams::Lease;
use crate::tls::connect::{TlsPeer, connect as shake_hands};
use crate::upstream_conns::{Place, Protocol, UpstreamConn};
use crate::wire::Wire;
use crate::worker::connections::End;

/// So many interim answers (1xx) may come before the final one; past them somebody wastes our time.
const INTERIM_MAX: u32 = 16;

/// An attempt that brought no answer.
#[derive(Debug)]
pub struct Failed {
    pub error: Error,
    pub was_sent: bool,
    /// The connection had been kept, and nothing at all came back on it.
    pub was_stale: bool,
}

impl Exchange<'_> {
    /// On success the head of the answer is in `scratch`, and the connection is where its body comes from.
    /// `place` is where a kept connection may be taken from.
    pub async fn attempt(
        &mut self,
        lease: &Lease<'_>,
        place: Option<Place<'_>>,
        pass: &ProxyPass,
    ) -> Result<UpstreamConn, Failed> {
        if !self.scratch.upload.is_replayable() {
            return Err(Failed { error: Error::BodyGone, was_sent: false, was_stale: false });
        }
        self.scratch.upload.on_attempt();
        self.scratch.from_upstream.clear();
        self.scratch.to_upstream.clear();
        self.scratch.story.response.clear();
        self.scratch.story.upstream_trailers.clear();
        let protocol = self.protocol_of(pass);
        let kept = place.and_then(|place| {
            let terms = &self.running.settings.http.upstreams[place.group].keepalive;
            self.worker.idle.take(place, &protocol, (terms.timeout, self.now))
        });
        let is_kept = kept.is_some();
        let mut conn = match kept {
            Some(conn) => conn,
            None => aside(self.dial(&lease.peer().address, &protocol)).await.map_err(|error| Failed {
                error,
                was_sent: false,
                was_stale: false,
            })?,
        };
        let connected =
            if is_kept { Duration::ZERO } else { self.now.duration_since(self.attempt_started()) };
        if let Some(attempt) = self.scratch.story.attempt() {
            attempt.connected = Some(connected);
        }
        self.write_request(pass);
        conn.requests += 1;
        match self.receive_head(&mut conn).await {
            Ok(()) => Ok(conn),
            Err(error) => {
                let was_stale = is_kept && self.scratch.from_upstream.is_empty();
                Err(Failed { was_sent: !is_unprocessed(&error), error, was_stale })
            }
        }
    }

    fn attempt_started(&self) -> Instant {
        self.scratch.story.attempts.last().map_or(self.now, |attempt| attempt.started)
    }

    /// What is to be spoken with the servers of this `proxy_pass`, for this request.
    fn protocol_of(&self, pass: &ProxyPass) -> Protocol {
        let is_tls = match pass.target {
            Target::Group(_) => true,
            Target::Dynamic { .. } => self.scratch.story.dynamic_is_tls,
        };
        let tls = pass.tls.as_ref().filter(|_| is_tls).map(|tls| {
            let name = tls.name.to_bytes(&self.facts());
            let host = split_port(&name).0;
            TlsPeer { tls: tls.clone(), name: String::from_utf8_lossy(host).into() }
        });
        Protocol { tls, http2: self.location.proxy.version == ProxyVersion::Http2 }
    }

    /// For the log.
    pub(super) fn upstream_scheme(&self) -> &'static str {
        let Action::Proxy(pass) = &self.location.action else { return "http" };
        if self.protocol_of(pass).tls.is_some() { "https" } else { "http" }
    }

    /// A new connection. Where it lacks a descriptor it is tried once more after idle connections have gone.
    async fn dial(&mut self, address: &Address, protocol: &Protocol) -> Result<UpstreamConn, Error> {
        let slot = self.worker.slot_for(End::Upstream)?;
        let wire = match self.reach(address, protocol).await {
            Err(Error::Exhausted(cause)) if self.worker.makes_room_after(&cause).await => {
                self.reach(address, protocol).await?
            }
            reached => reached?,
        };
        self.now = Instant::now();
        Ok(UpstreamConn { wire, protocol: protocol.clone(), opened: self.now, requests: 0, slot })
    }

    async fn reach(&mut self, address: &Address, protocol: &Protocol) -> Result<Wire, Error> {
        let timeout = self.location.proxy.connect_timeout;
        let dialing = Dialing {
            from: self.bound_to(),
            keepalive: self.location.proxy.socket_keepalive,
            greeting: self.greeting(),
        };
        let mut connecting = pin!(open(address, dialing, protocol));
        let ignores_abort = self.location.proxy.ignore_client_abort;
        let Exchange { down, scratch, .. } = self;
        down.deadline.set(TimerInstant::now(), timeout);
        let is_watched = scratch.upload.is_read() && !ignores_abort;
        poll_fn(|cx| {
            if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
                return Poll::Ready(connected);
            }
            if is_watched && down.poll_gone(cx, &mut scratch.inbound, BUFFER_LEN) {
                return Poll::Ready(Err(Error::ClientGone));
            }
            down.deadline.poll(cx).map(|()| Err(Error::ConnectTimeout))
        })
        .await
    }

    /// `proxy_bind`: the local address to connect from.
    fn bound_to(&self) -> Option<SocketAddr> {
        let text = self.location.proxy.bind.as_ref()?.to_bytes(&self.facts());
        let text = String::from_utf8(text).ok()?;
        text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 0)))
    }

    /// `proxy_protocol`: who the client is, as far as that is known.
    fn greeting(&self) -> Option<Vec<u8>> {
        let version = self.location.proxy.protocol?;
        let client = self.scratch.story.client.as_ref().map(|client| client.address);
        let ends = client.or(self.down.arrival.peer).zip(self.down.wire.local_addr());
        Some(proxy_protocol::header(version, ends))
    }

    async fn receive_head(&mut self, conn: &mut UpstreamConn) -> Result<(), Error> {
        let mut interim = 0;
        let mut watch = Watch { progress: None, now: self.now };
        loop {
            poll_fn(|cx| self.poll_head(cx, conn, &mut watch)).await?;
            self.now = Instant::now();
            let status = self.scratch.story.response.status;
            match status {
                101 if self.is_asked_upgrade() => break,
                101 => return Err(Error::Head(BadResponse::UnaskedUpgrade)),
                100..=199 => {
                    interim += 1;
                    if interim > INTERIM_MAX {
                        return Err(Error::Head(BadResponse::TooManyInterim));
                    }
                    aside(self.pass_interim(status)).await?;
                    watch = Watch { progress: None, now: self.now };
                }
                _ => break,
            }
        }
        let (now, status) = (self.now, self.scratch.story.response.status);
        if let Some(attempt) = self.scratch.story.attempt() {
            attempt.head = Some(now.duration_since(attempt.started));
            attempt.outcome = Outcome::Answered(status);
        }
        Ok(())
    }

    /// Sends and listens at once: the answer may come before the request is out.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut UpstreamConn,
        watch: &mut Watch,
    ) -> Poll<Result<(), Error>> {
        let Exchange { down, scratch, location, .. } = self;
        let proxy = &location.proxy;
        let head_len_max = proxy.buffer_len;
        if !scratch.from_upstream.is_empty()
            && scratch.story.response.parse(scratch.from_upstream.unread(), head_len_max)?
        {
            return Poll::Ready(Ok(()));
        }
        loop {
            let progress = scratch.poll_upload(cx, down, &mut conn.wire)?;
            if watch.progress != Some(progress) || scratch.upload.moved && progress != Progress::Sent {
                let now = if watch.progress.is_none() { watch.now } else { Instant::now() };
                let timeout = match progress {
                    Progress::Sent => proxy.read_timeout,
                    Progress::AwaitsUpstream => proxy.send_timeout,
                    Progress::AwaitsClient => location.body.timeout,
                };
                down.deadline.set(TimerInstant::from_std(now), timeout);
                watch.progress = Some(progress);
            }
            scratch.upload.moved = false;
            match conn.wire.poll_read(cx, scratch.from_upstream.space(BUFFER_LEN.max(head_len_max))) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Error::ClosedBeforeHead)),
                Poll::Ready(Ok(len)) => {
                    scratch.from_upstream.fill(len);
                    if let Some(attempt) = scratch.story.attempts.last_mut() {
                        attempt.received_len += len as u64;
                    }
                    if scratch.story.response.parse(scratch.from_upstream.unread(), head_len_max)? {
                        return Poll::Ready(Ok(()));
                    }
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(no_head(error))),
                Poll::Pending => {}
            }
            let is_watched =
                progress == Progress::Sent && scratch.upload.is_read() && !proxy.ignore_client_abort;
            if is_watched && down.poll_gone(cx, &mut scratch.inbound, BUFFER_LEN) {
                return Poll::Ready(Err(Error::ClientGone));
            }
            ready!(down.deadline.poll(cx));
            return Poll::Ready(Err(match progress {
                Progress::Sent => Error::HeadTimeout,
                Progress::AwaitsUpstream => Error::SendTimeout,
                Progress::AwaitsClient => Error::ClientTimeout,
            }));
        }
    }

    /// The upstream switches to a protocol that this very request asked for, and the request, which it has whole, had
    /// nothing in its body: those bytes could be read as the new protocol's first.
    fn is_asked_upgrade(&self) -> bool {
        let Scratch { story, upload, to_upstream, .. } = &*self.scratch;
        if !upload.is_empty() || !upload.is_complete() || !to_upstream.is_empty() {
            return false;
        }
        let Some(asked) = story.request.upgrade.filter(|_| story.is_upgrade_sent) else { return false };
        let asked = asked.of(self.scratch.inbound.unread());
        let head = self.scratch.from_upstream.unread();
        story.response.fields.known(Known::Upgrade).any(|field| {
            let granted = field.value.of(head);
            fields::list_members(asked).any(|member| member.eq_ignore_ascii_case(granted))
        })
    }

    /// `early_hints`.
    fn wants_hints(&self) -> bool {
        let Some(conditions) = &self.location.early_hints else { return true };
        conditions.iter().any(|condition| condition.is_true(&self.facts()))
    }

    /// Passes a 102 or 103 on to a client that knows them; 100 was ours to send. Then forgets it.
    async fn pass_interim(&mut self, status: u16) -> Result<(), Error> {
        let is_hint = status == 103;
        let is_wanted = status != 100
            && !self.scratch.story.is_sub()
            && self.scratch.story.request.version >= Version::Http11
            && (!is_hint || self.wants_hints());
        if is_wanted {
            self.write_interim();
            let Exchange { down, scratch, location, .. } = self;
            down.deadline.set(TimerInstant::now(), location.send_timeout);
            down.write_all(scratch.to_downstream.unsent()).await?;
            scratch.to_downstream.clear();
        }
        let len = self.scratch.story.response.len;
        self.scratch.from_upstream.consume(len);
        self.scratch.story.response.clear();
        Ok(())
    }
}

/// A stream that is reset in place of an answer is nginx's `invalid_header`, unless it was refused.
fn no_head(error: io::Error) -> Error {
    match crate::http2::reset_by_peer(&error) {
        Some(reason) if reason != h2::Reason::REFUSED_STREAM => Error::Rejected(reason.into()),
        _ => Error::Read(error),
    }
}

/// An upstream of HTTP/2 said that it has not begun with the request: anybody may be asked, whatever it was.
fn is_unprocessed(error: &Error) -> bool {
    matches!(error, Error::Read(cause) if crate::http2::is_unprocessed(cause))
}

/// What we lack is not held against the server.
fn not_connected(error: io::Error) -> Error {
    use nix::errno::Errno;
    let ours = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    match error.raw_os_error().map(Errno::from_raw) {
        Some(errno) if ours.contains(&errno) => Error::Exhausted(error),
        _ => Error::Connect(error),
    }
}

/// What the deadline is set for.
struct Watch {
    progress: Option<Progress>,
    now: Instant,
}

/// How a connection to an upstream is opened.
#[derive(Debug, Clone, Default)]
pub struct Dialing {
    /// `proxy_bind`.
    pub from: Option<SocketAddr>,
    /// `proxy_socket_keepalive`.
    pub keepalive: bool,
    /// Said before all else, TLS included.
    pub greeting: Option<Vec<u8>>,
}

/// A connection on which the first request can be sent.
pub async fn open(address: &Address, dialing: Dialing, protocol: &Protocol) -> Result<Wire, Error> {
    let mut wire = connect(address, &dialing).await.map_err(not_connected)?;
    if let Some(greeting) = &dialing.greeting {
        wire.write_all(greeting).await.map_err(Error::Connect)?;
    }
    let (wire, scheme) = match &protocol.tls {
        None => (wire, "http"),
        // Boxed: what a handshake needs must not make each request's own future larger.
        Some(peer) => {
            let spoken = Box::pin(shake_hands(wire, peer, protocol.http2)).await;
            (spoken.map_err(Error::UpstreamTls)?, "https")
        }
    };
    if !protocol.http2 {
        return Ok(wire);
    }
    let asked = Box::pin(Asked::connect(wire, scheme)).await;
    asked.map(|asked| Wire::Asked(Box::new(asked))).map_err(|error| Error::Read(crate::http2::gone(error)))
}

async fn connect(address: &Address, dialing: &Dialing) -> io::Result<Wire> {
    match address {
        Address::Tcp(to) => {
            let stream = match dialing.from {
                None => TcpStream::connect(to).await?,
                Some(from) => {
                    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                    // A port that the client named may still linger from an earlier connection.
                    socket.set_reuseaddr(from.port() > 0)?;
                    socket.bind(from)?;
                    socket.connect(*to).await?
                }
            };
            stream.set_nodelay(true)?;
            if dialing.keepalive {
                socket2::SockRef::from(&stream).set_keepalive(true)?;
            }
            Ok(Wire::Tcp(stream))
        }
        Address::Unix(path) => Ok(Wire::Unix(UnixStream::connect(path).await?)),
    }
}
