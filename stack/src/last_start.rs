//! How the stack was started the last time, so that a restart keeps to it.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::dirs::{Dirs, write_for_parts};
use crate::identity::RunAs;
use crate::settings::Overrides;

const FILE: &str = "last-start.json";

/// # Errors
/// The file cannot be written.
pub fn write(dirs: &Dirs, how: Overrides) -> Result<()> {
    write_for_parts(&dirs.root().join(FILE), &serde_json::to_string(&how)?, 0o644, &RunAs::Starter)
}

/// The defaults, where it was never started.
///
/// # Errors
/// The file cannot be read.
pub fn read(dir: &Path) -> Result<Overrides> {
    let path = dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| format!("{}", path.display())),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(Overrides::default()),
        Err(cause) => Err(cause).with_context(|| format!("{}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_knows_how_it_was_started() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Overrides::default());
        let dirs = Dirs::prepare(dir.path(), &RunAs::Starter).unwrap();
        let how = Overrides { replicas: Some(3), direct: true, read_replica: false };
        write(&dirs, how).unwrap();
        assert_eq!(read(dir.path()).unwrap(), how);
    }
}
