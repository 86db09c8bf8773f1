//! What `status` tells: one row per part, as a table for people and as JSON for programs.

use serde::{Deserialize, Serialize};

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its turn has not come.
    Waiting,
    Starting,
    Healthy,
    /// It runs and fails its health check.
    Unhealthy,
    /// It died and waits to be started again.
    Restarting,
    Stopping,
    Stopped,
    /// It died too often before it ever was healthy.
    Failed,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// One part as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub state: State,
    pub pid: Option<u32>,
    pub uptime_s: Option<u64>,
    pub restarts: u32,
    pub address: String,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The process that holds the parts together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervisor {
    pub pid: u32,
    pub uptime_s: u64,
    pub dir: String,
}

/// One web replica, as load generators and checks reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    pub name: String,
    pub url: String,
    pub pid: Option<u32>,
}

/// The pooler's place; `metrics` is a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolerPlace {
    pub host: String,
    pub port: u16,
    pub metrics: String,
}

/// Postgres itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabasePlace {
    pub host: String,
    pub port: u16,
    pub name: String,
    pub user: String,
}

/// What does not change while the stack runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The balancer, as a browser on this machine names it.
    pub url: String,
    pub balancer_metrics: String,
    pub pooler: Option<PoolerPlace>,
    pub database: DatabasePlace,
    /// A libpq password file; the passwords themselves are never reported.
    pub pgpass_file: String,
    pub docker: bool,
    /// Users were made whose password everybody knows.
    #[serde(default)]
    pub demo_users: bool,
}

/// The whole answer of `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub stack: Supervisor,
    pub supervisor_pid: u32,
    #[serde(flatten)]
    pub places: Places,
    pub replicas: Vec<Replica>,
    pub services: Vec<Row>,
}

impl Report {
    pub fn all_healthy(&self) -> bool {
        !self.services.is_empty() && self.services.iter().all(|row| row.state == State::Healthy)
    }

    /// A table for people, one line per part.
    pub fn table(&self) -> String {
        let mut lines = vec![line(["PART", "HEALTH", "PID", "UPTIME", "RESTARTS", "ADDRESS"])];
        for row in &self.services {
            let pid = row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let uptime = row.uptime_s.map_or_else(|| "-".to_owned(), uptime);
            let restarts = row.restarts.to_string();
            lines.push(line([&row.name, row.state.word(), &pid, &uptime, &restarts, &row.address]));
        }
        let troubles = self.services.iter().filter_map(|row| Some((&row.name, row.trouble.as_ref()?)));
        lines.extend(troubles.map(|(name, trouble)| format!("{name}: {trouble}")));
        let healthy = self.services.iter().filter(|row| row.state == State::Healthy).count();
        lines.push(format!(
            "{healthy} of {} parts healthy · {} · supervisor pid {}, up {} · {}",
            self.services.len(),
            self.places.url,
            self.stack.pid,
            uptime(self.stack.uptime_s),
            self.stack.dir
        ));
        lines.join("\n")
    }
}

fn line([name, state, pid, uptime, restarts, address]: [&str; 6]) -> String {
    format!("{name:<10} {state:<11} {pid:>8} {uptime:>9} {restarts:>9}  {address}")
}

/// Seconds as people say them: `42s`, `3m07s`, `2h05m`, `4d03h`.
pub fn uptime(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = |name: &str, state, pid| Row {
            trouble: None,
            name: name.to_owned(),
            state,
            pid,
            uptime_s: pid.map(|_| 187),
            restarts: 1,
            address: "127.0.0.1:8001".to_owned(),
        };
        Report {
            stack: Supervisor { pid: 1, uptime_s: 7500, dir: "/srv/stack".to_owned() },
            supervisor_pid: 1,
            places: Places {
                url: "http://127.0.0.1:8080".to_owned(),
                balancer_metrics: "http://127.0.0.1:9113/metrics".to_owned(),
                pooler: None,
                database: DatabasePlace {
                    host: "127.0.0.1".to_owned(),
                    port: 15432,
                    name: "arena_db".to_owned(),
                    user: "arena_user".to_owned(),
                },
                pgpass_file: "/srv/stack/secrets/pgpass".to_owned(),
                docker: false,
                demo_users: false,
            },
            replicas: Vec::new(),
            services: vec![row("web-1", State::Healthy, Some(42)), row("web-2", State::Restarting, None)],
        }
    }

    #[test]
    fn the_table_has_a_line_per_part_and_a_sum() {
        let table = report().table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4);
        let first: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(first, ["web-1", "healthy", "42", "3m07s", "1", "127.0.0.1:8001"]);
        let second: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(second, ["web-2", "restarting", "-", "-", "1", "127.0.0.1:8001"]);
        assert!(lines[3].starts_with("1 of 2 parts healthy · http://127.0.0.1:8080"), "{}", lines[3]);
        assert!(!report().all_healthy());
    }

    #[test]
    fn the_table_says_why_a_part_is_not_healthy() {
        let mut report = report();
        report.services[1].trouble = Some("/health answers 503".to_owned());
        let table = report.table();
        assert!(table.contains("\nweb-2: /health answers 503\n1 of 2 parts healthy"), "{table}");
    }

    #[test]
    fn json_names_states_in_small_letters_and_comes_back_the_same() {
        let text = serde_json::to_string(&report()).unwrap();
        assert!(text.contains("\"state\":\"healthy\"") && text.contains("\"url\":\"http:"), "{text}");
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
    }

    #[test]
    fn uptimes_read_like_people_say_them() {
        let said = [0, 59, 60, 3599, 3600, 86399, 86400].map(uptime);
        assert_eq!(said, ["0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h"]);
    }
}
