//! The signals that a service acts on, as a stream of events in the order they came.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Hangup,
    Terminate,
    Interrupt,
    Quit,
    Usr1,
    Usr2,
    WindowChange,
}

/// Signals that are waiting to be taken. Once made, the process no longer dies of them.
#[derive(Debug)]
pub struct Signals {
    arrived: mpsc::Receiver<Signal>,
}

/// More signals than this waiting at once are dropped: the first ones say enough.
const WAITING_MAX: usize = 16;

impl Signals {
    /// Takes over the process's signals; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn new() -> io::Result<Self> {
        let (sender, arrived) = mpsc::channel(WAITING_MAX);
        for (kind, meaning) in [
            (SignalKind::hangup(), Signal::Hangup),
            (SignalKind::terminate(), Signal::Terminate),
            (SignalKind::interrupt(), Signal::Interrupt),
            (SignalKind::quit(), Signal::Quit),
            (SignalKind::user_defined1(), Signal::Usr1),
            (SignalKind::user_defined2(), Signal::Usr2),
            (SignalKind::window_change(), Signal::WindowChange),
        ] {
            let mut source = signal(kind)?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while source.recv().await.is_some() && !sender.is_closed() {
                    // A full queue already says enough; see WAITING_MAX.
                    let _ = sender.try_send(meaning);
                }
            });
        }
        Ok(Self { arrived })
    }

    /// The next signal; never ends by itself.
    pub async fn next(&mut self) -> Signal {
        match self.arrived.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal as Os, raise};

    use super::*;

    #[tokio::test]
    async fn signals_arrive_as_events() {
        let mut signals = Signals::new().unwrap();
        raise(Os::SIGHUP).unwrap();
        assert_eq!(signals.next().await, Signal::Hangup);
        raise(Os::SIGUSR1).unwrap();
        assert_eq!(signals.next().await, Signal::Usr1);
    }
}
