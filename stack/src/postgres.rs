//! The private Postgres: its programs, its cluster, its roles and database, its standby.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;

use crate::dirs::write_for_parts;
use crate::logic::plan::{Identity, Plan, Secrets};
use crate::logic::template::{pgpass_line, sql_literal, sql_name};
use crate::spawn::Nest;

/// The cluster's superuser and the standby's login.
const SUPERUSER: &str = "postgres";
const REPLICATOR: &str = "arena_replicator";
/// What the stack calls; a folder that lacks one of them is no installation.
const PROGRAMS: [&str; 4] = ["postgres", "initdb", "psql", "pg_basebackup"];
/// Where Debian keeps the programs that are not on the PATH, one folder per version.
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";

/// The folder of `postgres`, `initdb` and their like.
///
/// # Errors
/// There is none; the text says what to install or to set.
pub fn find_programs(wanted: Option<&Path>, search_path: &str) -> Result<PathBuf> {
    let has_server = |folder: &Path| PROGRAMS.iter().all(|name| folder.join(name).is_file());
    if let Some(folder) = wanted {
        if has_server(folder) {
            return Ok(folder.to_owned());
        }
        bail!("STACK_POSTGRES_BIN: {} does not hold all of {}", folder.display(), PROGRAMS.join(", "));
    }
    if let Some(folder) = std::env::split_paths(search_path).find(|folder| has_server(folder)) {
        return Ok(folder);
    }
    let versions = fs::read_dir(DEBIAN_VERSIONS).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| has_server(folder))
        .collect();
    found.sort();
    found.pop().map(|(_, folder)| folder).context(
        "Postgres is not installed (no initdb on the PATH or below /usr/lib/postgresql): apt-get install postgresql, \
         or name your own server in ACTUAL_DB_HOST",
    )
}

/// Where a program of the PATH is.
///
/// # Errors
/// It is not there; the text names the Debian package.
pub fn find_on_path(program: &str, package: &str, search_path: &str) -> Result<PathBuf> {
    std::env::split_paths(search_path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("{program} is not installed: apt-get install {package}"))
}

/// Makes the cluster at its first use.
///
/// # Errors
/// initdb fails; the error shows what it said.
pub async fn init(plan: &Plan, nest: &Nest) -> Result<()> {
    let data = plan.files.data.join("postgres");
    if data.join("PG_VERSION").is_file() {
        return check_version(plan, nest, &data).await;
    }
    let fresh = plan.files.data.join("postgres.new");
    remove_folder(&fresh)?;
    let password_file = nest.dirs.secrets().join("POSTGRES_PASSWORD");
    let (fresh_text, password_file) = (fresh.to_string_lossy(), password_file.to_string_lossy());
    let args = ["-D", &fresh_text, "-U", SUPERUSER, "--pwfile", &password_file, "-A", "scram-sha-256"];
    // The C order is the same on every machine, so a dump from one is sorted alike on another.
    let more = ["-E", "UTF8", "--locale=C.UTF-8", "--no-instructions", "--no-sync"];
    let args: Vec<&str> = args.into_iter().chain(more).collect();
    run(nest, &plan.files.postgres_bin.join("initdb"), &args, &BTreeMap::new(), None).await?;
    fs::rename(&fresh, &data).with_context(|| format!("renaming {} to {}", fresh.display(), data.display()))
}

async fn check_version(plan: &Plan, nest: &Nest, data: &Path) -> Result<()> {
    let made_by = fs::read_to_string(data.join("PG_VERSION")).context("reading PG_VERSION")?;
    let program = plan.files.postgres_bin.join("postgres");
    let says = run(nest, &program, &["--version"], &BTreeMap::new(), None).await?;
    if says.split_whitespace().any(|word| word.split('.').next() == Some(made_by.trim())) {
        return Ok(());
    }
    bail!(
        "{} was made by Postgres {}, but {} is {}: install that version and name it in STACK_POSTGRES_BIN, or back up, \
         `stack down --purge`, start and restore",
        data.display(),
        made_by.trim(),
        program.display(),
        says.trim()
    )
}

/// Roles, database and extension, as the settings name them now; the same again changes nothing.
///
/// # Errors
/// psql fails; the error shows what it said, which never holds a password.
pub async fn set_up(plan: &Plan, nest: &Nest) -> Result<()> {
    let env = psql_env(plan.settings.ports.postgres, SUPERUSER, plan.secrets.get("POSTGRES_PASSWORD"));
    let script = set_up_script(plan);
    let args = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", "-"];
    run(nest, &plan.files.postgres_bin.join("psql"), &args, &env, Some(script)).await.map(drop)
}

