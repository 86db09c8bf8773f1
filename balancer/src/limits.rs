//! The state behind `limit_req_zone` and `limit_conn_zone`, shared by all workers and kept over reloads.

use std::sync::Arc;

use crate::conf::guard::ZoneId;
use crate::conf::settings::Http;
use crate::logic::limits::{ConnectionZone, RequestZone};

/// By [`ZoneId`], each with the name, key and size that it was made for.
#[derive(Debug, Default)]
pub struct Limits {
    requests: Vec<Zone<RequestZone>>,
    connections: Vec<Zone<ConnectionZone>>,
}

#[derive(Debug)]
struct Zone<T> {
    made_for: (Box<str>, Box<str>, usize),
    state: Arc<T>,
}

impl Limits {
    /// What a new configuration has in common with the last one goes on counting.
    pub fn new(http: &Http, before: Option<&Limits>) -> Limits {
        let (requests, connections) =
            before.map_or((&[][..], &[][..]), |before| (&before.requests[..], &before.connections[..]));
        let request_zone = |zone: &Arc<crate::conf::guard::RequestZone>| {
            Zone::kept(requests, (zone.name.clone(), zone.key_text.clone(), zone.len), RequestZone::new)
        };
        let connection_zone = |zone: &Arc<crate::conf::guard::ConnectionZone>| {
            Zone::kept(connections, (zone.name.clone(), zone.key_text.clone(), zone.len), ConnectionZone::new)
        };
        Limits {
            requests: http.request_zones.iter().map(request_zone).collect(),
            connections: http.connection_zones.iter().map(connection_zone).collect(),
        }
    }

    pub fn requests(&self, zone: ZoneId) -> &RequestZone {
        &self.requests[zone.0].state
    }

    pub fn connections(&self, zone: ZoneId) -> &Arc<ConnectionZone> {
        &self.connections[zone.0].state
    }
}

impl<T> Zone<T> {
    fn kept(before: &[Zone<T>], made_for: (Box<str>, Box<str>, usize), new: impl Fn(usize) -> T) -> Zone<T> {
        let known = before.iter().find(|zone| zone.made_for == made_for);
        let state = known.map_or_else(|| Arc::new(new(made_for.2)), |zone| zone.state.clone());
        Zone { made_for, state }
    }
}
