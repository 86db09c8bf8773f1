//! The JSON of the monitoring endpoints as the documents show it (requirements 41 to 48), key by key. Written down apart
//! from the code that makes it: an answer must have these keys, these types, and no others.

use serde_json::Value;
use std::collections::BTreeMap;

/// One endpoint and what it answers: a line for each key, with its type. `?` marks a key that may be missing, `*` any
/// name, `[]` the items of a list.
#[derive(Debug)]
pub struct Shape {
    pub path: &'static str,
    keys: &'static str,
}

/// All of them; a pooler is in front of the database, and at most one standby behind it.
pub static SHAPES: &[Shape] = &[
    Shape { path: "/health", keys: "status string, container string" },
    Shape {
        path: "/status/",
        keys: "container string, version string, uptime_s number, healthy bool, draining bool, \
            checks.database.*.healthy bool, checks.database.*.response_ms number, checks.database.*.? any, \
            checks.redis.healthy bool, checks.redis.? any, websocket.connections int, websocket.rooms int, \
            replicas[].container string, replicas[].healthy bool, replicas[].draining bool, replicas[].version string, \
            replicas[].age_s number, replicas[].? any",
    },
    Shape {
        path: "/db/connections/",
        keys: "container string, timestamp float, \
            connections.*.total_connections int, connections.*.active_connections int, connections.*.idle_connections int, \
            connections.*.conn_max_age int, connections.*.using_pgbouncer bool, connections.*.host string, \
            connections.*.port string, pgbouncer.enabled bool, pgbouncer.port string, pgbouncer.pool_mode string, \
            pgbouncer.default_pool_size int, pgbouncer.max_client_conn int, pgbouncer.note string, recommendations[] string",
    },
    Shape {
        path: "/api/admin/monitoring/connections/health",
        keys: "healthy bool, timestamp instant, database.healthy bool, database.responseTime int, \
            database.connectionPool.active int, database.connectionPool.idle int, database.connectionPool.total int, \
            database.connectionPool.max int, database.connectionPool.utilizationPercent percent, \
            database.connectionPool.isPgBouncer bool, database.connectionPool.isShuttingDown bool, \
            redis.available bool, redis.connected bool, redis.status string",
    },
    Shape {
        path: "/api/admin/monitoring/connections/pool",
        keys: "database.utilizationPercent float, database.activeConnections int, database.maxConnections int, \
            database.isHealthy bool, redis.available bool, redis.connected bool",
    },
    Shape {
        path: "/api/admin/monitoring/connections/alerts",
        keys: "alerts[]? string, count int, timestamp instant",
    },
    Shape { path: "/api/admin/monitoring/database/slow-queries", keys: SLOW_QUERIES },
    Shape { path: "/api/v1/monitoring/slow-queries", keys: SLOW_QUERIES },
    Shape {
        path: "/api/v1/monitoring/pool-stats",
        keys: "database.size int, database.idle int, database.in_use int, database.max int, database.waiting int, \
            database.utilization_percent number, database.acquire_p50_ms number, database.acquire_p99_ms number, \
            pooler any, timestamp instant",
    },
    Shape {
        path: "/api/v1/monitoring/analyze-query",
        keys: "plan any, cost number, execution_ms? number, generic_plan bool, suggestions[]? string",
    },
    Shape {
        path: "/api/v1/monitoring/admin/metrics",
        keys: "users int, sessions int, messages int, messages_24h int, active_users_24h int, computed_at instant, refresh_s int",
    },
];

/// `/db/connections/` where no pooler is.
pub static DIRECT_CONNECTIONS: Shape = Shape {
    path: "/db/connections/",
    keys: "container string, timestamp float, \
        connections.*.total_connections int, connections.*.active_connections int, connections.*.idle_connections int, \
        connections.*.conn_max_age int, connections.*.using_pgbouncer bool, connections.*.host string, \
        connections.*.port string, pgbouncer.enabled bool, pgbouncer.note string, recommendations[] string",
};

/// The note says why there are none where Postgres keeps no statistics.
const SLOW_QUERIES: &str = "note? string, threshold_ms number, count int, timestamp instant, queries[].query? string, queries[].calls? int, \
    queries[].mean_ms? number, queries[].total_ms? number, queries[].max_ms? number, queries[].rows? int, \
    queries[].cache_hit_ratio? ratio";

impl Shape {
    pub fn of(path: &str) -> Option<&'static Shape> {
        SHAPES.iter().find(|shape| shape.path.trim_end_matches('/') == path.trim_end_matches('/'))
    }

    /// Keys that are missing, too many or of another type.
    pub fn faults(&self, answer: &Value) -> Vec<String> {
        let mut found = BTreeMap::new();
        flatten(answer, "", &mut found);
        let rules = self.rules();
        let mut faults = Vec::new();
        for rule in rules.iter().filter(|rule| !rule.may_be_missing) {
            if !found.keys().any(|key| rule.names(key)) {
                faults.push(format!("{} is missing", rule.key));
            }
        }
        for (key, value) in found {
            match rules.iter().find(|rule| rule.names(&key)) {
                Some(rule) if is_of(rule.kind, value) => {}
                Some(rule) => faults.push(format!("{key} is no {}: {value}", rule.kind)),
                None => faults.push(format!("{key} is in no document")),
            }
        }
        faults
    }

    fn rules(&self) -> Vec<Rule> {
        let lines = self.keys.split(',').filter_map(|line| line.trim().split_once(' '));
        let rule = |(key, kind): (&str, &'static str)| Rule {
            key: key.trim_end_matches('?').to_owned(),
            may_be_missing: key.ends_with('?'),
            kind: kind.trim(),
        };
        lines.map(|(key, kind)| rule((key, kind))).collect()
    }
}

