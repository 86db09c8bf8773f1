//! The REST API in NGINX Plus's shapes, version 9: what is asked → what is answered, or what is to be changed. The
//! sockets are the relay's: see relay/api.rs.

pub mod dashboard;
mod upstreams;
mod zones;

use serde_json::{Value, json};
use time::OffsetDateTime;

pub use self::upstreams::{all_servers, new_server, one_server};
use crate::logic::changes::{Edit, Patch, Refusal, patch_of};
use crate::running::Running;
use std::time::{Duration, SystemTime};

/// The one version that is spoken.
const VERSION: &str = "9";
/// What errors refer to, as Plus's do.
const HREF: &str = "https://nginx.org/en/docs/http/ngx_http_api_module.html";

/// One request, below the path of the location.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub method: Verb,
    pub path: &'a str,
    pub query: &'a str,
    pub body: &'a [u8],
    pub writes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Patch,
    Delete,
    Other,
}

/// What comes of a request.
#[derive(Debug)]
pub enum Call {
    Answer(Value),
    /// 204.
    Done,
    Change {
        group: Box<str>,
        request: Request,
    },
}

/// A change as it is asked for; names of servers still have to be looked up.
#[derive(Debug)]
pub enum Request {
    Add { server: Box<str>, patch: Patch },
    Edit(Edit),
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("path not found")]
    PathNotFound,
    #[error("unknown version")]
    UnknownVersion,
    #[error("method disabled")]
    MethodDisabled,
    #[error("request body is too large")]
    BodyTooLarge,
    #[error("zone not found")]
    ZoneNotFound,
    #[error("resolver zone not found")]
    ResolverZoneNotFound,
}

impl Fault {
    pub fn status(&self) -> u16 {
        match self {
            Fault::Refused(refusal) => refusal.status(),
            Fault::PathNotFound | Fault::UnknownVersion | Fault::ZoneNotFound => 404,
            Fault::ResolverZoneNotFound => 404,
            Fault::MethodDisabled => 405,
            Fault::BodyTooLarge => 413,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Fault::Refused(refusal) => refusal.code(),
            Fault::PathNotFound => "PathNotFound",
            Fault::UnknownVersion => "UnknownVersion",
            Fault::MethodDisabled => "MethodDisabled",
            Fault::BodyTooLarge => "RequestBodyTooLarge",
            Fault::ZoneNotFound => "ServerZoneNotFound",
            Fault::ResolverZoneNotFound => "ResolverZoneNotFound",
        }
    }

    pub fn to_json(&self, request_id: &str) -> Value {
        json!({
            "error": { "status": self.status(), "text": self.to_string(), "code": self.code() },
            "request_id": request_id,
            "href": HREF,
        })
    }
}

/// Finds out what a request means.
pub fn call(ask: &Ask<'_>, running: &Running) -> Result<Call, Fault> {
    if ask.method == Verb::Other || ask.method != Verb::Get && !ask.writes {
        return Err(Fault::MethodDisabled);
    }
    let path: Vec<&str> = ask.path.split('/').filter(|part| !part.is_empty()).collect();
    let Some((version, path)) = path.split_first() else { return Ok(Call::Answer(json!([9]))) };
    if *version != VERSION {
        return Err(Fault::UnknownVersion);
    }
    match ask.method {
        Verb::Get => {
            let whole = read(path, running)?;
            Ok(Call::Answer(with_fields(whole, ask.query)))
        }
        _ => write(ask, path, running),
    }
}

