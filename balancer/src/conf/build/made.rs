//! `map`, `geo` and `split_clients` blocks → [`Rule`]s.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::names::{Case, Names};
use crate::conf::blocks::Node;
use crate::conf::error::Result;
use crate::conf::geo::Geo;
use crate::conf::made::Rule;
use crate::conf::map::Map;
use crate::conf::split::{Part, Split};
use crate::conf::template::Template;
use crate::logic::networks::Networks;

/// The blocks that make variables.
pub(super) const MAKERS: [&str; 3] = ["map", "geo", "split_clients"];

/// The name that a block makes: its last argument.
pub(super) fn name_of(node: &Node) -> Result<&str> {
    let last = node.args.last().map_or("", |word| &word.text);
    let name = last.strip_prefix('$').filter(|name| !name.is_empty());
    name.ok_or_else(|| node.error(format!("invalid variable name \"{last}\"")))
}

pub(super) fn is_volatile(node: &Node) -> bool {
    node.block.iter().any(|entry| entry.name == "volatile" && entry.args.is_empty())
}

pub(super) fn rule(name: &str, node: &Node, names: &Names<'_>) -> Result<Rule> {
    match &node.name[..] {
        "map" => Ok(Rule::Map(map(name, node, names)?)),
        "geo" => Ok(Rule::Geo(geo(node, names)?)),
        _ => Ok(Rule::Split(split(node, names)?)),
    }
}

fn map(name: &str, node: &Node, names: &Names<'_>) -> Result<Map> {
    let hostnames = node.block.iter().any(|entry| entry.name == "hostnames" && entry.args.is_empty());
    let mut map = Map {
        name: name.into(),
        source: names.template(node.arg(0), node)?,
        exact: HashMap::new(),
        patterns: Vec::new(),
        suffixes: Vec::new(),
        prefixes: Vec::new(),
        hostnames,
        default: Template::default(),
    };
    let mut has_default = false;
    for entry in &node.block {
        match (&entry.name[..], entry.args.len()) {
            ("hostnames" | "volatile", 0) => {}
            ("default", 1) if has_default => return Err(entry.error("duplicate default map parameter")),
            ("default", 1) => {
                has_default = true;
                map.default = names.template(entry.arg(0), entry)?;
            }
            (_, 1) => map_entry(&mut map, entry, names)?,
            _ => return Err(entry.error("invalid number of the map parameters")),
        }
    }
    map.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    map.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    Ok(map)
}

fn map_entry(map: &mut Map, entry: &Node, names: &Names<'_>) -> Result<()> {
    let value = names.template(entry.arg(0), entry)?;
    let key = &entry.name[..];
    if let Some(pattern) = key.strip_prefix('~') {
        let (case, pattern) = Case::of(pattern);
        map.patterns.push((names.pattern(pattern, case, entry)?, value));
        return Ok(());
    }
    let lower = key.strip_prefix('\\').unwrap_or(key).to_ascii_lowercase();
    let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    if map.hostnames {
        if let Some(rest) = lower.strip_prefix("*.") {
            map.suffixes.push((bytes(&format!(".{rest}")), value));
            return Ok(());
        }
        if let Some(rest) = lower.strip_prefix('.') {
            map.suffixes.push((bytes(&lower), value.clone()));
            map.exact.insert(bytes(rest), value);
            return Ok(());
        }
        if let Some(rest) = lower.strip_suffix(".*") {
            map.prefixes.push((bytes(&format!("{rest}.")), value));
            return Ok(());
        }
    }
    match map.exact.insert(bytes(&lower), value) {
        Some(_) => Err(entry.error(format!("conflicting parameter \"{key}\""))),
        None => Ok(()),
    }
}

