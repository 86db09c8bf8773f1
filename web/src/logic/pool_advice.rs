//! What the figures of connections mean: utilisation, recommendations, alerts. The texts are the documents'.

/// Past it, a database that allows 100 is nearly full.
const TOTAL_MAX: i64 = 80;
/// Twice the pooler's default pool: more idle ones than that are kept for nobody. The documents' own sample of
/// 37 idle is healthy.
const IDLE_MAX: i64 = 50;
/// Percent at which an alert is raised.
const ALERT_PERCENT: f64 = 80.0;

/// The recommendations of `/db/connections/`.
pub fn recommendations(total: i64, idle: i64) -> Vec<&'static str> {
    let mut found = Vec::new();
    if total > TOTAL_MAX {
        found.push("Consider using PgBouncer");
    }
    if idle > IDLE_MAX {
        found.push("Check CONN_MAX_AGE setting");
    }
    if found.is_empty() {
        found.push("Connection pool looks healthy.");
    }
    found
}

/// How much of `max` is used, in percent with two digits behind the point.
pub fn utilization_percent(used: i64, max: u64) -> f64 {
    if max == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of connections are far below 2^52")]
    let percent = used.max(0) as f64 * 100.0 / max as f64;
    (percent * 100.0).round() / 100.0
}

/// The documents' text form of a percentage: `5.00`.
pub fn percent_text(percent: f64) -> String {
    format!("{percent:.2}")
}

/// What an alert is raised from.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// `None`: the database does not answer.
    pub utilization_percent: Option<f64>,
    /// Callers of this replica that wait for a connection.
    pub waiting: usize,
    pub redis_up: bool,
}

/// The alerts of `/api/admin/monitoring/connections/alerts`.
pub fn alerts(facts: Facts) -> Vec<String> {
    let mut found = Vec::new();
    match facts.utilization_percent {
        None => found.push("CRITICAL: Database does not answer".to_owned()),
        Some(percent) if percent > ALERT_PERCENT => {
            found.push(format!("WARNING: Database connection pool at {percent:.0}% utilization"));
        }
        Some(_) => {}
    }
    if facts.waiting > 0 {
        found.push(format!("WARNING: {} callers wait for a database connection", facts.waiting));
    }
    if !facts.redis_up {
        found.push("WARNING: Redis does not answer; live messages come late".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documents_sample_is_healthy() {
        assert_eq!(recommendations(45, 37), ["Connection pool looks healthy."]);
        assert_eq!(recommendations(81, 37), ["Consider using PgBouncer"]);
        assert_eq!(recommendations(81, 60), ["Consider using PgBouncer", "Check CONN_MAX_AGE setting"]);
        assert_eq!(recommendations(60, 51), ["Check CONN_MAX_AGE setting"]);
    }

    #[test]
    fn utilisation_is_written_as_in_the_documents() {
        assert!((utilization_percent(5, 100) - 5.0).abs() < f64::EPSILON);
        assert_eq!(percent_text(utilization_percent(5, 100)), "5.00");
        assert_eq!(percent_text(utilization_percent(1, 3)), "33.33");
        assert_eq!(percent_text(utilization_percent(1, 0)), "0.00");
    }

    #[test]
    fn an_alert_is_raised_past_80_percent() {
        let facts = |percent| Facts { utilization_percent: Some(percent), waiting: 0, redis_up: true };
        assert!(alerts(facts(80.0)).is_empty());
        assert_eq!(alerts(facts(85.0)), ["WARNING: Database connection pool at 85% utilization"]);
        let away = Facts { utilization_percent: None, waiting: 2, redis_up: false };
        assert_eq!(alerts(away).len(), 3);
    }

    proptest! {
        #[test]
        fn there_is_always_a_recommendation_and_never_two_that_disagree(total in 0i64..200, idle in 0i64..200) {
            let found = recommendations(total, idle);
            prop_assert!(!found.is_empty());
            let healthy = found.contains(&"Connection pool looks healthy.");
            prop_assert_eq!(healthy, found.len() == 1 && total <= TOTAL_MAX && idle <= IDLE_MAX);
        }

        #[test]
        fn utilisation_is_never_negative(used in -10i64..1000, max in 0u64..1000) {
            prop_assert!(utilization_percent(used, max) >= 0.0);
        }
    }
}
