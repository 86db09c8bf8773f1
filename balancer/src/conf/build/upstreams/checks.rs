//! `health_check` and `match`.

use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;

use super::super::family::{Family, Settings};
use super::{Node, Result, Scope, UpstreamId};
use crate::conf::check::{
    Asks, BodyRule, CheckTerms, HeaderRule, HeaderTest, HealthCheck, Match, StatusRule,
};
use crate::conf::proxy::Version;
use crate::conf::template::Part;
use crate::conf::value;
use crate::conf::variables::Variable;
use crate::logic::h1::target::split_port;
use crate::tls::client::UpstreamTls;
use crate::tls::connect::TlsPeer;

/// Reads one `match` block.
pub(super) fn matcher(node: &Node) -> Result<Match> {
    let mut rules = Match::default();
    for rule in &node.block {
        let words: Vec<&str> = rule.args.iter().map(|word| &word.text[..]).collect();
        match &rule.name[..] {
            "status" => rules.status = Some(status(rule, &words)?),
            "header" => rules.headers.push(header(rule, &words)?),
            _ => rules.body = Some(body(rule, &words)?),
        }
    }
    Ok(rules)
}

fn status(node: &Node, words: &[&str]) -> Result<StatusRule> {
    let (negated, words) = match words {
        ["!", rest @ ..] if !rest.is_empty() => (true, rest),
        words => (false, words),
    };
    let code = |text: &str| text.parse().ok().filter(|code| (100..=999).contains(code));
    let range = |text: &&str| {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let range = code(from).zip(code(to)).filter(|(from, to)| from <= to);
        range.ok_or_else(|| node.error(format!("invalid status \"{text}\"")))
    };
    Ok(StatusRule { ranges: words.iter().map(range).collect::<Result<_>>()?, negated })
}

fn header(node: &Node, words: &[&str]) -> Result<HeaderRule> {
    let (name, test, negated) = match *words {
        [name] => (name, HeaderTest::Present, false),
        ["!", name] => (name, HeaderTest::Present, true),
        [name, "=", text] => (name, HeaderTest::Equals(text.as_bytes().into()), false),
        [name, "!=", text] => (name, HeaderTest::Equals(text.as_bytes().into()), true),
        [name, "~", text] => (name, HeaderTest::Pattern(pattern(node, text)?), false),
        [name, "!~", text] => (name, HeaderTest::Pattern(pattern(node, text)?), true),
        _ => return Err(node.directive_error("invalid parameters")),
    };
    Ok(HeaderRule { name: name.to_ascii_lowercase().into_bytes().into(), test, negated })
}

fn body(node: &Node, words: &[&str]) -> Result<BodyRule> {
    match *words {
        ["~", text] => Ok(BodyRule { pattern: pattern(node, text)?, negated: false }),
        ["!~", text] => Ok(BodyRule { pattern: pattern(node, text)?, negated: true }),
        _ => Err(node.directive_error("invalid parameters")),
    }
}

fn pattern(node: &Node, text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|error| node.error(format!("invalid pattern \"{text}\": {error}")))
}

/// `health_check` of a location that passes to this group.
pub(super) fn health_check(
    node: &Node,
    scope: &Scope<'_>,
    (group, name): (UpstreamId, &str),
    matcher_named: impl Fn(&str) -> Option<Arc<Match>>,
) -> Result<HealthCheck> {
    let own = Settings { scope, family: Family::of(scope) };
    let is_http2 = own.version() == Version::Http2;
    let mut check = HealthCheck {
        group,
        interval: Duration::from_secs(5),
        jitter: Duration::ZERO,
        terms: CheckTerms { place: 0, fails: 1, passes: 1, mandatory: false },
        asks: asks(node, is_http2, matcher_named)?,
        port: None,
        host: name.into(),
        tls: None,
        protocol: own.proxy_protocol(),
        is_http2,
        connect_timeout: own.duration("connect_timeout"),
        read_timeout: own.duration("read_timeout"),
    };
    let fixed_host = own.nearest("set_header").into_iter().find(|set| {
        set.arg(0).eq_ignore_ascii_case("host") && !set.arg(1).is_empty() && !set.arg(1).contains('$')
    });
    if let Some(host) = fixed_host {
        check.host = host.arg(1).into();
    }
    for word in &node.args {
        let text = &word.text;
        let invalid = || node.invalid(text);
        let number = |given: &str| given.parse().ok().filter(|count| *count > 0).ok_or_else(invalid);
        let time = |given: &str| value::millis(given).ok_or_else(invalid);
        match key_and_value(text) {
            ("interval", Some(given)) => {
                check.interval = time(given)?;
                if check.interval.is_zero() {
                    return Err(invalid());
                }
            }
            ("jitter", Some(given)) => check.jitter = time(given)?,
            ("fails", Some(given)) => check.terms.fails = number(given)?,
            ("passes", Some(given)) => check.terms.passes = number(given)?,
            ("port", Some(given)) => {
                check.port = Some(given.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?);
            }
            ("mandatory", None) => check.terms.mandatory = true,
            // What is known of a server always outlives a reload.
            ("persistent", None) => {}
            // They are read in `asks`.
            ("uri" | "match" | "type" | "grpc_service" | "grpc_status", Some(_)) => {}
            ("keepalive_time", Some(_)) => {
                return Err(node.error(format!("parameter \"{text}\" is not supported yet")));
            }
            _ => return Err(invalid()),
        }
    }
    Ok(check)
}

