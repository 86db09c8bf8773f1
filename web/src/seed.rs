//! Demo users and the public session `test-session` of the documents. Running it again changes nothing. Everybody knows
//! the users' password: whoever is to be an admin is not among them.

use anyhow::Context as _;
use prometheus_client::metrics::histogram::Histogram;

use crate::auth::Passwords;
use crate::error::Error;
use crate::settings::Settings;
use crate::store::sessions::{NewSession, Visibility};
use crate::store::users::{NewUser, User};
use crate::store::{Db, Store};

/// Made by every seed, each with [`DEMO_PASSWORD`].
pub const DEMO_USERS: [(&str, &str); 4] =
    [("alice", "Alice"), ("bob", "Bob"), ("carol", "Carol"), ("dave", "Dave")];
pub const DEMO_PASSWORD: &str = "arena-demo";
pub const DEMO_SESSION: &str = "test-session";

/// Makes what is missing.
///
/// # Errors
/// The database cannot be reached or has no schema yet.
pub async fn seed(settings: &Settings) -> anyhow::Result<()> {
    let db = Db::open(&settings.database.direct, &settings.database, "arena seed", Histogram::new([1.0]));
    let store = Store::new(db.clone());
    let made = fill(&store, &settings.auth.admins).await.context("seeding failed; was `web migrate` run?");
    db.close().await;
    made
}

async fn fill(store: &Store, admins: &[String]) -> Result<(), Error> {
    let passwords = Passwords::new();
    let password_hash = passwords.hash(DEMO_PASSWORD.to_owned()).await?;
    let mut users = Vec::with_capacity(DEMO_USERS.len());
    for (username, display_name) in DEMO_USERS {
        if admins.iter().any(|admin| admin == username) {
            tell_of_admin(store, &passwords, username).await?;
        } else {
            users.push(user(store, username, display_name, &password_hash).await?);
        }
    }
    let Some(owner) = users.first() else { return Ok(()) };
    let session = match store.sessions().find(DEMO_SESSION).await? {
        Some(session) => session,
        None => {
            let new = NewSession {
                owner: owner.id,
                title: "Test session",
                visibility: Visibility::Public,
                slug: Some(DEMO_SESSION),
            };
            store.sessions().create(new).await?
        }
    };
    for user in &users {
        store.sessions().add_member(session.id, user.id).await?;
    }
    Ok(())
}

/// ADMIN_USERNAMES may have come after the account: then its password has to be another one.
async fn tell_of_admin(store: &Store, passwords: &Passwords, username: &str) -> Result<(), Error> {
    let hash = store.users().credentials(username).await?.map(|known| known.password_hash);
    if passwords.matches(DEMO_PASSWORD.to_owned(), hash).await? {
        tracing::warn!(
            username,
            "{username} is in ADMIN_USERNAMES and has the demo users' password, which everybody knows: change it"
        );
    } else {
        tracing::warn!(username, "{username} is in ADMIN_USERNAMES: no demo user of this name is made");
    }
    Ok(())
}

async fn user(store: &Store, username: &str, display_name: &str, password_hash: &str) -> Result<User, Error> {
    match store.users().by_name(username).await? {
        Some(user) => Ok(user),
        None => store.users().create(NewUser { username, display_name, password_hash, role: "user" }).await,
    }
}
