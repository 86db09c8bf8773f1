//! A client's wire under its HTTP/2 connection: with bytes put back in front, and a meter on what comes.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::logic::frames::FrameMeter;
use crate::wire::Wire;

#[derive(Debug)]
pub struct Inlet {
    early: Bytes,
    wire: Wire,
    meter: FrameMeter,
    is_flooded: Rc<Cell<bool>>,
}

impl Inlet {
    pub fn new(early: Vec<u8>, wire: Wire) -> Inlet {
        let meter = FrameMeter::new(Instant::now());
        Inlet { early: early.into(), wire, meter, is_flooded: Rc::default() }
    }

    /// Set once the client floods; from then on nothing more is read.
    pub fn flooded(&self) -> Rc<Cell<bool>> {
        self.is_flooded.clone()
    }

    fn count_sent(&mut self, sent: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(len)) = sent {
            self.meter.on_sent(*len);
        }
    }
}

impl AsyncRead for Inlet {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_flooded.get() {
            // Who drives the connection looks at the flag before it waits: nobody has to be woken.
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
            this.is_flooded.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Inlet {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = this.wire.poll_write(cx, data);
        this.count_sent(&sent);
        sent
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.wire).poll_write_vectored(cx, data);
        this.count_sent(&sent);
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
