//! Turns `deploy/nginx.conf`, which is written for compose, into the one of this stack: other addresses, same words.

use super::addresses::Endpoint;

/// What differs from the file in `deploy/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    pub servers: Vec<Endpoint>,
    /// Replaces port 80 of `listen`.
    pub http_port: Option<u16>,
    /// Replaces the path of `pid`.
    pub pid: Option<String>,
}

/// The file has no upstream server to take as the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no line \"server web-N:8000 …;\" in any upstream block")]
pub struct NoPattern;

/// Rewrites the file line by line.
///
/// In each upstream block, one line is written for each server: the block's own `server web-N:PORT OPTIONS;` where it
/// has that number, else its first such line.
///
/// # Errors
/// No upstream block has such a line.
pub fn derive(text: &str, changes: &Changes) -> Result<String, NoPattern> {
    let mut out = String::with_capacity(text.len());
    let mut seen = Seen::NoneInBlock;
    let mut patterns = 0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if opens_block(line) {
            seen = Seen::NoneInBlock;
        }
        match (replica_line(line), seen) {
            (Some(first), Seen::NoneInBlock) => {
                seen = Seen::Pattern;
                patterns += 1;
                let others = lines.clone().take_while(|line| !opens_block(line)).filter_map(replica_line);
                let own: Vec<Replica<'_>> = std::iter::once(first).chain(others).collect();
                for (number, server) in (1..).zip(&changes.servers) {
                    let Replica { before, after, .. } =
                        own.iter().find(|line| line.number == number).unwrap_or(&first);
                    out.push_str(&format!("{before}{server}{after}\n"));
                }
            }
            (Some(_), Seen::Pattern) => {}
            (None, _) => {
                out.push_str(&changed(line, changes));
                out.push('\n');
            }
        }
    }
    if patterns == 0 { Err(NoPattern) } else { Ok(out) }
}

/// How many replicas the file names: its derivative for as many has the same lines under the same numbers.
pub fn replicas_named(text: &str) -> usize {
    let mut blocks = text.split("upstream ").map(|block| block.lines().filter_map(replica_line).count());
    blocks.find(|count| *count > 0).unwrap_or(1)
}

#[derive(Clone, Copy)]
enum Seen {
    NoneInBlock,
    Pattern,
}

fn opens_block(line: &str) -> bool {
    line.trim_start().starts_with("upstream ")
}

/// `    server web-3:8000 max_fails=2;`: the 3, and what stands before and after the address.
#[derive(Clone, Copy)]
struct Replica<'a> {
    number: usize,
    before: &'a str,
    after: &'a str,
}

fn replica_line(line: &str) -> Option<Replica<'_>> {
    let trimmed = line.trim_start();
    let arguments = trimmed.strip_prefix("server ")?.trim_start();
    let number = arguments.strip_prefix("web-")?;
    let (digits, _) =
        number.split_once(':').filter(|(digits, _)| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let number = digits.parse().ok()?;
    let end = arguments.find(|c: char| c.is_whitespace() || c == ';')?;
    let before = line.len() - arguments.len();
    Some(Replica { number, before: &line[..before], after: &arguments[end..] })
}

fn changed(line: &str, changes: &Changes) -> String {
    let trimmed = line.trim_start();
    let indent = &line[..line.len() - trimmed.len()];
    if let (Some(rest), Some(port)) = (trimmed.strip_prefix("listen "), changes.http_port) {
        let end = rest.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(rest.len());
        let (address, after) = rest.split_at(end);
        let host = address.strip_suffix("80").filter(|host| host.is_empty() || host.ends_with(':'));
        if let Some(host) = host {
            return format!("{indent}listen {host}{port}{after}");
        }
    }
    match (trimmed.starts_with("pid "), &changes.pid) {
        (true, Some(path)) => format!("{indent}pid {path};"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "\
pid /run/balancer.pid;
http {
    upstream django_backend {
        keepalive 32;
        server web-1:8000 max_fails=3 fail_timeout=30s;
        server web-2:8000 max_fails=3 fail_timeout=30s;
    }
    upstream django_websocket {
        ip_hash;
        server web-1:8000 max_conns=1500;
        server web-2:8000 max_conns=1500;
    }
    server {
        listen 80 default_server;
        listen [::]:80;
        server_name web-1;
        listen 8080;
    }
}
";

    fn changes(count: u16) -> Changes {
        let servers = (1..=count).map(|n| Endpoint::local(8000 + n)).collect();
        Changes { servers, http_port: Some(9090), pid: Some("/x/b.pid".to_owned()) }
    }

    #[test]
    fn every_upstream_gets_one_line_per_replica_with_its_own_options() {
        let text = derive(FILE, &changes(3)).unwrap();
        for line in [
            "        server 127.0.0.1:8003 max_fails=3 fail_timeout=30s;\n",
            "        server 127.0.0.1:8003 max_conns=1500;\n",
            "pid /x/b.pid;\n",
            "        listen 9090 default_server;\n",
            "        listen [::]:9090;\n",
            "        server_name web-1;\n",
            "        listen 8080;\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("web-1:8000") && !text.contains("web-2:8000"));
    }

    #[test]
    fn a_replica_keeps_the_options_that_its_own_line_has() {
        let file =
            FILE.replacen("server web-2:8000 max_fails=3", "server web-2:8000 weight=7 max_fails=3", 1);
        let text = derive(&file, &changes(3)).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("fail_timeout")).collect();
        let expected = [
            "        server 127.0.0.1:8001 max_fails=3 fail_timeout=30s;",
            "        server 127.0.0.1:8002 weight=7 max_fails=3 fail_timeout=30s;",
            "        server 127.0.0.1:8003 max_fails=3 fail_timeout=30s;",
        ];
        assert_eq!(lines, expected);
        assert_eq!(text.matches("weight=7").count(), 1, "the other upstream has its own lines");
    }

    #[test]
    fn a_file_without_a_pattern_is_refused() {
        assert_eq!(derive("http { }\n", &changes(1)), Err(NoPattern));
    }

    #[test]
    fn nothing_to_change_leaves_the_file_as_it_is() {
        let servers = (1..=2).map(|n| Endpoint::new(&format!("web-{n}"), 8000)).collect();
        let same = Changes { servers, http_port: None, pid: None };
        assert_eq!(derive(FILE, &same).unwrap(), FILE);
    }

    proptest! {
        #[test]
        fn the_number_of_servers_is_what_was_asked(count in 1u16..40) {
            let text = derive(FILE, &changes(count)).unwrap();
            prop_assert_eq!(text.matches("server 127.0.0.1:").count(), usize::from(count) * 2);
        }
    }
}
