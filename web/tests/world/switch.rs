//! The address of the primary, as a name or a virtual address is in life: it leads to one server now and to another
//! after a failover.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Switch {
    pub port: u16,
    target: Arc<AtomicU16>,
    silent: watch::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Switch {
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(target));
        let leads_to = Arc::clone(&target);
        let silent = watch::Sender::new(());
        let silenced = silent.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = leads_to.load(Ordering::Relaxed);
                let mut silence = silenced.subscribe();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        // Both ends stay open: nobody is told.
                        Ok(()) = silence.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, target, silent, accepting }
    }

    /// From now on nothing passes over the connections that exist, as when their server has lost its power.
    pub fn silence(&self) {
        let _ = self.silent.send(());
    }

    /// New connections lead there; those that exist stay where they are.
    pub fn turn_to(&self, target: u16) {
        self.target.store(target, Ordering::Relaxed);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
