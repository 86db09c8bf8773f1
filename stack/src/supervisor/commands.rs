//! What a running stack can be asked to do: another number of replicas, a restart, another release.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::{Stack, make_plan};
use crate::control::{Command, Reply, Request};
use crate::keeper::{Keeper, Way};
use crate::logic::addresses::Place;
use crate::logic::plan::Part;
use crate::origin::{Checked, Ports};
use crate::settings::Overrides;
use crate::{conf, last_start, postgres, release};

/// More replicas than this have no ports between the two bases of the defaults.
const REPLICAS_MAX: u32 = 200;
/// The balancer sends nothing to a replica that failed for `fail_timeout` of deploy/nginx.conf, and counts in seconds.
const FORGIVEN_AFTER: Duration = Duration::from_secs(2);
/// The balancer reads its file within this after a signal; until then a replica that goes would be missed.
const RELOAD_TIME: Duration = Duration::from_millis(500);
/// Names of the documents for parts of ours.
const OLD_NAMES: [(&str, &str); 2] = [("pgbouncer", "pooler"), ("nginx", "balancer")];

/// The part's name of today.
pub fn todays_name(name: &str) -> &str {
    OLD_NAMES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| *new)
}

impl Stack {
    pub(super) async fn carry_out(
        &mut self,
        command: &Command,
        outer: &dyn Fn(&str) -> Option<String>,
    ) -> Result<()> {
        match &command.request {
            Request::Scale { replicas } => self.scale(*replicas, command).await,
            Request::Restart { service } => self.restart(todays_name(service), command, outer).await,
            Request::Roll => self.roll(command, outer).await,
            Request::Status | Request::Follow | Request::Around { .. } | Request::Stop => {
                bail!("the request came the wrong way")
            }
        }
    }

    /// New replicas are healthy before the balancer learns of them; those that go are forgotten by it first.
    async fn scale(&mut self, replicas: u32, command: &Command) -> Result<()> {
        if replicas == 0 || replicas > REPLICAS_MAX {
            bail!("the number of replicas is from 1 to {REPLICAS_MAX}");
        }
        let now = u32::try_from(self.replicas.len()).unwrap_or(u32::MAX);
        let deadline = self.start_deadline();
        let fresh: Vec<Keeper> =
            (now + 1..=replicas).map(|number| self.keep(self.plan.replica(number))).collect();
        let first_fresh = self.replicas.len();
        self.replicas.extend(fresh);
        for index in first_fresh..self.replicas.len() {
            let keeper = &self.replicas[index];
            if let Err(cause) = keeper.healthy(deadline).await {
                // No traffic goes to those that came: they go again, and the stack is as it was.
                let cause = cause.context(format!("still {now} replicas"));
                self.end_surplus(first_fresh, command).await;
                return Err(cause);
            }
            command.reply(Reply::Line { text: format!("{} is healthy", keeper.name()) }).await;
        }
        conf::write_balancer(&self.plan, &self.nest, replicas)?;
        if let Some(balancer) = &self.balancer {
            balancer.signal(Signal::SIGHUP).await;
        }
        let kept = usize::try_from(replicas).unwrap_or(usize::MAX).min(self.replicas.len());
        if kept < self.replicas.len() {
            tokio::time::sleep(RELOAD_TIME).await;
            self.end_surplus(kept, command).await;
        }
        self.board.say(&format!("{replicas} replicas"));
        // A restart keeps to it.
        let before = last_start::read(self.nest.dirs.root())?;
        last_start::write(&self.nest.dirs, Overrides { replicas: Some(replicas), ..before })
    }

    /// Ends the replicas that the balancer does not send to, all but the first `kept`.
    async fn end_surplus(&mut self, kept: usize, command: &Command) {
        let surplus = self.replicas.split_off(kept);
        super::fall::stop_all(&surplus).await;
        for keeper in &surplus {
            self.board.remove(keeper.name());
            command.reply(Reply::Line { text: format!("{} has ended", keeper.name()) }).await;
        }
    }

    /// One part, or all replicas one after the other (`web`), with `config.env` read again.
    async fn restart(
        &mut self,
        service: &str,
        command: &Command,
        outer: &dyn Fn(&str) -> Option<String>,
    ) -> Result<()> {
        self.plan_again(outer).await?;
        let names: Vec<String> = match service {
            "web" => self.replicas.iter().map(|keeper| keeper.name().to_owned()).collect(),
            name => vec![name.to_owned()],
        };
        self.replace_in_turn(&names, Way::Anew, command).await?;
        Ok(())
    }

