//! What operators ask: health, the fleet, connections, slow queries. Shapes are the documents'.

pub mod admin;
pub mod checks;
pub mod connections;
pub mod console;
pub mod health;
pub mod log_block;
pub mod queries;
pub mod status;
pub mod totals;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::app::App;

/// Now, as the documents write it: `2025-01-15T10:30:00Z`.
pub fn timestamp() -> String {
    timestamp_of(OffsetDateTime::now_utc())
}

fn timestamp_of(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).expect("a time of ours has a text form")
}

/// Brings the gauges that are read, not counted, up to date.
pub fn gauges(app: &App) {
    let standbys = app.databases.standbys().iter().map(|standby| (&*standby.name, standby.store.db()));
    for (name, db) in std::iter::once(("default", app.store.db())).chain(standbys) {
        let figures = db.figures();
        app.metrics.set_pool(name, "idle", figures.idle);
        app.metrics.set_pool(name, "in_use", figures.in_use);
        app.metrics.set_pool(name, "max", figures.max);
        app.metrics.set_pool(name, "waiting", u32::try_from(figures.waiting).unwrap_or(u32::MAX));
    }
    for standby in app.databases.standbys() {
        app.metrics.set_replica(&standby.name, app.databases.lag(standby));
    }
}
