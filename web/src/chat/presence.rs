//! Who is in a room, over all replicas. Joins and leaves are gathered for a moment, entered in Redis, and told to the
//! room as one frame. Redis away means no presence, nothing worse.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chassis::tasks::Tasks;
use futures_util::future::join_all;
use redis::Script;
use tokio::sync::Notify;
use uuid::Uuid;

use super::bus::{Bus, end_of};
use super::hub::Hub;
use crate::logic::envelope::Envelope;
use crate::logic::frames::{self, ServerFrame};
use crate::logic::message::Author;
use crate::logic::wire::Frame;
use crate::redis_link::RedisLink;

/// Long enough to make one frame of a crowd, short enough to be felt as at once.
const GATHER: Duration = Duration::from_millis(200);
/// A replica that dies without a word is forgotten after so many periods.
const ENTRY_LIFETIME_PERIODS: u32 = 3;
/// Redis must answer within this time, or the announcement is dropped.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// A cluster is told of so many rooms at the same time; those whose master is away cost the limit of an answer together.
const REFRESHED_AT_ONCE: usize = 128;

/// KEYS[1]: sorted set of "USER REPLICA" by expiry in ms. ARGV: now, expiry, replica, number of joins, joined users …,
/// left users …. Answers the distinct users, then those who were not here before, then those who are gone everywhere,
/// be it that they left or that their replica has fallen silent: whoever removes an entry is the one to tell of it.
const ENTER: &str = r"
local now, expiry, replica, joins = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local function users()
  local seen, count = {}, 0
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    local user = string.sub(entry, 1, 36)
    if not seen[user] then seen[user] = true; count = count + 1 end
  end
  return seen, count
end
local before = users()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for i = 5, #ARGV do
  local entry = ARGV[i] .. ' ' .. replica
  if i < 5 + joins then redis.call('ZADD', KEYS[1], expiry, entry) else redis.call('ZREM', KEYS[1], entry) end
end
redis.call('PEXPIREAT', KEYS[1], expiry)
local after, count = users()
local fresh, gone = {}, {}
for user in pairs(after) do if not before[user] then fresh[#fresh + 1] = user end end
for user in pairs(before) do if not after[user] then gone[#gone + 1] = user end end
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

/// What came of an entry.
struct Entered {
    count: u64,
    /// Those who were on no replica before.
    fresh: Vec<Uuid>,
    /// Those who are on none any more.
    gone: Vec<Uuid>,
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
pub fn start(hub: &Arc<Hub>, bus: &Bus, redis: &RedisLink, tasks: &Tasks, period: Duration) {
    let ended = end_of(hub, tasks);
    let presence = Presence {
        hub: Arc::clone(hub),
        bus: bus.clone(),
        redis: redis.clone(),
        period,
        replica: Uuid::new_v4(),
        script: Script::new(ENTER),
    };
    let last_word = bus.last_word();
    tasks.spawn("presence", async move {
        presence.run(ended).await;
        // The last members leave during the drain; what remains would count for a minute.
        presence.announce_all().await;
        drop(last_word);
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
    /// How often the members are entered anew.
    period: Duration,
    /// Names this process: a restarted replica must not inherit the entries of its former life.
    replica: Uuid,
    script: Script,
}

impl Presence {
    /// Until `ended`. What was taken from the changes is told all the same.
    async fn run(&self, ended: impl Future<Output = ()>) {
        tokio::pin!(ended);
        let mut refresh = tokio::time::interval(self.period);
        loop {
            tokio::select! {
                () = &mut ended => return,
                () = self.hub.changes.news.notified() => {
                    tokio::select! { () = &mut ended => return, () = tokio::time::sleep(GATHER) => {} }
                    self.announce_all().await;
                }
                _ = refresh.tick() => {
                    tokio::select! { () = &mut ended => return, () = self.refresh() => {} }
                }
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
        let Some(entered) = self.enter(session, &joined, &left).await else { return };
        self.tell_known(session, &change, &entered);
        self.tell(session, &change, &entered).await;
    }

    /// In a cluster one master may be away and the others not: the rooms of many slots are entered at the same time, and
    /// only when none of them could be is Redis away.
    async fn refresh(&self) {
        let at_once = if self.redis.is_cluster() { REFRESHED_AT_ONCE } else { 1 };
        for rooms in self.hub.users_by_room().chunks(at_once) {
            let refreshed = join_all(rooms.iter().map(|(session, users)| self.refresh_room(*session, users)));
            if !refreshed.await.contains(&true) {
                return;
            }
        }
    }

    /// Whether Redis could be told.
    async fn refresh_room(&self, session: Uuid, users: &[Uuid]) -> bool {
        let Some(entered) = self.enter(session, users, &[]).await else { return false };
        self.tell(session, &Change::default(), &entered).await;
        true
    }

    /// A new connection of somebody who was here before is news for nobody else, but it wants the count.
    fn tell_known(&self, session: Uuid, change: &Change, entered: &Entered) {
        let known = change.joined.values().filter(|user| !entered.fresh.contains(&user.id));
        let frames: HashMap<Uuid, Frame> = known
            .map(|user| {
                let joined = std::slice::from_ref(user);
                let frame = ServerFrame::Presence { joined, left: &[], count: entered.count };
                (user.id, Frame::text(&frame.encode()))
            })
            .collect();
        if !frames.is_empty() {
            self.hub.tell_users(session, &frames);
        }
    }

    /// Tells the room who came and went, if anybody did.
    async fn tell(&self, session: Uuid, change: &Change, entered: &Entered) {
        let joined = self.authors(&change.joined, &entered.fresh).await;
        let left = self.authors(&change.left, &entered.gone).await;
        for frame in frames::presence(&joined, &left, entered.count) {
            self.bus.publish(&Envelope::Passing { session, frame: &frame.encode() });
        }
    }

    /// These people with their names; those who are not among `known` were on a replica that is silent.
    async fn authors(&self, known: &HashMap<Uuid, Author>, ids: &[Uuid]) -> Vec<Author> {
        let mut authors: Vec<Author> = ids.iter().filter_map(|id| known.get(id)).cloned().collect();
        let unknown: Vec<Uuid> = ids.iter().filter(|id| !known.contains_key(id)).copied().collect();
        if !unknown.is_empty() {
            match self.hub.store().as_read().users().authors(&unknown).await {
                Ok(found) => authors.extend(found),
                Err(cause) => {
                    tracing::warn!(%cause, "{} who came or went cannot be named: {cause}", unknown.len());
                }
            }
        }
        authors
    }

    async fn enter(&self, session: Uuid, joined: &[Uuid], left: &[Uuid]) -> Option<Entered> {
        let now_ms = now_ms();
        let expiry_ms = now_ms + (self.period * ENTRY_LIFETIME_PERIODS).as_millis();
        let mut call = self.script.key(key(session));
        call.arg(now_ms.to_string())
            .arg(expiry_ms.to_string())
            .arg(self.replica.to_string())
            .arg(joined.len());
        for user in joined.iter().chain(left) {
            call.arg(user.to_string());
        }
        let mut connection = self.redis.connection();
        let asked = call.invoke_async::<(u64, Vec<String>, Vec<String>)>(&mut connection);
        match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
            Ok(Ok((count, fresh, gone))) => Some(Entered { count, fresh: ids(&fresh), gone: ids(&gone) }),
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "presence could not be entered: {cause}");
                None
            }
            Err(_) => None,
        }
    }
}

fn ids(texts: &[String]) -> Vec<Uuid> {
    texts.iter().filter_map(|text| Uuid::try_parse(text).ok()).collect()
}
