//! The new process: asks the running one for its listening sockets and takes in the clients that follow.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use pgwire::frame::HEAD_LEN;
use pgwire::report::Received;
use pgwire::{Head, frontend, startup};
use tokio::sync::mpsc;

use super::Parcel;
use super::records::{Kind, Link, Record};
use crate::listeners::{Listeners, UnixSocket};
use crate::logic::moving::MovedClient;
use crate::settings::{ADMIN_DATABASE, Settings};
use crate::worker::Accepted;

/// A console that needs longer to answer is not well.
const PATIENCE: Duration = Duration::from_secs(10);

/// A takeover that has begun.
#[derive(Debug)]
pub struct Takeover {
    link: Link,
    /// Servers that come along hold statements under names up to this number.
    pub last_statement: u64,
    pub listeners: Listeners,
}

impl Takeover {
    /// Asks the process that listens on our unix socket for its sockets.
    pub fn begin(settings: &Settings) -> anyhow::Result<Takeover> {
        let folder = &settings.unix_socket_dir;
        if folder.is_empty() {
            bail!("cannot take over if unix_socket_dir is not configured");
        }
        let (stream, address) = connect(folder, settings.listen_port)?;
        ask(&stream).with_context(|| format!("the process at {address} does not hand over"))?;
        let mut taking =
            Takeover { link: Link::new(stream)?, last_statement: 0, listeners: Listeners::default() };
        loop {
            let record = taking.link.receive()?.context("the running process ended while it handed over")?;
            match record.kind {
                Kind::Sockets => return Ok(taking),
                _ => taking.take(record)?,
            }
        }
    }

    fn take(&mut self, record: Record) -> anyhow::Result<()> {
        let socket = record.sockets.into_iter().next();
        match (record.kind, socket) {
            (Kind::Start, _) => {
                let number = record.bytes.as_slice().try_into();
                self.last_statement = u64::from_be_bytes(number.context("the first record is too short")?);
            }
            (Kind::Tcp, Some(socket)) => self.listeners.tcp.push(TcpListener::from(socket)),
            (Kind::Metrics, Some(socket)) => self.listeners.metrics = Some(TcpListener::from(socket)),
            (Kind::Unix, Some(socket)) => {
                let path =
                    (!record.bytes.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(&record.bytes)));
                self.listeners.unix.push(UnixSocket { listener: UnixListener::from(socket), path });
            }
            (kind, _) => bail!("unexpected record {kind:?} from the running process"),
        }
        Ok(())
    }

    /// We serve: clients may come.
    pub fn go(mut self, mailboxes: Vec<mpsc::Sender<Accepted>>) -> anyhow::Result<()> {
        self.link.send(Kind::Ready, b"", &[]).context("the running process is gone")?;
        let take_in = move || {
            for mailbox in mailboxes.iter().cycle() {
                match self.next() {
                    Ok(Some(parcel)) => drop(mailbox.blocking_send(Accepted::Moved(Box::new(parcel)))),
                    Ok(None) => {
                        return tracing::info!("all clients of the old process have come over or gone");
                    }
                    Err(error) => return tracing::error!("taking over clients ended early: {error:#}"),
                }
            }
        };
        std::thread::Builder::new().name("taker".to_string()).spawn(take_in)?;
        Ok(())
    }

    fn next(&mut self) -> anyhow::Result<Option<Parcel>> {
        let Some(record) = self.link.receive()? else { return Ok(None) };
        if record.kind != Kind::Client {
            bail!("unexpected record {:?} from the old process", record.kind);
        }
        let client = MovedClient::from_bytes(&record.bytes)?;
        let mut sockets = record.sockets.into_iter();
        let socket = sockets.next().context("a client came without its socket")?;
        let server = sockets.next();
        anyhow::ensure!(server.is_some() == client.server.is_some(), "a server came without its socket");
        Ok(Some(Parcel { client, socket, server }))
    }
}

fn connect(folder: &str, port: u16) -> anyhow::Result<(UnixStream, String)> {
    let name = format!(".s.PGSQL.{port}");
    let (stream, address) = match folder.strip_prefix('@') {
        Some(folder) => {
            let address = SocketAddr::from_abstract_name(format!("{folder}/{name}"))?;
            (UnixStream::connect_addr(&address), format!("@{folder}/{name}"))
        }
        None => {
            let path = Path::new(folder).join(name);
            (UnixStream::connect(&path), path.display().to_string())
        }
    };
    let stream = stream
        .with_context(|| format!("no process to take over from answers at {address}; start without -R"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok((stream, address))
}

/// Logs in to the console and asks; comes back when records follow.
fn ask(mut stream: &UnixStream) -> anyhow::Result<()> {
    let mut out = Vec::new();
    startup::startup(&mut out, 0, [("user", ADMIN_DATABASE), ("database", ADMIN_DATABASE)]);
    stream.write_all(&out)?;
    wait_ready(stream)?;
    out.clear();
    frontend::query(&mut out, "HAND_OVER");
    stream.write_all(&out)?;
    wait_ready(stream)?;
    // Records come whenever a client is free to move.
    stream.set_read_timeout(None)?;
    Ok(())
}

/// Reads exactly up to ReadyForQuery: what follows are records.
fn wait_ready(mut stream: &UnixStream) -> anyhow::Result<()> {
    loop {
        let mut head = [0; HEAD_LEN];
        stream.read_exact(&mut head).context("it says nothing")?;
        let head = Head::parse(&head)?.context("it speaks another protocol")?;
        let mut body = vec![0; head.total_len() - HEAD_LEN];
        stream.read_exact(&mut body)?;
        match head.kind {
            b'Z' => return Ok(()),
            b'E' => bail!("{}", Received::parse(&body)?.summary()),
            b'R' if body != [0; 4] => bail!("it asks for a password: it runs as another user"),
            _ => {}
        }
    }
}
