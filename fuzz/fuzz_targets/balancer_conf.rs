//! nginx.conf: read or refused with a place, in a world of two files and one host.
#![no_main]

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use balancer::conf::blocks::{self, Files};
use balancer::conf::build::{World, build};
use libfuzzer_sys::fuzz_target;

const MAIN: &str = "/etc/nginx.conf";
const INCLUDED: &str = "/etc/more.conf";

struct Memory<'a>(&'a [u8]);

impl Files for Memory<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some(MAIN) => Ok(self.0.to_vec()),
            Some(INCLUDED) => Ok(b"server { listen 81; }\n".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn glob(&self, _: &str) -> io::Result<Vec<PathBuf>> {
        Ok(vec![INCLUDED.into()])
    }
}

impl World for Memory<'_> {
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if host == "web" {
            Ok(vec![([10, 0, 0, 1], port).into()])
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn hostname(&self) -> String {
        "host".into()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Files::read(self, path)
    }

    fn cores(&self) -> usize {
        2
    }

    fn prefix(&self) -> &Path {
        Path::new("/prefix")
    }

    fn error_log(&self) -> Option<&Path> {
        None
    }
}

fuzz_target!(|text: &[u8]| {
    let world = Memory(text);
    let read = blocks::read(&world, Path::new(MAIN), "");
    let built = read.and_then(|tree| build(&tree, &world).map(drop));
    if let Err(error) = built {
        assert!(!error.to_string().is_empty());
    }
});
