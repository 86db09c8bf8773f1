//! A real nginx (Debian's) in its own folder: what we are compared with, or what stands behind us.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::common::wait_until;

pub struct Nginx {
    child: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// `http` is the inside of the http block; `PORT` in it is a free port.
    pub fn start(http: &str) -> Nginx {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = folder.path().display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {dir}/{name};\n"))
            .collect();
        let http = http.replace("PORT", &port.to_string());
        let text = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log crit;\n\
             events {{ worker_connections 4000; }}\n\
             http {{ access_log off; {temporary} {http} }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let child = Command::new("nginx")
            .args(["-p", &dir, "-c", "nginx.conf", "-e", "early.log"])
            .stderr(Stdio::inherit())
            .spawn()
            .expect("nginx is installed (Debian package nginx)");
        wait_until("nginx listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Nginx { child, port, _folder: folder }
    }
}

/// Of the nginx that is started here.
#[allow(dead_code, reason = "each test binary uses its own part")]
pub fn version() -> (u16, u16, u16) {
    let told = Command::new("nginx").arg("-v").output().expect("nginx is installed (Debian package nginx)");
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    let number = told.trim().rsplit('/').next().unwrap().split(' ').next().unwrap();
    let mut parts = number.split('.').map(|part| part.parse().expect("a number of a version"));
    let mut next = || parts.next().unwrap();
    (next(), next(), next())
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
