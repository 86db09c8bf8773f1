//! Both ways over the WebSocket: each frame that a client may send, each kind that the server sends, key by key; and the
//! close codes 1009, 4401, 4403 and 4429. Not 4408: a member is too slow only once megabytes of the session's messages fill the
//! buffers between here and the replica, which are for web/tests/chat.rs to fill. 1001 and 1012 are for `shutdown`.

use super::{Ask, Drive, People, fresh_name, text};
use crate::logic::keys;
use crate::logic::room::RoomView;
use crate::logic::schema::Route;
use crate::ws::{Socket, Text};
use anyhow::Context;
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What the server says, with the keys besides `type`.
const FRAMES: &[(&str, &str)] = &[
    ("welcome", "session_id:string offset:integer served_by:string resumed:boolean"),
    (
        "message",
        "id:string session_id:string offset:integer role:string author:object|null content:string \
         created_at:string client_msg_id:string|null ct:string",
    ),
    ("ack", "client_msg_id:string offset:integer ct:string"),
    ("presence", "joined:array left:array count:integer"),
    ("typing", "author:object"),
    ("token", "stream_id:string i:integer text:string"),
    ("stream.done", "stream_id:string offset:integer"),
    ("error", "code:string detail:string client_msg_id?:string"),
    ("pong", ""),
];
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest frame of a client, in bytes.
const FRAME_LEN_MAX: usize = 64 * 1024;
const FLOOD: usize = 2000;
/// Slower than any rate that is allowed.
const PING_PAUSE: Duration = Duration::from_millis(500);

/// A socket, how far its room has come, and how many frames of each kind came over it.
pub struct Ear {
    socket: Socket,
    view: Option<RoomView>,
    heard: BTreeMap<String, usize>,
    faults: Vec<String>,
}

/// Gives the number of kinds of frames.
pub async fn drive(drive: &mut Drive<'_>, people: &People) -> anyhow::Result<usize> {
    let room = super::routes::slug(people);
    let mut ann = Ear::open(drive, &room, &people[0].token(), Some(0)).await?;
    let mut bob = Ear::open(drive, &room, &people[1].token(), None).await?;
    drive.driven.insert(Route::new("GET", "/ws/chat/session/{id}"));
    ann.until("presence").await?;

    send_twice(drive, &mut ann, &mut bob).await?;
    ann.say(&json!({"type": "typing"})).await?;
    bob.until("typing").await?;
    ann.say(&json!({"type": "ask", "client_msg_id": "f2", "content": "Why?"})).await?;
    bob.until("token").await?;
    bob.until("stream.done").await?;
    ann.say(&json!({"type": "ping"})).await?;
    ann.until("pong").await?;
    ann.say(&json!({"type": "auth.refresh", "token": &*people[0].token()})).await?;
    ann.say(&json!({"type": "dance"})).await?;
    let error = ann.until("error").await?;
    anyhow::ensure!(error["code"] == "unknown_type", "after auth.refresh and an unknown type came {error}");

    let (ann_token, bob_token) = (people[0].token(), people[1].token());
    let me = Ask::get("/api/users/me").of(&bob_token);
    let me: Value = drive.ask(me, 200).await?.json()?;
    let member = Ask::new(Method::DELETE, "/api/sessions/{id}/members/{user_id}");
    let member = member.at(&room).at(me["id"].as_str().unwrap_or_default());
    drive.ask(member.of(&ann_token), 204).await?;
    bob.closed_with(4403).await?;

    let long = too_long(drive, &room, &ann_token).await?;
    ann.flood_until_closed().await?;
    let carol = ended_with_login(drive, &room).await?;

    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    for ear in [ann, bob, carol, long] {
        for (kind, count) in ear.heard {
            *heard.entry(kind).or_default() += count;
        }
        drive.faults.extend(ear.faults);
    }
    let unheard = FRAMES.iter().filter(|(kind, _)| !heard.contains_key(*kind));
    drive.faults.extend(unheard.map(|(kind, _)| format!("no frame {kind} came")));
    Ok(FRAMES.len())
}

/// The same message again is answered by the first ack, and reaches nobody a second time: the next that comes is the next.
async fn send_twice(drive: &mut Drive<'_>, ann: &mut Ear, bob: &mut Ear) -> anyhow::Result<()> {
    let message =
        |key: &str, content: &str| json!({"type": "message.send", "client_msg_id": key, "content": content});
    ann.say(&message("f1", "over the socket")).await?;
    let first = ann.until("ack").await?;
    bob.until("message").await?;
    ann.say(&message("f1", "over the socket")).await?;
    let again = ann.until("ack").await?;
    drive.faults.extend(replay_faults(&first, &again));
    ann.say(&message("f1-next", "once more")).await?;
    ann.until("ack").await?;
    let next = bob.until("message").await?;
    anyhow::ensure!(next["client_msg_id"] == "f1-next", "after a message that was sent twice came {next}");
    Ok(())
}

