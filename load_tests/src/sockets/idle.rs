//! Idle sockets that are kept open as clients keep them: pings are answered, and the end of one is noticed.

use crate::http::{Call, Client};
use crate::logic::shape::Status;
use crate::ws::{Socket, Text};
use hyper::StatusCode;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One task a socket; it ends with the words why the socket did.
#[derive(Default)]
pub struct Idle {
    tasks: JoinSet<String>,
    count: usize,
}

impl Idle {
    pub fn add(&mut self, socket: Socket) {
        self.tasks.spawn_local(listen(socket));
        self.count += 1;
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// All are still open, here and by the word of the replica that `client` asks.
    pub async fn expect_open(&mut self, client: &mut Client) -> anyhow::Result<()> {
        let answer = client.call(&Call::get("/status/", "/status/")).await?;
        let status: Status = answer.expect(StatusCode::OK)?.json()?;
        let mut first = None;
        while let Some(ended) = self.tasks.try_join_next() {
            first.get_or_insert(ended?);
        }
        let (there, here) = (status.websocket.connections, self.tasks.len());
        let first = first.map_or_else(String::new, |why: String| format!("; the first ended: {why}"));
        anyhow::ensure!(
            there >= self.count && here == self.count,
            "of {} idle WebSockets {} holds {there}, and {here} are open here: memory would be that of fewer{first}",
            self.count,
            status.container
        );
        Ok(())
    }
}

async fn listen(mut socket: Socket) -> String {
    loop {
        // Reading answers the pings.
        match socket.next_text(Instant::now() + Duration::from_secs(3600)).await {
            Ok(Text::Frame(_) | Text::Nothing) => {}
            Ok(Text::Closed(close)) => return format!("closed with {close}"),
            Err(fault) => return fault.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Dialer;
    use crate::logic::target::Target;
    use axum::extract::ws::{Message, WebSocket};
    use axum::extract::{Path, WebSocketUpgrade};
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;

    /// What the replica does after the welcome.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Manner {
        /// Pings, and counts who has answered.
        Holds,
        Drops,
        /// Closes, and goes on counting.
        Miscounts,
    }

    #[derive(Clone)]
    struct Replica {
        manner: Manner,
        counted: Arc<AtomicUsize>,
        news: mpsc::UnboundedSender<()>,
    }

    impl Replica {
        async fn serve(self, id: String, mut socket: WebSocket) {
            let welcome = json!({"type": "welcome", "session_id": id, "offset": 0, "served_by": "web-1"});
            if self.manner == Manner::Miscounts {
                self.counted.fetch_add(1, Ordering::SeqCst);
            }
            let mut say = async |message| socket.send(message).await.expect("the client is there");
            say(Message::text(welcome.to_string())).await;
            match self.manner {
                Manner::Drops => return,
                Manner::Holds => say(Message::Ping("are you there".into())).await,
                Manner::Miscounts => return say(Message::Close(None)).await,
            }
            while let Some(Ok(message)) = socket.recv().await {
                if matches!(message, Message::Pong(_)) {
                    self.counted.fetch_add(1, Ordering::SeqCst);
                    self.news.send(()).expect("the test listens");
                }
            }
        }

        async fn start(manner: Manner) -> (Rc<Dialer>, mpsc::UnboundedReceiver<()>) {
            let (sender, news) = mpsc::unbounded_channel();
            let replica = Self { manner, counted: Arc::default(), news: sender };
            let counted = replica.counted.clone();
            let status = async move || {
                let connections = counted.load(Ordering::SeqCst);
                Json(json!({"container": "web-1", "websocket": {"connections": connections, "rooms": 1}}))
            };
            let upgrade = async move |Path(id): Path<String>, socket: WebSocketUpgrade| {
                socket.on_upgrade(|socket| replica.serve(id, socket))
            };
            let router =
                Router::new().route("/status/", get(status)).route("/ws/chat/session/{id}/", get(upgrade));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("a bound listener has an address");
            tokio::spawn(async move { axum::serve(listener, router).await });
            let target: Target = format!("http://{address}").parse().expect("a URL");
            let dialer = Dialer::resolve(&target, Duration::from_secs(15)).await.expect("an address");
            (Rc::new(dialer), news)
        }
    }

    async fn open(dialer: &Dialer, count: usize) -> Idle {
        let mut idle = Idle::default();
        for _ in 0..count {
            idle.add(Socket::open(dialer, "s", "t", None).await.expect("a welcome").0);
        }
        idle
    }

    #[tokio::test]
    async fn sockets_that_stay_open_and_answer_pings_pass() {
        let work = async {
            let (dialer, mut news) = Replica::start(Manner::Holds).await;
            let mut idle = open(&dialer, 3).await;
            for _ in 0..3 {
                news.recv().await.expect("a pong");
            }
            idle.expect_open(&mut Client::new(dialer)).await.expect("all are open");
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test]
    async fn a_replica_that_drops_them_after_the_welcome_is_found() {
        let work = async {
            let (dialer, _news) = Replica::start(Manner::Drops).await;
            let mut idle = open(&dialer, 3).await;
            let told =
                idle.expect_open(&mut Client::new(dialer)).await.expect_err("none is held").to_string();
            assert!(told.contains("of 3 idle WebSockets web-1 holds 0"), "{told}");
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test]
    async fn one_that_ended_is_found_whatever_the_replica_counts() {
        let work = async {
            let (dialer, _news) = Replica::start(Manner::Miscounts).await;
            let mut idle = open(&dialer, 2).await;
            let ended = idle.tasks.join_next().await.expect("one of two").expect("no panic");
            assert!(ended.starts_with("closed with"), "{ended}");
            let told =
                idle.expect_open(&mut Client::new(dialer)).await.expect_err("one has ended").to_string();
            assert!(told.contains("holds 2, and "), "{told}");
        };
        LocalSet::new().run_until(work).await;
    }
}
