//! SHOW CLIENTS, SERVERS, SOCKETS, ACTIVE_SOCKETS and FDS.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::macros::format_description;

use super::flag;
use crate::admin::facts::{
    ClientState, Facts, FdRow, Replication, ServerState, Show, SocketRow, SocketState,
};
use crate::admin::table::{BYTEA, Cell, Columns, INT4, INT8, TEXT, Table, cell};

/// The columns of SHOW SOCKETS; SHOW CLIENTS and SERVERS have those up to `id`.
const SOCKETS: Columns = &[
    ("type", TEXT),
    ("user", TEXT),
    ("database", TEXT),
    ("replication", TEXT),
    ("state", TEXT),
    ("addr", TEXT),
    ("port", INT4),
    ("local_addr", TEXT),
    ("local_port", INT4),
    ("connect_time", TEXT),
    ("request_time", TEXT),
    ("wait", INT4),
    ("wait_us", INT4),
    ("close_needed", INT4),
    ("ptr", TEXT),
    ("link", TEXT),
    ("remote_pid", INT4),
    ("tls", TEXT),
    ("application_name", TEXT),
    ("prepared_statements", INT4),
    ("id", INT4),
    ("recv_pos", INT4),
    ("pkt_pos", INT4),
    ("pkt_remain", INT4),
    ("send_pos", INT4),
    ("send_remain", INT4),
    ("pkt_avail", INT4),
    ("send_avail", INT4),
];

const COLUMNS_WITHOUT_BUFFERS: usize = 21;

fn plain_columns() -> Columns {
    &SOCKETS[..COLUMNS_WITHOUT_BUFFERS]
}

pub fn clients(facts: &Facts) -> Table {
    let shown = |row: &&SocketRow| match row.state {
        SocketState::Client(state) => state != ClientState::Login,
        SocketState::Server(_) => false,
    };
    Table::with_rows(
        plain_columns(),
        facts.sockets.iter().filter(shown).map(|row| socket(row, Show::Clients)),
    )
}

pub fn servers(facts: &Facts) -> Table {
    let shown = |row: &&SocketRow| matches!(row.state, SocketState::Server(_));
    Table::with_rows(
        plain_columns(),
        facts.sockets.iter().filter(shown).map(|row| socket(row, Show::Servers)),
    )
}

pub fn sockets(facts: &Facts) -> Table {
    Table::with_rows(SOCKETS, facts.sockets.iter().map(|row| socket(row, Show::Sockets)))
}

pub fn active_sockets(facts: &Facts) -> Table {
    let rows = facts.sockets.iter().filter(|row| !row.buffers.is_empty());
    Table::with_rows(SOCKETS, rows.map(|row| socket(row, Show::ActiveSockets)))
}

fn socket(row: &SocketRow, show: Show) -> Vec<Cell> {
    let with_buffers = matches!(show, Show::Sockets | Show::ActiveSockets);
    let state = if with_buffers { long_state(row.state) } else { short_state(row) };
    let kind = if matches!(row.state, SocketState::Client(_)) { "C" } else { "S" };
    let mut cells = vec![
        cell(kind),
        cell(row.user.as_deref().unwrap_or("(nouser)")),
        cell(row.database.as_deref().unwrap_or("(nodb)")),
        cell(replication(row.replication)),
        cell(state),
        cell(&row.address.host),
        cell(row.address.port),
        cell(&row.local_address.host),
        cell(row.local_address.port),
        cell(time_text(row.connect_time)),
        cell(time_text(row.request_time)),
        cell(row.wait.as_secs()),
        cell(row.wait.subsec_micros()),
        flag(row.close_needed),
        cell(format!("{:#x}", row.ptr)),
        cell(row.link.map(|link| format!("{link:#x}")).unwrap_or_default()),
        cell(row.remote_pid),
        cell(&row.tls),
        cell(&row.application_name),
        cell(row.prepared_statements),
        cell(row.id),
    ];
    if with_buffers {
        let buffers = row.buffers;
        cells.extend([buffers.recv_pos, buffers.pkt_pos, buffers.pkt_remain, buffers.send_pos].map(cell));
        cells.extend([buffers.send_remain, buffers.pkt_avail, buffers.send_avail].map(cell));
    }
    cells
}

/// An active socket without its other side is called idle.
fn short_state(row: &SocketRow) -> &'static str {
    match row.state {
        SocketState::Client(ClientState::Active) | SocketState::Server(ServerState::Active)
            if row.link.is_none() =>
        {
            "idle"
        }
        SocketState::Client(ClientState::Active) => "active",
        SocketState::Client(ClientState::Waiting) => "waiting",
        SocketState::Client(ClientState::ActiveCancelReq) => "active_cancel_req",
        SocketState::Client(ClientState::WaitingCancelReq) => "waiting_cancel_req",
        SocketState::Client(ClientState::Login) => "login",
        SocketState::Server(ServerState::Active) => "active",
        SocketState::Server(ServerState::Idle) => "idle",
        SocketState::Server(ServerState::Used) => "used",
        SocketState::Server(ServerState::Tested) => "tested",
        SocketState::Server(ServerState::New) => "new",
        SocketState::Server(ServerState::ActiveCancel) => "active_cancel",
        SocketState::Server(ServerState::BeingCanceled) => "being_canceled",
    }
}

fn long_state(state: SocketState) -> &'static str {
    match state {
        SocketState::Client(ClientState::Active) => "cl_active",
        SocketState::Client(ClientState::Waiting) => "cl_waiting",
        SocketState::Client(ClientState::ActiveCancelReq) => "cl_active_cancel_req",
        SocketState::Client(ClientState::WaitingCancelReq) => "cl_waiting_cancel_req",
        SocketState::Client(ClientState::Login) => "cl_login",
        SocketState::Server(ServerState::Active) => "sv_active",
        SocketState::Server(ServerState::Idle) => "sv_idle",
        SocketState::Server(ServerState::Used) => "sv_used",
        SocketState::Server(ServerState::Tested) => "sv_tested",
        SocketState::Server(ServerState::New) => "sv_login",
        SocketState::Server(ServerState::ActiveCancel) => "sv_active_cancel",
        SocketState::Server(ServerState::BeingCanceled) => "sv_being_canceled",
    }
}

fn replication(kind: Replication) -> &'static str {
    match kind {
        Replication::None => "none",
        Replication::Logical => "logical",
        Replication::Physical => "physical",
    }
}

/// `2026-11-21 12:00:00 UTC`: always UTC, so that lines of several machines compare.
fn time_text(time: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    OffsetDateTime::from(time).format(&format).unwrap_or_default()
}

const FDS: Columns = &[
    ("fd", INT4),
    ("task", TEXT),
    ("user", TEXT),
    ("database", TEXT),
    ("addr", TEXT),
    ("port", INT4),
    ("cancel", INT8),
    ("link", INT4),
    ("client_encoding", TEXT),
    ("std_strings", TEXT),
    ("datestyle", TEXT),
    ("timezone", TEXT),
    ("password", TEXT),
    ("scram_client_key", BYTEA),
    ("scram_server_key", BYTEA),
];

pub fn fds(facts: &Facts) -> Table {
    Table::with_rows(FDS, facts.fds.iter().map(fd))
}

fn fd(row: &FdRow) -> Vec<Cell> {
    let mut cells = vec![
        cell(row.fd),
        cell(row.task),
        row.user.clone(),
        row.database.clone(),
        cell(&row.address.host),
        cell(row.address.port),
        cell(0),
        cell(row.link_fd),
    ];
    cells.resize(FDS.len(), None);
    cells
}
