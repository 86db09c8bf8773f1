//! The old process: hands over its listening sockets, then its clients.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::mpsc;

use super::records::{Kind, Link};
use super::{PARCELS_MAX, Parcel, Way};
use crate::house::{House, Phase};

/// Hands over to the process at the other end of this stream. It has a thread of its own: sending blocks.
pub fn give(house: &Arc<House>, stream: UnixStream) -> anyhow::Result<()> {
    let mut way = house.movers.lock();
    anyhow::ensure!(way.is_none(), "another process is taking over");
    let link = Link::new(stream)?;
    let (parcels, arriving) = mpsc::channel(PARCELS_MAX);
    let giver = Giver { house: house.clone(), link };
    let thread = std::thread::Builder::new()
        .name("mover".to_string())
        .spawn(move || giver.run(arriving))
        .context("cannot start a thread")?;
    *way = Some(Way { parcels, thread });
    Ok(())
}

struct Giver {
    house: Arc<House>,
    link: Link,
}

impl Giver {
    fn run(mut self, mut parcels: mpsc::Receiver<Parcel>) {
        if let Err(error) = self.offer_sockets() {
            // Nothing has changed: this process goes on, and the next one may try.
            tracing::warn!("the process that wanted to take over is gone: {error}");
            self.house.movers.lock().take();
            return;
        }
        tracing::info!("another process has taken over the listening sockets, moving clients to it");
        self.house.doors.give_up();
        self.house.advance(Phase::Moving);
        while let Some(parcel) = parcels.blocking_recv() {
            if let Err(error) = self.send(&parcel) {
                tracing::error!("the process that has taken over is gone, clients stay: {error}");
                return;
            }
        }
    }

    /// Comes back when the other process serves them.
    fn offer_sockets(&mut self) -> io::Result<()> {
        let listeners = self.house.doors.listeners()?;
        let link = &mut self.link;
        link.send(Kind::Start, &self.house.last_statement().to_be_bytes(), &[])?;
        for listener in &listeners.tcp {
            link.send(Kind::Tcp, b"", &[listener.as_fd()])?;
        }
        for socket in &listeners.unix {
            let path = socket.path.as_ref().map_or(&b""[..], |path| path.as_os_str().as_bytes());
            link.send(Kind::Unix, path, &[socket.as_fd()])?;
        }
        if let Some(listener) = &listeners.metrics {
            link.send(Kind::Metrics, b"", &[listener.as_fd()])?;
        }
        link.send(Kind::Sockets, b"", &[])?;
        match link.receive()? {
            Some(record) if record.kind == Kind::Ready => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn send(&mut self, parcel: &Parcel) -> io::Result<()> {
        let sockets: Vec<_> = [Some(&parcel.socket), parcel.server.as_ref()].into_iter().flatten().collect();
        let sockets: Vec<_> = sockets.into_iter().map(|socket| socket.as_fd()).collect();
        self.link.send(Kind::Client, &parcel.client.to_bytes(), &sockets)
    }
}
