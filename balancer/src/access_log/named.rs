//! Logs whose name has variables: each line finds its file, and `open_log_file_cache` keeps those open that are used
//! often.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use super::append;
use crate::conf::settings::OpenLogs;

/// The files that stay open between lines, of one worker.
#[derive(Debug, Default)]
pub struct OpenFiles {
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// `None`: not used often enough to stay open.
    file: Option<File>,
    uses: u32,
    used: Instant,
    checked: Instant,
}

impl OpenFiles {
    pub fn write(
        &mut self,
        path: &Path,
        line: &[u8],
        terms: Option<&OpenLogs>,
        now: Instant,
    ) -> io::Result<()> {
        // Who asks may have chosen a part of the name: it must not lead out of the folder.
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "\"..\" in the name of a log"));
        }
        let Some(terms) = terms else { return append(path)?.write_all(line) };
        let place = self.place(path, terms, now)?;
        let kept = &mut self.kept[place];
        let written = kept.open(terms, now).and_then(|mut file| file.write_all(line));
        if written.is_err() || kept.uses < terms.uses_min {
            kept.file = None;
        }
        written
    }

    fn place(&mut self, path: &Path, terms: &OpenLogs, now: Instant) -> io::Result<usize> {
        self.kept.retain(|kept| now.duration_since(kept.used) < terms.inactive);
        if let Some(place) = self.kept.iter().position(|kept| kept.path == path) {
            self.kept[place].uses += 1;
            self.kept[place].used = now;
            return Ok(place);
        }
        // What cannot be opened takes nobody's place.
        let file = Some(append(path)?);
        if self.kept.len() >= terms.files_max {
            let oldest =
                self.kept.iter().enumerate().min_by_key(|(_, kept)| kept.used).map(|(place, _)| place);
            oldest.map(|place| self.kept.remove(place));
        }
        self.kept.push(Kept { path: path.into(), file, uses: 1, used: now, checked: now });
        Ok(self.kept.len() - 1)
    }
}

impl Kept {
    fn open(&mut self, terms: &OpenLogs, now: Instant) -> io::Result<&File> {
        if now.duration_since(self.checked) >= terms.valid {
            self.file = self.file.take().filter(|file| is_at(file, &self.path));
            self.checked = now;
        }
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                self.checked = now;
                Ok(none.insert(append(&self.path)?))
            }
        }
    }
}

/// Whether the name still leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TERMS: OpenLogs = OpenLogs {
        files_max: 2,
        inactive: Duration::from_secs(10),
        uses_min: 2,
        valid: Duration::from_secs(60),
    };

    #[test]
    fn what_is_used_often_stays_open_and_the_rest_is_opened_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, moved) = (folder.path().join("logs"), folder.path().join("moved"));
        std::fs::create_dir(&logs).unwrap();
        let start = Instant::now();
        let mut open = OpenFiles::default();
        let mut write = |name: &str, after_s: u64| {
            open.write(&logs.join(name), b"x", Some(&TERMS), start + Duration::from_secs(after_s)).is_ok()
        };
        assert!(write("often", 0) && write("often", 1) && write("once", 2));
        std::fs::rename(&logs, &moved).unwrap();
        assert!(write("often", 3), "it is open");
        assert!(!write("once", 4) && !write("once", 5));
        assert!(!write("new", 6) && !write("newer", 6) && write("often", 7), "what fails displaces nothing");
        assert!(!write("often", 20), "it was not used for too long");
        assert_eq!(std::fs::read(moved.join("often")).unwrap(), b"xxxx");
        assert_eq!(std::fs::read(moved.join("once")).unwrap(), b"x");
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/../../out");
        assert!(OpenFiles::default().write(&path, b"x", None, Instant::now()).is_err());
    }
}
