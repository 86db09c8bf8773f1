//! The record of a stream in Redis, from which every replica can serve it: its tokens, how it ended, and a lease that
//! shows that its maker lives. All keys of a stream are in one hash slot. Redis away costs the others the live tokens,
//! never the answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{FromRedisValue, Pipeline, RedisResult, Script};
use uuid::Uuid;

use super::live::Outcome;
use crate::redis_link::RedisLink;

/// A maker that does not renew its lease for this long is dead. With the sweep's period it must stay below 3 s.
const LEASE: Duration = Duration::from_millis(1800);
/// How often a maker renews it: two renewals may be lost.
pub const LEASE_RENEWAL: Duration = Duration::from_millis(500);
/// A reader elsewhere is believed to listen for this long after it last said so.
const HEARD: Duration = Duration::from_secs(3);
/// A record that nobody finishes is forgotten after this time.
const UNFINISHED_KEPT: Duration = Duration::from_secs(900);
/// Streams that one sweep looks at.
const SWEEP_LEN: usize = 16;
/// Streams that are being made anywhere, by the time at which their lease ends, in ms.
const RUNNING: &str = "arena:streams:running";

/// Appends only where the record ends: of two makers, one that was thought dead, each token is recorded once. Gives
/// where it ended before and where it ends now.
const APPEND: &str = r"
local before, start = redis.call('LLEN', KEYS[1]), tonumber(ARGV[1])
local at = before
for i = 2, #ARGV do
  if start + i - 2 == at then redis.call('RPUSH', KEYS[1], ARGV[i]); at = at + 1 end
end
redis.call('PEXPIRE', KEYS[1], 900000)
return {before, at}
";

#[derive(Clone)]
pub struct Record {
    redis: RedisLink,
    append: Arc<Script>,
    kept: Duration,
}

/// What the record holds.
#[derive(Debug, Default)]
pub struct Page {
    pub tokens: Vec<String>,
    pub state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub enum State {
    /// There is no such record, or no more.
    #[default]
    Unknown,
    Making,
    Done,
    Failed {
        code: String,
        detail: String,
    },
}

impl Record {
    pub fn new(redis: RedisLink, kept: Duration) -> Self {
        Self { redis, append: Arc::new(Script::new(APPEND)), kept }
    }

    /// Enters a stream whose making begins, or begins anew after it failed, with nothing made yet.
    pub async fn begin(&self, stream: Uuid) {
        let mut pipeline = redis::pipe();
        pipeline.del(key(stream, "tokens")).ignore().del(key(stream, "meta")).ignore();
        self.tell(&pipeline).await;
        self.renew(stream).await;
    }

    /// Enters a stream and takes its lease, or renews it; also after a loss of all that Redis had.
    pub async fn renew(&self, stream: Uuid) {
        let (meta, lease_end) = (key(stream, "meta"), now_ms() + millis(LEASE));
        let mut pipeline = redis::pipe();
        pipeline.hset_nx(&meta, "state", "making").ignore().pexpire(&meta, millis(UNFINISHED_KEPT)).ignore();
        pipeline.cmd("SET").arg(key(stream, "lease")).arg(1).arg("PX").arg(millis(LEASE)).ignore();
        pipeline.zadd(RUNNING, stream.to_string(), lease_end).ignore();
        self.tell(&pipeline).await;
    }

    /// Records tokens `start…`; gives how many the record had and has, `None` when Redis is away.
    pub async fn append(&self, stream: Uuid, start: usize, tokens: &[Arc<str>]) -> Option<(usize, usize)> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let mut call = self.append.key(key(stream, "tokens"));
        call.arg(start);
        for token in tokens {
            call.arg(&**token);
        }
        let mut connection = self.redis.connection();
        tokio::time::timeout(PATIENCE, call.invoke_async(&mut connection)).await.ok()?.ok()
    }

