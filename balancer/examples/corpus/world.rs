//! The balancer under test, before an origin: on one port bodies are read before they are sent on, on the other streamed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::origins::{await_port, free_port, stop};

#[derive(Debug)]
pub struct Balancer {
    dir: PathBuf,
    child: Option<Child>,
}

/// Where the origin is reached through the balancer.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    pub buffered: u16,
    pub streaming: u16,
}

impl Balancer {
    /// Before the origin on that port.
    pub fn start(binary: &Path, dir: &Path, origin: u16, directives: &str) -> (Balancer, Door) {
        let door = Door { buffered: free_port(), streaming: free_port() };
        let (d, Door { buffered, streaming }) = (dir.display(), door);
        let text = format!(
            "daemon off; worker_processes 1; pid {d}/balancer.pid; error_log {d}/balancer.err crit;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ log_format seen '$upstream_addr|$request|$status'; access_log {d}/balancer.log seen buffer=64k;\n\
             add_header X-Via $upstream_addr always; proxy_next_upstream off; proxy_http_version 1.1;\n\
             keepalive_timeout 1h; client_max_body_size 0; max_headers 1000; {directives}\n\
             upstream origin {{ server 127.0.0.1:{origin} max_fails=0; keepalive 64; keepalive_requests 1000000000;\n\
             keepalive_timeout 1h; }}\n\
             server {{ listen 127.0.0.1:{buffered}; location / {{ proxy_pass http://origin; proxy_set_header Connection \"\"; }} }}\n\
             server {{ listen 127.0.0.1:{streaming}; location / {{ proxy_pass http://origin; proxy_request_buffering off;\n\
             proxy_set_header Connection $http_connection; proxy_set_header Upgrade $http_upgrade; }} }} }}\n"
        );
        let conf = dir.join("balancer.conf");
        std::fs::write(&conf, text).expect("the folder is ours");
        let mut command = Command::new(binary);
        command.arg("-p").arg(dir).arg("-c").arg(&conf).args(["-e", "balancer.early"]);
        let child =
            command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the balancer starts");
        await_port(streaming);
        (Balancer { dir: dir.to_owned(), child: Some(child) }, door)
    }

    /// Ends the balancer and gives a line for each request that came to it.
    pub fn into_log(mut self) -> String {
        stop(&mut self.child);
        String::from_utf8_lossy(&std::fs::read(self.dir.join("balancer.log")).unwrap_or_default())
            .into_owned()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}
