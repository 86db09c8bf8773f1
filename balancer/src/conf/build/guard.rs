//! `limit_*`, `satisfy`, `auth_*` → [`Guard`].

use std::sync::Arc;

use super::World;
use super::names::Names;
use super::scope::Scope;
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::guard::{
    Assigned, AuthBasic, AuthRequest, ConnectionLimit, ConnectionLimits, ConnectionZone, Guard, Refusal,
    RequestLimit, RequestLimits, RequestZone, Satisfy, ZoneId,
};
use crate::conf::settings::ErrorLevel;
use crate::conf::template::Template;
use crate::conf::value;

/// What `limit_req_zone` and `limit_conn_zone` declare.
#[derive(Default)]
pub(super) struct Zones {
    pub requests: Vec<Arc<RequestZone>>,
    pub connections: Vec<Arc<ConnectionZone>>,
}

/// Below this nginx refuses a zone: eight pages.
const ZONE_LEN_MIN: u64 = 8 * 4096;

pub(super) fn zones(http: &Scope<'_>, names: &Names<'_>) -> Result<Zones> {
    let mut zones = Zones::default();
    for node in http.own("limit_req_zone") {
        let (name, len, rest) = zone_words(node)?;
        let rate = match rest[..] {
            [] => 1000,
            [word] => rate(word).ok_or_else(|| node.error(format!("invalid rate \"{word}\"")))?,
            [_, other, ..] => return Err(node.invalid(other)),
        };
        if zones.requests.iter().any(|zone| *zone.name == *name) {
            return Err(node.error(format!("limit_req_zone \"{name}\" is already bound to key")));
        }
        let key = names.template(node.arg(0), node)?;
        let key_text = node.arg(0).into();
        zones.requests.push(Arc::new(RequestZone { name: name.into(), key_text, key, len, rate }));
    }
    for node in http.own("limit_conn_zone") {
        let (name, len, rest) = zone_words(node)?;
        if let Some(other) = rest.first() {
            return Err(node.invalid(other));
        }
        if zones.connections.iter().any(|zone| *zone.name == *name) {
            return Err(node.error(format!("limit_conn_zone \"{name}\" is already bound to key")));
        }
        let key = names.template(node.arg(0), node)?;
        let key_text = node.arg(0).into();
        zones.connections.push(Arc::new(ConnectionZone { name: name.into(), key_text, key, len }));
    }
    Ok(zones)
}

/// `zone=NAME:SIZE`, and the other words behind the key.
fn zone_words(node: &Node) -> Result<(&str, usize, Vec<&str>)> {
    let (mut zone, mut rest) = (None, Vec::new());
    for word in &node.args[1..] {
        match word.text.strip_prefix("zone=") {
            None => rest.push(&word.text[..]),
            Some(text) => {
                let invalid = || node.error(format!("invalid zone size \"{}\"", word.text));
                let (name, size) = text.split_once(':').ok_or_else(invalid)?;
                let len = value::size(size).ok_or_else(invalid)?;
                if len < ZONE_LEN_MIN {
                    return Err(node.error(format!("zone \"{}\" is too small", word.text)));
                }
                zone = Some((name, usize::try_from(len).unwrap_or(usize::MAX)));
            }
        }
    }
    let (name, len) =
        zone.ok_or_else(|| node.error(format!("\"{}\" must have \"zone\" parameter", node.name)))?;
    Ok((name, len, rest))
}

/// `rate=10r/s`, `rate=30r/m`: thousandths per second.
fn rate(word: &str) -> Option<u64> {
    let text = word.strip_prefix("rate=")?;
    let (count, seconds) = match text.strip_suffix("r/m") {
        Some(count) => (count, 60),
        None => (text.strip_suffix("r/s").unwrap_or(text), 1),
    };
    let count = value::count(count).filter(|count| *count > 0)?;
    Some(count.checked_mul(1000)? / seconds)
}

pub(super) fn guard(
    scope: &Scope<'_>,
    names: &Names<'_>,
    zones: &Zones,
    world: &dyn World,
) -> Result<Arc<Guard>> {
    Ok(Arc::new(Guard {
        satisfy: if scope.text("satisfy") == "any" { Satisfy::Any } else { Satisfy::All },
        basic: basic(scope, names, world)?,
        auth_delay: scope.duration("auth_delay"),
        request: request(scope, names)?,
        requests: RequestLimits {
            limits: scope
                .nearest("limit_req")
                .into_iter()
                .map(|node| request_limit(node, zones))
                .collect::<Result<_>>()?,
            refusal: refusal(scope, "limit_req")?,
        },
        connections: ConnectionLimits {
            limits: connection_limits(scope, zones)?,
            refusal: refusal(scope, "limit_conn")?,
        },
    }))
}

