//! The parts of a running stack by name, read from `stack status --json`.

use serde::Deserialize;
use std::collections::BTreeMap;

/// One running part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub address: String,
    pub pid: Option<u32>,
}

/// All parts that serve, and the process that keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    pub parts: BTreeMap<String, Part>,
    pub keeper_pid: Option<u32>,
}

#[derive(Deserialize)]
struct StatusDocument {
    #[serde(default)]
    stack: Option<StackLine>,
    services: Vec<ServiceLine>,
}

#[derive(Deserialize)]
struct StackLine {
    pid: Option<u32>,
}

#[derive(Deserialize)]
struct ServiceLine {
    name: String,
    pid: Option<u32>,
    address: Option<String>,
}

impl Fleet {
    /// Reads the status document.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: StatusDocument = serde_json::from_str(text)
            .map_err(|error| format!("not what `stack status --json` prints: {error}"))?;
        let parts = document.services.into_iter().filter_map(|line| {
            let part = Part { address: line.address?, pid: line.pid };
            Some((line.name, part))
        });
        Ok(Self { parts: parts.collect(), keeper_pid: document.stack.and_then(|stack| stack.pid) })
    }

    pub fn address(&self, name: &str) -> Option<&str> {
        self.parts.get(name).map(|part| part.address.as_str())
    }

    /// The web replicas in the order of their numbers.
    pub fn replicas(&self) -> Vec<(&str, &Part)> {
        let mut replicas: Vec<(u32, &str, &Part)> = self
            .parts
            .iter()
            .filter_map(|(name, part)| Some((name.strip_prefix("web-")?.parse().ok()?, name.as_str(), part)))
            .collect();
        replicas.sort_by_key(|(number, ..)| *number);
        replicas.into_iter().map(|(_, name, part)| (name, part)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn parts_are_found_by_name_and_replicas_by_number() {
        let text = json!({"stack": {"pid": 9, "dir": "x"}, "services": [
            {"name": "web-10", "pid": 3, "address": "127.0.0.1:8010", "state": "healthy"},
            {"name": "web-2", "pid": null, "address": "127.0.0.1:8002"},
            {"name": "migrate", "pid": null, "address": null},
            {"name": "pooler", "pid": 4, "address": "127.0.0.1:6432"}]});
        let fleet = Fleet::parse(&text.to_string()).expect("a status");
        let names: Vec<&str> = fleet.replicas().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["web-2", "web-10"]);
        assert_eq!((fleet.address("pooler"), fleet.keeper_pid), (Some("127.0.0.1:6432"), Some(9)));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") { prop_assert!(Fleet::parse(&text).is_err()); }
    }
}
