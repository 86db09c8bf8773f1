//! Which parts the stack brings itself and which are the operator's: decided from the names in the settings.

/// The names that stand for parts of the stack itself, in the documents and in the compose file.
const POOLER_NAMES: [&str; 2] = ["pgbouncer", "pooler"];
const POSTGRES_NAMES: [&str; 2] = ["", "postgres"];
const REDIS_NAMES: [&str; 2] = ["", "redis"];
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const POSTGRES_PORT: u16 = 5432;

/// Whether the name is that of our own pooler in the documents and in the compose file.
pub fn is_pooler_name(host: &str) -> bool {
    POOLER_NAMES.contains(&host)
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port }
    }

    pub fn local(port: u16) -> Self {
        Self::new("127.0.0.1", port)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What the settings say about places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `DATABASE_URL`'s place, else `DB_HOST:DB_PORT`.
    pub db: Endpoint,
    pub actual: Endpoint,
    pub redis: Endpoint,
    pub redis_url_given: bool,
    pub read_host: String,
    pub actual_read: Endpoint,
    pub direct: bool,
    pub read_replica: bool,
}

impl Asked {
    /// `DB_HOST` is our own pooler: by its name, or by a loopback port that is not Postgres' own.
    pub fn db_host_is_pooler(&self) -> bool {
        let by_name = is_pooler_name(&self.db.host);
        let by_port = LOOPBACK_NAMES.contains(&self.db.host.as_str()) && self.db.port != POSTGRES_PORT;
        by_name || by_port
    }
}

/// Who brings a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The stack starts a private one.
    Ours,
    /// The operator's own.
    Theirs(Endpoint),
}

/// How the replicas reach the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Pooled,
    /// Option 2 of the documents: no pooler runs.
    Direct,
}

/// Where reads may go besides the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standby {
    None,
    /// The stack starts a private one; the replicas read through the pooler's pool of it, or directly without a pooler.
    Ours,
    /// The operator's, behind our pooler's pool `NAME_standby`.
    TheirsPooled(Endpoint),
    /// The operator's; the web service dials it as the settings say.
    Theirs,
}

/// What runs where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    pub primary: Place,
    pub route: Route,
    pub standby: Standby,
    pub redis: Place,
}

impl Topology {
    /// # Errors
    /// Two settings exclude one another; the text names them and says what to do.
    pub fn decide(asked: &Asked) -> Result<Self, String> {
        let (primary, route) = database(asked);
        let redis = if !asked.redis_url_given && REDIS_NAMES.contains(&asked.redis.host.as_str()) {
            Place::Ours
        } else {
            Place::Theirs(asked.redis.clone())
        };
        let standby = standby(asked, &primary, route)?;
        Ok(Self { primary, route, standby, redis })
    }
}

fn database(asked: &Asked) -> (Place, Route) {
    let actual = if POSTGRES_NAMES.contains(&asked.actual.host.as_str()) {
        Place::Ours
    } else {
        Place::Theirs(asked.actual.clone())
    };
    if asked.db_host_is_pooler() {
        return (actual, if asked.direct { Route::Direct } else { Route::Pooled });
    }
    if POSTGRES_NAMES.contains(&asked.db.host.as_str()) {
        return (actual, Route::Direct);
    }
    (Place::Theirs(asked.db.clone()), Route::Direct)
}

