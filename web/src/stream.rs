//! Streamed answers: one maker per question in the whole fleet, readable from every replica.
//!
//! A stream has the id of its question, and its answer is stored under a key made from it: whoever makes it, it is
//! stored once. Tokens go into a buffer for readers on this replica, into a record in Redis for those on others, and
//! to the room. `serve.rs` is the way out to clients.

mod live;
mod maker;
mod reader;
pub mod record;
pub mod serve;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chassis::settings::Values;
use chassis::tasks::Tasks;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::chat::Chat;
use crate::error::Error;
use crate::logic::message::{self, Message, Role};
use crate::redis_link::RedisLink;
use crate::replicas::Databases;
use crate::responder::Responder;
use crate::store::Store;
use crate::store::messages::Appended;

use live::Live;
use record::{Lost, Page, Record, SWEEP_LEN, State};

pub use live::Outcome;
pub use serve::{ask, resume};

/// How often each replica looks for answers whose maker has died.
const SWEEP_PERIOD: Duration = Duration::from_millis(500);
/// Answers that a replica takes over at the same time: each costs some questions to Redis and to the database.
const TAKEOVERS_AT_ONCE: usize = 8;

/// What the operator may set about streams.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    pub heartbeat: Duration,
    /// How long a stream can be resumed after its end.
    pub keep: Duration,
    /// How long an answer that could not be made again goes on while nobody listens.
    pub unheard_max: Duration,
}

impl StreamSettings {
    pub fn new(values: &Values) -> Self {
        Self {
            heartbeat: values.duration("STREAM_HEARTBEAT"),
            keep: values.duration("STREAM_KEEP"),
            unheard_max: values.duration("STREAM_UNHEARD_MAX"),
        }
    }
}

/// What streams stand on.
pub struct Parts {
    pub store: Store,
    pub databases: Databases,
    pub redis: RedisLink,
    pub responder: Responder,
    pub chat: Chat,
    pub tasks: Tasks,
    pub settings: StreamSettings,
}

/// The answers that are being made here, and the way to those made elsewhere. Clones share them.
#[derive(Clone)]
pub struct Streams {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    databases: Databases,
    record: Record,
    responder: Responder,
    chat: Chat,
    tasks: Tasks,
    settings: StreamSettings,
    live: Mutex<HashMap<Uuid, Arc<Live>>>,
    /// An answer has left `live`.
    ended: Notify,
    draining: CancellationToken,
}

impl Streams {
    /// Starts looking for answers whose maker has died.
    pub fn new(parts: Parts) -> Streams {
        let Parts { store, databases, redis, responder, chat, tasks, settings } = parts;
        let record = Record::new(redis, settings.keep);
        let streams = Streams {
            shared: Arc::new(Shared {
                store,
                databases,
                record,
                responder,
                chat,
                tasks: tasks.clone(),
                settings,
                live: Mutex::default(),
                ended: Notify::new(),
                draining: CancellationToken::new(),
            }),
        };
        let sweeping = streams.clone();
        tasks.spawn("stream sweep", async move { sweeping.sweep().await });
        streams
    }

    /// Sends readers elsewhere after a moment, and waits up to `over` for the answers that are being made here.
    pub async fn drain(&self, over: Duration) {
        self.shared.draining.cancel();
        let emptied = async {
            loop {
                let news = self.shared.ended.notified();
                if self.is_empty() {
                    return;
                }
                news.await;
            }
        };
        if tokio::time::timeout(over, emptied).await.is_err() {
            tracing::warn!(
                answers = self.len(),
                "answers did not end in time; another replica takes them over"
            );
        }
    }

    /// Makes the answer to a stored question, unless it is made or being made already.
    pub async fn begin(&self, question: Appended) {
        let Appended { message: question, replayed } = question;
        if self.lock_live().contains_key(&question.id) {
            return;
        }
        let (record, maker) = (&self.shared.record, Uuid::new_v4());
        // The lease first: a maker gives it up when its answer is stored, so that the look comes after that.
        let page = match record.claim(question.id, maker).await {
            Some(false) => return,
            Some(true) => record.read(question.id, 0).await.unwrap_or_default(),
            // Redis is away: nobody can be asked, and the answer is made without a record.
            None => Page::default(),
        };
        // A new question may have been sent again elsewhere too, while this replica stood still.
        let may_be_answered = replayed || page.state != State::Unknown;
        if may_be_answered && !matches!(self.answer(&question).await, Ok(None)) {
            return record.release(question.id, maker).await;
        }
        // Begun by a maker that died, it goes on there; failed, it begins anew.
        let known_len = if page.state == State::Making { page.tokens.len() } else { 0 };
        self.make(question, maker, known_len).await;
    }

    /// How many answers are being made here.
    pub fn len(&self) -> usize {
        self.lock_live().len()
    }

    pub fn is_empty(&self) -> bool {
        self.lock_live().is_empty()
    }

