//! The way up: ports, stores, migrations, pooler, replicas, balancer, each as early as what it needs allows.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};

use super::Stack;
use crate::logic::addresses::{Place, Standby};
use crate::logic::ports::{Listening, listening};
use crate::{conf, postgres, record, release};

impl Stack {
    /// Brings everything up and returns when all parts are healthy.
    pub(super) async fn rise(&mut self) -> Result<()> {
        self.clear_left_over().await;
        check_ports(&listening(&self.plan.settings, self.plan.settings.replicas))?;
        postgres::write_pgpass(&self.plan, &self.nest)?;
        conf::write_stores(&self.plan, &self.nest)?;
        conf::write_balancer(&self.plan, &self.nest, self.plan.settings.replicas)?;
        self.start_stores().await?;
        self.pooler = self.plan.pooler().map(|part| self.keep(part));
        self.migrate().await?;
        let replicas = self.plan.replicas(self.plan.settings.replicas);
        self.replicas = replicas.into_iter().map(|part| self.keep(part)).collect();
        self.balancer = Some(self.keep(self.plan.balancer()));
        let deadline = self.start_deadline();
        for keeper in self.stores.iter().chain(&self.pooler).chain(&self.replicas).chain(&self.balancer) {
            keeper.healthy(deadline).await?;
        }
        release::has_proven_good(&self.nest.dirs);
        self.board.say(&format!(
            "all {} parts are healthy after {:.1} s",
            self.board.rows().len(),
            self.board.started().elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Children of a supervisor that was killed still hold ports and data: they are ended first.
    async fn clear_left_over(&self) {
        let left = record::left_over(&self.nest.dirs);
        if left.is_empty() {
            return;
        }
        let names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
        self.board.say(&format!("ending what an earlier supervisor left behind: {}", names.join(", ")));
        super::fall::end_left_over(&left, self.plan.settings.stop_timeout).await;
    }

    async fn start_stores(&mut self) -> Result<()> {
        self.stores.extend(self.plan.redis().map(|part| self.keep(part)));
        let deadline = self.start_deadline();
        if self.plan.settings.topology.primary == Place::Ours {
            postgres::init(&self.plan, &self.nest).await?;
            let keeper = self.keep(self.plan.postgres().expect("a private primary is a part"));
            keeper.healthy(deadline).await?;
            self.stores.push(keeper);
            postgres::set_up(&self.plan, &self.nest).await?;
        }
        if self.plan.settings.topology.standby == Standby::Ours {
            postgres::copy_standby(&self.plan, &self.nest).await?;
            let keeper = self.keep(self.plan.standby().expect("a private standby is a part"));
            keeper.healthy(deadline).await?;
            self.stores.push(keeper);
        }
        Ok(())
    }

    /// Brings the database to the release's shape, and where they are wanted the demo users and their session into it.
    pub(super) async fn migrate(&self) -> Result<()> {
        let web = self.plan.files.programs.join("web");
        let env = self.plan.web_env();
        let wanted = if self.plan.settings.demo_users { &["migrate", "seed"][..] } else { &["migrate"] };
        for verb in wanted {
            self.nest.run_once(verb, &web, &[*verb], &env).await?;
            self.board.say(&format!("{verb:<10} done"));
        }
        Ok(())
    }
}

/// # Errors
/// All ports that are taken, each with the setting to change; that no two parts want one was checked before.
pub(crate) fn check_ports(listening: &[Listening]) -> Result<()> {
    let mut problems = Vec::new();
    for one in listening {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, one.port));
        match std::net::TcpListener::bind(address) {
            Ok(_) => {}
            Err(cause) if cause.kind() == std::io::ErrorKind::AddrInUse => problems.push(format!(
                "port {} for {} is taken by another process: set {} in config.env to a free one",
                one.port, one.part, one.setting
            )),
            Err(cause) => {
                problems.push(format!(
                    "port {} for {} cannot be used ({cause}): change {}",
                    one.port, one.part, one.setting
                ));
            }
        }
    }
    problems.sort();
    problems.dedup();
    if problems.is_empty() { Ok(()) } else { bail!("{}", problems.join("\n")) }
}