fn read(path: &[&str], running: &Running) -> Result<Value, Fault> {
    let upstreams =
        |name: &str| running.upstreams.named(name).filter(|group| group.upstream().zone.is_some());
    Ok(match path {
        [] => json!(["nginx", "processes", "connections", "workers", "http", "resolvers"]),
        ["nginx"] => zones::nginx(running),
        ["processes"] => zones::processes(running),
        ["connections"] => zones::connections(running),
        ["workers"] => zones::workers(running),
        ["http"] => json!(["requests", "server_zones", "location_zones", "upstreams"]),
        ["resolvers", rest @ ..] => zones::resolvers(running, rest)?,
        ["http", "requests"] => zones::requests(running),
        ["http", kind @ ("server_zones" | "location_zones"), rest @ ..] => zones::zones(running, kind, rest)?,
        ["http", "upstreams"] => upstreams::all(running),
        ["http", "upstreams", name] => match upstreams(name) {
            Some(group) => upstreams::one(group, running),
            None => return Err(Refusal::UpstreamNotFound.into()),
        },
        ["http", "upstreams", name, "servers", rest @ ..] => {
            let group = upstreams(name).ok_or(Refusal::UpstreamNotFound)?;
            match rest {
                [] => all_servers(group),
                [id] => one_server(group, server_id(id)?)?,
                _ => return Err(Fault::PathNotFound),
            }
        }
        _ => return Err(Fault::PathNotFound),
    })
}

fn write(ask: &Ask<'_>, path: &[&str], running: &Running) -> Result<Call, Fault> {
    match (ask.method, path) {
        (Verb::Delete, ["http", "upstreams", name]) => {
            let group = running.upstreams.named(name).ok_or(Refusal::UpstreamNotFound)?;
            for peer in group.peers() {
                running.metrics.peer(group.name(), &peer.name).reset();
            }
            Ok(Call::Done)
        }
        (Verb::Delete, ["http", kind @ ("server_zones" | "location_zones"), name]) => {
            zones::find(running, kind, name)?.reset();
            Ok(Call::Done)
        }
        (Verb::Delete, ["http", "requests"] | ["connections"] | ["processes"]) => Err(Fault::MethodDisabled),
        (method, ["http", "upstreams", name, "servers", rest @ ..]) => {
            Ok(Call::Change { group: (*name).into(), request: change(method, rest, ask.body)? })
        }
        _ => Err(Fault::PathNotFound),
    }
}

fn change(method: Verb, rest: &[&str], body: &[u8]) -> Result<Request, Fault> {
    Ok(match (method, rest) {
        (Verb::Post, []) => {
            let patch = patch_of(body)?;
            let server = patch.server.clone().ok_or(Refusal::NoServer)?;
            Request::Add { server, patch }
        }
        (Verb::Patch, [id]) => Request::Edit(Edit::Change { id: server_id(id)?, patch: patch_of(body)? }),
        (Verb::Delete, [id]) => Request::Edit(Edit::Remove { id: server_id(id)? }),
        (Verb::Post, [_]) | (_, []) => return Err(Fault::MethodDisabled),
        _ => return Err(Fault::PathNotFound),
    })
}

fn server_id(text: &str) -> Result<u32, Fault> {
    text.parse().map_err(|_| Refusal::BadValue("server ID".into()).into())
}

/// `?fields=a,b`: of an object, or of each object of a list, only these.
fn with_fields(value: Value, query: &str) -> Value {
    let Some(wanted) = query.split('&').find_map(|pair| pair.strip_prefix("fields=")) else { return value };
    let wanted: Vec<&str> = wanted.split(',').collect();
    let pick = |value: Value| match value {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(key, _)| wanted.contains(&&key[..])).collect())
        }
        other => other,
    };
    match value {
        Value::Array(list) => Value::Array(list.into_iter().map(pick).collect()),
        other => pick(other),
    }
}

/// As Plus writes times: `2026-11-21T14:00:00.000Z`.
fn timestamp(time: SystemTime) -> String {
    const FORM: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    OffsetDateTime::from(time).format(FORM).unwrap_or_default()
}

/// The time of day of a moment that is told from the process's start.
fn wall(running: &Running, since_start: Duration) -> SystemTime {
    SystemTime::now() - running.started.elapsed().saturating_sub(since_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_picked_from_objects_and_lists_of_them() {
        let value = json!({"a": 1, "b": 2, "c": 3});
        assert_eq!(with_fields(value.clone(), "x=1&fields=a,c"), json!({"a": 1, "c": 3}));
        assert_eq!(with_fields(json!([value]), "fields=b"), json!([{"b": 2}]));
        assert_eq!(with_fields(json!({"a": 1}), ""), json!({"a": 1}));
    }

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_570_446_561_194);
        assert_eq!(timestamp(time), "2019-10-07T11:09:21.194Z");
    }
}
