//! The programs and configuration texts in use: copied at the start, so that a build does not change what runs.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::dirs::Dirs;

/// What a release holds: the services' programs, and the texts from which their configuration is made.
pub const PROGRAMS: [&str; 3] = ["pooler", "balancer", "web"];
pub const TEXTS: [&str; 3] = ["nginx.conf", "pgbouncer.ini", "postgresql.conf"];

const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
/// Points to the release installed last until all parts were healthy with it: none to go back to.
const UNTRIED: &str = "untried";

/// Where a release is made from: a folder of programs and the folder `deploy/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub programs: PathBuf,
    pub texts: PathBuf,
}

impl Source {
    /// The files and their names in the release.
    fn files(&self) -> impl Iterator<Item = (PathBuf, &'static str)> + '_ {
        let programs = PROGRAMS.iter().map(|name| (self.programs.join(name), *name));
        programs.chain(TEXTS.iter().map(|name| (self.texts.join(name), *name)))
    }
}

/// The path under which the release in use is found, whichever it is.
pub fn current_link(dirs: &Dirs) -> PathBuf {
    dirs.releases().join(CURRENT)
}

/// The folder of the release in use.
pub fn current(dirs: &Dirs) -> Option<PathBuf> {
    fs::canonicalize(current_link(dirs)).ok()
}

/// Whether installing changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    Fresh,
    AlreadyCurrent,
}

/// Makes the source the current release and keeps the last one that was good for a rollback.
///
/// # Errors
/// A program or text is missing, or cannot be copied.
pub fn install(dirs: &Dirs, source: &Source) -> Result<Installed> {
    for (path, name) in source.files() {
        if !path.is_file() {
            let folder = path.parent().unwrap_or(&path).display();
            bail!(
                "{name} is not in {folder}: build first (cargo build --release --locked), or name the folder with --programs"
            );
        }
    }
    if let Some(folder) = current(dirs)
        && same(source, &folder)?
    {
        return Ok(Installed::AlreadyCurrent);
    }
    let number = numbers(dirs).into_iter().max().unwrap_or(0) + 1;
    let folder = dirs.releases().join(number.to_string());
    let fresh = dirs.releases().join(format!("{number}.new"));
    copy(source, &fresh).with_context(|| format!("copying the programs to {}", fresh.display()))?;
    fs::rename(&fresh, &folder)?;
    if let Some(before) = current(dirs)
        && fs::canonicalize(dirs.releases().join(UNTRIED)).ok().as_ref() != Some(&before)
    {
        point(dirs, PREVIOUS, &before)?;
    }
    point(dirs, UNTRIED, &folder)?;
    point(dirs, CURRENT, &folder)?;
    forget_old(dirs);
    Ok(Installed::Fresh)
}

/// All parts are healthy with the current release: a later one has it to go back to.
pub fn has_proven_good(dirs: &Dirs) {
    // Where it stays, a rollback goes further back than it had to.
    let _ = fs::remove_file(dirs.releases().join(UNTRIED));
}

/// Makes the release before the current one current again; the other way round at the next call.
///
/// # Errors
/// There is no release before this one.
pub fn roll_back(dirs: &Dirs) -> Result<PathBuf> {
    let before = fs::canonicalize(dirs.releases().join(PREVIOUS))
        .context("there is no release before this one to go back to")?;
    let now = current(dirs).context("there is no current release")?;
    point(dirs, CURRENT, &before)?;
    point(dirs, PREVIOUS, &now)?;
    Ok(before)
}

/// Names of the files in which two releases differ.
///
/// # Errors
/// A file cannot be read.
pub fn differing(one: &Path, other: &Path) -> Result<Vec<&'static str>> {
    let mut found = Vec::new();
    for name in PROGRAMS.iter().chain(&TEXTS) {
        if !same_file(&one.join(name), &other.join(name))? {
            found.push(*name);
        }
    }
    Ok(found)
}

fn same(source: &Source, folder: &Path) -> Result<bool> {
    for (path, name) in source.files() {
        if !same_file(&path, &folder.join(name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_file(one: &Path, other: &Path) -> Result<bool> {
    let len = |path: &Path| match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.len())),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause).with_context(|| format!("{}", path.display())),
    };
    let (len_one, len_other) = (len(one)?, len(other)?);
    Ok(len_one == len_other && len_one.is_some() && fs::read(one)? == fs::read(other)?)
}