fn request_limit(node: &Node, zones: &Zones) -> Result<RequestLimit> {
    let (mut zone, mut burst, mut delay_after) = (None, 0, 0);
    for word in &node.args {
        let number = |what: &str, text: &str| {
            let count = value::count(text).and_then(|count| count.checked_mul(1000));
            count.ok_or_else(|| node.error(format!("invalid {what} value \"{}\"", word.text)))
        };
        match word.text.split_once('=') {
            Some(("zone", name)) => zone = Some(name),
            Some(("burst", text)) => burst = number("burst", text)?,
            Some(("delay", text)) => delay_after = number("delay", text)?,
            None if word.text == "nodelay" => delay_after = u64::MAX,
            _ => return Err(node.invalid(&word.text)),
        }
    }
    let name = zone.ok_or_else(|| node.error("\"limit_req\" must have \"zone\" parameter"))?;
    let found = zones.requests.iter().position(|zone| *zone.name == *name);
    let zone = found.ok_or_else(|| node.error(format!("zero size shared memory zone \"{name}\"")))?;
    Ok(RequestLimit { zone: ZoneId(zone), burst, delay_after })
}

fn connection_limits(scope: &Scope<'_>, zones: &Zones) -> Result<Box<[ConnectionLimit]>> {
    let mut limits: Vec<ConnectionLimit> = Vec::new();
    for node in scope.nearest("limit_conn") {
        let name = node.arg(0);
        let found = zones.connections.iter().position(|zone| *zone.name == *name);
        let zone =
            ZoneId(found.ok_or_else(|| node.error(format!("zero size shared memory zone \"{name}\"")))?);
        let count = value::count(node.arg(1)).filter(|count| (1..=65535).contains(count));
        let count =
            count.ok_or_else(|| node.error(format!("invalid number of connections \"{}\"", node.arg(1))))?;
        if limits.iter().any(|limit| limit.zone == zone) {
            return Err(node.directive_error("is duplicate"));
        }
        limits.push(ConnectionLimit { zone, count_max: count as u32 });
    }
    Ok(limits.into())
}

fn refusal(scope: &Scope<'_>, family: &str) -> Result<Refusal> {
    let status_name = format!("{family}_status");
    let status = scope.count(&status_name);
    if let Some(node) = scope.given(&status_name).filter(|_| !(400..=599).contains(&status)) {
        return Err(node.error("value must be between 400 and 599"));
    }
    Ok(Refusal {
        status: status as u16,
        level: match scope.text(&format!("{family}_log_level")) {
            "info" => ErrorLevel::Info,
            "notice" => ErrorLevel::Notice,
            "warn" => ErrorLevel::Warn,
            _ => ErrorLevel::Error,
        },
        dry_run: scope.flag(&format!("{family}_dry_run")),
    })
}

fn basic(scope: &Scope<'_>, names: &Names<'_>, world: &dyn World) -> Result<Option<AuthBasic>> {
    let pair = scope.given("auth_basic").zip(scope.given("auth_basic_user_file"));
    let Some((realm, file)) = pair else { return Ok(None) };
    Ok(Some(AuthBasic {
        realm: names.template(realm.arg(0), realm)?,
        file: names.template(file.arg(0), file)?,
        folder: world.conf_folder().to_owned(),
    }))
}

fn request(scope: &Scope<'_>, names: &Names<'_>) -> Result<Option<AuthRequest>> {
    let Some(node) = scope.given("auth_request").filter(|node| node.arg(0) != "off") else {
        return Ok(None);
    };
    let set = scope.nearest("auth_request_set").into_iter().map(|node| assignment(node, names));
    let set = set.collect::<Result<Box<[_]>>>()?;
    Ok(Some(AuthRequest { uri: names.template(node.arg(0), node)?, set }))
}

/// `set $name value` and its kin.
pub(super) fn assignment(node: &Node, names: &Names<'_>) -> Result<(Assigned, Template)> {
    let value = names.template(node.arg(1), node)?;
    let to = match node.arg(0).strip_prefix('$') {
        Some("args") => Assigned::Args,
        Some("limit_rate") => Assigned::LimitRate,
        Some(name) if !name.is_empty() => match names.user(name) {
            Some(variable) => Assigned::User(variable),
            None => return Err(node.error(format!("the duplicate \"{name}\" variable"))),
        },
        _ => return Err(node.error(format!("invalid variable name \"{}\"", node.arg(0)))),
    };
    Ok((to, value))
}
