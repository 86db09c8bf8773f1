//! What clients say stands in the logs so that it is neither a line of its own nor anything but what it looks like.

use crate::common::Balancer;

#[test]
fn what_clients_say_is_escaped_in_both_logs() {
    let balancer = Balancer::start(
        "server { listen 127.0.0.1:PORT; location / { proxy_pass http://127.0.0.1:1; }\n\
         location /named { return 200 $upstream_addr$arg_x; } }",
    );
    // Overrides of direction (CVE-2021-42574), C1, DEL, the start of a terminal's command, quotes.
    let odd = "\u{202e}\u{2066}\u{2069}\u{9b}\u{85}\"\\";
    let value = format!("{odd}\x1b[31m\x7f\tx");
    let requests = [
        format!("GET /{odd}?{odd} HTTP/1.1\r\nHost: a\r\nReferer: {value}\r\nUser-Agent: {value}\r\n\r\n"),
        format!("GET /%0aforged%0d%1b HTTP/1.1\r\nHost: a\r\nUser-Agent: {value}\r\n\r\n"),
        format!("GET /named?x={odd} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {value}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {odd}\r\n\r\n"),
        format!("{odd} / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    let mut answered = 0;
    for request in &requests {
        balancer.client().send(request).head().unwrap();
        answered += 1;
    }
    let access = balancer.path("access.log");
    crate::common::wait_until("each request has its line", || {
        std::fs::read(&access).is_ok_and(|log| log.iter().filter(|byte| **byte == b'\n').count() >= answered)
    });
    for log in ["access.log", "error.log"] {
        let text = std::fs::read(balancer.path(log)).unwrap();
        let odd = text.iter().find(|byte| !matches!(byte, b'\n' | b' '..=b'~'));
        assert_eq!(odd, None, "{log}: {}", text.escape_ascii());
        let lines = text.split(|byte| *byte == b'\n');
        assert!(lines.clone().all(|line| !line.starts_with(b"forged")), "{log}: {}", text.escape_ascii());
        assert!(log == "error.log" || lines.count() == answered + 1, "{}", text.escape_ascii());
    }
}
