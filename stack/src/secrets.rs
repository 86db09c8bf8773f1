//! Secrets that the operator did not give: made once, kept in files that only the parts' user may read.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::dirs::{Dirs, write_for_parts};
use crate::identity::RunAs;
use crate::logic::plan::Secrets;
use crate::settings::Settings;

/// Everything that must not be guessed. The last two are of the private Postgres alone.
const NAMES: [&str; 7] = [
    "DB_PASSWORD",
    "SECRET_KEY",
    "REDIS_PASSWORD",
    "PGBOUNCER_ADMIN_PASSWORD",
    "PGBOUNCER_STATS_PASSWORD",
    "POSTGRES_PASSWORD",
    "REPLICATION_PASSWORD",
];

/// 256 bits: more than any of the keys made from it uses.
const BYTES: usize = 32;

/// Takes the operator's secrets, else those made earlier, else makes them. All are on file afterwards.
///
/// # Errors
/// A file cannot be read or written, or the operator's own database is used without its password.
pub fn keep_or_make(settings: &Settings, dirs: &Dirs, run_as: &RunAs) -> Result<Secrets> {
    if let Some(lack) = settings.lacking() {
        bail!("{lack}");
    }
    let given = &settings.secrets.0;
    let mut found = std::collections::BTreeMap::new();
    for name in NAMES {
        let path = dirs.secrets().join(name);
        let value = match given.get(name) {
            Some(value) => value.clone(),
            None => match kept(&path)? {
                Some(value) => value,
                None => random()?,
            },
        };
        write_for_parts(&path, &value, 0o600, run_as)?;
        found.insert(name, value);
    }
    Ok(Secrets(found))
}

/// The secrets as they are on file, for verbs that look at a stack somebody else started.
///
/// # Errors
/// A file is missing or may not be read.
pub fn read_kept(dirs: &Dirs) -> Result<Secrets> {
    let mut found = std::collections::BTreeMap::new();
    for name in NAMES {
        let path = dirs.secrets().join(name);
        let value =
            kept(&path)?.with_context(|| format!("{} is missing: start the stack first", path.display()))?;
        found.insert(name, value);
    }
    Ok(Secrets(found))
}

fn kept(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) if !text.is_empty() => Ok(Some(text)),
        Ok(_) => Ok(None),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause).with_context(|| format!("reading {}", path.display())),
    }
}

fn random() -> Result<String> {
    let mut bytes = [0u8; BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|cause| anyhow::anyhow!("no random numbers from the system: {cause}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Overrides;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let file = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::read(&file, &|_| None, Overrides::default()).unwrap()
    }

    #[test]
    fn what_was_made_once_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::prepare(dir.path(), &RunAs::Starter).unwrap();
        let first = keep_or_make(&settings(&[]), &dirs, &RunAs::Starter).unwrap();
        assert_eq!(first.get("SECRET_KEY").len(), 64);
        assert_ne!(first.get("SECRET_KEY"), first.get("DB_PASSWORD"));
        assert_eq!(keep_or_make(&settings(&[]), &dirs, &RunAs::Starter).unwrap(), first);
        assert_eq!(read_kept(&dirs).unwrap(), first);
    }

    #[test]
    fn the_operators_secret_wins() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::prepare(dir.path(), &RunAs::Starter).unwrap();
        keep_or_make(&settings(&[]), &dirs, &RunAs::Starter).unwrap();
        let given = settings(&[("DB_PASSWORD", "a b'c\"d")]);
        assert_eq!(keep_or_make(&given, &dirs, &RunAs::Starter).unwrap().get("DB_PASSWORD"), "a b'c\"d");
    }

    #[test]
    fn the_operators_database_needs_the_operators_password() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::prepare(dir.path(), &RunAs::Starter).unwrap();
        let own = settings(&[("ACTUAL_DB_HOST", "db.example"), ("DB_PASSWORD", "your_password")]);
        let error = keep_or_make(&own, &dirs, &RunAs::Starter).unwrap_err().to_string();
        assert!(error.contains("DB_PASSWORD") && error.contains("db.example:5432"), "{error}");
    }
}
