//! Whether a part of the running stack holds a TCP port, as /proc tells it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The state LISTEN in /proc/net/tcp (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// The ports on which one of these processes listens; `None` where one of them may not be looked into.
pub fn ports_of(pids: impl IntoIterator<Item = u32>) -> Option<BTreeSet<u16>> {
    let inodes: Vec<BTreeSet<String>> = pids.into_iter().map(sockets_of).collect::<Option<_>>()?;
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let is_ours = |inode: &str| inodes.iter().any(|inodes| inodes.contains(inode));
    Some(lines.filter_map(listener).filter(|(_, inode)| is_ours(inode)).map(|(port, _)| port).collect())
}

/// Inodes of the sockets that a process has open.
fn sockets_of(pid: u32) -> Option<BTreeSet<String>> {
    let open = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")).ok()?;
    let targets = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |target: std::path::PathBuf| {
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    Some(targets.filter_map(inode).collect())
}

/// Port and inode of a line of the table (proc(5)) that is a listener's.
fn listener(line: &str) -> Option<(u16, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = words.get(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (words.get(3) == Some(&LISTEN)).then_some((port, *words.get(9)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found_and_another_process_has_it_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(ports_of([std::process::id()]).unwrap().contains(&port));
        assert!(!ports_of([]).unwrap().contains(&port));
        assert_eq!(ports_of([u32::MAX]), None, "no such process");
    }
}
