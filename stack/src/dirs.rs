//! Where the stack keeps its files: one folder with configuration, data, logs, secrets, releases and run files.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::identity::RunAs;

/// Where the files go when the parts' user cannot enter the folder that was asked for, such as one below /root.
const REACHABLE_BASE: &str = "/var/lib/arena-stack";

/// The folders of one stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    root: PathBuf,
}

impl Dirs {
    /// The folder as it is, for verbs that only look.
    pub fn at(root: &Path) -> Self {
        Self { root: fs::canonicalize(root).unwrap_or_else(|_| root.to_owned()) }
    }

    /// Makes the folders that are missing.
    ///
    /// When root starts the stack and the parts' user cannot enter the place (a checkout below `/root`,
    /// say), the files go to `/var/lib/arena-stack/…` and `root` becomes a link to it.
    ///
    /// # Errors
    /// A folder cannot be made, or `root` is a folder with files in it that the user cannot enter.
    pub fn prepare(root: &Path, run_as: &RunAs) -> Result<Self> {
        let root = std::path::absolute(root).with_context(|| format!("{}", root.display()))?;
        let real = reachable(&root, run_as).with_context(|| format!("preparing {}", root.display()))?;
        let dirs = Self { root: real };
        for (folder, mode) in [
            (dirs.root.clone(), 0o755),
            (dirs.conf(), 0o755),
            (dirs.data(), 0o755),
            (dirs.logs(), 0o755),
            (dirs.run(), 0o755),
            (dirs.services_run(), 0o755),
            (dirs.secrets(), 0o711),
            (dirs.releases(), 0o755),
        ] {
            make(&folder, mode)?;
        }
        run_as.give(&dirs.data())?;
        run_as.give(&dirs.services_run())?;
        Ok(dirs)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn conf(&self) -> PathBuf {
        self.root.join("conf")
    }
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// Pid records, the lock and the control socket: the supervisor's alone.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }
    /// Files that the parts write themselves, such as the balancer's pid file.
    pub fn services_run(&self) -> PathBuf {
        self.run().join("services")
    }
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }
    pub fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }
    pub fn pgpass(&self) -> PathBuf {
        self.secrets().join("pgpass")
    }
}

/// The folder itself, or the place that stands in for it.
fn reachable(root: &Path, run_as: &RunAs) -> Result<PathBuf> {
    let parent = root.parent().unwrap_or(root);
    fs::create_dir_all(parent)?;
    if let Ok(there) = fs::canonicalize(root) {
        if run_as.reaches(&there)? {
            return Ok(there);
        }
        // Empty is as good as absent: a failed first start may have left it.
        fs::remove_dir(&there).or_else(|cause| match cause.kind() {
            ErrorKind::DirectoryNotEmpty => bail!(
                "the parts' user cannot enter it; choose another folder with --dir, or open it: chmod o+x on it and what lies above"
            ),
            _ => Err(cause.into()),
        })?;
    }
    if run_as.reaches(&fs::canonicalize(parent)?)? {
        return Ok(root.to_owned());
    }
    let readable: String =
        root.to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let place = Path::new(REACHABLE_BASE).join(readable.trim_matches('-'));
    fs::create_dir_all(&place).with_context(|| format!("{}", place.display()))?;
    match fs::remove_file(root) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(cause.into()),
        _ => symlink(&place, root)?,
    }
    Ok(place)
}

fn make(folder: &Path, mode: u32) -> Result<()> {
    let say = || format!("making {}", folder.display());
    fs::create_dir_all(folder).with_context(say)?;
    fs::set_permissions(folder, Permissions::from_mode(mode)).with_context(say)
}

/// Writes a file whole or not at all, with these permissions from its first moment on, for the parts to read.
///
/// # Errors
/// Names the path and the cause.
pub fn write_for_parts(path: &Path, text: &str, mode: u32, run_as: &RunAs) -> Result<()> {
    let fresh = path.with_extension("new");
    let say = || format!("writing {}", path.display());
    let _ = fs::remove_file(&fresh);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh).with_context(say)?;
    file.write_all(text.as_bytes()).with_context(say)?;
    run_as.give(&fresh)?;
    fs::rename(&fresh, path).with_context(say)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preparing_twice_is_the_same_as_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("deep/stack");
        let first = Dirs::prepare(&root, &RunAs::Starter).unwrap();
        assert_eq!(Dirs::prepare(&root, &RunAs::Starter).unwrap(), first);
        assert!(first.services_run().is_dir() && first.releases().is_dir());
    }

    #[test]
    fn a_secret_is_never_readable_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_for_parts(&path, "x", 0o600, &RunAs::Starter).unwrap();
        write_for_parts(&path, "y", 0o600, &RunAs::Starter).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "y");
    }
}
