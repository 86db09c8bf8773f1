//! The supervisor's unix socket: one request per connection, answered by lines of JSON.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use chassis::tasks::Tasks;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tracing::warn;

use crate::board::{Board, Stage};
use crate::dirs::Dirs;
use crate::exec::Around;
use crate::logic::report::Report;
use crate::record::Process;

/// A request is one short line.
const REQUEST_BYTES_MAX: u64 = 4096;

/// How the answer to a request begins that this build does not know.
pub const NOT_UNDERSTOOD: &str = "the request is not understood";

/// What may be asked of a running stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    Status,
    /// The lines of the start, until it is over.
    Follow,
    Stop,
    Scale {
        replicas: u32,
    },
    Restart {
        service: String,
    },
    /// Go over to the release that is current now.
    Roll,
    /// The surroundings of a part, for `exec`.
    Around {
        service: String,
    },
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reply {
    Line { text: String },
    Status { report: Box<Report> },
    Around { around: Box<Around> },
    Done,
    Failed { why: String },
}

/// A request that changes the stack, with the way back to whoever asked.
#[derive(Debug)]
pub struct Command {
    pub request: Request,
    pub replies: mpsc::Sender<Reply>,
}

impl Command {
    /// A caller who went away does not stop the work.
    pub async fn reply(&self, reply: Reply) {
        let _ = self.replies.send(reply).await;
    }
}

/// The path by which the socket is reached: through the folder's descriptor, because the path of a
/// unix socket may have no more than 107 bytes and a folder's may.
struct SocketPath {
    _folder: File,
    path: PathBuf,
}

impl SocketPath {
    fn of(dirs: &Dirs) -> Result<Self> {
        let run = dirs.run();
        let folder = File::open(&run).with_context(|| format!("opening {}", run.display()))?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/stack.sock", folder.as_raw_fd()));
        Ok(Self { _folder: folder, path })
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Control {
    pub board: Rc<Board>,
    pub report: Box<dyn ReportSource>,
    pub commands: mpsc::Sender<Command>,
}

/// Makes the answers that change nothing.
pub trait ReportSource: std::fmt::Debug {
    fn report(&self) -> Report;
    /// # Errors
    /// The stack has no such part.
    fn around(&self, service: &str) -> Result<Around>;
}

/// Opens the socket, for the starter alone.
///
/// # Errors
/// The folder or the socket cannot be opened.
pub fn listen(dirs: &Dirs) -> Result<UnixListener> {
    let socket = SocketPath::of(dirs)?;
    let listener = chassis::listen::unix(&socket.path, 0o600)?;
    Ok(UnixListener::from_std(listener)?)
}

/// A socket file that nobody listens on tells nothing: it goes with its supervisor.
pub fn remove_socket(dirs: &Dirs) {
    let _ = std::fs::remove_file(dirs.run().join("stack.sock"));
}

/// Takes requests until the tasks drain.
pub async fn serve(listener: UnixListener, control: Rc<Control>, tasks: Tasks) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = tasks.drain_started() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let control = Rc::clone(&control);
                tasks.spawn_local("control request", async move {
                    if let Err(cause) = answer(stream, &control).await {
                        warn!("a control request failed: {cause:#}");
                    }
                });
            }
            Err(cause) => warn!("the control socket: {cause}"),
        }
    }
}

async fn answer(stream: UnixStream, control: &Control) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(cause) => {
            return send(&mut write, &Reply::Failed { why: format!("{NOT_UNDERSTOOD}: {cause}") }).await;
        }
    };
    match request {
        Request::Status => {
            send(&mut write, &Reply::Status { report: Box::new(control.report.report()) }).await
        }
        Request::Around { service } => {
            let reply = match control.report.around(&service) {
                Ok(around) => Reply::Around { around: Box::new(around) },
                Err(cause) => Reply::Failed { why: format!("{cause:#}") },
            };
            send(&mut write, &reply).await
        }
        Request::Follow => follow(&mut write, &control.board).await,
        request => {
            let (replies, mut received) = mpsc::channel(64);
            control.commands.send(Command { request, replies }).await.context("the stack is ending")?;
            while let Some(reply) = received.recv().await {
                send(&mut write, &reply).await?;
            }
            Ok(())
        }
    }
}

async fn follow(write: &mut (impl tokio::io::AsyncWrite + Unpin), board: &Board) -> Result<()> {
    let (mut stage, mut lines) = (board.watch_stage(), board.watch_lines());
    let mut next = 0;
    loop {
        // The stage first: what is said before a stage is reached is sent before its end is told.
        let now = stage.borrow_and_update().clone();
        lines.mark_unchanged();
        let (said, after) = board.lines_from(next);
        next = after;
        for text in said {
            send(write, &Reply::Line { text }).await?;
        }
        match now {
            Stage::Up => return send(write, &Reply::Done).await,
            Stage::Failed(why) => return send(write, &Reply::Failed { why }).await,
            Stage::Falling => {
                return send(write, &Reply::Failed { why: "the stack was told to stop".to_owned() }).await;
            }
            Stage::Rising => {}
        }
        tokio::select! {
            _ = stage.changed() => {}
            _ = lines.changed() => {}
        }
    }
}

async fn send(write: &mut (impl tokio::io::AsyncWrite + Unpin), reply: &Reply) -> Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(write.write_all(&line).await?)
}

/// The caller's end of one request.
#[derive(Debug)]
pub struct Caller {
    replies: tokio::io::Lines<BufReader<tokio::net::unix::OwnedReadHalf>>,
    supervisor: Option<Process>,
    /// Kept open: closing it would end the connection before the answer.
    _write: tokio::net::unix::OwnedWriteHalf,
}

impl Caller {
    /// Sends the request; `None` when no supervisor listens in this folder.
    ///
    /// # Errors
    /// The supervisor is somebody else's, or goes away at this moment.
    pub async fn ask(dirs: &Dirs, request: &Request) -> Result<Option<Self>> {
        if !dirs.run().is_dir() {
            return Ok(None);
        }
        let socket = SocketPath::of(dirs)?;
        let stream = match UnixStream::connect(&socket.path).await {
            Ok(stream) => stream,
            Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(cause) if cause.kind() == ErrorKind::PermissionDenied => {
                bail!(
                    "the stack in {} was started by another user: ask as that user or as root",
                    dirs.root().display()
                )
            }
            Err(cause) => return Err(cause).context("asking the supervisor"),
        };
        let pid = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
        let supervisor = pid.and_then(Process::running);
        let (read, mut write) = stream.into_split();
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        match write.write_all(&line).await {
            // It ends at this moment: the answer will be none.
            Err(cause) if is_hang_up(&cause) => {}
            written => written.context("asking the supervisor")?,
        }
        Ok(Some(Self { replies: BufReader::new(read).lines(), supervisor, _write: write }))
    }

    /// The process that was asked, if it still ran then.
    pub fn supervisor(&self) -> Option<Process> {
        self.supervisor
    }

    /// The next line of the answer; `None` when the supervisor has hung up.
    ///
    /// # Errors
    /// What came is no reply.
    pub async fn next(&mut self) -> Result<Option<Reply>> {
        match self.replies.next_line().await {
            Ok(Some(line)) => Ok(Some(serde_json::from_str(&line).context("the supervisor's answer")?)),
            Ok(None) => Ok(None),
            Err(cause) if is_hang_up(&cause) => Ok(None),
            Err(cause) => Err(cause).context("the supervisor's answer"),
        }
    }
}

/// Who ends with a request still unread resets the connection.
fn is_hang_up(cause: &std::io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
