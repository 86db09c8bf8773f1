//! A client's wire under its HTTP/2 connection: with bytes put back in front, and a meter on what comes.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::logic::frames::{FrameMeter, Heading};
use crate::wire::Wire;

#[derive(Debug)]
pub struct Inlet {
    early: Bytes,
    wire: Wire,
    meter: FrameMeter,
    seen: Rc<Seen>,
}

/// What the connection's bytes tell besides frames.
#[derive(Debug, Default)]
pub struct Seen {
    is_flooded: Cell<bool>,
    heading: Cell<Option<Heading>>,
    bodies: Bodies,
    holds_back: Cell<bool>,
}

/// Bytes of all streams' bodies, as far as they have come. Read by each stream, which could move to another thread.
#[derive(Debug, Clone, Default)]
pub struct Bodies(Arc<AtomicU64>);

impl Bodies {
    pub fn received_len(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Seen {
    /// Set once the client floods; from then on nothing more is read.
    pub fn is_flooded(&self) -> bool {
        self.is_flooded.get()
    }

    /// A request's head that has begun to come.
    pub fn heading(&self) -> Option<Heading> {
        self.heading.get()
    }

    pub fn bodies(&self) -> Bodies {
        self.bodies.clone()
    }

    /// Something is to be sent that the client does not take.
    pub fn holds_back(&self) -> bool {
        self.holds_back.get()
    }
}

impl Inlet {
    pub fn new(early: Vec<u8>, wire: Wire) -> Inlet {
        let meter = FrameMeter::new(Instant::now());
        Inlet { early: early.into(), wire, meter, seen: Rc::default() }
    }

    pub fn seen(&self) -> Rc<Seen> {
        self.seen.clone()
    }

    fn on_sent(&mut self, sent: &Poll<io::Result<usize>>) {
        self.seen.holds_back.set(sent.is_pending());
        if let Poll::Ready(Ok(len)) = sent {
            self.meter.on_sent(*len);
        }
    }
}

impl AsyncRead for Inlet {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.seen.is_flooded() {
            // Who drives the connection looks at it before it waits: nobody has to be woken.
            return Poll::Pending;
        }
        let from = buf.filled().len();
        if this.early.is_empty() {
            ready!(AsyncRead::poll_read(Pin::new(&mut this.wire), cx, buf))?;
        } else {
            let len = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..len]);
            this.early.advance(len);
        }
        if this.meter.on_received(&buf.filled()[from..], Instant::now).is_err() {
            this.seen.is_flooded.set(true);
        }
        this.seen.heading.set(this.meter.heading());
        this.seen.bodies.0.store(this.meter.body_len(), Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Inlet {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = this.wire.poll_write(cx, data);
        this.on_sent(&sent);
        sent
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.wire).poll_write_vectored(cx, data);
        this.on_sent(&sent);
        sent
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
