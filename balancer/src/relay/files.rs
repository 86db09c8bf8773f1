//! Which file a request means: `root`, `alias`, `index`, `try_files`. How it is sent: see send_file.rs.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::answer::Answer;
use super::send_file::Found;
use super::{Exchange, Step};
use crate::conf::dress::ReadyMade;
use crate::conf::files::{Base, TryFiles, TryLast};
use crate::conf::settings::ErrorLevel;
use crate::conf::template::Part;
use crate::logic::h1::Method;

/// Why a file is not sent.
enum Unopened {
    Refused(Answer),
    Failed(io::Error),
}

impl From<Answer> for Unopened {
    fn from(answer: Answer) -> Unopened {
        Unopened::Refused(answer)
    }
}

impl From<io::Error> for Unopened {
    fn from(error: io::Error) -> Unopened {
        Unopened::Failed(error)
    }
}

impl Exchange<'_> {
    /// `try_files`: the path becomes that of the first file there is. `Some`: the request goes on elsewhere.
    pub(super) fn try_files(&mut self) -> Option<Result<(), Answer>> {
        let tries: &TryFiles = self.location.files.try_files.as_deref()?;
        if let Err(answer) = self.check_alias() {
            return Some(Err(answer));
        }
        for file in &tries.files {
            let path = file.to_bytes(&self.facts());
            // The slash that is written asks for a folder, not one that a variable brings.
            let wants_folder = matches!(file.parts().last(), Some(Part::Text(text)) if text.ends_with(b"/"));
            let bare = if wants_folder { &path[..path.len() - 1] } else { &path[..] };
            let found = std::fs::metadata(self.try_path(bare));
            if found.is_ok_and(|found| found.is_dir() == wants_folder) {
                // Without its slash, as in nginx: the folder's redirect to itself with the slash follows.
                let uri = self.uri_of_try(bare.to_vec());
                self.scratch.story.path = uri;
                self.scratch.story.adds_to_alias = true;
                return None;
            }
        }
        Some(match &tries.last {
            TryLast::Status(status) => Err(Answer::page(*status)),
            TryLast::Inside(target) => {
                let target = target.to_bytes(&self.facts());
                if target.first() == Some(&b'@') {
                    self.route_named(&target)
                } else {
                    self.route_inside(&target)
                }
            }
        })
    }

    /// What an alias stands for must still be there.
    fn check_alias(&self) -> Result<(), Answer> {
        if !self.facts().has_lost_alias() {
            return Ok(());
        }
        let name = String::from_utf8_lossy(&self.location.path);
        let what = format_args!("\"alias\" cannot be used in location \"{name}\" where URI was rewritten");
        self.say(ErrorLevel::Alert, what);
        Err(Answer::page(500))
    }

    /// What `try_files` names stands below an alias.
    fn try_path(&self, path: &[u8]) -> PathBuf {
        match &self.location.files.base {
            Base::Root(_) => self.file_of(path),
            Base::Alias { to, prefix_len } => {
                let mut name = to.to_bytes(&self.facts());
                let own = prefix_len.and_then(|len| self.scratch.story.path.get(..len));
                name.extend_from_slice(own.and_then(|own| path.strip_prefix(own)).unwrap_or(path));
                PathBuf::from(OsStr::from_bytes(&name))
            }
        }
    }

    fn uri_of_try(&self, path: Vec<u8>) -> Vec<u8> {
        let Base::Alias { prefix_len: Some(len), .. } = &self.location.files.base else { return path };
        let own = self.scratch.story.path.get(..*len).unwrap_or_default();
        if path.starts_with(own) { path } else { [own, &path].concat() }
    }

    fn file_of(&self, path: &[u8]) -> PathBuf {
        self.facts().file_of(path)
    }

    /// Answers with the file that the request's path means.
    pub(super) async fn serve_file(&mut self) -> Step {
        let path = self.scratch.story.path.clone();
        if path.last() == Some(&b'/') {
            return match self.index(&path) {
                Ok(inside) => match self.route_inside(&inside) {
                    Ok(()) => Box::pin(self.act()).await,
                    Err(answer) => Step::Answer(answer),
                },
                Err(answer) => Step::Answer(answer),
            };
        }
        let mut opened = self.open(&path);
        if let Err(Unopened::Failed(error)) = &opened
            && self.worker.makes_room_after(error).await
        {
            opened = self.open(&path);
        }
        match opened {
            Ok(found) => self.send_file(found).await,
            Err(Unopened::Refused(answer)) => Step::Answer(answer),
            Err(Unopened::Failed(error)) => Step::Answer(self.refused(&path, &error)),
        }
    }

    /// The path of the first index that there is.
    fn index(&mut self, path: &[u8]) -> Result<Vec<u8>, Answer> {
        let method = self.scratch.story.method();
        if !matches!(method, Method::Get | Method::Head | Method::Post) {
            return Err(Answer::page(if self.file_of(path).is_dir() { 403 } else { 404 }));
        }
        let files = self.location.files.clone();
        for index in files.index.iter() {
            let name = index.to_bytes(&self.facts());
            // An absolute one is the last word, whether it exists or not.
            if name.first() == Some(&b'/') {
                return Ok(self.with_args(name));
            }
            self.check_alias()?;
            let target = [path, &name].concat();
            if self.file_of(&target).is_file() {
                return Ok(self.with_args(target));
            }
        }
        let folder = std::fs::metadata(self.file_of(path));
        Err(match folder {
            Ok(folder) if folder.is_dir() => {
                let name = self.file_of(path);
                self.say(
                    ErrorLevel::Error,
                    format_args!("directory index of \"{}\" is forbidden", name.display()),
                );
                Answer::page(403)
            }
            Ok(_) => Answer::page(404),
            Err(error) => self.refused(path, &error),
        })
    }

    fn with_args(&self, mut target: Vec<u8>) -> Vec<u8> {
        let args = self.args();
        if !args.is_empty() {
            target.push(b'?');
            target.extend_from_slice(args);
        }
        target
    }

    fn open(&self, path: &[u8]) -> Result<Found, Unopened> {
        let method = self.scratch.story.method();
        if !matches!(method, Method::Get | Method::Head | Method::Post) {
            return Err(Answer::page(405).into());
        }
        self.check_alias()?;
        let name = self.file_of(path);
        let (packed, varies) = match method {
            Method::Post => (None, false),
            _ => self.ready_made(&name),
        };
        if let Some((file, about)) = packed {
            return Ok(Found { is_packed: true, varies, ..self.found(file, &about, path) });
        }
        let file = open_file(&name)?;
        let about = file.metadata()?;
        if about.is_dir() {
            let mut to = Vec::new();
            crate::logic::escape::escape_path(path, &mut to);
            to.push(b'/');
            return Err(Answer::redirect(301, self.with_args(to)).into());
        }
        if method == Method::Post {
            return Err(Answer::page(405).into());
        }
        if !about.is_file() {
            return Err(Answer::page(404).into());
        }
        Ok(Found { varies, ..self.found(file, &about, path) })
    }

    fn found(&self, file: File, about: &Metadata, path: &[u8]) -> Found {
        let modified_s = about
            .modified()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_secs());
        let carried = self.scratch.story.carried_type.as_deref();
        let content_type =
            carried.or(self.location.files.types.of(path)).unwrap_or(&self.location.default_type);
        Found {
            file,
            len: about.len(),
            modified: UNIX_EPOCH + Duration::from_secs(modified_s),
            tag: match self.location.files.has_etag {
                true => format!("\"{modified_s:x}-{:x}\"", about.len()).into_bytes(),
                false => Vec::new(),
            },
            content_type: content_type.to_vec(),
            is_packed: false,
            varies: false,
        }
    }

    /// `gzip_static`: the file that lies packed beside the one that is asked for, where the client may have it; and
    /// whether another client might get the other.
    fn ready_made(&self, name: &Path) -> (Option<(File, Metadata)>, bool) {
        let dress = &self.location.dress;
        let takes = match dress.gzip.ready_made {
            ReadyMade::Off => return (None, false),
            ReadyMade::On => self.takes_gzip(dress, b""),
            ReadyMade::Always => true,
        };
        let mut packed = name.as_os_str().to_owned();
        packed.push(".gz");
        let found = open_file(Path::new(&packed)).and_then(|file| Ok((file.metadata()?, file)));
        let found = found.ok().filter(|(about, _)| about.is_file()).map(|(about, file)| (file, about));
        let varies = found.is_some() && dress.gzip.ready_made == ReadyMade::On && dress.gzip.vary;
        (found.filter(|_| takes), varies)
    }

    /// What the system's refusal means to a client.
    fn refused(&self, path: &[u8], error: &io::Error) -> Answer {
        let name = self.file_of(path);
        let is_missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        if !is_missing || self.location.log_not_found {
            let what = crate::conf::error::system("open", Path::new(&name), error);
            self.say(ErrorLevel::Error, format_args!("{what}"));
        }
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
                Answer::page(404)
            }
            // A name with a NUL in it.
            io::ErrorKind::InvalidInput => Answer::page(404),
            io::ErrorKind::PermissionDenied => Answer::page(403),
            _ => Answer::page(500),
        }
    }
}

/// As nginx opens: a FIFO makes nobody wait.
fn open_file(name: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(name)
}
