//! A streamed answer must come as it is made, through the balancer, not in one piece at its end.

use crate::http::Call;
use crate::logic::shape::Session;
use crate::logic::tokens::Answer;
use crate::site::Site;
use crate::users::{Until, follow};
use hyper::StatusCode;
use serde_json::json;
use std::time::Duration;

/// An answer that is buffered shows all tokens at once; one that is made spreads over at least this.
const SPREAD_LEAST: Duration = Duration::from_millis(100);

pub async fn check(site: &Site) -> anyhow::Result<String> {
    let account = site.accounts(1).await?.remove(0);
    let mut client = site.client();
    let body = json!({"title": "verify stream", "visibility": "private"});
    let call = Call::post("/api/sessions", "/api/sessions", &body).bearer(&account.token());
    let session: Session = client.call(&call).await?.expect(StatusCode::CREATED)?.json()?;
    let question = "Why does a balancer not buffer a stream?".to_owned();
    let body = json!({"session_id": session.id, "content": question, "client_msg_id": "verify-1"});
    let call = Call::post("/messages/stream/", "/messages/stream/", &body).bearer(&account.token());
    let mut answer = Answer::to(question, 0);
    let mut times: Vec<Duration> = Vec::new();
    follow(&mut client, &call, &mut answer, Until::Done, |at| times.push(at)).await?;
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        anyhow::bail!("the answer had no tokens")
    };
    let told = format!(
        "first of {} tokens after {} ms, last after {} ms",
        times.len(),
        first.as_millis(),
        last.as_millis()
    );
    let spread = *last - *first;
    anyhow::ensure!(spread >= SPREAD_LEAST && *first < spread, "the tokens came together: {told}");
    Ok(told)
}