    /// Notes the end; from now on the record lives as long as a stream can be resumed. False when another maker had noted
    /// that the answer is stored.
    pub async fn finish(&self, stream: Uuid, outcome: &Outcome) -> bool {
        let fields = match outcome {
            Outcome::Done(answer) => vec![("state", "done".into()), ("offset", answer.offset.to_string())],
            Outcome::Failed { code, detail } => {
                vec![("state", "failed".into()), ("code", code.clone()), ("detail", detail.clone())]
            }
        };
        let mut pipeline = redis::pipe();
        pipeline
            .atomic()
            .hget(key(stream, "meta"), "state")
            .hset_multiple(key(stream, "meta"), &fields)
            .ignore()
            .pexpire(key(stream, "meta"), millis(self.kept))
            .ignore()
            .pexpire(key(stream, "tokens"), millis(self.kept))
            .ignore()
            .del(key(stream, "lease"))
            .ignore();
        // No transaction reaches beyond one slot of a cluster. A replica that dies between the two leaves an entry whose
        // lease has ended: the sweep sees that the stream has too, and takes the entry away.
        let apart = self.redis.is_cluster();
        if !apart {
            pipeline.zrem(RUNNING, stream.to_string()).ignore();
        }
        let answer = self.ask::<(Option<String>,)>(&pipeline).await;
        if apart && answer.is_ok() {
            self.tell(redis::pipe().zrem(RUNNING, stream.to_string()).ignore()).await;
        }
        match answer {
            Ok((before,)) => before.as_deref() != Some("done"),
            Err(cause) => {
                tracing::debug!(%cause, "the end of a stream could not be recorded: {cause}");
                true
            }
        }
    }

    /// Forgets a stream that cannot be.
    pub async fn forget(&self, stream: Uuid) {
        let mut pipeline = redis::pipe();
        pipeline.zrem(RUNNING, stream.to_string()).ignore().del(key(stream, "lease")).ignore();
        self.tell(&pipeline).await;
    }

    /// What is recorded from token `from` on; `None` when Redis is away.
    pub async fn read(&self, stream: Uuid, from: usize) -> Option<Page> {
        let mut pipeline = redis::pipe();
        // The state first: tokens that come between the two are in the second answer.
        pipeline.hgetall(key(stream, "meta")).lrange(
            key(stream, "tokens"),
            isize::try_from(from).unwrap_or(isize::MAX),
            -1,
        );
        let (mut meta, tokens): (HashMap<String, String>, Vec<String>) = self.ask(&pipeline).await.ok()?;
        let mut field = |name| meta.remove(name).unwrap_or_default();
        let state = match field("state").as_str() {
            "making" => State::Making,
            "done" => State::Done,
            "failed" => State::Failed { code: field("code"), detail: field("detail") },
            _ => State::Unknown,
        };
        Some(Page { tokens, state })
    }

    /// Says that somebody on this replica listens to a stream that is made elsewhere.
    pub async fn listen(&self, stream: Uuid) {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(key(stream, "heard")).arg(1).arg("PX").arg(millis(HEARD)).ignore();
        self.tell(&pipeline).await;
    }

    /// Whether somebody on another replica listens; `true` also while Redis is away and nobody can say so.
    pub async fn is_heard(&self, stream: Uuid) -> bool {
        let mut pipeline = redis::pipe();
        pipeline.exists(key(stream, "heard"));
        self.ask::<(bool,)>(&pipeline).await.map_or(true, |(heard,)| heard)
    }

    /// Takes the lease of a stream if nobody has it; `None` when Redis is away.
    pub async fn claim(&self, stream: Uuid) -> Option<bool> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(key(stream, "lease")).arg(1).arg("NX").arg("PX").arg(millis(LEASE));
        let (taken,): (Option<String>,) = self.ask(&pipeline).await.ok()?;
        Some(taken.is_some())
    }

    /// Streams whose lease has ended before their answer.
    pub async fn abandoned(&self) -> Vec<Uuid> {
        let mut pipeline = redis::pipe();
        let limit = isize::try_from(SWEEP_LEN).unwrap_or(isize::MAX);
        pipeline.zrangebyscore_limit(RUNNING, "-inf", now_ms().to_string(), 0, limit);
        let found: RedisResult<(Vec<String>,)> = self.ask(&pipeline).await;
        found.map(|(ids,)| ids.iter().filter_map(|id| Uuid::try_parse(id).ok()).collect()).unwrap_or_default()
    }

    async fn ask<T: FromRedisValue>(&self, pipeline: &Pipeline) -> RedisResult<T> {
        self.redis.ask(pipeline).await
    }

    async fn tell(&self, pipeline: &Pipeline) {
        if let Err(cause) = self.ask::<()>(pipeline).await {
            tracing::debug!(%cause, "a stream could not be recorded: {cause}");
        }
    }
}

fn key(stream: Uuid, part: &str) -> String {
    format!("arena:{{{stream}}}:{part}")
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