fn copy(source: &Source, fresh: &Path) -> Result<()> {
    match fs::remove_dir_all(fresh) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(cause.into()),
        _ => fs::create_dir(fresh)?,
    }
    for (path, name) in source.files() {
        let target = fresh.join(name);
        fs::copy(&path, &target).with_context(|| format!("copying {}", path.display()))?;
        let mode = if PROGRAMS.contains(&name) { 0o755 } else { 0o644 };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
    }
    fs::set_permissions(fresh, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Turns a link in one step: whoever looks sees the old or the new release.
fn point(dirs: &Dirs, name: &str, folder: &Path) -> Result<()> {
    let fresh = dirs.releases().join(format!("{name}.new"));
    let _ = fs::remove_file(&fresh);
    let target = folder.file_name().context("a release has a name")?;
    symlink(target, &fresh)?;
    fs::rename(&fresh, dirs.releases().join(name))
        .with_context(|| format!("making {} {name}", folder.display()))
}

fn numbers(dirs: &Dirs) -> Vec<u32> {
    let entries = fs::read_dir(dirs.releases()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Keeps the current and the previous release. A running part keeps its program open even when its file goes.
fn forget_old(dirs: &Dirs) {
    let kept = [CURRENT, PREVIOUS].map(|name| fs::canonicalize(dirs.releases().join(name)).ok());
    for number in numbers(dirs) {
        let folder = dirs.releases().join(number.to_string());
        if !kept.contains(&fs::canonicalize(&folder).ok()) {
            // What cannot be removed now is tried again at the next release.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::RunAs;

    fn world() -> (tempfile::TempDir, Dirs, Source) {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::prepare(&dir.path().join("stack"), &RunAs::Starter).unwrap();
        let source = Source { programs: dir.path().join("bin"), texts: dir.path().join("deploy") };
        fs::create_dir(&source.programs).unwrap();
        fs::create_dir(&source.texts).unwrap();
        build(&source, "one");
        (dir, dirs, source)
    }

    fn build(source: &Source, text: &str) {
        for (path, name) in source.files() {
            fs::write(path, format!("{name} {text}")).unwrap();
        }
    }

    fn text(dirs: &Dirs, name: &str) -> String {
        fs::read_to_string(current(dirs).unwrap().join(name)).unwrap()
    }

    #[test]
    fn the_same_build_is_installed_once() {
        let (_dir, dirs, source) = world();
        assert_eq!(install(&dirs, &source).unwrap(), Installed::Fresh);
        assert_eq!(install(&dirs, &source).unwrap(), Installed::AlreadyCurrent);
        assert_eq!(text(&dirs, "web"), "web one");
    }

    #[test]
    fn a_rollback_brings_the_release_before_and_a_second_one_the_later() {
        let (_dir, dirs, source) = world();
        install(&dirs, &source).unwrap();
        has_proven_good(&dirs);
        assert!(roll_back(&dirs).unwrap_err().to_string().contains("no release before"));
        build(&source, "two");
        install(&dirs, &source).unwrap();
        assert_eq!(text(&dirs, "pooler"), "pooler two");
        let before = roll_back(&dirs).unwrap();
        assert_eq!(text(&dirs, "nginx.conf"), "nginx.conf one");
        assert_eq!(current(&dirs).unwrap(), before);
        roll_back(&dirs).unwrap();
        assert_eq!(text(&dirs, "pooler"), "pooler two");
    }

    #[test]
    fn a_release_that_never_worked_is_none_to_go_back_to() {
        let (_dir, dirs, source) = world();
        install(&dirs, &source).unwrap();
        has_proven_good(&dirs);
        for failing in ["two", "three"] {
            build(&source, failing);
            install(&dirs, &source).unwrap();
        }
        build(&source, "four");
        install(&dirs, &source).unwrap();
        has_proven_good(&dirs);
        roll_back(&dirs).unwrap();
        assert_eq!(text(&dirs, "web"), "web one");
    }

    #[test]
    fn the_release_gone_back_to_is_kept_by_the_next_upgrade() {
        let (_dir, dirs, source) = world();
        install(&dirs, &source).unwrap();
        has_proven_good(&dirs);
        build(&source, "broken");
        install(&dirs, &source).unwrap();
        roll_back(&dirs).unwrap();
        build(&source, "three");
        install(&dirs, &source).unwrap();
        roll_back(&dirs).unwrap();
        assert_eq!(text(&dirs, "web"), "web one");
    }

    #[test]
    fn only_two_releases_are_kept_and_their_differences_are_named() {
        let (_dir, dirs, source) = world();
        for build_name in ["one", "two", "three", "four"] {
            build(&source, build_name);
            install(&dirs, &source).unwrap();
            has_proven_good(&dirs);
        }
        let mut kept = numbers(&dirs);
        kept.sort_unstable();
        assert_eq!(kept, [3, 4]);
        fs::write(source.programs.join("web"), "web five").unwrap();
        install(&dirs, &source).unwrap();
        let differing = differing(&dirs.releases().join("4"), &dirs.releases().join("5")).unwrap();
        assert_eq!(differing, ["web"]);
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_do() {
        let (_dir, dirs, source) = world();
        fs::remove_file(source.programs.join("balancer")).unwrap();
        let error = install(&dirs, &source).unwrap_err().to_string();
        assert!(error.starts_with("balancer is not in") && error.contains("cargo build"), "{error}");
    }
}
