//! The address of the primary, as a name or a virtual address is in life: it leads to one server now and to another
//! after a failover.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub struct Switch {
    pub port: u16,
    target: Arc<AtomicU16>,
    accepting: JoinHandle<()>,
}

impl Switch {
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(target));
        let leads_to = Arc::clone(&target);
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = leads_to.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { port, target, accepting }
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
