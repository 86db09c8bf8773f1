//! Writes the configuration files of the parts: the release's texts, filled with this stack's values.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::dirs::write_for_parts;
use crate::logic::balancer_conf::{Changes, derive};
use crate::logic::plan::{Plan, Secrets};
use crate::logic::template::{fill, userlist_line};
use crate::settings::Settings;
use crate::spawn::Nest;

/// Users of the pooler's console besides the application's own.
pub const CONSOLE_USERS: [(&str, &str); 2] =
    [("pgbouncer_admin", "PGBOUNCER_ADMIN_PASSWORD"), ("pgbouncer_stats", "PGBOUNCER_STATS_PASSWORD")];

/// The files of Postgres, Redis and the pooler.
///
/// # Errors
/// A text cannot be read, filled or written.
pub fn write_stores(plan: &Plan, nest: &Nest) -> Result<()> {
    let conf = nest.dirs.conf();
    let postgres = read(&plan.files.programs.join("postgresql.conf"))?;
    write_for_parts(&conf.join("postgresql.conf"), &postgres, 0o644, &nest.run_as)?;
    write_for_parts(&conf.join("redis.conf"), &redis_conf(plan), 0o600, &nest.run_as)?;
    write_pooler(plan, nest)
}

/// `pgbouncer.ini` and `userlist.txt`.
///
/// # Errors
/// A text cannot be read, filled or written.
pub fn write_pooler(plan: &Plan, nest: &Nest) -> Result<()> {
    let conf = nest.dirs.conf();
    let template = plan.files.programs.join("pgbouncer.ini");
    let ini = fill(&read(&template)?, &|name| plan.pooler_value(name))
        .with_context(|| format!("{}", template.display()))?;
    write_for_parts(&conf.join("pgbouncer.ini"), &ini, 0o640, &nest.run_as)?;
    let users = userlist(&plan.settings, &plan.secrets);
    write_for_parts(&conf.join("userlist.txt"), &users, 0o600, &nest.run_as)
}

/// The balancer's file with one server line per replica.
///
/// # Errors
/// The text cannot be read, has no pattern of a server line, or cannot be written.
pub fn write_balancer(plan: &Plan, nest: &Nest, replicas: u32) -> Result<()> {
    let template = plan.files.programs.join("nginx.conf");
    let changes = Changes {
        servers: (1..=replicas).map(|number| plan.replica_address(number)).collect(),
        http_port: Some(plan.settings.ports.http),
        pid: Some(plan.balancer_pid_file().to_string_lossy().into_owned()),
    };
    let text = derive(&read(&template)?, &changes).with_context(|| format!("{}", template.display()))?;
    write_for_parts(&nest.dirs.conf().join("nginx.conf"), &text, 0o644, &nest.run_as)
}

/// Plain passwords: the pooler must log in to Postgres with the application's.
pub fn userlist(settings: &Settings, secrets: &Secrets) -> String {
    let mut text = userlist_line(&settings.database.user, secrets.get("DB_PASSWORD"));
    for (user, secret) in CONSOLE_USERS {
        text.push_str(&userlist_line(user, secrets.get(secret)));
    }
    text
}

/// Nothing in Redis outlives it: pub/sub, cache, rate limits and the tokens of answers being made.
fn redis_conf(plan: &Plan) -> String {
    let password = plan.secrets.get("REDIS_PASSWORD").replace('\\', "\\\\").replace('"', "\\\"");
    format!(
        "bind 127.0.0.1\nport {}\nrequirepass \"{password}\"\ndaemonize no\nlogfile \"\"\nsave \"\"\nappendonly no\ndir \"{}\"\n",
        plan.settings.ports.redis,
        plan.files.data.display()
    )
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
