//! Load generator and checks of a running stack. Drives services by socket and process; links none of them.

pub mod accounts;
pub mod args;
pub mod chaos;
pub mod engine;
pub mod generator;
pub mod http;
pub mod load;
pub mod logic;
pub mod processes;
pub mod reads;
pub mod recorder;
pub mod retries;
pub mod run;
pub mod settings;
pub mod site;
pub mod sockets;
pub mod stored;
pub mod users;
pub mod verify;
pub mod ws;

use args::{Cli, Verb};
use chassis::signals::{Signal, Signals};
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Does what the command line asks; must be called within a `LocalSet`.
pub async fn run(cli: Cli, lookup: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<ExitCode> {
    let files = chassis::listen::raise_open_files()?;
    let stop = CancellationToken::new();
    let mut signals = Signals::new()?;
    let work = async {
        match cli.verb {
            None => load::run(&cli.load, files, &stop).await,
            Some(Verb::Verify(args)) => verify::run(&args, lookup, &stop).await,
            Some(Verb::Chaos(args)) => chaos::run(&args, lookup, &stop).await,
            Some(Verb::Retries(args)) => retries::run(&args, lookup, &stop).await,
            Some(Verb::Reads(args)) => reads::run(&args, lookup, &stop).await,
            Some(Verb::Sockets(args)) => sockets::run(&args, lookup, &stop).await,
            Some(Verb::BareWrites(args)) => sockets::serve_bare(&args).map(|()| ExitCode::SUCCESS),
        }
    };
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            signal = signals.next() => match signal {
                // A resized terminal or a stray signal is no wish to end.
                Signal::WindowChange | Signal::Usr1 | Signal::Usr2 => {}
                // The first ends the run in order, the second one at once.
                Signal::Hangup | Signal::Interrupt | Signal::Quit | Signal::Terminate => {
                    anyhow::ensure!(!stop.is_cancelled(), "interrupted");
                    stop.cancel();
                }
            },
        }
    }
}
