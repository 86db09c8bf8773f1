//! A member on every replica, three of them sending at once: all must see all messages, in one order, each once.

use crate::http::Call;
use crate::logic::fleet::Replica;
use crate::logic::frames::{self, Frame};
use crate::logic::room::RoomView;
use crate::logic::shape::Session;
use crate::site::Site;
use crate::ws::{Incoming, Socket};
use anyhow::Context;
use hyper::StatusCode;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

const SENDERS: usize = 3;
const MESSAGES_EACH: usize = 20;
/// From the first message to the last delivery.
const DELIVERY_LIMIT: Duration = Duration::from_secs(15);

/// A member at its replica, and what came to it.
struct Member {
    replica: String,
    socket: Socket,
    view: RoomView,
    heard: Vec<String>,
}

pub async fn check(site: &Site) -> anyhow::Result<String> {
    anyhow::ensure!(
        !site.replicas.is_empty(),
        "needs the replicas' own addresses: give --status or --replica"
    );
    let mut members = seat(site).await?;
    let began = Instant::now();
    for n in 0..MESSAGES_EACH {
        for (sender, member) in members.iter_mut().take(SENDERS).enumerate() {
            member
                .socket
                .send(frames::send(&format!("v{sender}-{n}"), &format!("sender {sender} message {n}")))
                .await?;
        }
    }
    let deadline = began + DELIVERY_LIMIT;
    let expected = SENDERS.min(members.len()) * MESSAGES_EACH;
    for member in &mut members {
        hear(member, expected, deadline).await.with_context(|| format!("member at {}", member.replica))?;
    }
    let took = began.elapsed();
    let first = members[0].heard.clone();
    for member in &members {
        anyhow::ensure!(
            member.heard == first,
            "{} saw another order than {}",
            member.replica,
            members[0].replica
        );
    }
    check_senders_order(&first)?;
    let (count, senders) = (members.len(), SENDERS.min(members.len()));
    for member in members {
        member.socket.close().await;
    }
    Ok(format!(
        "{expected} messages sent through {senders} replicas reached members on all {count} replicas once and in one order, in {} ms",
        took.as_millis()
    ))
}

/// A member connected to each replica past the balancer, all in one room.
async fn seat(site: &Site) -> anyhow::Result<Vec<Member>> {
    let accounts = site.accounts(u32::try_from(site.replicas.len())?).await?;
    let mut client = site.client();
    let body = json!({"title": "verify rooms", "visibility": "public"});
    let call = Call::post("/api/sessions", "/api/sessions", &body).bearer(&accounts[0].token());
    let session: Session = client.call(&call).await?.expect(StatusCode::CREATED)?.json()?;
    let mut members = Vec::new();
    for (replica, account) in site.replicas.iter().zip(&accounts) {
        let join = format!("/api/sessions/{}/join", session.id);
        let answer = client.call(&Call::post("join", join, &json!({})).bearer(&account.token())).await?;
        anyhow::ensure!(answer.status / 100 == 2, "join answered {}", answer.status);
        members.push(connect(site, replica, &session.id, &account.token()).await?);
    }
    Ok(members)
}

async fn connect(site: &Site, replica: &Replica, session: &str, token: &str) -> anyhow::Result<Member> {
    let dialer = site.dialer_of(replica).await?;
    let opened = Socket::open(&dialer, session, token, None).await;
    let (socket, welcome) =
        opened.with_context(|| format!("cannot connect to {} at {}", replica.name, replica.url))?;
    anyhow::ensure!(
        welcome.served_by == replica.name,
        "{} at {} calls itself {}",
        replica.name,
        replica.url,
        welcome.served_by
    );
    let view = RoomView::on_welcome(None, welcome.offset)?;
    Ok(Member { replica: replica.name.clone(), socket, view, heard: Vec::new() })
}

async fn hear(member: &mut Member, expected: usize, deadline: Instant) -> anyhow::Result<()> {
    while member.heard.len() < expected {
        match member.socket.next(deadline).await? {
            Incoming::Frame(Frame::Message(message)) => {
                member.view.on_message(message.offset)?;
                member.heard.push(message.content);
            }
            Incoming::Frame(Frame::Error { code, detail }) => anyhow::bail!("error frame {code}: {detail}"),
            Incoming::Frame(_) => {}
            Incoming::Closed(close) => {
                anyhow::bail!("closed with {close} after {} messages", member.heard.len())
            }
            Incoming::Nothing => anyhow::bail!("only {} of {expected} messages came", member.heard.len()),
        }
    }
    Ok(())
}

/// Each sender's own messages must keep the order in which it sent them.
fn check_senders_order(heard: &[String]) -> anyhow::Result<()> {
    for sender in 0..SENDERS {
        let own: Vec<&String> =
            heard.iter().filter(|text| text.starts_with(&format!("sender {sender} "))).collect();
        let in_order =
            own.iter().enumerate().all(|(n, text)| **text == format!("sender {sender} message {n}"));
        anyhow::ensure!(in_order, "the messages of sender {sender} changed their order");
    }
    Ok(())
}
