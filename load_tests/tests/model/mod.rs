//! A chat service in memory that keeps the contract, or breaks it in one chosen way. Stands in for the stack in tests.

mod chat;
mod routes;

use axum::Router;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// How the service breaks its contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// The replicas go straight to Postgres: a flaw where a pooler is expected.
    NoPooler,
    /// Every tenth API request answers 500.
    Error500,
    /// A page does not show the newest message.
    StaleRead,
    /// A repeated key is stored as a new message.
    StoresTwice,
    /// One offset is never given out.
    OffsetGap,
    /// A member never gets the fifth message of a room.
    LosesDelivery,
    /// A member gets the fifth message of a room twice.
    DeliversTwice,
    /// The ack names another offset than the message.
    WrongAck,
    /// A member who resumes gets only what comes from then on.
    ForgetsOnResume,
    /// The third token is not sent.
    LosesToken,
    /// A resumed stream sends the token again that was the last one seen.
    RepeatsToken,
    /// All tokens are held back until the answer is whole.
    BuffersStream,
    /// The stored answer is not what was streamed.
    StoresOtherAnswer,
    /// WebSockets of one client go to any replica.
    NotSticky,
    /// All GETs go to one replica.
    OneReplica,
}

/// One stored message, as JSON on the wire.
#[derive(Debug, Clone)]
pub struct Stored {
    pub offset: i64,
    pub json: serde_json::Value,
}

#[derive(Debug)]
pub struct Session {
    pub title: String,
    pub visibility: String,
    pub owner: String,
    pub messages: Vec<Stored>,
    pub keys: HashMap<String, usize>,
    pub members: broadcast::Sender<Stored>,
}

#[derive(Debug, Default)]
pub struct State {
    pub users: Vec<String>,
    pub sessions: HashMap<String, Session>,
    /// Tokens of each stream, and the answer as stored.
    pub streams: HashMap<String, (Vec<String>, serde_json::Value)>,
}

#[derive(Debug)]
pub struct Shared {
    pub flaw: Flaw,
    state: Mutex<State>,
    pub requests: AtomicU64,
    pub replicas: u64,
}

/// One listener: a replica with its name, or the balancer that goes round.
#[derive(Debug, Clone)]
pub struct Face {
    pub shared: Arc<Shared>,
    pub name: Option<String>,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }
}

impl Face {
    /// Who serves a plain request.
    pub fn served_by(&self) -> String {
        let turn = self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let turn = if self.shared.flaw == Flaw::OneReplica { 0 } else { turn };
        self.name.clone().unwrap_or_else(|| format!("web-{}", turn % self.shared.replicas + 1))
    }

    /// Who serves a WebSocket.
    pub fn kept_by(&self) -> String {
        if self.shared.flaw == Flaw::NotSticky {
            self.served_by()
        } else {
            self.name.clone().unwrap_or("web-2".into())
        }
    }
}

/// The running model.
pub struct Model {
    pub balancer: SocketAddr,
    pub replicas: Vec<SocketAddr>,
}

impl Model {
    pub async fn start(flaw: Flaw, replicas: u64) -> Self {
        let requests = AtomicU64::new(0);
        let shared = Arc::new(Shared { flaw, state: Mutex::default(), requests, replicas });
        let balancer = serve(Face { shared: shared.clone(), name: None }).await;
        let mut faces = Vec::new();
        for n in 1..=replicas {
            faces.push(serve(Face { shared: shared.clone(), name: Some(format!("web-{n}")) }).await);
        }
        Self { balancer, replicas: faces }
    }
}

async fn serve(face: Face) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let router: Router = routes::router(face);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
