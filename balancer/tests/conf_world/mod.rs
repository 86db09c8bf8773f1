//! A world in memory for configurations: files by path, names by address.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use balancer::conf::Settings;
use balancer::conf::blocks::{self, Files, Tree};
use balancer::conf::build::{World, build};

const MAIN: &str = "/etc/nginx.conf";

pub struct Memory(pub BTreeMap<PathBuf, Vec<u8>>);

impl Memory {
    /// Reads its `/etc/nginx.conf`.
    pub fn load(&self) -> Result<Settings, balancer::conf::error::Error> {
        build(&blocks::read(self, Path::new(MAIN), "")?, self)
    }
}

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(2))
    }

    fn glob(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let (start, end) = pattern.split_once('*').unwrap_or((pattern, ""));
        let fits = |path: &&PathBuf| {
            let path = path.to_string_lossy();
            path.starts_with(start) && path.ends_with(end)
        };
        Ok(self.0.keys().filter(fits).cloned().collect())
    }
}

impl World for Memory {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let number = match host.strip_prefix("web-").map(str::parse::<u8>) {
            Some(Ok(number)) => number,
            _ if host == "twice" => {
                return Ok(vec![([10, 0, 1, 1], port).into(), ([10, 0, 1, 2], port).into()]);
            }
            _ => return Err(io::Error::other("no such host")),
        };
        Ok(vec![([10, 0, 0, number], port).into()])
    }

    fn hostname(&self) -> String {
        "test-host".into()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Files::read(self, path)
    }

    fn cores(&self) -> usize {
        4
    }

    fn prefix(&self) -> &Path {
        Path::new("/prefix")
    }

    fn error_log(&self) -> Option<&Path> {
        None
    }
}

/// What one file says, before it is given a meaning.
#[allow(dead_code, reason = "each test file uses what it needs")]
pub fn tree(text: &str) -> Tree {
    let world = Memory([(MAIN.into(), text.into())].into());
    blocks::read(&world, Path::new(MAIN), "").unwrap()
}

/// Reads `/etc/nginx.conf` of these files.
pub fn load(files: &[(&str, &str)]) -> Result<Settings, String> {
    let world = Memory(files.iter().map(|(path, text)| (path.into(), (*text).into())).collect());
    world.load().map_err(|error| error.to_string())
}

pub fn settings(text: &str) -> Settings {
    load(&[(MAIN, text)]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A configuration whose http block has this text.
#[allow(dead_code, reason = "each test file uses what it needs")]
pub fn http(text: &str) -> Settings {
    settings(&format!("events {{}}\nhttp {{\n{text}\n}}\n"))
}

/// The complaint about a configuration.
#[allow(dead_code, reason = "each test file uses what it needs")]
pub fn complaint(text: &str) -> String {
    load(&[(MAIN, text)]).map(drop).expect_err(text)
}
