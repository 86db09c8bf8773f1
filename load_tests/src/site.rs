//! Where the stack is that is checked or tried, put together from its status, the command line and, under docker, the engine.

use crate::accounts::{self, Account};
use crate::args::PlaceArgs;
use crate::engine;
use crate::http::{Client, Dialer};
use crate::logic::fleet::{self, Address, Fleet, Replica, Service};
use crate::logic::target::Target;
use crate::settings::SETTINGS;
use anyhow::{Context, anyhow};
use chassis::settings::{EnvFile, Values};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Time within which any one answer must come.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The stack under check.
pub struct Site {
    pub balancer: Target,
    pub dialer: Rc<Dialer>,
    pub replicas: Vec<Replica>,
    pub route: Route,
    pub pooler: Option<Address>,
    pub postgres: Option<Address>,
    pub database: String,
    pub user: String,
    pub supervisor_pid: Option<u32>,
    pub services: Vec<Service>,
    pub keeper: Keeper,
    /// For the monitoring routes.
    pub admin_token: Option<String>,
    passwords: Passwords,
}

/// Who starts a killed replica again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The stack's own supervisor does.
    Supervisor,
    /// We do, through the engine.
    Docker,
}

/// How the replicas reach the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Pooled,
    /// Option 2 of the documents.
    Direct,
}

struct Passwords {
    given: Option<String>,
    pgpass: String,
}

impl Site {
    pub async fn find(args: &PlaceArgs, lookup: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => EnvFile::read(path)?.into_values()?,
            None => BTreeMap::new(),
        };
        let values = chassis::settings::read(SETTINGS, &|name| {
            lookup(name).filter(|value| !value.is_empty()).or_else(|| file.get(name).cloned())
        })?;
        let fleet = args.status.as_deref().map(read_status).transpose()?.unwrap_or_default();
        let balancer = match (&args.balancer, &fleet.url) {
            (Some(target), _) => target.clone(),
            (None, Some(url)) => url.parse().map_err(|error: String| anyhow!(error))?,
            (None, None) => anyhow::bail!("where is the stack? give --status FILE or --balancer URL"),
        };
        let dialer = Rc::new(Dialer::resolve(&balancer, ANSWER_LIMIT).await?);
        let mut replicas =
            if args.replicas.is_empty() { fleet.replicas.clone() } else { args.replicas.clone() };
        let mut pooler = args.pooler.clone().or_else(|| fleet.pooler.clone());
        let direct = fleet.database.as_ref().map(|db| Address { host: db.host.clone(), port: db.port });
        let mut postgres = args.postgres.clone().or(direct);
        if args.docker {
            if replicas.is_empty() {
                replicas = engine::replicas().await?;
            }
            if pooler.is_none() && !args.direct {
                pooler = engine::address_of("pooler", 6432).await?;
            }
            postgres = postgres.or(engine::address_of("postgres", 5432).await?);
        }
        // A status names the pooler of a stack that has one; without it we have to be told.
        let is_direct = args.direct || (fleet.url.is_some() && pooler.is_none());
        let route = if is_direct { Route::Direct } else { Route::Pooled };
        let named = |flag: &Option<String>, status: Option<&String>, setting: &str| {
            flag.clone().or_else(|| status.cloned()).unwrap_or_else(|| values.text(setting).to_owned())
        };
        Ok(Self {
            balancer,
            dialer,
            replicas,
            route,
            pooler,
            postgres,
            database: named(&args.database, fleet.database.as_ref().map(|db| &db.name), "DB_NAME"),
            user: named(&args.user, fleet.database.as_ref().map(|db| &db.user), "DB_USER"),
            supervisor_pid: fleet.supervisor_pid,
            services: fleet.services.clone(),
            keeper: if args.docker { Keeper::Docker } else { Keeper::Supervisor },
            admin_token: values.opt("ADMIN_TOKEN").map(str::to_owned),
            passwords: Passwords::find(&values, &fleet)?,
        })
    }

    /// A client of the balancer.
    pub fn client(&self) -> Client {
        Client::new(self.dialer.clone())
    }

    /// A client of one replica, past the balancer.
    pub async fn dialer_of(&self, replica: &Replica) -> anyhow::Result<Rc<Dialer>> {
        let target: Target = replica.url.parse().map_err(|error: String| anyhow!(error))?;
        Ok(Rc::new(Dialer::resolve(&target, ANSWER_LIMIT).await?))
    }

    /// New accounts, registered through the balancer.
    pub async fn accounts(&self, count: u32) -> anyhow::Result<Vec<Rc<Account>>> {
        let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
        accounts::register(&mut self.client(), &run, count).await.context("cannot register")
    }

    /// A database connection; `database` is also `pgbouncer`, the console.
    pub async fn connect(&self, address: &Address, database: &str) -> anyhow::Result<tokio_postgres::Client> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&address.host)
            .port(address.port)
            .dbname(database)
            .user(&self.user)
            .connect_timeout(ANSWER_LIMIT);
        config.application_name("load_tests verify");
        if let Some(password) = self.passwords.of(address, database, &self.user) {
            config.password(password);
        }
        let connected = config.connect(tokio_postgres::NoTls).await;
        let (client, connection) = connected
            .with_context(|| format!("cannot log in to {database} at {}:{}", address.host, address.port))?;
        tokio::task::spawn_local(async move {
            // Whoever uses the client is told by its own query.
            let _ = connection.await;
        });
        Ok(client)
    }
}

impl Passwords {
    fn find(values: &Values, fleet: &Fleet) -> anyhow::Result<Self> {
        let given = values.opt("DB_PASSWORD").map(str::to_owned);
        let file = values.opt("PGPASSFILE").or(fleet.pgpass_file.as_deref());
        let pgpass = match file {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
            None => String::new(),
        };
        Ok(Self { given, pgpass })
    }

    fn of(&self, address: &Address, database: &str, user: &str) -> Option<String> {
        self.given.clone().or_else(|| fleet::password(&self.pgpass, address, database, user))
    }
}

fn read_status(path: &Path) -> anyhow::Result<Fleet> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.with_context(|| format!("cannot read the status {}", path.display()))?;
    Fleet::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        place: PlaceArgs,
    }

    async fn route(flags: &[&str]) -> Route {
        let line = ["load_tests", "--balancer", "http://127.0.0.1:26999"].iter().chain(flags);
        let args = Line::parse_from(line).place;
        Site::find(&args, &|_| None).await.expect("nobody is asked").route
    }

    #[tokio::test]
    async fn without_a_status_the_command_line_tells_that_no_pooler_runs() {
        assert_eq!(route(&[]).await, Route::Pooled);
        assert_eq!(route(&["--pooler", "127.0.0.1:26998"]).await, Route::Pooled);
        assert_eq!(route(&["--direct"]).await, Route::Direct);
    }
}