fn standby(asked: &Asked, primary: &Place, route: Route) -> Result<Standby, String> {
    if asked.read_replica {
        return match primary {
            Place::Ours => Ok(Standby::Ours),
            Place::Theirs(place) => Err(format!(
                "--read-replica makes a standby of the private Postgres, but the settings name your own at {place}: \
                 name its standby in DB_READ_HOST instead"
            )),
        };
    }
    if asked.read_host.is_empty() {
        return Ok(Standby::None);
    }
    let host = asked.read_host.rsplit_once(':').map_or(asked.read_host.as_str(), |(host, _)| host);
    if !is_pooler_name(host) {
        return Ok(Standby::Theirs);
    }
    match (route, asked.actual_read.host.is_empty()) {
        (Route::Direct, _) => {
            Err(format!("DB_READ_HOST={host} names the pooler, but none runs: name the standby itself"))
        }
        (Route::Pooled, true) => Err(format!(
            "DB_READ_HOST={host} names the pooler's pool of a standby: say where the standby is in ACTUAL_DB_READ_HOST, \
             or start with --read-replica for a private one"
        )),
        (Route::Pooled, false) => Ok(Standby::TheirsPooled(asked.actual_read.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            db: Endpoint::new("pgbouncer", 6432),
            actual: Endpoint::new("", 5432),
            redis: Endpoint::new("redis", 6379),
            redis_url_given: false,
            read_host: String::new(),
            actual_read: Endpoint::new("", 5432),
            direct: false,
            read_replica: false,
        }
    }

    fn decided(change: impl FnOnce(&mut Asked)) -> Result<Topology, String> {
        let mut asked = asked();
        change(&mut asked);
        Topology::decide(&asked)
    }

    #[test]
    fn the_operators_own_postgres_stays_behind_the_pooler() {
        let found = decided(|a| a.actual = Endpoint::new("db.example", 5433)).unwrap();
        assert_eq!(found.primary, Place::Theirs(Endpoint::new("db.example", 5433)));
        assert_eq!(found.route, Route::Pooled);
    }

    #[test]
    fn another_db_host_is_option_two() {
        let found = decided(|a| a.db = Endpoint::new("your-postgres-host", 5432)).unwrap();
        assert_eq!(found.primary, Place::Theirs(Endpoint::new("your-postgres-host", 5432)));
        assert_eq!(found.route, Route::Direct);
        let local = decided(|a| a.db = Endpoint::new("localhost", 5432)).unwrap();
        assert_eq!(local.primary, Place::Theirs(Endpoint::new("localhost", 5432)));
        assert_eq!(decided(|a| a.db = Endpoint::new("localhost", 6432)).unwrap().route, Route::Pooled);
    }

    #[test]
    fn direct_keeps_the_private_postgres_and_drops_the_pooler() {
        let found = decided(|a| a.direct = true).unwrap();
        assert_eq!((found.primary, found.route), (Place::Ours, Route::Direct));
    }

    #[test]
    fn a_private_standby_needs_a_private_primary() {
        assert_eq!(decided(|a| a.read_replica = true).unwrap().standby, Standby::Ours);
        let refused = decided(|a| {
            a.read_replica = true;
            a.actual = Endpoint::new("db.example", 5432);
        });
        assert!(refused.unwrap_err().contains("DB_READ_HOST"));
    }

    #[test]
    fn reads_go_to_the_operators_standby_or_to_the_poolers_pool_of_it() {
        assert_eq!(decided(|a| a.read_host = "ro.example:5433".to_owned()).unwrap().standby, Standby::Theirs);
        let pooled = |a: &mut Asked| {
            a.read_host = "pgbouncer:6432".to_owned();
            a.actual_read = Endpoint::new("ro.example", 5433);
        };
        let found = decided(pooled).unwrap();
        assert_eq!(found.standby, Standby::TheirsPooled(Endpoint::new("ro.example", 5433)));
        let nowhere = decided(|a| a.read_host = "pooler".to_owned());
        assert!(nowhere.unwrap_err().contains("ACTUAL_DB_READ_HOST"));
        let direct = decided(|a| {
            pooled(a);
            a.direct = true;
        });
        assert!(direct.unwrap_err().contains("none runs"));
    }

    #[test]
    fn redis_by_url_or_by_another_name_is_the_operators() {
        assert_eq!(decided(|_| {}).unwrap().redis, Place::Ours);
        assert!(matches!(decided(|a| a.redis_url_given = true).unwrap().redis, Place::Theirs(_)));
        let named = decided(|a| a.redis = Endpoint::new("cache.example", 6380)).unwrap();
        assert_eq!(named.redis, Place::Theirs(Endpoint::new("cache.example", 6380)));
    }
}
