//! As whom the parts run: as the starter, or as an unprivileged user when root starts the stack.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use nix::unistd::{Gid, Uid, User, chown};

use crate::logic::plan::Identity;

/// Users that Debian brings with the packages or always, in the order in which they are tried.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A user whom the parts run as, because Postgres and the pooler refuse root and the others need not be root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unprivileged {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Who starts parts and whom they run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAs {
    /// The starter is no root: everything runs as the starter.
    Starter,
    User(Unprivileged),
}

impl RunAs {
    /// # Errors
    /// Root starts the stack and the user that the parts should run as does not exist or is root too.
    pub fn find(wanted: Option<&str>) -> Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self::Starter);
        }
        let candidates: Vec<&str> = wanted.map_or_else(|| USERS.to_vec(), |name| vec![name]);
        for name in &candidates {
            let Some(user) = User::from_name(name).with_context(|| format!("looking up user {name}"))? else {
                continue;
            };
            if user.uid.is_root() {
                return Err(anyhow!(
                    "STACK_USER: {name} is root; Postgres and the pooler refuse to run as root"
                ));
            }
            return Ok(Self::User(Unprivileged {
                name: user.name,
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            }));
        }
        Err(anyhow!("STACK_USER: no user named {} on this machine", candidates.join(" or ")))
    }

    /// The user to change to for a part, if any.
    pub fn user_for(&self, identity: Identity) -> Option<&Unprivileged> {
        match (self, identity) {
            (Self::User(user), Identity::Unprivileged) => Some(user),
            _ => None,
        }
    }

    /// Gives a file to whom the parts run as.
    ///
    /// # Errors
    /// The system refuses.
    pub fn give(&self, path: &Path) -> Result<()> {
        let Self::User(user) = self else { return Ok(()) };
        chown(path, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))
            .with_context(|| format!("giving {} to {}", path.display(), user.name))
    }

    /// Whether the parts can reach what lies below `folder`: every folder on the way lets them through.
    ///
    /// # Errors
    /// A folder on the way cannot be looked at.
    pub fn reaches(&self, folder: &Path) -> io::Result<bool> {
        let Self::User(user) = self else { return Ok(true) };
        for ancestor in folder.ancestors() {
            if !lets_through(&std::fs::metadata(ancestor)?, user) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn lets_through(folder: &Metadata, user: &Unprivileged) -> bool {
    let bit = match (folder.uid() == user.uid, folder.gid() == user.gid) {
        (true, _) => 0o100,
        (false, true) => 0o010,
        (false, false) => 0o001,
    };
    folder.mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_only_its_owner_may_enter_stops_others() {
        let dir = tempfile::tempdir().unwrap();
        let stranger = RunAs::User(Unprivileged { name: "stranger".to_owned(), uid: 64_000, gid: 64_000 });
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!stranger.reaches(dir.path()).unwrap());
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        assert!(stranger.reaches(dir.path()).unwrap());
        assert!(RunAs::Starter.reaches(Path::new("/root")).unwrap());
    }

    #[test]
    fn only_parts_that_need_it_keep_the_starters_identity() {
        let user = Unprivileged { name: "x".to_owned(), uid: 1, gid: 1 };
        let run_as = RunAs::User(user.clone());
        assert_eq!(run_as.user_for(Identity::Unprivileged), Some(&user));
        assert_eq!(run_as.user_for(Identity::Starter), None);
        assert_eq!(RunAs::Starter.user_for(Identity::Unprivileged), None);
    }
}