struct Rule {
    key: String,
    may_be_missing: bool,
    kind: &'static str,
}

impl Rule {
    /// Whether this is the rule of the key; `any` covers everything below, a trailing dot every name at that place.
    fn names(&self, key: &str) -> bool {
        let (mut wanted, mut given) = (self.key.split('.'), key.split('.'));
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                (None, Some(_)) => return self.kind == "any",
                (Some(""), Some(_)) => return true,
                (Some("*"), Some(_)) => {}
                (Some(wanted), Some(given)) if wanted == given => {}
                (Some(wanted), Some(given))
                    if self.kind == "any" && given.trim_end_matches("[]") == wanted => {}
                _ => return false,
            }
        }
    }
}

/// The leaves by their path; an empty list has none.
fn flatten<'a>(value: &'a Value, place: &str, found: &mut BTreeMap<String, &'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if place.is_empty() { "" } else { "." };
                flatten(value, &format!("{place}{dot}{name}"), found);
            }
        }
        Value::Array(items) => {
            for item in items {
                flatten(item, &format!("{place}[]"), found);
            }
        }
        leaf => {
            found.insert(place.to_owned(), leaf);
        }
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "any" => true,
        "bool" => value.is_boolean(),
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_f64(),
        "number" => value.is_number(),
        "ratio" => value.is_number() || value.is_null(),
        "string" => value.is_string(),
        // "5.00"
        "percent" => value.as_str().is_some_and(|text| {
            let (whole, parts) = text.split_once('.').unwrap_or_default();
            !whole.is_empty() && parts.len() == 2 && text.bytes().all(|b| b == b'.' || b.is_ascii_digit())
        }),
        // "2026-01-31T12:00:00Z"
        "instant" => {
            value.as_str().is_some_and(|text| text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T'))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The documents' own example.
    fn health() -> Value {
        json!({"healthy": true, "timestamp": "2025-11-07T12:00:00Z",
            "database": {"healthy": true, "responseTime": 5, "connectionPool": {"active": 1, "idle": 4, "total": 5, "max": 100,
                "utilizationPercent": "5.00", "isPgBouncer": true, "isShuttingDown": false}},
            "redis": {"available": true, "connected": true, "status": "ready"}})
    }

    fn faults_with(pointer: &str, value: Value) -> Vec<String> {
        let mut answer = health();
        match pointer.rsplit_once('/') {
            Some((parent, name)) => {
                answer.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().insert(name.into(), value);
            }
            None => answer = value,
        }
        Shape::of("/api/admin/monitoring/connections/health/").unwrap().faults(&answer)
    }

    #[test]
    fn the_documents_own_example_has_no_faults() {
        assert_eq!(faults_with("", health()), Vec::<String>::new());
    }

    #[test]
    fn a_key_too_many_one_too_few_and_another_type_are_told() {
        assert_eq!(faults_with("/database/size", json!(1)), ["database.size is in no document"]);
        assert_eq!(
            faults_with("/database/responseTime", json!(5.5)),
            ["database.responseTime is no int: 5.5"]
        );
        let number = faults_with("/database/connectionPool/utilizationPercent", json!(5.0));
        assert_eq!(number, ["database.connectionPool.utilizationPercent is no percent: 5.0"]);
        let mut less = health();
        less["redis"].as_object_mut().unwrap().remove("status");
        assert_eq!(faults_with("", less), ["redis.status is missing"]);
    }

    #[test]
    fn names_of_databases_are_free_and_lists_may_be_empty() {
        let database = json!({"total_connections": 5, "active_connections": 1, "idle_connections": 4, "conn_max_age": 600,
            "using_pgbouncer": true, "host": "pgbouncer", "port": "6432"});
        let mut answer = json!({"container": "web-1", "timestamp": 1.5, "connections": {"default": database.clone(), "read_replica": database},
            "pgbouncer": {"enabled": true, "port": "6432", "pool_mode": "transaction", "default_pool_size": 25,
                "max_client_conn": 1000, "note": "x"}, "recommendations": ["Connection pool looks healthy."]});
        let shape = Shape::of("/db/connections").unwrap();
        assert_eq!(shape.faults(&answer), Vec::<String>::new());
        answer["connections"]["read_replica"]["lag"] = json!(1);
        assert_eq!(shape.faults(&answer), ["connections.read_replica.lag is in no document"]);
        let alerts = Shape::of("/api/admin/monitoring/connections/alerts").unwrap();
        assert!(
            alerts.faults(&json!({"alerts": [], "count": 0, "timestamp": "2025-11-07T12:00:00Z"})).is_empty()
        );
    }

    #[test]
    fn what_the_documents_leave_open_may_be_anything() {
        let stats = Shape::of("/api/v1/monitoring/pool-stats").unwrap();
        let own = json!({"size": 1, "idle": 1, "in_use": 0, "max": 5, "waiting": 0, "utilization_percent": 20.0,
            "acquire_p50_ms": 0.1, "acquire_p99_ms": 1.0});
        for pooler in [Value::Null, json!({"cl_active": 1})] {
            let answer =
                json!({"database": own.clone(), "pooler": pooler, "timestamp": "2025-11-07T12:00:00Z"});
            assert_eq!(stats.faults(&answer), Vec::<String>::new());
        }
    }
}