fn geo(node: &Node, names: &Names<'_>) -> Result<Geo> {
    let source = (node.args.len() == 2).then(|| names.template(node.arg(0), node)).transpose()?;
    let flag = |name: &str| node.block.iter().any(|entry| entry.name == name && entry.args.is_empty());
    let mut geo =
        Geo { source, values: Networks::default(), proxies: Vec::new(), recursive: flag("proxy_recursive") };
    let by_ranges = flag("ranges");
    // By network: there may be very many. What stands last of one counts, as with nginx.
    let mut nets = HashMap::new();
    for entry in &node.block {
        match (&entry.name[..], entry.args.len()) {
            ("ranges" | "proxy_recursive" | "volatile", 0) => {}
            (_, 0) => {
                return Err(entry.error(format!("invalid number of the geo parameters \"{}\"", entry.name)));
            }
            ("proxy", 1) => geo.proxies.push(network(entry.arg(0), entry)?),
            ("default", 1) => {
                for net in ["0.0.0.0/0", "::/0"] {
                    nets.insert(network(net, entry)?, value(entry));
                }
            }
            ("delete", 1) if by_ranges => {
                let (first, last) = range(entry.arg(0), entry)?;
                geo.values.paint(first, last, default_value(node));
            }
            ("delete", 1) => {
                nets.remove(&network(entry.arg(0), entry)?);
            }
            (text, 1) if by_ranges => {
                paint_default(&mut geo, node);
                let (first, last) = range(text, entry)?;
                geo.values.paint(first, last, Some(value(entry)));
            }
            (text, 1) => {
                nets.insert(network(text, entry)?, value(entry));
            }
            _ => return Err(entry.error("invalid number of the geo parameters")),
        }
    }
    if by_ranges {
        paint_default(&mut geo, node);
        return Ok(geo);
    }
    // The longest prefix counts: painted last.
    let mut nets: Vec<(IpNet, Box<[u8]>)> = nets.into_iter().collect();
    nets.sort_by_key(|(net, _)| net.prefix_len());
    for (net, value) in nets {
        geo.values.paint(net.network(), net.broadcast(), Some(value));
    }
    Ok(geo)
}

fn value(entry: &Node) -> Box<[u8]> {
    entry.arg(0).as_bytes().into()
}

fn default_value(node: &Node) -> Option<Box<[u8]>> {
    let default = node.block.iter().find(|entry| entry.name == "default" && entry.args.len() == 1);
    default.map(value)
}

/// Ranges lie over the default, wherever that stands: it is painted before the first of them.
fn paint_default(geo: &mut Geo, node: &Node) {
    let anywhere = IpAddr::from([0u8; 4]);
    if geo.values.find(anywhere).is_some() || geo.values.find(IpAddr::from([0u16; 8])).is_some() {
        return;
    }
    geo.values.paint(anywhere, IpAddr::from([255u8; 4]), default_value(node));
    geo.values.paint(IpAddr::from([0u16; 8]), IpAddr::from([0xffffu16; 8]), default_value(node));
}

fn network(text: &str, node: &Node) -> Result<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|net| net.trunc()).ok_or_else(|| node.error(format!("invalid network \"{text}\"")))
}

fn range(text: &str, node: &Node) -> Result<(IpAddr, IpAddr)> {
    let parsed = text.split_once('-').and_then(|(first, last)| {
        let v4 = |text: &str| text.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::from);
        v4(first).zip(v4(last)).filter(|(first, last)| first <= last)
    });
    parsed.ok_or_else(|| node.error(format!("invalid range \"{text}\"")))
}

fn split(node: &Node, names: &Names<'_>) -> Result<Split> {
    let mut split = Split { key: names.template(node.arg(0), node)?, parts: Vec::new() };
    let (mut sum, mut below) = (0u64, 0u32);
    for entry in &node.block {
        let share = match &entry.name[..] {
            "*" => 0,
            text => percent(text)
                .filter(|share| *share > 0)
                .ok_or_else(|| entry.error(format!("invalid percent value \"{text}\"")))?,
        };
        sum = if share > 0 { sum + share } else { 10_000 };
        if sum > 10_000 {
            return Err(entry.error("percent total is greater than 100%"));
        }
        // The last of them takes what rounding leaves.
        let is_rest = sum == 10_000;
        below = below.wrapping_add((share * u64::from(u32::MAX) / 10_000) as u32);
        split.parts.push(Part { below: (!is_rest).then_some(below), value: value(entry) });
    }
    Ok(split)
}

/// `51.2%`: hundredths of a percent.
fn percent(text: &str) -> Option<u64> {
    let text = text.strip_suffix('%')?;
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if part.len() > 2 || !digits(whole) || !digits(part) || whole.is_empty() && part.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u64 = format!("{part:0<2}").parse().ok()?;
    whole.checked_mul(100)?.checked_add(part)
}
