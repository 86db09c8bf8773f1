//! What ends a login from outside: a refresh token that comes a second time; and what keeps one from being made: too many
//! wrong passwords.

use super::{Ask, Drive, fresh_name, text};
use crate::http::Client;
use crate::logic::problem::retry_after_faults;
use anyhow::Context;
use hyper::Method;
use serde_json::{Value, json};
use std::rc::Rc;

const PASSWORD: &str = "good for a few logins";
/// Three times what LOGIN_TRIES_MAX allows by default.
const TRIES: usize = 30;
/// Load comes from the networks below.
const OWN_NETWORKS: std::ops::Range<u8> = 100..250;

pub async fn drive(drive: &mut Drive<'_>) -> anyhow::Result<()> {
    reuse(drive).await.context("a refresh token that is used twice")?;
    // Wrong passwords are also counted by address: one of its own keeps others from being locked out.
    let network =
        OWN_NETWORKS.start + uuid::Uuid::new_v4().as_bytes()[0] % (OWN_NETWORKS.end - OWN_NETWORKS.start);
    let own = Client::new(Rc::new(drive.site.dialer.of_network(network)));
    let shared = std::mem::replace(&mut drive.client, own);
    let driven = too_many(drive).await.context("too many wrong passwords");
    drive.client = shared;
    driven
}

/// A refresh token is good once. When it comes again somebody has stolen it: all that came of its login ends, and nothing
/// else does.
async fn reuse(drive: &mut Drive<'_>) -> anyhow::Result<()> {
    let name = fresh_name();
    let here = register(drive, &name).await?;
    let elsewhere = drive.ask(login(&name, PASSWORD), 200).await?;
    let first = text(&here, "/refresh_token")?;
    let refreshed = drive.ask(refresh(&first), 200).await?;
    let second = text(&refreshed, "/refresh_token")?;
    anyhow::ensure!(first != second, "a refresh gives the same token again");
    drive.ask(refresh(&first), 401).await?;
    drive.ask(refresh(&second), 401).await.context("the token that came of it")?;
    drive.is_ended(&text(&refreshed, "/access_token")?).await?;
    let other = text(&elsewhere, "/access_token")?;
    drive.ask(Ask::get("/api/users/me").of(&other), 200).await.context("another login of the same user")?;
    leave(drive, &other).await
}

/// The same name with wrong passwords, until it is told to wait; others log in meanwhile.
async fn too_many(drive: &mut Drive<'_>) -> anyhow::Result<()> {
    let (name, other) = (fresh_name(), fresh_name());
    let made = register(drive, &name).await?;
    let neighbour = register(drive, &other).await?;
    let mut refused = 0;
    let limited = loop {
        let answer = drive.ask_for(login(&name, "not the password"), &[401, 429]).await?;
        if answer.status == 429 {
            break answer;
        }
        refused += 1;
        anyhow::ensure!(refused < TRIES, "{TRIES} in a row are not answered with 429");
    };
    anyhow::ensure!(refused > 0, "the first one is one too many");
    let faults = retry_after_faults(limited.header("retry-after"));
    drive.faults.extend(faults.into_iter().map(|fault| format!("POST /api/auth/login 429: {fault}")));
    drive.ask(login(&other, PASSWORD), 200).await.context("somebody else at the same address")?;
    for answer in [made, neighbour] {
        leave(drive, &text(&answer, "/access_token")?).await?;
    }
    Ok(())
}

async fn register(drive: &mut Drive<'_>, name: &str) -> anyhow::Result<crate::http::Answer> {
    drive.ask(Ask::post("/api/auth/register", credentials(name, PASSWORD)), 201).await
}

async fn leave(drive: &mut Drive<'_>, token: &str) -> anyhow::Result<()> {
    drive.ask(Ask::new(Method::DELETE, "/api/users/me").of(token), 204).await.map(drop)
}

fn login(name: &str, password: &str) -> Ask<'static> {
    Ask::post("/api/auth/login", credentials(name, password))
}

fn refresh(token: &str) -> Ask<'static> {
    Ask::post("/api/auth/refresh", json!({"refresh_token": token}))
}

fn credentials(name: &str, password: &str) -> Value {
    json!({"username": name, "password": password})
}
