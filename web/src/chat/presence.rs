//! Who is in a room, over all replicas. Joins and leaves are gathered for a moment, entered in Redis, and told to the
//! room as one frame. Redis away means no presence, nothing worse.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chassis::tasks::Tasks;
use redis::Script;
use tokio::sync::Notify;
use uuid::Uuid;

use super::bus::{Bus, end_of};
use super::hub::Hub;
use crate::logic::envelope::Envelope;
use crate::logic::frames::ServerFrame;
use crate::logic::message::Author;
use crate::redis_link::RedisLink;

/// Long enough to make one frame of a crowd, short enough to be felt as at once.
const GATHER: Duration = Duration::from_millis(200);
/// A replica that dies without a word is forgotten after this time.
const ENTRY_LIFETIME: Duration = Duration::from_secs(60);
const REFRESH_PERIOD: Duration = Duration::from_secs(20);
/// Redis must answer within this time, or the announcement is dropped.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// KEYS[1]: sorted set of "USER REPLICA" by expiry in ms. ARGV: now, expiry, replica, number of joins, joined users …,
/// left users …. Answers the distinct users, then those who were not here before, then those who are gone everywhere.
const ENTER: &str = r"
local now, expiry, replica, joins = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local function users()
  local seen, count = {}, 0
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local user = string.sub(entry, 1, 36)
    if not seen[user] then seen[user] = true; count = count + 1 end
  end
  return seen, count
end
local before = users()
for i = 5, #ARGV do
  local entry = ARGV[i] .. ' ' .. replica
  if i < 5 + joins then redis.call('ZADD', KEYS[1], expiry, entry) else redis.call('ZREM', KEYS[1], entry) end
end
redis.call('PEXPIREAT', KEYS[1], expiry)
local after, count = users()
local fresh, gone = {}, {}
for i = 5, #ARGV do
  local user = ARGV[i]
  if after[user] and not before[user] then fresh[#fresh + 1] = user end
  if before[user] and not after[user] then gone[#gone + 1] = user end
end
return {count, fresh, gone}
";

/// Joins and leaves that were not told yet.
#[derive(Default)]
pub struct Changes {
    by_session: Mutex<HashMap<Uuid, Change>>,
    news: Notify,
}

#[derive(Default)]
struct Change {
    joined: HashMap<Uuid, Author>,
    left: HashMap<Uuid, Author>,
}

impl Changes {
    pub fn on_joined(&self, session: Uuid, user: Author) {
        let mut changes = self.by_session.lock().expect("nobody panics while holding it");
        let change = changes.entry(session).or_default();
        change.left.remove(&user.id);
        change.joined.insert(user.id, user);
        self.news.notify_one();
    }

    pub fn on_left(&self, session: Uuid, user: Author) {
        let mut changes = self.by_session.lock().expect("nobody panics while holding it");
        let change = changes.entry(session).or_default();
        change.joined.remove(&user.id);
        change.left.insert(user.id, user);
        self.news.notify_one();
    }

    fn take(&self) -> HashMap<Uuid, Change> {
        std::mem::take(&mut self.by_session.lock().expect("nobody panics while holding it"))
    }
}

/// Starts the announcements; they end when a drain has begun and the hub is empty.
pub fn start(hub: &Arc<Hub>, bus: &Bus, redis: &RedisLink, tasks: &Tasks) {
    let ended = end_of(hub, tasks);
    let presence = Presence {
        hub: Arc::clone(hub),
        bus: bus.clone(),
        redis: redis.clone(),
        replica: Uuid::new_v4(),
        script: Script::new(ENTER),
    };
    tasks.spawn("presence", async move {
        tokio::select! { () = presence.run() => {}, () = ended => {} }
        // The last members leave during the drain; what remains would count for a minute.
        presence.announce_all().await;
    });
}

/// Whether anybody is in the room as Redis knows it; `true` while it cannot tell.
pub async fn is_inhabited(redis: &RedisLink, session: Uuid) -> bool {
    let mut pipeline = redis::pipe();
    pipeline.zcount(key(session), now_ms().to_string(), "+inf");
    redis.ask::<(u64,)>(&pipeline).await.map_or(true, |(count,)| count > 0)
}

fn key(session: Uuid) -> String {
    format!("arena:{{{session}}}:presence")
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

struct Presence {
    hub: Arc<Hub>,
    bus: Bus,
    redis: RedisLink,
    /// Names this process: a restarted replica must not inherit the entries of its former life.
    replica: Uuid,
    script: Script,
}

impl Presence {
    async fn run(&self) {
        let mut refresh = tokio::time::interval(REFRESH_PERIOD);
        loop {
            tokio::select! {
                () = self.hub.changes.news.notified() => {
                    tokio::time::sleep(GATHER).await;
                    self.announce_all().await;
                }
                _ = refresh.tick() => self.refresh().await,
            }
        }
    }

    async fn announce_all(&self) {
        for (session, change) in self.hub.changes.take() {
            self.announce(session, change).await;
        }
    }

    async fn announce(&self, session: Uuid, change: Change) {
        let joined: Vec<Uuid> = change.joined.keys().copied().collect();
        let left: Vec<Uuid> = change.left.keys().copied().collect();
        let Some((count, fresh, gone)) = self.enter(session, &joined, &left).await else { return };
        if fresh.is_empty() && gone.is_empty() && joined.is_empty() {
            return;
        }
        let joined = among(&change.joined, &fresh);
        let left = among(&change.left, &gone);
        // Also when nobody is new to the fleet: the connection that has just come wants the count.
        let frame = ServerFrame::Presence { joined: &joined, left: &left, count }.encode();
        self.bus.publish(&Envelope::Passing { session, frame: &frame });
    }

    async fn refresh(&self) {
        for (session, users) in self.hub.users_by_room() {
            if self.enter(session, &users, &[]).await.is_none() {
                return;
            }
        }
    }

    async fn enter(
        &self,
        session: Uuid,
        joined: &[Uuid],
        left: &[Uuid],
    ) -> Option<(u64, Vec<String>, Vec<String>)> {
        let now_ms = now_ms();
        let expiry_ms = now_ms + ENTRY_LIFETIME.as_millis();
        let mut call = self.script.key(key(session));
        call.arg(now_ms.to_string())
            .arg(expiry_ms.to_string())
            .arg(self.replica.to_string())
            .arg(joined.len());
        for user in joined.iter().chain(left) {
            call.arg(user.to_string());
        }
        let mut connection = self.redis.connection();
        match tokio::time::timeout(ANSWER_TIMEOUT, call.invoke_async(&mut connection)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "presence could not be entered: {cause}");
                None
            }
            Err(_) => None,
        }
    }
}

fn among(authors: &HashMap<Uuid, Author>, ids: &[String]) -> Vec<Author> {
    ids.iter().filter_map(|id| authors.get(&Uuid::try_parse(id).ok()?)).cloned().collect()
}
