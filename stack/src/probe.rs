//! Asks a part whether it is healthy: one short exchange, bounded in time and bytes.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::logic::plan::{Password, Probe};

/// A part that takes longer than this to say that it is well, is not.
const PATIENCE: Duration = Duration::from_secs(2);
/// Enough for a status line.
const ANSWER_BYTES_MAX: usize = 64;
/// Version 3.0 of Postgres' protocol, as the startup packet names it.
const POSTGRES_PROTOCOL: u32 = 3 << 16;

/// `Ok` when the part is healthy.
///
/// # Errors
/// What it answered instead, or why it did not.
pub async fn ask(probe: &Probe) -> Result<(), String> {
    let exchange = async {
        match probe {
            Probe::Http { port, path } => http(*port, path).await,
            Probe::Postgres { port, user, database } => postgres(*port, user, database).await,
            Probe::Pooler { metrics_port, port, user, password, databases } => {
                http(*metrics_port, "/health/ready").await?;
                for database in databases {
                    let passed = query(*port, user, password, database).await;
                    passed.map_err(|cause| format!("no query passes to {database}: {cause}"))?;
                }
                Ok(())
            }
            Probe::Redis { port } => redis(*port).await,
        }
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn http(port: u16, path: &str) -> Result<(), String> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nUser-Agent: stack\r\n\r\n");
    let answer = exchange(port, request.as_bytes()).await?;
    let line = String::from_utf8_lossy(&answer);
    match line.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some(status) => Err(format!("{path} answers {status}")),
        None => Err(format!("{path} answers nothing")),
    }
}

/// Postgres answers a startup packet by `R` (authenticate) when it takes connections, by `E` while it starts or stops.
async fn postgres(port: u16, user: &str, database: &str) -> Result<(), String> {
    let mut packet = Vec::new();
    packet.extend(POSTGRES_PROTOCOL.to_be_bytes());
    for text in ["user", user, "database", database] {
        packet.extend(text.as_bytes());
        packet.push(0);
    }
    packet.push(0);
    let len = u32::try_from(packet.len() + 4).map_err(|_| "the user's name is too long".to_owned())?;
    let bytes = [&len.to_be_bytes()[..], &packet].concat();
    match exchange(port, &bytes).await?.first() {
        Some(b'R') => Ok(()),
        Some(b'E') => Err("it takes no connections yet".to_owned()),
        _ => Err("it does not answer as Postgres".to_owned()),
    }
}

/// Logs in anew each time: a connection that is kept would hold a server for itself where pool_mode is session.
async fn query(port: u16, user: &str, password: &Password, database: &str) -> Result<(), String> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user(user).password(&password.0).dbname(database);
    config.application_name("stack");
    let said = |cause: tokio_postgres::Error| match cause.as_db_error() {
        Some(refused) => refused.message().to_owned(),
        None => cause.to_string(),
    };
    let (client, mut connection) = config.connect(tokio_postgres::NoTls).await.map_err(said)?;
    tokio::select! {
        answer = client.simple_query("SELECT 1") => answer.map(drop).map_err(said)?,
        ended = &mut connection => return Err(ended.err().map_or_else(|| "it hung up".to_owned(), said)),
    }
    // With its client gone the connection says goodbye and ends.
    drop(client);
    connection.await.map_err(said)
}

async fn redis(port: u16) -> Result<(), String> {
    let answer = exchange(port, b"PING\r\n").await?;
    if answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH") {
        return Ok(());
    }
    Err(format!("PING answers {}", String::from_utf8_lossy(&answer).trim_end()))
}

async fn exchange(port: u16, request: &[u8]) -> Result<Vec<u8>, String> {
    let failed = |cause: std::io::Error| cause.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(failed)?;
    stream.write_all(request).await.map_err(failed)?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let len = stream.read(&mut answer).await.map_err(failed)?;
    answer.truncate(len);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answering(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn only_200_is_healthy() {
        let path = || "/health".into();
        let good = Probe::Http { port: answering(b"HTTP/1.1 200 OK\r\n\r\n").await, path: path() };
        assert_eq!(ask(&good).await, Ok(()));
        let bad =
            Probe::Http { port: answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await, path: path() };
        assert_eq!(ask(&bad).await, Err("/health answers 503".to_owned()));
        let dumb = Probe::Http { port: answering(b"").await, path: path() };
        assert_eq!(ask(&dumb).await, Err("/health answers nothing".to_owned()));
    }

    #[tokio::test]
    async fn postgres_that_asks_for_a_password_is_healthy_and_one_that_starts_is_not() {
        let probe = |port| Probe::Postgres { port, user: "u".to_owned(), database: "d".to_owned() };
        assert_eq!(ask(&probe(answering(b"R\0\0\0\x17").await)).await, Ok(()));
        assert!(ask(&probe(answering(b"E\0\0\0\x17").await)).await.is_err());
    }

    #[tokio::test]
    async fn redis_may_ask_for_its_password() {
        assert_eq!(
            ask(&Probe::Redis { port: answering(b"-NOAUTH Authentication required.\r\n").await }).await,
            Ok(())
        );
        assert!(ask(&Probe::Redis { port: answering(b"-LOADING\r\n").await }).await.is_err());
    }

    #[tokio::test]
    async fn a_closed_port_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = ask(&Probe::Redis { port }).await.unwrap_err();
        assert!(error.contains("refused"), "{error}");
    }
}
