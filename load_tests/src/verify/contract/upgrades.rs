//! The question for a WebSocket: whatever forbids it is said before the upgrade, by a problem as everywhere; and a ticket
//! opens one, once.

use super::frames::Ear;
use super::{Ask, Drive, People, routes, text};
use hyper::Method;
use serde_json::json;

const SOCKET: &str = "/ws/chat/session/{id}";

pub async fn drive(drive: &mut Drive<'_>, people: &People) -> anyhow::Result<()> {
    refusals(drive, people).await?;
    tickets(drive, people).await
}

async fn refusals(drive: &mut Drive<'_>, people: &People) -> anyhow::Result<()> {
    let (ann, bob, room) = (people[0].token(), people[1].token(), routes::slug(people));
    drive.ask(upgrade(&room, ""), 401).await?;
    drive.ask(upgrade(&room, "token="), 401).await?;
    drive.ask(upgrade(&room, "token=a.b.c"), 401).await?;
    drive.ask(upgrade("no-such-session", &format!("token={ann}")), 404).await?;
    drive.ask(upgrade(&room, &format!("token={ann}&since=-1")).naming(&["since"]), 422).await?;
    let body = json!({"title": "ann alone", "visibility": "private"});
    let private = text(&drive.ask(Ask::post("/api/sessions", body).of(&ann), 201).await?, "/id")?;
    drive.ask(upgrade(&private, &format!("token={bob}")), 403).await?;
    let end = Ask::new(Method::DELETE, "/api/sessions/{id}").at(&private);
    drive.ask(end.of(&ann), 204).await?;
    Ok(())
}

/// Good for one socket, and for nothing else.
async fn tickets(drive: &mut Drive<'_>, people: &People) -> anyhow::Result<()> {
    let (ann, room) = (people[0].token(), routes::slug(people));
    let given = drive.ask(Ask::new(Method::POST, "/api/auth/ws-ticket").of(&ann), 201).await?;
    let ticket = text(&given, "/ticket")?;
    drive.ask(Ask::get("/api/users/me").of(&ticket), 401).await?;
    Ear::open(drive, &room, &ticket, None).await?.leave(drive).await;
    drive.ask(upgrade(&room, &format!("token={ticket}")), 401).await?;
    Ok(())
}

fn upgrade(room: &str, query: &str) -> Ask<'static> {
    // The key of RFC 6455's own example: nothing here depends on it.
    let handshake = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let ask = Ask::get(SOCKET).at(room).query(query);
    handshake.into_iter().fold(ask, |ask, (name, value)| ask.header(name, value))
}
