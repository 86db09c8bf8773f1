//! The tree of directives → [`Settings`]: inheritance, defaults, names resolved, addresses looked up.

mod cookies;
mod dress;
mod error_logs;
mod family;
mod files;
mod guard;
mod http;
mod listens;
mod locations;
mod logs;
mod made;
mod main_context;
mod names;
mod naming;
mod proxying;
mod rewrites;
mod scope;
mod servers;
mod ssl;
mod upstream_ssl;
mod upstreams;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use self::scope::Scope;
pub use self::upstreams::{
    NAMELESS, ROUTE_LEN_MAX, addresses_of, allows_backup, allows_slow_start, is_server_time, is_weight,
    server_terms,
};
use super::blocks::Tree;
use super::error::{Error, Result};
use super::settings::Settings;
use super::table::Context;
pub use super::value::seconds;

/// What the configuration needs to know of the world.
pub trait World {
    /// All addresses of a host name.
    fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>>;
    fn hostname(&self) -> String;
    /// A file that a directive names.
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
    fn cores(&self) -> usize;
    /// Relative paths of logs and the pid file start here (`-p`).
    fn prefix(&self) -> &Path;
    /// Relative paths of files that belong to the configuration start here.
    fn conf_folder(&self) -> &Path {
        self.prefix()
    }
    /// `-e`: the error log of a configuration that names none.
    fn error_log(&self) -> Option<&Path>;
}

pub fn build(tree: &Tree, world: &dyn World) -> Result<Settings> {
    let scope = Scope::root(&tree.nodes);
    let main = main_context::main_settings(&scope, world)?;
    let events = main_context::events_settings(&scope)?;
    let http = match scope.own("http").next() {
        Some(node) => http::http_settings(&scope.inside(node, Context::HTTP), node, &main.error_logs, world)?,
        None => super::settings::Http::default(),
    };
    Ok(Settings { main, events, http })
}

/// A path of the configuration, relative to the prefix.
fn full_path(world: &dyn World, text: &str) -> PathBuf {
    world.prefix().join(text)
}

/// A section that must be there.
fn missing_section(name: &str) -> Error {
    Error::whole(format!("no \"{name}\" section in configuration"))
}
