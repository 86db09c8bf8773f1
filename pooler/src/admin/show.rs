//! SHOW: which table each word gives. Columns keep PgBouncer's names, order and types.

mod misc;
mod pools;
mod sockets;
mod stats;

use pgwire::backend::{self, TransactionStatus};
use pgwire::report::{Report, Severity};
use pgwire::sqlstate;

use super::facts::{Facts, Show};
use super::table::{TEXT, Table, cell};

/// The table for this word.
pub fn table(show: Show, facts: &Facts) -> Table {
    match show {
        Show::ActiveSockets => sockets::active_sockets(facts),
        Show::Clients => sockets::clients(facts),
        Show::Config => misc::config(facts),
        Show::Databases => pools::databases(facts),
        Show::DnsHosts => misc::dns_hosts(facts),
        Show::DnsZones => misc::dns_zones(),
        Show::Fds => sockets::fds(facts),
        Show::Help => Table::new(&[("help", TEXT)]),
        Show::Lists => misc::lists(facts),
        Show::Mem => misc::mem(facts),
        Show::PeerPools => pools::peer_pools(facts),
        Show::Peers => pools::peers(facts),
        Show::Pools => pools::pools(facts),
        Show::Servers => sockets::servers(facts),
        Show::Sockets => sockets::sockets(facts),
        Show::State => misc::state(facts),
        Show::Stats => stats::stats(facts),
        Show::StatsAverages => stats::averages(facts),
        Show::StatsTotals => stats::totals(facts),
        Show::Totals => stats::all_totals(facts),
        Show::Users => pools::users(facts),
        Show::Version => misc::version(),
    }
}

/// The answer to SHOW of a parameter that we only play.
pub fn single(name: &'static str, value: &'static str) -> Vec<u8> {
    let mut out = Vec::new();
    backend::row_description(&mut out, &[(name, TEXT)]);
    backend::data_row(&mut out, [Some(value.as_bytes())].into_iter());
    backend::command_complete(&mut out, "SHOW");
    backend::ready_for_query(&mut out, TransactionStatus::Idle);
    out
}

const HELP: &str = "
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
\tSHOW PEERS|PEER_POOLS
\tSHOW FDS|SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
\tSHOW DNS_HOSTS|DNS_ZONES
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tSET key = arg
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL [<db>]
\tKILL_CLIENT <client_id>
\tSUSPEND
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS
\tWAIT_CLOSE [<db>]";

/// SHOW HELP is a notice, not a table.
pub fn help() -> Vec<u8> {
    let mut out = Vec::new();
    let notice = Report::new(Severity::Notice, sqlstate::SUCCESSFUL_COMPLETION, "Console usage");
    backend::notice(&mut out, &notice.detail(HELP));
    backend::command_complete(&mut out, "SHOW");
    backend::ready_for_query(&mut out, TransactionStatus::Idle);
    out
}

/// Postgres' short form of a truth in the numeric columns.
fn flag(value: bool) -> Option<String> {
    cell(u8::from(value))
}