    /// Goes over to the current release: what changed is replaced, replicas one at a time.
    async fn roll(&mut self, command: &Command, outer: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        self.plan_again(outer).await?;
        let changed = self.changed()?;
        if changed.is_empty() {
            command.reply(Reply::Line { text: "these programs are in use already".to_owned() }).await;
            release::has_proven_good(&self.nest.dirs);
            return Ok(());
        }
        command.reply(Reply::Line { text: format!("changed: {}", changed.join(", ")) }).await;
        if changed.contains(&"web") {
            self.migrate().await?;
            let names: Vec<String> = self.replicas.iter().map(|keeper| keeper.name().to_owned()).collect();
            self.replace_in_turn(&names, Way::TakingOver, command).await?;
        }
        if self.pooler.is_some() && (changed.contains(&"pooler") || changed.contains(&"pgbouncer.ini")) {
            self.replace("pooler", Way::TakingOver, command).await?;
        }
        if changed.contains(&"balancer") {
            self.replace("balancer", Way::TakingOver, command).await?;
        } else if let (true, Some(balancer)) = (changed.contains(&"nginx.conf"), &self.balancer) {
            conf::write_balancer(&self.plan, &self.nest, self.replica_count())?;
            balancer.signal(Signal::SIGHUP).await;
            command.reply(Reply::Line { text: "balancer has read its configuration again".to_owned() }).await;
        }
        if changed.contains(&"postgresql.conf") {
            let text =
                "postgresql.conf has changed: restart postgres to use it (restart postgres)".to_owned();
            command.reply(Reply::Line { text }).await;
        }
        self.releases = vec![self.plan.files.programs.clone()];
        release::has_proven_good(&self.nest.dirs);
        Ok(())
    }

    /// The files of the current release that another one, which a part may still run, has otherwise.
    fn changed(&self) -> Result<Vec<&'static str>> {
        let mut changed = Vec::new();
        for release in &self.releases {
            changed.extend(release::differing(release, &self.plan.files.programs)?);
        }
        changed.sort_unstable();
        changed.dedup();
        Ok(changed)
    }

    /// The next one goes when the balancer sends to the one before again: of few replicas none would be left.
    async fn replace_in_turn(&mut self, names: &[String], way: Way, command: &Command) -> Result<()> {
        for (turn, name) in names.iter().enumerate() {
            if turn > 0 {
                tokio::time::sleep(FORGIVEN_AFTER).await;
            }
            self.replace(name, way, command).await?;
        }
        Ok(())
    }

    async fn replace(&mut self, name: &str, way: Way, command: &Command) -> Result<()> {
        let deadline = self.start_deadline();
        let part = self.part(name)?;
        let keeper = self.keeper(name)?;
        let went = match keeper.replace(part, way).await {
            Way::TakingOver => "has taken over from the one before",
            Way::Anew => "was restarted",
        };
        keeper.healthy(deadline).await?;
        command.reply(Reply::Line { text: format!("{name} {went} and is healthy") }).await;
        Ok(())
    }

    /// The part as the settings and the release have it now, its configuration file written.
    fn part(&self, name: &str) -> Result<Part> {
        let (plan, nest) = (&self.plan, &self.nest);
        let part = match name {
            "balancer" => {
                conf::write_balancer(plan, nest, self.replica_count())?;
                Some(plan.balancer())
            }
            "pooler" => {
                conf::write_pooler(plan, nest)?;
                plan.pooler()
            }
            "redis" | "postgres" | "standby" => {
                conf::write_stores(plan, nest)?;
                match name {
                    "redis" => plan.redis(),
                    "postgres" => plan.postgres(),
                    _ => plan.standby(),
                }
            }
            _ => {
                let number = name.strip_prefix("web-").and_then(|number| number.parse().ok());
                number
                    .filter(|number| (1..=self.replica_count()).contains(number))
                    .map(|number| plan.replica(number))
            }
        };
        part.with_context(|| {
            let names: Vec<String> = self.board.rows().into_iter().map(|row| row.name).collect();
            format!(
                "no part of this stack is named {name}; there are: {}, and web for all replicas",
                names.join(", ")
            )
        })
    }

    fn keeper(&self, name: &str) -> Result<&Keeper> {
        let mut all = self.stores.iter().chain(&self.pooler).chain(&self.replicas).chain(&self.balancer);
        all.find(|keeper| keeper.name() == name).with_context(|| format!("{name} is not kept by this stack"))
    }

    fn replica_count(&self) -> u32 {
        u32::try_from(self.replicas.len()).unwrap_or(u32::MAX)
    }

    /// Reads `config.env` again. What decides which parts there are, and where, is for a restart of the whole.
    async fn plan_again(&mut self, outer: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let programs = release::current(&self.nest.dirs).context("no release is installed")?;
        let Checked { settings, warnings } = self.origin.check(outer, &programs, Ports::Shared).await?;
        for warning in &warnings {
            self.board.say(warning);
        }
        if settings.topology != self.plan.settings.topology || settings.ports != self.plan.settings.ports {
            bail!(
                "config.env now names other ports, stores or ways: stop and start the stack to go over to them"
            );
        }
        let plan = make_plan(&self.origin, settings, &self.nest.dirs, &self.nest.run_as)?;
        postgres::write_pgpass(&plan, &self.nest)?;
        // A new password is the role's password too; new connections use it, open ones live on.
        if plan.secrets != self.plan.secrets && plan.settings.topology.primary == Place::Ours {
            postgres::set_up(&plan, &self.nest).await?;
        }
        // Parts that are started from now on run its programs.
        if !self.releases.contains(&plan.files.programs) {
            self.releases.push(plan.files.programs.clone());
        }
        self.shown.send_replace(plan.clone());
        self.plan = plan;
        Ok(())
    }
}
