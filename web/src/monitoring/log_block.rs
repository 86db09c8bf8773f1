//! The periodic block "=== Connection Pool Metrics ===" in the log, in the documents' form.

use std::fmt::Write as _;

use crate::app::App;
use crate::monitoring::admin::{Look, SystemHealth};

/// Logs the block at every interval until drain.
pub async fn keep_logging(app: App) {
    let interval = app.settings.service.metrics_log_interval;
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::select! {
            () = app.tasks.drain_started() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let health = Look::take(&app).await.health(&app);
        tracing::info!("\n{}", block(&health, &redis_metrics(&app).await));
    }
}

/// What Redis' INFO says that the block tells.
#[derive(Debug, Default, PartialEq, Eq)]
struct RedisMetrics {
    total_connections: String,
    total_commands: String,
    ops_per_sec: String,
    memory_used: String,
}

async fn redis_metrics(app: &App) -> Option<RedisMetrics> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("INFO");
    let (info,): (String,) = app.redis.ask(&pipeline).await.ok()?;
    Some(read_info(&info))
}

fn read_info(info: &str) -> RedisMetrics {
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or("?").trim().to_owned()
    };
    let memory = field("used_memory_human");
    RedisMetrics {
        total_connections: field("total_connections_received"),
        total_commands: field("total_commands_processed"),
        ops_per_sec: field("instantaneous_ops_per_sec"),
        memory_used: if memory.ends_with(['K', 'M', 'G']) { format!("{memory}B") } else { memory },
    }
}

fn block(health: &SystemHealth, redis: &Option<RedisMetrics>) -> String {
    let mark = |good: bool| if good { "✅" } else { "❌" };
    let pool = &health.database.connection_pool;
    let mut text = format!(
        "=== Connection Pool Metrics ===\n\
         Timestamp: {}\n\
         Overall Health: {}\n\n\
         --- Database ---\n\
         Health: {}\n\
         Response Time: {}ms\n\
         Connection Pool:\n  \
           Active: {}\n  \
           Idle: {}\n  \
           Total: {}\n  \
           Max: {}\n  \
           Utilization: {}%\n  \
           PgBouncer: {}\n\n\
         --- Redis ---\n\
         Available: {}\n\
         Connected: {}\n\
         Status: {}\n",
        health.timestamp,
        if health.healthy { "✅ HEALTHY" } else { "❌ UNHEALTHY" },
        mark(health.database.healthy),
        health.database.response_time,
        pool.active,
        pool.idle,
        pool.total,
        pool.max,
        pool.utilization_percent,
        if pool.is_pg_bouncer { "Yes" } else { "No" },
        mark(health.redis.available),
        mark(health.redis.connected),
        health.redis.status,
    );
    if let Some(redis) = redis {
        let written = write!(
            text,
            "Metrics:\n  Total Connections: {}\n  Total Commands: {}\n  Ops/sec: {}\n  Memory Used: {}\n",
            redis.total_connections, redis.total_commands, redis.ops_per_sec, redis.memory_used
        );
        written.expect("writing to a String cannot fail");
    }
    text.push_str("==============================");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::admin::{ConnectionPool, DatabaseHealth, RedisHealth};

    #[test]
    fn the_block_is_the_documents() {
        let health = SystemHealth {
            healthy: true,
            timestamp: "2025-01-15T10:30:00Z".into(),
            database: DatabaseHealth {
                healthy: true,
                response_time: 12,
                connection_pool: ConnectionPool {
                    active: 3,
                    idle: 2,
                    total: 5,
                    max: 100,
                    utilization_percent: "5.00".into(),
                    is_pg_bouncer: true,
                    is_shutting_down: false,
                },
            },
            redis: RedisHealth { available: true, connected: true, status: "ready" },
        };
        let info = "# Stats\r\ntotal_connections_received:125\r\ntotal_commands_processed:45678\r\n\
                    instantaneous_ops_per_sec:23\r\nused_memory_human:2.5M\r\n";
        let wanted = "=== Connection Pool Metrics ===
Timestamp: 2025-01-15T10:30:00Z
Overall Health: ✅ HEALTHY

--- Database ---
Health: ✅
Response Time: 12ms
Connection Pool:
  Active: 3
  Idle: 2
  Total: 5
  Max: 100
  Utilization: 5.00%
  PgBouncer: Yes

--- Redis ---
Available: ✅
Connected: ✅
Status: ready
Metrics:
  Total Connections: 125
  Total Commands: 45678
  Ops/sec: 23
  Memory Used: 2.5MB
==============================";
        assert_eq!(block(&health, &Some(read_info(info))), wanted);
    }
}