fn set_up_script(plan: &Plan) -> String {
    let database = &plan.settings.database;
    let (user, name) = (sql_name(&database.user), sql_name(&database.name));
    let role = |login: &str, attributes: &str, secret: &str| {
        let quoted = sql_name(login);
        let literal = sql_literal(login);
        let password = sql_literal(plan.secrets.get(secret));
        format!(
            "SELECT format('CREATE ROLE %I', {literal}) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) \\gexec\n\
             ALTER ROLE {quoted} LOGIN {attributes} PASSWORD {password};\n"
        )
    };
    let mut script = String::new();
    // These statements hold passwords: they are neither logged, whether they fail or are slow, nor kept as statistics.
    for quiet in [
        "log_min_error_statement = panic",
        "log_statement = 'none'",
        "log_min_duration_statement = -1",
        "log_min_duration_sample = -1",
        "pg_stat_statements.track_utility = off",
        "client_min_messages = warning",
    ] {
        script.push_str(&format!("SET {quiet};\n"));
    }
    script.push_str(&role(&database.user, "", "DB_PASSWORD"));
    script.push_str(&role(REPLICATOR, "REPLICATION", "REPLICATION_PASSWORD"));
    // The monitoring pages show all connections and statements of the database.
    script.push_str(&format!("GRANT pg_read_all_stats TO {user};\n"));
    let literal = sql_literal(&database.name);
    script.push_str(&format!(
        "SELECT format('CREATE DATABASE %I OWNER %I', {literal}, {owner}) \
         WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = {literal}) \\gexec\n",
        owner = sql_literal(&database.user)
    ));
    // The URL form of \connect would need another quoting; the identifier form takes a name as it is.
    script.push_str(&format!("\\connect {name}\nSET client_min_messages = warning;\n"));
    script.push_str("CREATE EXTENSION IF NOT EXISTS pg_stat_statements;\n");
    script
}

/// Copies the running primary to a standby's folder. The copy is made anew at each start of the stack:
/// one that was away may lack WAL that the primary no longer has.
///
/// # Errors
/// pg_basebackup fails; the error shows what it said.
pub async fn copy_standby(plan: &Plan, nest: &Nest) -> Result<()> {
    let data = plan.files.data.join("standby");
    remove_folder(&data)?;
    let port = plan.settings.ports.postgres.to_string();
    // With a password file the standby's settings hold its path and not the password.
    let env = [("PGPASSFILE".to_owned(), nest.dirs.pgpass().to_string_lossy().into_owned())].into();
    let data = data.to_string_lossy();
    let args =
        ["-D", &data, "-h", "127.0.0.1", "-p", &port, "-U", REPLICATOR, "-R", "-X", "stream", "-c", "fast"];
    let args: Vec<&str> = args.into_iter().chain(["--no-sync"]).collect();
    run(nest, &plan.files.postgres_bin.join("pg_basebackup"), &args, &env, None).await.map(drop)
}

/// Every login of the stack in libpq's password file, for psql, pg_dump and the standby.
///
/// # Errors
/// The file cannot be written.
pub fn write_pgpass(plan: &Plan, nest: &Nest) -> Result<()> {
    let text = pgpass(plan, &plan.secrets);
    write_for_parts(&nest.dirs.pgpass(), &text, 0o600, &nest.run_as)
}

fn pgpass(plan: &Plan, secrets: &Secrets) -> String {
    let user = plan.settings.database.user.as_str();
    let (primary, ports) = (plan.primary(), plan.settings.ports);
    let mut text = pgpass_line(&primary.host, primary.port, user, secrets.get("DB_PASSWORD"));
    let local = [
        (ports.pooler, user, "DB_PASSWORD"),
        (ports.pooler, "pgbouncer_admin", "PGBOUNCER_ADMIN_PASSWORD"),
        (ports.pooler, "pgbouncer_stats", "PGBOUNCER_STATS_PASSWORD"),
        (ports.postgres, SUPERUSER, "POSTGRES_PASSWORD"),
        (ports.postgres, REPLICATOR, "REPLICATION_PASSWORD"),
        (ports.standby, user, "DB_PASSWORD"),
        (ports.standby, SUPERUSER, "POSTGRES_PASSWORD"),
    ];
    for host in ["127.0.0.1", "localhost"] {
        for (port, login, secret) in local {
            text.push_str(&pgpass_line(host, port, login, secrets.get(secret)));
        }
    }
    text
}

fn psql_env(port: u16, user: &str, password: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port.to_string()),
        ("PGUSER", user),
        ("PGPASSWORD", password),
        ("PGCONNECT_TIMEOUT", "10"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Runs one of Postgres' programs to its end and returns what it printed.
async fn run(
    nest: &Nest,
    program: &Path,
    args: &[&str],
    env: &BTreeMap<String, String>,
    input: Option<String>,
) -> Result<String> {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = nest.command(program, Identity::Unprivileged, env);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that ends early closes the pipe; what it says then is the error worth showing.
        let _ = pipe.write_all(text.as_bytes()).await;
    }
    let output = child.wait_with_output().await.with_context(|| format!("waiting for {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{name} ended with {}:\n{}", output.status, said.trim_end())
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(cause).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