fn key_and_value(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value)))
}

/// `uri` and `match`, or `type=grpc` with what goes with it.
fn asks(node: &Node, is_http2: bool, matcher_named: impl Fn(&str) -> Option<Arc<Match>>) -> Result<Asks> {
    let (mut uri, mut matcher, mut is_grpc) = (None, None, false);
    let (mut service, mut also_good) = (None, None);
    for word in &node.args {
        let invalid = || node.invalid(&word.text);
        match key_and_value(&word.text) {
            ("uri", Some(given)) if given.starts_with('/') && !given.contains([' ', '\r', '\n']) => {
                uri = Some(given.into());
            }
            ("match", Some(given)) => {
                let found = matcher_named(given);
                matcher = Some(found.ok_or_else(|| node.error(format!("match \"{given}\" is not defined")))?);
            }
            ("type", Some("http")) => is_grpc = false,
            ("type", Some("grpc")) => is_grpc = true,
            ("grpc_service", Some(given)) => service = Some(given.into()),
            ("grpc_status", Some(given)) => also_good = Some(given.parse().map_err(|_| invalid())?),
            ("uri" | "type", Some(_)) => return Err(invalid()),
            _ => {}
        }
    }
    let refused = match is_grpc {
        false if service.is_some() || also_good.is_some() => {
            "\"grpc_service\" and \"grpc_status\" need \"type=grpc\""
        }
        true if uri.is_some() || matcher.is_some() => "\"type=grpc\" goes with neither \"uri\" nor \"match\"",
        true if !is_http2 => "\"type=grpc\" needs \"grpc_pass\" or \"proxy_http_version 2\"",
        true => {
            let (service, also_good) = (service.unwrap_or_default(), also_good.unwrap_or_default());
            return Ok(Asks::Grpc { service, also_good });
        }
        false => {
            let matcher = matcher.unwrap_or_else(|| Arc::new(Match::success()));
            return Ok(Asks::Page { uri: uri.unwrap_or_else(|| "/".into()), matcher });
        }
    };
    Err(node.error(refused))
}

/// Whom checks of this group speak to: as its requests where that does not depend on them, else whom `Host` names.
pub(super) fn tls_peer(tls: &Arc<UpstreamTls>, group: &str, host: &str, node: &Node) -> TlsPeer {
    let name = match (tls.name.constant(), tls.name.parts()) {
        (Some(name), _) => String::from_utf8_lossy(name).into_owned(),
        (None, [Part::Variable(Variable::ProxyHost)]) => group.to_owned(),
        (None, _) => {
            tracing::warn!("\"health_check\" at {} knows no variables: it names \"{host}\"", node.place);
            host.to_owned()
        }
    };
    let name = String::from_utf8_lossy(split_port(name.as_bytes()).0).into();
    TlsPeer { tls: tls.clone(), name }
}

/// The blocks by name, refused when two have one.
pub(super) fn matchers(scope: &Scope<'_>) -> Result<Vec<(Box<str>, Arc<Match>)>> {
    let mut found: Vec<(Box<str>, Arc<Match>)> = Vec::new();
    for node in scope.own("match") {
        if found.iter().any(|(name, _)| **name == *node.arg(0)) {
            return Err(node.error(format!("duplicate match \"{}\"", node.arg(0))));
        }
        found.push((node.arg(0).into(), Arc::new(matcher(node)?)));
    }
    Ok(found)
}
