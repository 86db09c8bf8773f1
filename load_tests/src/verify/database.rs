//! What the database sees of many users, and what the pooler's console says.

use crate::args::VerifyArgs;
use crate::http::Call;
use crate::logic::arrival::Arrival;
use crate::logic::fleet::Address;
use crate::logic::mix::Mix;
use crate::logic::plan::{Plan, Wait};
use crate::logic::pool_columns;
use crate::logic::shape::DbConnections;
use crate::run::{self, Second, Watch};
use crate::site::Site;
use anyhow::Context;
use hyper::StatusCode;
use std::time::Duration;
use tokio_postgres::SimpleQueryMessage;
use tokio_util::sync::CancellationToken;

const SAMPLE_EVERY: Duration = Duration::from_millis(250);
const SPAWN_PER_S: f64 = 100.0;

/// Pools of the console, in PgBouncer's columns.
pub async fn console(site: &Site) -> anyhow::Result<String> {
    let pooler = site.pooler.as_ref().context("needs the pooler: give --status or --pooler")?;
    let messages = ask_console(site, pooler, "SHOW POOLS").await?;
    let columns = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::RowDescription(columns) => {
            Some(columns.iter().map(|column| column.name().to_owned()).collect::<Vec<_>>())
        }
        _ => None,
    });
    let columns = columns.context("SHOW POOLS answered without columns")?;
    if let Some(difference) = pool_columns::difference(&columns) {
        anyhow::bail!("{difference}");
    }
    let databases: Vec<&str> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get("database"),
            _ => None,
        })
        .collect();
    anyhow::ensure!(
        databases.contains(&site.database.as_str()),
        "no pool of {} among: {}",
        site.database,
        databases.join(", ")
    );
    Ok(format!("SHOW POOLS has PgBouncer's {} columns in order, {} pools", columns.len(), databases.len()))
}

async fn ask_console(
    site: &Site,
    pooler: &Address,
    command: &str,
) -> anyhow::Result<Vec<SimpleQueryMessage>> {
    let client = site.connect(pooler, "pgbouncer").await?;
    client.simple_query(command).await.with_context(|| command.to_owned())
}

/// Transactions that the pooler has carried so far; none where there is no pooler, or we do not know it.
async fn transactions(site: &Site) -> anyhow::Result<Option<u64>> {
    let Some(pooler) = &site.pooler else { return Ok(None) };
    let messages = ask_console(site, pooler, "SHOW STATS").await?;
    let counts = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) if row.get("database") != Some("pgbouncer") => {
            row.get("total_xact_count")
        }
        _ => None,
    });
    let mut sum = 0;
    for count in counts {
        sum += count.parse::<u64>().context("SHOW STATS: total_xact_count is no number")?;
    }
    Ok(Some(sum))
}

/// Many users on the API, while the database's connections are counted.
pub async fn load(site: &Site, args: &VerifyArgs, stop: &CancellationToken) -> anyhow::Result<String> {
    let plan = Plan {
        target: site.balancer.clone(),
        arrival: Arrival::Closed { users: args.users, spawn_per_s: SPAWN_PER_S },
        mix: Mix::API,
        // All of them for as long as asked, after the last has come.
        run_time: args.run_time + Duration::from_secs_f64(f64::from(args.users) / SPAWN_PER_S),
        wait: Wait { least: Duration::from_millis(500), most: Duration::from_millis(1500) },
        accounts: 50,
        room_size: 10,
        sources: 0,
        seed: 3,
        answer_limit: crate::site::ANSWER_LIMIT,
    };
    let before = transactions(site).await?;
    let mut peak = Peak::default();
    let ended = CancellationToken::new();
    let (figures, counted) = tokio::join!(
        async {
            let figures = run::execute(plan, &mut peak, stop).await;
            ended.cancel();
            figures
        },
        count_connections(site, &ended)
    );
    let (figures, counted) = (figures?, counted?);
    let stats = &figures.stats;
    if let Some((key, headline, seen)) = stats.faults().next() {
        anyhow::bail!(
            "{} errors, first kind: {} × {} {}: {headline}",
            stats.failures(),
            seen.count,
            key.kind.word(),
            key.name
        );
    }
    anyhow::ensure!(figures.stuck == 0, "{} users did not come to an end", figures.stuck);
    anyhow::ensure!(peak.users == args.users, "only {} of {} users ran: run longer", peak.users, args.users);
    anyhow::ensure!(counted.samples > 0, "the database's connections were never counted");
    let told = format!(
        "{} users, {} requests ({:.0}/s), 0 errors, p95 {:.0} ms; the database saw at most {} connections",
        args.users,
        stats.total().requests,
        stats.total().requests as f64 / figures.generator.elapsed.as_secs_f64(),
        stats.total().percentile_ms(0.95).unwrap_or(0.0),
        counted.most
    );
    anyhow::ensure!(counted.most <= args.connections_max, "{told}, {} are allowed", args.connections_max);
    let through = match before.zip(transactions(site).await?) {
        Some((before, after)) => {
            let count = after.checked_sub(before).context("the pooler was started again meanwhile")?;
            carried(count, stats.total().requests)?
        }
        None => String::new(),
    };
    Ok(format!("{told} ({} samples{}){through}", counted.samples, counted.source))
}

/// Replicas that went past the pooler would not show in its counts.
fn carried(transactions: u64, requests: u64) -> anyhow::Result<String> {
    anyhow::ensure!(
        transactions >= requests,
        "{requests} requests made only {transactions} transactions at the pooler: the replicas go past it"
    );
    Ok(format!(", {transactions} transactions went through the pooler"))
}

#[derive(Debug, Default)]
struct Peak {
    users: u32,
}

impl Watch for Peak {
    fn on_setup(&mut self, _accounts: usize, _rooms: usize, _took: Duration) {}

    fn on_second(&mut self, second: &Second<'_>) {
        self.users = self.users.max(second.users);
    }
}

/// The most connections seen at once.
struct Counted {
    most: i64,
    samples: u32,
    source: &'static str,
}

async fn count_connections(site: &Site, ended: &CancellationToken) -> anyhow::Result<Counted> {
    let direct = match &site.postgres {
        Some(address) => Some(site.connect(address, &site.database).await?),
        None => None,
    };
    let source = if direct.is_some() { "" } else { ", as /db/connections/ tells them" };
    let mut counted = Counted { most: 0, samples: 0, source };
    let mut client = site.client();
    while !ended.is_cancelled() {
        let now = match &direct {
            Some(client) => ask_postgres(client).await?,
            None => {
                let answer = client.call(&Call::get("/db/connections/", "/db/connections/")).await?;
                answer.expect(StatusCode::OK)?.json::<DbConnections>()?.connections.default.total_connections
            }
        };
        counted.most = counted.most.max(now);
        counted.samples += 1;
        tokio::select! {
            () = ended.cancelled() => {}
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
        }
    }
    Ok(counted)
}

async fn ask_postgres(client: &tokio_postgres::Client) -> anyhow::Result<i64> {
    // All but this one: what the stack holds open in this database.
    let query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    let row = client.query_one(query, &[]).await.context("cannot count the database's connections")?;
    Ok(row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_the_pooler_did_not_see_are_told() {
        carried(1_000, 1_000).expect("each made one");
        let told = carried(40, 1_000).expect_err("only sessions' own").to_string();
        assert!(told.contains("go past it"), "{told}");
    }
}
