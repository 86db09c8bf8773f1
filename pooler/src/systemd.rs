//! The service manager: what it is told (`NOTIFY_SOCKET`), and the sockets it hands over (`LISTEN_FDS`). Both speak
//! systemd's protocol; without a service manager nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

/// Where a service manager wants to hear of this process.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

/// A socket that was opened for us.
#[derive(Debug)]
pub enum Passed {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

impl Notifier {
    /// `address`: the value of NOTIFY_SOCKET, a path or an abstract name behind `@`.
    pub fn new(address: Option<&str>) -> Notifier {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Notifier::default() };
        match connect(address) {
            Ok(socket) => Notifier { socket: Some(socket) },
            Err(error) => {
                tracing::warn!("cannot notify the service manager at {address}: {error}");
                Notifier::default()
            }
        }
    }

    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// A RELOAD has begun; `ready` follows when it is over.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.tell(&format!("STATUS={text}"));
    }

    fn tell(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(text.as_bytes()) {
            tracing::debug!("the service manager was not told {text}: {error}");
        }
    }
}

fn connect(address: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A service manager that does not read must not stop us.
    socket.set_nonblocking(true)?;
    match address.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    Ok(socket)
}

/// All sockets that were passed, once: the environment is read and cleared.
pub fn passed_sockets() -> std::io::Result<Vec<Passed>> {
    let mut given = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..given.len() {
        let passed = match given.take_tcp_listener(index) {
            Ok(listener) => listener.map(Passed::Tcp),
            // Of another family: it stays there to be taken as such.
            Err(_) => given.take_unix_listener(index)?.map(Passed::Unix),
        };
        sockets.extend(passed);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_hears_each_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let heard = || {
            let mut buffer = [0; 200];
            let len = manager.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..len]).into_owned()
        };
        let notifier = Notifier::new(path.to_str());
        notifier.ready();
        assert_eq!(heard(), "READY=1");
        notifier.reloading();
        let text = heard();
        let since = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0, "{text}");
        notifier.stopping();
        assert_eq!(heard(), "STOPPING=1");
    }

    #[test]
    fn an_abstract_name_is_an_address_too() {
        let name = format!("pooler-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::new(Some(&format!("@{name}"))).status("fine");
        let mut buffer = [0; 20];
        assert_eq!(manager.recv(&mut buffer).unwrap(), "STATUS=fine".len());
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        for address in [None, Some(""), Some("/does/not/exist")] {
            let notifier = Notifier::new(address);
            assert!(notifier.socket.is_none(), "{address:?}");
            notifier.ready();
        }
    }
}
