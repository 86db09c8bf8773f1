//! The record of a stream, as two makers use it of whom one was thought dead, in a real Redis.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;
use web::logic::message::{Message, Role};
use web::redis_link::RedisLink;
use web::stream::Outcome;
use web::stream::record::{Lost, Record, State};
use world::World;
use world::programs::until;

/// A record with one stream that two makers know.
struct Told {
    record: Record,
    stream: Uuid,
    first: Uuid,
    second: Uuid,
    world: World,
}

impl Told {
    async fn begun() -> Self {
        let world = World::start().await;
        let redis = RedisLink::new(&world.settings("web-1", &[]).redis).unwrap();
        let record = Record::new(redis, Duration::from_secs(600));
        let (stream, first, second) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        record.begin(stream, first).await.unwrap();
        Self { record, stream, first, second, world }
    }

    async fn append(&self, maker: Uuid, start: usize, tokens: &[&str]) -> Result<(usize, usize), Lost> {
        let tokens: Vec<Arc<str>> = tokens.iter().map(|token| Arc::from(*token)).collect();
        Ok(self.record.append(self.stream, maker, start, &tokens).await?.unwrap())
    }

    async fn tokens(&self) -> Vec<String> {
        self.record.read(self.stream, 0).await.unwrap().tokens
    }

    /// The second maker goes on in place of the first.
    async fn take_over(&self) {
        self.end_lease().await;
        assert_eq!(self.record.claim(self.stream, self.second).await, Some(true));
    }

    async fn finish(&self, maker: Uuid, outcome: &Outcome) -> bool {
        self.record.finish(self.stream, maker, outcome).await
    }

    async fn state(&self) -> State {
        self.record.read(self.stream, 0).await.unwrap().state
    }

    /// As if its maker had stood still for too long.
    async fn end_lease(&self) {
        let lease = format!("arena:{{{}}}:lease", self.stream);
        let ended: u64 = self.world.redis.command(redis::cmd("DEL").arg(lease)).await;
        assert_eq!(ended, 1, "somebody had it");
    }
}

#[tokio::test]
async fn all_streams_of_a_replica_that_is_gone_are_found_at_once() {
    let told = Told::begun().await;
    for _ in 1..100 {
        told.record.begin(Uuid::new_v4(), told.first).await.unwrap();
    }
    until("all are found", Duration::from_secs(20), async || told.record.abandoned().await.len() == 100)
        .await;
}

fn done() -> Outcome {
    Outcome::Done(Box::new(Message {
        id: Uuid::new_v4(),
        session_id: Uuid::new_v4(),
        offset: 2,
        role: Role::Assistant,
        author: None,
        content: "the answer".into(),
        created_at: OffsetDateTime::UNIX_EPOCH,
        client_msg_id: None,
        ct: None,
    }))
}

fn failed() -> Outcome {
    Outcome::Failed { code: "responder-failed".into(), detail: "ask again".into() }
}

#[tokio::test]
async fn tokens_are_recorded_once_and_a_maker_learns_which_another_has_shown() {
    let told = Told::begun().await;
    assert_eq!(told.append(told.first, 0, &["a", "b"]).await, Ok((0, 2)));
    told.take_over().await;
    assert_eq!(
        told.append(told.second, 0, &["a", "b", "c"]).await,
        Ok((2, 3)),
        "the other has shown a and b"
    );
    assert_eq!(told.append(told.second, 2, &["c", "d"]).await, Ok((2, 4)), "c twice, all its own");
    assert_eq!(told.append(told.second, 2, &["c", "d"]).await, Ok((2, 4)), "the same question twice");
    assert_eq!(told.record.read(told.stream, 1).await.unwrap().tokens, ["b", "c", "d"]);
}

#[tokio::test]
async fn a_maker_that_lost_its_lease_records_nothing_more() {
    let told = Told::begun().await;
    told.take_over().await;
    assert_eq!(told.append(told.first, 0, &["y"]).await, Err(Lost));
    assert_eq!(told.append(told.second, 0, &["x"]).await, Ok((0, 1)));
    assert_eq!(told.append(told.first, 1, &["y"]).await, Err(Lost));
    assert_eq!(told.record.renew(told.stream, told.first).await, Err(Lost));
    // Also when the second one has died since: what is recorded is not its own.
    told.end_lease().await;
    assert_eq!(told.append(told.first, 1, &["y"]).await, Err(Lost));
    assert_eq!(told.record.renew(told.stream, told.first).await, Err(Lost));
    assert_eq!(told.record.renew(told.stream, told.second).await, Ok(()));
    assert_eq!(told.tokens().await, ["x"]);
}

#[tokio::test]
async fn a_maker_that_comes_late_does_not_take_away_what_another_recorded() {
    let told = Told::begun().await;
    assert_eq!(told.append(told.first, 0, &["a", "b"]).await, Ok((0, 2)));
    assert_eq!(told.record.begin(told.stream, told.second).await, Err(Lost));
    assert_eq!(told.tokens().await, ["a", "b"]);
    told.take_over().await;
    assert_eq!(told.record.begin(told.stream, told.second).await, Ok(()));
    assert!(told.tokens().await.is_empty(), "begun anew");
}

#[tokio::test]
async fn the_lease_is_one_makers_until_it_ends() {
    let told = Told::begun().await;
    let claim = async |maker| told.record.claim(told.stream, maker).await.unwrap();
    assert!(!claim(told.second).await);
    assert!(claim(told.first).await, "its own, asked twice");
    told.end_lease().await;
    assert!(claim(told.second).await);
    assert_eq!(told.record.renew(told.stream, told.first).await, Err(Lost));
    assert!(!claim(told.first).await, "who comes back does not take it from the other");
    told.record.release(told.stream, told.first).await;
    assert!(!claim(told.first).await, "nor gives it up for the other");
    told.record.release(told.stream, told.second).await;
    assert!(claim(told.first).await);
}

#[tokio::test]
async fn an_end_is_told_by_the_maker_that_noted_it_first() {
    let told = Told::begun().await;
    assert!(told.finish(told.second, &done()).await);
    assert!(told.finish(told.second, &done()).await, "the same question twice");
    assert!(!told.finish(told.first, &done()).await);
    assert!(!told.finish(told.first, &failed()).await);
    assert_eq!(told.state().await, State::Done, "a late failure takes nothing back");
}

#[tokio::test]
async fn a_failure_while_another_maker_goes_on_is_not_noted() {
    let told = Told::begun().await;
    told.end_lease().await;
    assert_eq!(told.record.claim(told.stream, told.second).await, Some(true));
    assert!(!told.finish(told.first, &failed()).await);
    assert_eq!(told.state().await, State::Making);
    assert!(told.finish(told.second, &failed()).await);
    assert!(matches!(told.state().await, State::Failed { .. }));
    assert!(told.finish(told.first, &done()).await, "an answer that is stored after all counts");
    assert_eq!(told.state().await, State::Done);
}

#[tokio::test]
async fn a_stream_that_redis_lost_is_entered_again_with_the_next_tokens() {
    let told = Told::begun().await;
    assert_eq!(told.append(told.first, 0, &["a", "b"]).await, Ok((0, 2)));
    told.world.redis.lose_all().await;
    assert_eq!(told.append(told.first, 2, &["c"]).await, Ok((0, 0)), "from the first token, please");
    assert_eq!(told.state().await, State::Making);
    assert_eq!(told.append(told.first, 0, &["a", "b", "c"]).await, Ok((0, 3)));
    assert_eq!(told.append(told.second, 0, &["y"]).await, Err(Lost));
}
