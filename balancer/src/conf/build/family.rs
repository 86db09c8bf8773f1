//! `proxy_*` and `grpc_*`: the same settings under two names. What a family has no directive for is as `proxy_*` has it
//! by default.

use std::time::Duration;

use super::scope::Scope;
use crate::conf::blocks::Node;
use crate::conf::proxy::Version;
use crate::conf::{table, value};
use crate::logic::proxy_protocol;

/// Which directives say how a location's upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Proxy,
    Grpc,
}

impl Family {
    /// That of the location's pass.
    pub fn of(scope: &Scope<'_>) -> Family {
        let has = |name: &str| scope.own(name).next().is_some() || scope.of_location(name).is_some();
        if has("grpc_pass") { Family::Grpc } else { Family::Proxy }
    }

    pub fn prefix(self) -> &'static str {
        match self {
            Family::Proxy => "proxy",
            Family::Grpc => "grpc",
        }
    }

    pub fn name(self, rest: &str) -> String {
        format!("{}_{rest}", self.prefix())
    }
}

/// A block's settings of one family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    pub scope: &'a Scope<'a>,
    pub family: Family,
}

impl<'a> Settings<'a> {
    /// `proxy_protocol`. `grpc_pass` does not take it over: it is not in nginx's family, and none of gRPC's.
    pub fn proxy_protocol(&self) -> Option<proxy_protocol::Version> {
        match self.text("protocol") {
            "on" | "v1" => Some(proxy_protocol::Version::V1),
            "v2" => Some(proxy_protocol::Version::V2),
            _ => None,
        }
    }

    /// `proxy_http_version`; gRPC has but one.
    pub fn version(&self) -> Version {
        match self.text("http_version") {
            _ if self.family == Family::Grpc => Version::Http2,
            "1.0" => Version::Http10,
            "2" | "2.0" => Version::Http2,
            _ => Version::Http11,
        }
    }

    pub fn given(&self, rest: &str) -> Option<&'a Node> {
        self.scope.given(&self.family.name(rest))
    }

    pub fn nearest(&self, rest: &str) -> Vec<&'a Node> {
        self.scope.nearest(&self.family.name(rest))
    }

    pub fn text(&self, rest: &str) -> &'a str {
        let default = || {
            let own = table::find(&self.family.name(rest)).map_or("", |row| row.default);
            if own.is_empty() {
                table::find(&Family::Proxy.name(rest)).map_or("", |row| row.default)
            } else {
                own
            }
        };
        self.given(rest).map_or_else(default, |node| node.arg(0))
    }

    // The parser has checked the forms.

    pub fn flag(&self, rest: &str) -> bool {
        value::flag(self.text(rest)).unwrap_or_default()
    }

    pub fn count(&self, rest: &str) -> u64 {
        value::count(self.text(rest)).unwrap_or_default()
    }

    pub fn len(&self, rest: &str) -> usize {
        value::offset(self.text(rest)).and_then(|len| usize::try_from(len).ok()).unwrap_or(usize::MAX)
    }

    pub fn duration(&self, rest: &str) -> Duration {
        value::millis(self.text(rest)).unwrap_or_default()
    }
}
