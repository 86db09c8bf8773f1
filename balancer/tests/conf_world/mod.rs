//! A world in memory for configurations: files by path, names by address.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use balancer::conf::Settings;
use balancer::conf::blocks::{self, Files, Tree};
use balancer::conf::build::{World, build};

pub struct Memory(pub BTreeMap<PathBuf, String>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = self.0.get(path).map(|text| text.clone().into_bytes());
        text.ok_or_else(|| io::Error::from_raw_os_error(2))
    }

    fn glob(&self, pattern: &str) -> io::Result<Vec<PathBuf>> {
        let (start, end) = pattern.split_once('*').unwrap();
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
    let world = Memory([(PathBuf::from("/etc/nginx.conf"), text.to_owned())].into());
    blocks::read(&world, Path::new("/etc/nginx.conf"), "").unwrap()
}

/// Reads `/etc/nginx.conf` of these files.
pub fn load(files: &[(&str, &str)]) -> Result<Settings, String> {
    let files = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
    let world = Memory(files);
    let tree = blocks::read(&world, Path::new("/etc/nginx.conf"), "").map_err(|error| error.to_string())?;
    build(&tree, &world).map_err(|error| error.to_string())
}

pub fn settings(text: &str) -> Settings {
    load(&[("/etc/nginx.conf", text)]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A configuration whose http block has this text.
#[allow(dead_code, reason = "each test file uses what it needs")]
pub fn http(text: &str) -> Settings {
    settings(&format!("events {{}}\nhttp {{\n{text}\n}}\n"))
}

/// The complaint about a configuration.
#[allow(dead_code, reason = "each test file uses what it needs")]
pub fn complaint(text: &str) -> String {
    load(&[("/etc/nginx.conf", text)]).map(drop).expect_err(text)
}
