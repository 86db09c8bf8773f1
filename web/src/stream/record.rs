//! The record of a stream in Redis, from which every replica can serve it: its tokens, how it ended, and a lease that
//! shows that its maker lives. A maker has an id of its own, by which it is told from one that was thought dead. All keys
//! of a stream are in one hash slot. Redis away costs the others the live tokens, never the answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{FromRedisValue, Pipeline, RedisResult, Script};
use uuid::Uuid;

use super::live::Outcome;
use crate::redis_link::RedisLink;

/// A maker that does not renew its lease for this long is dead. With the sweep's period it must stay below 3 s.
pub const LEASE: Duration = Duration::from_millis(1800);
/// How often a maker renews it: two renewals may be lost.
pub const LEASE_RENEWAL: Duration = Duration::from_millis(500);
/// A reader elsewhere is believed to listen for this long after it last said so.
const HEARD: Duration = Duration::from_secs(3);
/// A record that nobody finishes is forgotten after this time.
const UNFINISHED_KEPT: Duration = Duration::from_secs(900);
/// Streams that one look finds at most.
pub const SWEEP_LEN: usize = 256;
/// Streams that are being made anywhere, by the time at which their lease ends, in ms.
const RUNNING: &str = "arena:streams:running";

/// Appends only where the record ends: of two makers, one that was thought dead, each token is recorded once. Gives
/// where it ended before others had recorded, and where it ends now: what this maker recorded itself it knows, also when
/// its question came here twice, as it may in a cluster. Negative for a maker whose lease another one has, or had and
/// recorded under it. A stream that Redis has lost is entered again.
const APPEND: &str = r"
local before, start, maker = redis.call('LLEN', KEYS[1]), tonumber(ARGV[1]), ARGV[2]
local by, at = redis.call('HGET', KEYS[2], 'by'), before
local holder = redis.call('GET', KEYS[3]) or by or maker
if holder ~= maker then return {-1, -1} end
for i = 3, #ARGV do
  if start + i - 3 == at then redis.call('RPUSH', KEYS[1], ARGV[i]); at = at + 1 end
end
redis.call('PEXPIRE', KEYS[1], 900000)
local entered = redis.call('HSETNX', KEYS[2], 'state', 'making')
if at > before then redis.call('HSET', KEYS[2], 'by', maker) end
if at > before or entered == 1 then redis.call('PEXPIRE', KEYS[2], 900000) end
if by == maker then before = math.min(before, start) end
return {before, at}
";

/// A maker that stood still does not take its lease back from the one that went on in its place; it is told 0.
const RENEW: &str = r"
local holder = redis.call('GET', KEYS[2]) or redis.call('HGET', KEYS[1], 'by') or ARGV[1]
if holder ~= ARGV[1] then return 0 end
redis.call('HSETNX', KEYS[1], 'state', 'making')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
";

/// Only who has the lease, or finds it free, takes away what others have recorded.
const BEGIN: &str = r"
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[3])
redis.call('HSET', KEYS[1], 'state', 'making')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
";

/// One maker ends a stream. Who fails while another one is making, or has made, the answer, notes nothing.
const FINISH: &str = r"
local meta, tokens, lease = KEYS[1], KEYS[2], KEYS[3]
local maker, kept, state = ARGV[1], ARGV[2], ARGV[4]
local holder = redis.call('GET', lease)
if redis.call('HGET', meta, 'state') == 'done' then
  if holder == maker then redis.call('DEL', lease) end
  return redis.call('HGET', meta, 'ender') == maker and 'noted' or 'ended'
end
if state == 'failed' and holder and holder ~= maker then return 'making' end
redis.call('HSET', meta, 'ender', maker, unpack(ARGV, 3))
redis.call('PEXPIRE', meta, kept)
redis.call('PEXPIRE', tokens, kept)
redis.call('DEL', lease)
return 'noted'
";

const CLAIM: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder then return holder == ARGV[1] and 1 or 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";

#[derive(Clone)]
pub struct Record {
    redis: RedisLink,
    append: Arc<Script>,
    kept: Duration,
}

