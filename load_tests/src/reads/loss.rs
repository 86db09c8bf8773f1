//! Writes that a failover lost: whoever bears their token gets 503, never an older answer.

use super::{Run, Wrote};
use crate::http::{Call, Client};
use crate::site::Site;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const WRITES: u32 = 200;
/// How long the lost tokens are shown, while new writes make the log of the new primary grow.
const SHOWN_FOR: Duration = Duration::from_secs(10);
const BACK_LIMIT: Duration = Duration::from_secs(60);

/// Writes behind the back of the standby that is cut off, lets it be promoted, and shows the tokens to all replicas.
pub async fn check(run: &Run, site: &Site, cut_off: &str, fail_over: &str) -> anyhow::Result<String> {
    let mut client = site.client();
    let kept = run.write(&mut client, 0).await?;
    super::command(cut_off).await?;
    let mut lost = Vec::new();
    for n in 0..WRITES {
        lost.push(run.write(&mut client, n).await?);
    }
    super::command(fail_over).await?;
    let mut dialers = Vec::new();
    for replica in &site.replicas {
        dialers.push(site.dialer_of(replica).await?);
    }
    let began = Instant::now();
    while read(run, &mut client, &kept).await != Some(200) {
        anyhow::ensure!(began.elapsed() < BACK_LIMIT, "what the new primary has is not answered");
        sleep(Duration::from_millis(50)).await;
    }
    let (mut refused, mut asked, mut n) = (0u32, 0u32, 0u32);
    let began = Instant::now();
    while began.elapsed() < SHOWN_FOR {
        for dialer in &dialers {
            let wrote = &lost[n as usize % lost.len()];
            n += 1;
            asked += 1;
            match read(run, &mut Client::new(dialer.clone()), wrote).await {
                Some(503) => refused += 1,
                other => anyhow::bail!("a token of a lost write was answered with {other:?} in place of 503"),
            }
        }
        run.write(&mut client, n).await?;
    }
    anyhow::ensure!(read(run, &mut client, &kept).await == Some(200), "a write that was kept is refused");
    Ok(format!(
        "{} writes lost by the failover: {asked} reads with their tokens, {refused} times 503",
        lost.len()
    ))
}

async fn read(run: &Run, client: &mut Client, wrote: &Wrote) -> Option<u16> {
    let path = format!("/api/sessions/{}/messages?after={}&limit=1", wrote.session, wrote.offset - 1);
    let call = Call::get("read", path)
        .bearer(&run.account(wrote.writer).token())
        .header("x-consistency-token", wrote.token.clone());
    client.call(&call).await.ok().map(|answer| answer.status)
}
