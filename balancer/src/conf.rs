//! nginx.conf: characters → tokens → blocks → typed [`Settings`]. Everything is resolved here, at load: a request
//! parses no text, hashes no name that is fixed and allocates nothing for a constant. No sockets are opened here.

pub mod blocks;
pub mod build;
pub mod check;
pub mod cookies;
pub mod dress;
pub mod error;
pub mod files;
pub mod geo;
pub mod guard;
pub mod listen;
pub mod location;
pub mod made;
pub mod map;
pub mod naming;
pub mod pattern;
pub mod proxy;
pub mod rewrite;
pub mod settings;
pub mod split;
pub mod ssl;
pub mod table;
pub mod template;
mod tokens;
pub mod upstream;
pub mod value;
pub mod variables;

pub use settings::Settings;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use self::blocks::{Disk, Tree};
use self::build::World;
use self::error::Result;

/// Where a configuration is and how it is read: the command line's part.
#[derive(Debug, Clone)]
pub struct Origin {
    /// `-p`
    pub prefix: PathBuf,
    /// `-c`, absolute.
    pub file: PathBuf,
    /// `-g`
    pub extra: String,
    /// `-e`
    pub error_log: Option<PathBuf>,
}

/// Reads the configuration and everything that it includes and names.
pub fn load(origin: &Origin) -> Result<(Settings, Tree)> {
    let tree = blocks::read(&Disk, &origin.file, &origin.extra)?;
    let settings = build::build(&tree, &Machine(origin))?;
    Ok((settings, tree))
}

/// The machine we run on.
struct Machine<'a>(&'a Origin);

impl World for Machine<'_> {
    fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }

    fn hostname(&self) -> String {
        let name = nix::unistd::gethostname().unwrap_or_default();
        name.to_string_lossy().to_ascii_lowercase()
    }

    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn prefix(&self) -> &Path {
        &self.0.prefix
    }

    fn conf_folder(&self) -> &Path {
        self.0.file.parent().unwrap_or(&self.0.prefix)
    }

    fn error_log(&self) -> Option<&Path> {
        self.0.error_log.as_deref()
    }
}
