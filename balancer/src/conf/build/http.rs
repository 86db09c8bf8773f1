//! The http context: everything is gathered here and put together.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::World;
use super::error_logs::ErrorLogs;
use super::guard::{Zones, zones};
use super::listens::listens;
use super::logs::Logs;
use super::names::Names;
use super::scope::Scope;
use super::servers::server;
use super::upstreams::{Groups, Parts};
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::settings::{ErrorLog, Http};
use crate::conf::table::Context;
use crate::metrics::ZoneKind;
use crate::tls::sessions::SessionZone;

/// What all servers and locations are built with.
pub(super) struct Shared<'a> {
    pub names: &'a Names<'a>,
    pub logs: Logs<'a>,
    pub groups: Groups,
    pub limit_zones: Zones,
    pub error_logs: ErrorLogs<'a>,
    pub world: &'a dyn World,
    /// The http block itself, for complaints about defaults.
    pub http: &'a Node,
    pub zones: Vec<(ZoneKind, Box<str>)>,
    pub session_zones: Vec<Arc<SessionZone>>,
    pub body_folders: BTreeSet<Arc<Path>>,
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

pub(super) fn http_settings(
    scope: &Scope<'_>,
    http: &Node,
    main_logs: &[ErrorLog],
    world: &dyn World,
) -> Result<Http> {
    let names = Names::new(scope.nodes)?;
    names.check_made()?;
    let logs = Logs::new(scope, &names, world)?;
    let limit_zones = zones(scope, &names)?;
    let error_logs = ErrorLogs::new(main_logs, world);
    let groups = Groups::default();
    let mut shared = Shared {
        names: &names,
        logs,
        groups,
        limit_zones,
        error_logs,
        world,
        http,
        zones: Vec::new(),
        session_zones: Vec::new(),
        body_folders: BTreeSet::new(),
    };
    shared.groups.read_matches(scope)?;
    for node in scope.own("upstream") {
        shared.groups.add_block(node, scope, &names, world)?;
    }
    let scopes: Vec<(Scope<'_>, &Node)> =
        scope.own("server").map(|node| (scope.inside(node, Context::SERVER), node)).collect();
    let mut servers = Vec::new();
    for (inner, node) in &scopes {
        servers.push(server(inner, node, &mut shared)?);
    }
    let listens = listens(&servers)?;
    let Parts { upstreams, names: upstream_names, checks, resolvers } = shared.groups.into_parts();
    Ok(Http {
        listens,
        upstreams,
        upstream_names,
        checks,
        resolvers,
        explains: names.explains(),
        variables: names.known(),
        zones: shared.zones,
        session_zones: shared.session_zones,
        body_folders: shared.body_folders.into_iter().collect(),
        log_files: shared.logs.into_files(),
        request_zones: shared.limit_zones.requests,
        connection_zones: shared.limit_zones.connections,
        error_logs: shared.error_logs.into_sets(),
        hostname: world.hostname().into(),
    })
}
