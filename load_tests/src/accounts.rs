//! The accounts of a run: registered once, shared by its users, their tokens renewed before they expire.

use crate::http::{Answer, Call, Client};
use crate::logic::fault::Fault;
use crate::logic::shape::{Login, Refreshed};
use hyper::StatusCode;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// One registered person.
#[derive(Debug)]
pub struct Account {
    pub username: String,
    access: RefCell<Rc<str>>,
    refresh: RefCell<String>,
    expires_in: Cell<Duration>,
}

impl Account {
    /// Somebody who never registered.
    #[cfg(test)]
    pub fn of_token(token: &str) -> Self {
        Self {
            username: token.to_owned(),
            access: RefCell::new(token.into()),
            refresh: RefCell::default(),
            expires_in: Cell::default(),
        }
    }

    /// The token to send now.
    pub fn token(&self) -> Rc<str> {
        self.access.borrow().clone()
    }
}

/// Registers `count` accounts, one after the other: hashing passwords is what the stack is slow at by design.
pub async fn register(client: &mut Client, run: &str, count: u32) -> Result<Vec<Rc<Account>>, Fault> {
    let password = password();
    let mut accounts = Vec::new();
    for n in 0..count {
        let username = format!("lt_{run}_{n}");
        let body =
            json!({"username": username, "password": password, "display_name": format!("Load test {n}")});
        let answer = client.call(&Call::post("/api/auth/register", "/api/auth/register", &body)).await?;
        let mut login = read(&answer, StatusCode::CREATED, &username)?;
        if n == 0 {
            // One login shows that the stored password is the one that was given; all of them would double the cost.
            let body = json!({"username": username, "password": password});
            let answer = client.call(&Call::post("/api/auth/login", "/api/auth/login", &body)).await?;
            login = read(&answer, StatusCode::OK, &username)?;
        }
        accounts.push(Rc::new(Account {
            username,
            access: RefCell::new(login.access_token.into()),
            refresh: RefCell::new(login.refresh_token),
            expires_in: Cell::new(Duration::from_secs(login.expires_in)),
        }));
    }
    Ok(accounts)
}

/// Renews every account's tokens at half their life, for ever: the caller ends it.
pub async fn keep_fresh(
    accounts: Vec<Rc<Account>>,
    mut client: Client,
    on_answer: impl Fn(Result<(), Fault>),
) {
    loop {
        let life =
            accounts.iter().map(|account| account.expires_in.get()).min().unwrap_or(Duration::from_secs(60));
        tokio::time::sleep((life / 2).max(Duration::from_secs(1))).await;
        for account in &accounts {
            on_answer(renew(account, &mut client).await);
        }
    }
}

async fn renew(account: &Account, client: &mut Client) -> Result<(), Fault> {
    let body = json!({"refresh_token": account.refresh.borrow().clone()});
    let answer = client.call(&Call::post("/api/auth/refresh", "/api/auth/refresh", &body)).await?;
    let renewed: Refreshed = answer.expect(StatusCode::OK)?.json()?;
    *account.access.borrow_mut() = renewed.access_token.into();
    *account.refresh.borrow_mut() = renewed.refresh_token;
    account.expires_in.set(Duration::from_secs(renewed.expires_in));
    Ok(())
}

fn read(answer: &Answer, wanted: StatusCode, username: &str) -> Result<Login, Fault> {
    let login: Login = answer.expect(wanted)?.json()?;
    if login.user.username != username {
        return Err(Fault::shape("another user was logged in", login.user.username));
    }
    if login.expires_in == 0 || login.access_token.is_empty() {
        return Err(Fault::shape("no usable token", format!("expires_in {}", login.expires_in)));
    }
    Ok(login)
}

/// A password of this run only; nobody needs it again.
fn password() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