    /// The stored answer to a question, with a token that lets its reader see it everywhere.
    async fn answer(&self, question: &Message) -> Result<Option<Message>, Error> {
        let key = message::answer_key(question.id);
        let answer = self.shared.store.messages().by_key(question.session_id, None, &key).await?;
        let Some(answer) = answer else { return Ok(None) };
        Ok(Some(Message { ct: self.shared.databases.token().await, ..answer }))
    }

    async fn make(&self, question: Message, maker: Uuid, known_len: usize) {
        let live = Arc::new(Live::new(question.session_id));
        {
            let mut all = self.lock_live();
            if all.contains_key(&question.id) {
                return;
            }
            all.insert(question.id, Arc::clone(&live));
        }
        // Before anybody is told the stream's id: a reader on another replica must find it.
        let entered = match known_len {
            0 => self.shared.record.begin(question.id, maker).await,
            _ => self.shared.record.renew(question.id, maker).await,
        };
        if entered.is_err() {
            return self.leave(question.id, &live, entered);
        }
        let streams = self.clone();
        let busy = self.shared.chat.hold();
        self.shared.tasks.spawn("answer", async move {
            let stream = question.id;
            let ended = Box::pin(maker::run(&streams, &live, maker, question, known_len)).await;
            streams.leave(stream, &live, ended);
            drop(busy);
        });
    }

    /// An answer is not made here any more; where the lease was lost, its readers here turn to the record.
    fn leave(&self, stream: Uuid, live: &Live, ended: Result<(), Lost>) {
        // Lost after its answer was stored, that answer counts.
        if ended.is_err() && !live.has_ended() {
            tracing::info!(%stream, "another replica makes this answer now");
            live.lost.cancel();
        }
        self.lock_live().remove(&stream);
        self.shared.ended.notify_waiters();
    }

    async fn sweep(&self) {
        loop {
            tokio::select! {
                () = self.shared.draining.cancelled() => return,
                () = self.shared.tasks.drain_started() => return,
                () = tokio::time::sleep(SWEEP_PERIOD) => {}
            }
            while self.sweep_once().await && !self.shared.draining.is_cancelled() {}
        }
    }

    /// Takes over what is abandoned; whether there may be more that can be taken over now.
    async fn sweep_once(&self) -> bool {
        let mut abandoned = self.shared.record.abandoned().await;
        let is_page_full = abandoned.len() == SWEEP_LEN;
        // In an order of its own, so that replicas do not all try for the same ones.
        let order = Uuid::new_v4().as_u128();
        abandoned.sort_unstable_by_key(|stream| stream.as_u128() ^ order);
        let goes_on = |_: &Uuid| std::future::ready(!self.shared.draining.is_cancelled());
        let abandoned = stream::iter(abandoned).take_while(goes_on);
        let taken = abandoned.map(|stream| self.take_over(stream)).buffer_unordered(TAKEOVERS_AT_ONCE);
        let taken = taken.filter(|taken| std::future::ready(*taken)).count().await;
        is_page_full && taken > 0
    }

    /// Goes on where a maker that died left off; `false` where that is another's to do, or cannot be done now.
    async fn take_over(&self, stream: Uuid) -> bool {
        let maker = Uuid::new_v4();
        if self.lock_live().contains_key(&stream)
            || self.shared.record.claim(stream, maker).await != Some(true)
        {
            return false;
        }
        let question = match self.shared.store.messages().by_id(stream).await {
            Ok(Some(question)) if question.role == Role::User => question,
            Ok(_) => {
                self.shared.record.forget(stream).await;
                return true;
            }
            Err(_) => return false,
        };
        let page = self.shared.record.read(stream, 0).await.unwrap_or_default();
        if matches!(page.state, State::Failed { .. }) {
            // It has ended; only its entry among those that run was left, see `Record::finish`.
            self.shared.record.forget(stream).await;
            return true;
        }
        let known = page.tokens.len();
        match self.answer(&question).await {
            Ok(Some(answer)) => {
                self.end_for_another(question.session_id, stream, maker, answer).await;
            }
            Ok(None) => {
                tracing::info!(%stream, known, "taking over an answer whose maker is gone");
                self.make(question, maker, known).await;
            }
            Err(_) => return false,
        }
        true
    }

    /// Tells of an answer that is stored and whose maker did not come to tell of it.
    async fn end_for_another(&self, session: Uuid, stream: Uuid, maker: Uuid, answer: Message) {
        let (chat, offset) = (&self.shared.chat, answer.offset);
        // A room that has heard of it passes it over.
        chat.publish(&answer);
        if self.shared.record.finish(stream, maker, &Outcome::Done(Box::new(answer))).await {
            chat.stream_done(session, stream, offset);
        }
    }

    fn find_live(&self, stream: Uuid) -> Option<Arc<Live>> {
        self.lock_live().get(&stream).cloned()
    }

    fn lock_live(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Live>>> {
        self.shared.live.lock().expect("nobody panics while holding it")
    }
}
