//! Asks primary and standbys for the position of their logs, over and over, and moves their lag.

use crate::logic::fleet::Address;
use crate::logic::positions::Track;
use crate::logic::random::Random;
use crate::recorder::Recorder;
use crate::site::Site;
use anyhow::Context;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

const SAMPLE_EVERY: Duration = Duration::from_millis(10);
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const LAG_CHANGES_EVERY: Duration = Duration::from_secs(3);
const ASK_PRIMARY: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
/// A standby that was promoted is none any more: it has no position here.
const ASK_STANDBY: &str =
    "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint WHERE pg_is_in_recovery()";

/// What is known of a server's log.
pub type Shared = Rc<RefCell<Track>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Primary,
    Standby,
}

/// Samples for ever; a server that is away has no position meanwhile.
pub async fn sample(site: Rc<Site>, at: Address, role: Role, recorder: Rc<Recorder>, track: Shared) {
    let sql = if role == Role::Primary { ASK_PRIMARY } else { ASK_STANDBY };
    loop {
        if let Ok(client) = site.connect(&at, &site.database).await {
            // Ends with the connection; the next one may find another server at the same address.
            let _ = sample_one(&client, sql, &recorder, &track).await;
        }
        sleep(SAMPLE_EVERY).await;
    }
}

async fn sample_one(client: &Client, sql: &str, recorder: &Recorder, track: &Shared) -> Option<()> {
    let statement = client.prepare(sql).await.ok()?;
    loop {
        let asked = recorder.now();
        let row = timeout(ANSWER_LIMIT, client.query_opt(&statement, &[])).await.ok()?.ok()?;
        let position: i64 = row?.try_get::<_, Option<i64>>(0).ok()??;
        track.borrow_mut().on_sample(asked, recorder.now(), u64::try_from(position).ok()?);
        sleep(SAMPLE_EVERY).await;
    }
}

/// Gives the standby another lag now and then, up to `lag_max`, which is the first. Comes back only when it cannot: with
/// a lag that is not given the trial would pass and show nothing.
pub async fn vary_lag(site: Rc<Site>, at: Address, lag_max: Duration, seed: u64) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let mut changed = Instant::now();
    let refused = || format!("the standby {}:{} takes no lag", at.host, at.port);
    give_lag(&site, &at, lag_max).await.with_context(refused)?;
    loop {
        changed += LAG_CHANGES_EVERY;
        tokio::time::sleep_until(changed).await;
        let lag = Duration::from_millis(random.below(lag_max.as_millis() as u64 + 1));
        match give_lag(&site, &at, lag).await {
            // A standby that is away just now keeps the lag that it had; one that was promoted stays away from here.
            Err(error) if is_away(&error) => {}
            given => given.with_context(refused)?,
        }
    }
}

async fn give_lag(site: &Site, at: &Address, lag: Duration) -> anyhow::Result<()> {
    let client = site.connect(at, &site.database).await?;
    let setting = format!("ALTER SYSTEM SET recovery_min_apply_delay = {}", lag.as_millis());
    client.batch_execute(&setting).await?;
    let is_reloaded: bool = client.query_one("SELECT pg_reload_conf()", &[]).await?.try_get(0)?;
    anyhow::ensure!(is_reloaded, "it does not read its settings again");
    Ok(())
}

/// The server did not answer, or starts or ends just now; anything else that it says is a refusal.
fn is_away(error: &anyhow::Error) -> bool {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    cause.is_some_and(|cause| cause.code().is_none_or(|code| code.code().starts_with("57P")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::PlaceArgs;
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::LocalSet;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        place: PlaceArgs,
    }

    const READY: &[u8] = b"Z\0\0\0\x05I";
    const AUTHENTICATED: &[u8] = b"R\0\0\0\x08\0\0\0\0";

    fn refusal(code: &str) -> Vec<u8> {
        let fields = format!("SERROR\0C{code}\0Mno\0\0");
        let mut frame = vec![b'E'];
        frame.extend_from_slice(&u32::try_from(fields.len() + 4).expect("a short text").to_be_bytes());
        frame.extend_from_slice(fields.as_bytes());
        frame
    }

    /// A Postgres that lets everybody in and refuses what they ask with `code`.
    async fn refuse(mut client: TcpStream, code: &str) -> std::io::Result<()> {
        let startup_len = client.read_u32().await?;
        client.read_exact(&mut vec![0; startup_len as usize - 4]).await?;
        client.write_all(&[AUTHENTICATED, READY].concat()).await?;
        while client.read_u8().await? == b'Q' {
            let query_len = client.read_u32().await?;
            client.read_exact(&mut vec![0; query_len as usize - 4]).await?;
            client.write_all(&[&refusal(code), READY].concat()).await?;
        }
        Ok(())
    }

    async fn start_refusing(code: &'static str) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Ends with its client.
                let _ = refuse(client, code).await;
            }
        });
        Address { host: "127.0.0.1".to_owned(), port }
    }

    async fn site() -> Rc<Site> {
        let args = Line::parse_from(["reads", "--balancer", "http://127.0.0.1:26999"]).place;
        Rc::new(Site::find(&args, &|_| None).await.expect("nobody is asked"))
    }

    #[tokio::test]
    async fn a_standby_that_refuses_its_lag_ends_the_trial() {
        let work = async {
            let at = start_refusing("42501").await;
            let error = vary_lag(site().await, at, Duration::from_secs(2), 1).await.expect_err("refused");
            assert!(format!("{error:#}").contains("takes no lag"), "{error:#}");
            assert!(!is_away(&error), "{error:#}");
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test]
    async fn a_standby_that_is_not_there_at_the_beginning_ends_the_trial() {
        let work = async {
            let nobody = Address { host: "127.0.0.1".to_owned(), port: 1 };
            let error =
                vary_lag(site().await, nobody, Duration::from_secs(2), 1).await.expect_err("nobody is there");
            assert!(is_away(&error), "{error:#}");
        };
        LocalSet::new().run_until(work).await;
    }

    #[tokio::test]
    async fn a_standby_that_ends_just_now_is_away_and_refuses_nothing() {
        let work = async {
            let at = start_refusing("57P01").await;
            let error = give_lag(&*site().await, &at, Duration::ZERO).await.expect_err("it ends");
            assert!(is_away(&error), "{error:#}");
            assert!(!is_away(&anyhow::anyhow!("it does not read its settings again")));
        };
        LocalSet::new().run_until(work).await;
    }
}