/// The token of an ack may be a newer one; what it acknowledges is the same.
fn replay_faults(first: &Value, again: &Value) -> Vec<String> {
    let differing = ["client_msg_id", "offset"].into_iter().filter(|key| first[*key] != again[*key]);
    let told = |key| {
        format!("a repeated message is acknowledged with {key} {}, at first {}", again[key], first[key])
    };
    differing.map(told).collect()
}

/// A frame of the greatest length is heard, one that is a byte longer ends the connection.
async fn too_long(drive: &Drive<'_>, room: &str, token: &str) -> anyhow::Result<Ear> {
    let mut ear = Ear::open(drive, room, token, None).await?;
    ear.socket.send(ping_of_len(FRAME_LEN_MAX)).await?;
    ear.until("pong").await?;
    ear.socket.send(ping_of_len(FRAME_LEN_MAX + 1)).await?;
    ear.closed_with(1009).await?;
    Ok(ear)
}

fn ping_of_len(len: usize) -> String {
    let (head, tail) = (r#"{"type":"ping","padding":""#, r#""}"#);
    format!("{head}{}{tail}", "x".repeat(len - head.len() - tail.len()))
}

/// A token lives for a quarter of an hour; the end of its login closes the socket in the same way, and at once.
async fn ended_with_login(drive: &mut Drive<'_>, room: &str) -> anyhow::Result<Ear> {
    let name = fresh_name();
    let given = json!({"username": name, "password": "good for one login"});
    let made = drive.ask(Ask::post("/api/auth/register", given), 201).await?;
    let token = text(&made, "/access_token")?;
    let join = Ask::new(Method::POST, "/api/sessions/{id}/join").at(room);
    drive.ask(join.of(&token), 200).await?;
    let mut carol = Ear::open(drive, room, &token, None).await?;
    drive.ask(Ask::new(Method::POST, "/api/auth/logout").of(&token), 204).await?;
    carol.pinging_closed_with(4401).await?;
    Ok(carol)
}

/// What is wrong with a frame; its kind besides.
fn check(frame: &Value) -> (String, Vec<String>) {
    let kind = frame["type"].as_str().unwrap_or_default().to_owned();
    let faults = match FRAMES.iter().find(|(name, _)| *name == kind) {
        Some((_, line)) => keys::faults(&format!("frame {kind}"), &format!("type:string {line}"), frame),
        None => vec![format!("a frame {kind:?}, which is not in the contract")],
    };
    (kind, faults)
}

impl Ear {
    pub async fn open(
        drive: &Drive<'_>,
        room: &str,
        token: &str,
        since: Option<i64>,
    ) -> anyhow::Result<Self> {
        let socket = Socket::connect(&drive.site.dialer, room, token, since).await?;
        let mut ear = Self { socket, view: None, heard: BTreeMap::new(), faults: Vec::new() };
        let welcome = ear.until("welcome").await?;
        anyhow::ensure!(ear.heard.len() == 1, "another frame came before the welcome");
        ear.view = Some(RoomView::on_welcome(since, welcome["offset"].as_i64().unwrap_or_default())?);
        Ok(ear)
    }

    /// Says goodbye; what was wrong stays on record.
    pub async fn leave(self, drive: &mut Drive<'_>) {
        drive.faults.extend(self.faults);
        self.socket.close().await;
    }

    async fn say(&mut self, frame: &Value) -> anyhow::Result<()> {
        Ok(self.socket.send(frame.to_string()).await?)
    }

    /// Reads on until a frame of this kind has come that was not waited for before.
    async fn until(&mut self, kind: &str) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.socket.next_text(deadline).await? {
                Text::Frame(text) => {
                    let frame = self.take(&text)?;
                    if frame["type"] == kind {
                        return Ok(frame);
                    }
                }
                Text::Closed(close) => anyhow::bail!("closed with {close} before {kind} came"),
                Text::Nothing => anyhow::bail!("{kind} did not come"),
            }
        }
    }

    /// First refused, then closed: more than any rate that is allowed.
    async fn flood_until_closed(&mut self) -> anyhow::Result<()> {
        let ping = json!({"type": "ping"}).to_string();
        for _ in 0..FLOOD {
            // It may be closed before all is sent.
            if self.socket.send(ping.clone()).await.is_err() {
                break;
            }
        }
        let error = self.until("error").await?;
        anyhow::ensure!(error["code"] == "rate_limit", "a flood is answered with {error}");
        self.closed_with(4429).await
    }

    /// Speaks now and then until the server closes: it looks at the login of whoever speaks.
    async fn pinging_closed_with(&mut self, wanted: u16) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            // It may be closed by now.
            let _ = self.socket.send(json!({"type": "ping"}).to_string()).await;
            let deadline = Instant::now() + PING_PAUSE;
            loop {
                match self.socket.next_text(deadline).await? {
                    Text::Frame(text) => drop(self.take(&text)?),
                    Text::Closed(close) if close.code == wanted => return Ok(()),
                    Text::Closed(close) => anyhow::bail!("closed with {close} instead of {wanted}"),
                    Text::Nothing => break,
                }
            }
        }
        anyhow::bail!("it stays open instead of being closed with {wanted}")
    }

    async fn closed_with(&mut self, wanted: u16) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.socket.next_text(deadline).await? {
                Text::Frame(text) => drop(self.take(&text)?),
                Text::Closed(close) if close.code == wanted => return Ok(()),
                Text::Closed(close) => anyhow::bail!("closed with {close} instead of {wanted}"),
                Text::Nothing => anyhow::bail!("it stays open instead of being closed with {wanted}"),
            }
        }
    }

    fn take(&mut self, text: &str) -> anyhow::Result<Value> {
        let frame: Value = serde_json::from_str(text).context("a frame that is no JSON")?;
        let (kind, faults) = check(&frame);
        self.faults.extend(faults);
        if let (Some(view), "message") = (&mut self.view, kind.as_str()) {
            let order = view.on_message(frame["offset"].as_i64().unwrap_or_default());
            self.faults.extend(order.err().map(|fault| fault.to_string()));
        }
        *self.heard.entry(kind).or_default() += 1;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(frame: &Value) -> Vec<String> {
        check(frame).1
    }

    fn message() -> Value {
        json!({"type": "message", "id": "m", "session_id": "s", "offset": 3, "role": "user",
            "author": {"id": "u", "username": "a", "display_name": "A"}, "content": "x",
            "created_at": "2026-01-01T00:00:00Z", "client_msg_id": "k", "ct": "t"})
    }

    #[test]
    fn an_ack_or_a_message_without_its_consistency_token_is_told() {
        let mut ack = json!({"type": "ack", "client_msg_id": "k", "offset": 1, "ct": "t"});
        let mut message = message();
        assert_eq!(faults(&ack), Vec::<String>::new());
        assert_eq!(faults(&message), Vec::<String>::new());
        for (frame, told) in
            [(&mut ack, "frame ack: ct is missing"), (&mut message, "frame message: ct is missing")]
        {
            frame.as_object_mut().expect("an object").remove("ct");
            assert_eq!(faults(frame), [told]);
        }
    }

    #[test]
    fn a_key_of_another_type_is_told_and_an_answer_has_no_author() {
        let mut message = message();
        message["author"] = Value::Null;
        message["client_msg_id"] = Value::Null;
        assert_eq!(faults(&message), Vec::<String>::new());
        message["offset"] = json!("3");
        assert_eq!(faults(&message), ["frame message: offset is no integer"]);
        let presence = json!({"type": "presence", "joined": {}, "left": [], "count": 1});
        assert_eq!(faults(&presence), ["frame presence: joined is no array"]);
    }

    #[test]
    fn a_repeated_message_is_acknowledged_as_at_first() {
        let ack = |key: &str, offset: i64, ct: &str| json!({"type": "ack", "client_msg_id": key, "offset": offset, "ct": ct});
        let first = ack("k", 3, "t1");
        assert_eq!(replay_faults(&first, &ack("k", 3, "t2")), Vec::<String>::new());
        assert_eq!(
            replay_faults(&first, &ack("k", 4, "t1")),
            ["a repeated message is acknowledged with offset 4, at first 3"]
        );
        assert_eq!(replay_faults(&first, &ack("l", 3, "t1")).len(), 1);
        assert_eq!(replay_faults(&first, &json!({"type": "error"})).len(), 2);
    }

    #[test]
    fn a_padded_ping_has_the_length_that_is_asked_for() {
        for len in [FRAME_LEN_MAX, FRAME_LEN_MAX + 1] {
            let ping = ping_of_len(len);
            let frame: Value = serde_json::from_str(&ping).expect("JSON");
            assert_eq!((ping.len(), &frame["type"]), (len, &json!("ping")));
        }
    }

    #[test]
    fn a_frame_that_the_contract_does_not_name_is_told() {
        assert_eq!(faults(&json!({"type": "gap"})), ["a frame \"gap\", which is not in the contract"]);
    }
}
