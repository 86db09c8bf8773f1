//! The yardstick: a process that does nothing but write the same bytes to as many sockets, at the same rate.

use crate::generator;
use anyhow::Context;
use clap::Args;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub struct BareArgs {
    /// Sockets to write to
    #[arg(long)]
    pub sockets: usize,
    /// Bytes of one write
    #[arg(long)]
    pub bytes: usize,
    /// Rounds; each writes once to every socket
    #[arg(long)]
    pub rounds: u32,
    /// Time between two rounds, in microseconds
    #[arg(long)]
    pub period_us: u64,
}

/// The child's side: prints its port, takes the connections, writes, prints its CPU time in nanoseconds.
#[allow(clippy::disallowed_methods, reason = "a process of its own, which does nothing else")]
pub fn serve(args: &BareArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    let mut sockets: Vec<TcpStream> = Vec::new();
    while sockets.len() < args.sockets {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    let frame = vec![b'x'; args.bytes];
    let before = generator::cpu_time()?;
    let first = Instant::now();
    for round in 0..args.rounds {
        let due = first + Duration::from_micros(args.period_us) * round;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        for socket in &mut sockets {
            socket.write_all(&frame)?;
        }
    }
    println!("{}", generator::cpu_time()?.saturating_sub(before).as_nanos());
    Ok(())
}

/// The generator's side of it.
pub struct Bare {
    child: Child,
    told: BufReader<ChildStdout>,
    pub port: u16,
}

impl Bare {
    pub fn start(args: &BareArgs) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program has no name")?;
        let mut child = Command::new(program)
            .arg("bare-writes")
            .args(["--sockets", &args.sockets.to_string(), "--bytes", &args.bytes.to_string()])
            .args(["--rounds", &args.rounds.to_string(), "--period-us", &args.period_us.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the bare writer")?;
        let mut told = BufReader::new(child.stdout.take().context("its output is piped")?);
        let mut line = String::new();
        told.read_line(&mut line)?;
        Ok(Self { child, told, port: line.trim().parse().context("no port")? })
    }

    /// Its CPU time; called when its writes have been read.
    pub fn finish(mut self) -> anyhow::Result<Duration> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        self.child.wait()?;
        Ok(Duration::from_nanos(line.trim().parse().context("no CPU time")?))
    }
}