/// Another maker has the lease, or went on under it: whoever is told this makes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

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
    ///
    /// # Errors
    /// Another maker has the lease. Redis away is none: the answer is made without a record.
    pub async fn begin(&self, stream: Uuid, maker: Uuid) -> Result<(), Lost> {
        self.hold(BEGIN, stream, maker).await
    }

    /// Enters a stream and takes its lease, or renews it; also after a loss of all that Redis had.
    ///
    /// # Errors
    /// Another maker has the lease, or has recorded since this one had it.
    pub async fn renew(&self, stream: Uuid, maker: Uuid) -> Result<(), Lost> {
        self.hold(RENEW, stream, maker).await
    }

    async fn hold(&self, script: &str, stream: Uuid, maker: Uuid) -> Result<(), Lost> {
        let mut pipeline = redis::pipe();
        let call = pipeline.cmd("EVAL").arg(script).arg(3);
        call.arg(key(stream, "meta")).arg(key(stream, "lease")).arg(key(stream, "tokens"));
        call.arg(maker.to_string()).arg(millis(LEASE)).arg(millis(UNFINISHED_KEPT));
        pipeline.zadd(RUNNING, stream.to_string(), now_ms() + millis(LEASE)).ignore();
        match self.ask::<(bool,)>(&pipeline).await {
            Ok((true,)) => Ok(()),
            Ok((false,)) => Err(Lost),
            Err(cause) => {
                tracing::debug!(%cause, "a stream could not be recorded: {cause}");
                Ok(())
            }
        }
    }

    /// Records tokens `start…`; gives how many others had recorded, or `start`, and how many there are now; `None` when
    /// Redis is away.
    ///
    /// # Errors
    /// Another maker has the lease, or has recorded since this one had it.
    pub async fn append(
        &self,
        stream: Uuid,
        maker: Uuid,
        start: usize,
        tokens: &[Arc<str>],
    ) -> Result<Option<(usize, usize)>, Lost> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let mut call = self.append.key(key(stream, "tokens"));
        call.key(key(stream, "meta")).key(key(stream, "lease")).arg(start).arg(maker.to_string());
        for token in tokens {
            call.arg(&**token);
        }
        let mut connection = self.redis.connection();
        let asked = tokio::time::timeout(PATIENCE, call.invoke_async::<(i64, i64)>(&mut connection)).await;
        let Ok(Ok((before, after))) = asked else { return Ok(None) };
        let (Ok(before), Ok(after)) = (usize::try_from(before), usize::try_from(after)) else {
            return Err(Lost);
        };
        Ok(Some((before, after)))
    }

    /// Notes the end; from now on the record lives as long as a stream can be resumed. False when the end is another
    /// maker's to tell: its answer is stored, or this one failed and the other goes on.
    pub async fn finish(&self, stream: Uuid, maker: Uuid, outcome: &Outcome) -> bool {
        let mut pipeline = redis::pipe();
        let call = pipeline.cmd("EVAL").arg(FINISH).arg(3);
        call.arg(key(stream, "meta")).arg(key(stream, "tokens")).arg(key(stream, "lease"));
        call.arg(maker.to_string()).arg(millis(self.kept));
        match outcome {
            Outcome::Done(answer) => call.arg(&["state", "done", "offset"]).arg(answer.offset),
            Outcome::Failed { code, detail } => {
                call.arg(&["state", "failed", "code", code.as_str(), "detail", detail.as_str()])
            }
        };
        match self.ask::<(String,)>(&pipeline).await {
            Ok((end,)) => {
                // In a cluster this is in another slot. A replica that dies between the two leaves an entry whose lease
                // has ended: the sweep sees that the stream has too, and takes the entry away.
                if end != "making" {
                    self.tell(redis::pipe().zrem(RUNNING, stream.to_string()).ignore()).await;
                }
                end == "noted"
            }
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

    /// Takes the lease of a stream for this maker if no other has it; `None` when Redis is away.
    pub async fn claim(&self, stream: Uuid, maker: Uuid) -> Option<bool> {
        let mut pipeline = redis::pipe();
        let call = pipeline.cmd("EVAL").arg(CLAIM).arg(1).arg(key(stream, "lease"));
        call.arg(maker.to_string()).arg(millis(LEASE));
        let (taken,): (bool,) = self.ask(&pipeline).await.ok()?;
        Some(taken)
    }

    /// Gives up a lease that this maker claimed and needs no more.
    pub async fn release(&self, stream: Uuid, maker: Uuid) {
        let mut pipeline = redis::pipe();
        let call = pipeline.cmd("EVAL").arg(RELEASE).arg(1).arg(key(stream, "lease"));
        call.arg(maker.to_string()).ignore();
        self.tell(&pipeline).await;
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
