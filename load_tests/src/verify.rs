//! Checks of a running stack, one line each. Every check is bounded in time and leaves the stack as it was, but `shutdown`.

mod contract;
mod database;
mod kill;
mod rooms;
mod shutdown;
mod spread;
mod stream;
mod upload;

use crate::args::VerifyArgs;
use crate::site::{Route, Site};
use clap::ValueEnum;
use std::process::ExitCode;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What can be checked, in the order it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// As many GETs of /db/connections/ as there are replicas name each of them once, all on the same way to the database
    Containers,
    /// Every route and frame of the contract, its keys and types as documented (needs ADMIN_TOKEN)
    Contract,
    /// Ten WebSocket connections of one client reach one replica
    Sticky,
    /// Messages sent through three replicas reach members on every replica, all in one order
    Rooms,
    /// The first streamed token arrives before the last is made
    Stream,
    /// SHOW POOLS at the pooler's console has PgBouncer's columns
    Console,
    /// A replica killed during 200 GETs a second fails none whose response had not begun
    Kill,
    /// Many users on /api/ without an error, the database seeing few connections
    Load,
    /// SIGTERM to the stack loses no request in flight (only with --with-shutdown)
    Shutdown,
}

/// How a check ended.
enum Verdict {
    Pass(String),
    Fail(String),
    LeftOut(&'static str),
}

impl Check {
    fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// No check may take longer; `load` has its own run time besides.
    fn limit(self, args: &VerifyArgs) -> Duration {
        match self {
            Self::Load => Duration::from_secs(120) + args.run_time,
            Self::Kill | Self::Shutdown => Duration::from_secs(180),
            _ => Duration::from_secs(60),
        }
    }

    async fn run(self, site: &Site, args: &VerifyArgs, stop: &CancellationToken) -> anyhow::Result<String> {
        match self {
            Self::Containers => spread::containers(site).await,
            Self::Contract => contract::check(site).await,
            Self::Sticky => spread::sticky(site).await,
            Self::Rooms => rooms::check(site).await,
            Self::Stream => stream::check(site).await,
            Self::Console => database::console(site).await,
            Self::Kill => kill::check(site).await,
            Self::Load => database::load(site, args, stop).await,
            Self::Shutdown => shutdown::check(site, args.stop_command.as_deref()).await,
        }
    }
}

/// Runs the checks and prints a line each.
pub async fn run(
    args: &VerifyArgs,
    lookup: &dyn Fn(&str) -> Option<String>,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let site = Site::find(&args.place, lookup).await?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for check in Check::value_variants() {
        let verdict = judge(*check, &site, args, stop).await;
        let (word, told, count) = match &verdict {
            Verdict::Pass(figure) => ("PASS", figure.as_str(), &mut passed),
            Verdict::Fail(reason) => ("FAIL", reason.as_str(), &mut failed),
            Verdict::LeftOut(reason) => ("SKIP", *reason, &mut skipped),
        };
        *count += 1;
        println!("{word}  {:<10}  {told}", check.word());
        if stop.is_cancelled() {
            anyhow::bail!("interrupted");
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn judge(check: Check, site: &Site, args: &VerifyArgs, stop: &CancellationToken) -> Verdict {
    if args.skip.contains(&check) {
        return Verdict::LeftOut("left out by --skip");
    }
    if !args.only.is_empty() && !args.only.contains(&check) {
        return Verdict::LeftOut("left out by --only");
    }
    if check == Check::Shutdown && !args.with_shutdown {
        return Verdict::LeftOut("needs --with-shutdown, as it ends the stack");
    }
    if check == Check::Console && site.route == Route::Direct {
        return Verdict::LeftOut("the stack runs without a pooler (--direct)");
    }
    if let Some(reason) = unfit(check, site.replicas.len()) {
        return Verdict::LeftOut(reason);
    }
    if check == Check::Contract && site.admin_token.is_none() {
        return Verdict::LeftOut("needs an admin's token in ADMIN_TOKEN");
    }
    let limit = check.limit(args);
    match tokio::time::timeout(limit, check.run(site, args, stop)).await {
        Ok(Ok(figure)) => Verdict::Pass(figure),
        Ok(Err(error)) => Verdict::Fail(format!("{error:#}")),
        Err(_) => Verdict::Fail(format!("not done within {} s", limit.as_secs())),
    }
}

/// What cannot be asked of a stack of so many replicas, as far as they are known.
fn unfit(check: Check, replicas: usize) -> Option<&'static str> {
    match check {
        Check::Rooms if replicas == 1 => Some("one replica: no message goes from one to another"),
        Check::Kill if replicas == 1 => Some("one replica: when it is killed no other can answer"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_two_replicas_is_left_out_with_one_and_fails_where_none_is_named() {
        for check in [Check::Rooms, Check::Kill] {
            assert!(unfit(check, 1).is_some_and(|reason| reason.starts_with("one replica")), "{check:?}");
            assert!(unfit(check, 0).is_none() && unfit(check, 2).is_none(), "{check:?}");
        }
        let others = Check::value_variants().iter().filter(|check| unfit(**check, 1).is_none());
        assert_eq!(others.count(), Check::value_variants().len() - 2);
    }
}
