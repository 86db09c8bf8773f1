//! `stack render`: the same configuration texts for containers, from their environment.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use chassis::settings::read_all;

use crate::cli::Render;
use crate::conf::{CONSOLE_USERS, userlist};
use crate::dirs::write_for_parts;
use crate::identity::RunAs;
use crate::logic::addresses::Endpoint;
use crate::logic::balancer_conf::{Changes, derive};
use crate::logic::plan::{Secrets, pooler_figure, replica_name};
use crate::logic::template::fill;
use crate::settings::{Overrides, SETTINGS, Settings};

/// The port of the web service inside its container.
const WEB_PORT: u16 = 8000;
/// The compose file's name of the Postgres that the stack brings.
const PRIVATE_POSTGRES: &str = "postgres";

/// # Errors
/// A setting is missing, or a file cannot be read or written.
pub fn run(what: &Render, environment: &dyn Fn(&str) -> Option<String>) -> Result<ExitCode> {
    match what {
        Render::Pooler { template, out } => pooler(template, out, environment)?,
        Render::Balancer { template, out, replicas } => balancer(template, out, *replicas)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// In a container the pooler listens on all addresses and dials the names of the compose file.
fn pooler(template: &Path, out: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    let settings = Settings::read(&BTreeMap::new(), environment, Overrides::default())?;
    let given = &settings.secrets.0;
    let mut secrets = given.clone();
    if !secrets.contains_key("DB_PASSWORD") {
        bail!("DB_PASSWORD: not given; the pooler logs in to Postgres with it");
    }
    // A console user without a password cannot log in: an empty secret is never equal to an answer.
    for (_, name) in CONSOLE_USERS {
        secrets.entry(name).or_default();
    }
    let userlist_path = out.join("userlist.txt");
    let (values, _) = read_all(SETTINGS, environment);
    let value_of = |name: &str| match name {
        "POOLER_LISTEN_ADDR" => Some("*".to_owned()),
        "POOLER_METRICS_ADDR" => Some("0.0.0.0".to_owned()),
        "DB_PORT" => Some(settings.ports.pooler.to_string()),
        "POOLER_METRICS_PORT" => Some(settings.ports.pooler_metrics.to_string()),
        "DB_NAME" => Some(settings.database.name.clone()),
        "DB_USER" => Some(settings.database.user.clone()),
        "ACTUAL_DB_HOST" => Some(values.opt(name).unwrap_or(PRIVATE_POSTGRES).to_owned()),
        "ACTUAL_DB_PORT" | "ACTUAL_DB_READ_HOST" | "ACTUAL_DB_READ_PORT" => {
            values.opt(name).map(str::to_owned)
        }
        "USERLIST" => Some(userlist_path.to_string_lossy().into_owned()),
        _ => pooler_figure(&settings.pooler, name),
    };
    let text = read(template)?;
    let ini = fill(&text, &value_of).with_context(|| format!("{}", template.display()))?;
    write_for_parts(&out.join("pgbouncer.ini"), &ini, 0o640, &RunAs::Starter)?;
    write_for_parts(&userlist_path, &userlist(&settings, &Secrets(secrets)), 0o640, &RunAs::Starter)
}

fn balancer(template: &Path, out: &Path, replicas: u32) -> Result<()> {
    let servers = (1..=replicas).map(|number| Endpoint::new(&replica_name(number), WEB_PORT)).collect();
    let changes = Changes { servers, http_port: None, pid: None };
    let text = derive(&read(template)?, &changes).with_context(|| format!("{}", template.display()))?;
    write_for_parts(out, &text, 0o644, &RunAs::Starter)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
