//! Which replica answers: plain GETs go round, WebSockets of one client stay.

use crate::http::Call;
use crate::logic::shape::{self, DbConnections, Session};
use crate::site::{Route, Site};
use crate::ws::Socket;
use hyper::StatusCode;
use serde_json::json;
use std::collections::BTreeSet;

/// What the documents deploy.
const REPLICAS: usize = 10;
const RECONNECTS: usize = 10;

pub async fn containers(site: &Site) -> anyhow::Result<String> {
    let expected = if site.replicas.is_empty() { REPLICAS } else { site.replicas.len() };
    let expects_pooler = site.route == Route::Pooled;
    let mut named = BTreeSet::new();
    for _ in 0..expected {
        // A new connection each time, as ten runs of curl would have.
        let answer = site.client().call(&Call::get("/db/connections/", "/db/connections/")).await?;
        let figures: DbConnections = answer.expect(StatusCode::OK)?.json()?;
        shape::check_db_connections(&figures)?;
        let container = figures.container;
        let uses_pooler = figures.connections.default.using_pgbouncer;
        anyhow::ensure!(uses_pooler == expects_pooler, "{container} tells using_pgbouncer {uses_pooler}");
        named.insert(container);
    }
    anyhow::ensure!(named.len() == expected, "{expected} GETs named only {}: {}", named.len(), list(&named));
    Ok(format!(
        "{expected} GETs of /db/connections/ named {expected} containers, using_pgbouncer {expects_pooler} in all"
    ))
}

pub async fn sticky(site: &Site) -> anyhow::Result<String> {
    let account = site.accounts(1).await?.remove(0);
    let body = json!({"title": "verify sticky", "visibility": "private"});
    let call = Call::post("/api/sessions", "/api/sessions", &body).bearer(&account.token());
    let session: Session = site.client().call(&call).await?.expect(StatusCode::CREATED)?.json()?;
    let mut served_by = BTreeSet::new();
    for _ in 0..RECONNECTS {
        let (socket, welcome) = Socket::open(&site.dialer, &session.id, &account.token(), None).await?;
        served_by.insert(welcome.served_by);
        socket.close().await;
    }
    anyhow::ensure!(
        served_by.len() == 1,
        "{RECONNECTS} connections reached {}: {}",
        served_by.len(),
        list(&served_by)
    );
    Ok(format!("{RECONNECTS} WebSocket connections of one client all reached {}", list(&served_by)))
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
