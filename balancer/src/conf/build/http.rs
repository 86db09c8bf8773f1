//! The http context: everything is gathered here and put together.

use super::World;
use super::listens::listens;
use super::logs::Logs;
use super::names::Names;
use super::scope::Scope;
use super::servers::server;
use super::upstreams::Groups;
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::settings::Http;
use crate::conf::table::Context;
use crate::metrics::ZoneKind;

/// What all servers and locations are built with.
pub(super) struct Shared<'a> {
    pub names: &'a Names<'a>,
    pub logs: Logs<'a>,
    pub groups: Groups,
    pub world: &'a dyn World,
    /// The http block itself, for complaints about defaults.
    pub http: &'a Node,
    pub zones: Vec<(ZoneKind, Box<str>)>,
}

impl Shared<'_> {
    /// `status_zone` of this very block: it counts for what stands there and nothing inside.
    pub fn zone(&mut self, scope: &Scope<'_>, kind: ZoneKind) -> Option<usize> {
        let key = (kind, scope.own("status_zone").next()?.arg(0).into());
        let known = self.zones.iter().position(|zone| *zone == key);
        Some(known.unwrap_or_else(|| {
            self.zones.push(key);
            self.zones.len() - 1
        }))
    }
}

pub(super) fn http_settings(scope: &Scope<'_>, http: &Node, world: &dyn World) -> Result<Http> {
    let names = Names::new(scope.nodes)?;
    names.check_maps()?;
    let logs = Logs::new(scope, &names, world)?;
    let mut shared = Shared { names: &names, logs, groups: Groups::default(), world, http, zones: Vec::new() };
    shared.groups.read_matches(scope)?;
    for node in scope.own("upstream") {
        shared.groups.add_block(node, &names, world)?;
    }
    let scopes: Vec<(Scope<'_>, &Node)> =
        scope.own("server").map(|node| (scope.inside(node, Context::SERVER), node)).collect();
    let mut servers = Vec::new();
    for (inner, node) in &scopes {
        servers.push(server(inner, node, &mut shared)?);
    }
    let listens = listens(&servers)?;
    let (upstreams, upstream_names, checks) = shared.groups.into_parts();
    Ok(Http {
        listens,
        upstreams,
        upstream_names,
        checks,
        zones: shared.zones,
        log_files: shared.logs.into_files(),
        hostname: world.hostname().into(),
    })
}
