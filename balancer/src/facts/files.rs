//! Where a request's path lies among files: `$request_filename`, `$document_root`, `$realpath_root`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Told, put};
use crate::conf::files::Base;
use crate::conf::variables::Variable;
use crate::relay::story::PathIs;

/// `None`: the variable is not one of these.
pub fn value(told: &Told<'_>, variable: &Variable, out: &mut Vec<u8>) -> Option<bool> {
    Some(match variable {
        Variable::RequestFilename if told.has_lost_alias() => false,
        Variable::RequestFilename => put(out, told.file_of(&told.story().path).as_os_str().as_bytes()),
        Variable::DocumentRoot => put(out, &told.folder()),
        Variable::RealpathRoot => {
            let folder = told.folder();
            let real = Path::new(OsStr::from_bytes(&folder)).canonicalize();
            real.is_ok_and(|real| put(out, real.as_os_str().as_bytes()))
        }
        _ => return None,
    })
}

impl Told<'_> {
    /// The file that a path means in this location.
    pub fn file_of(&self, path: &[u8]) -> PathBuf {
        let mut name = self.folder();
        let rest = match &self.location.files.base {
            Base::Root(_) => path,
            Base::Alias { prefix_len: Some(len), .. } => path.get(*len..).unwrap_or_default(),
            Base::Alias { prefix_len: None, .. } if self.story().adds_to_alias => path,
            Base::Alias { prefix_len: None, .. } => b"",
        };
        name.extend_from_slice(rest);
        PathBuf::from(OsStr::from_bytes(&name))
    }

    /// The path does not begin with what an `alias` stands for any more.
    pub fn has_lost_alias(&self) -> bool {
        let is_alias = matches!(self.location.files.base, Base::Alias { .. });
        is_alias && self.story().path_is == PathIs::Rewritten
    }

    /// What `root` or `alias` names.
    fn folder(&self) -> Vec<u8> {
        let (Base::Root(folder) | Base::Alias { to: folder, .. }) = &self.location.files.base;
        folder.to_bytes(self)
    }
}
