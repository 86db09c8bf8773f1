//! What clients claim: where they come from, and that they may change things.

use crate::OK;
use crate::common::{Balancer, Client, Origin, header};

const SHOWN: &str = "location / { return 200 \"$remote_addr\"; }";

fn ask(client: &mut Client, lines: &str) -> String {
    client.send(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).response().body
}

#[test]
fn whom_nobody_trusts_is_who_connected_whatever_the_headers_say() {
    for trusted in ["", "set_real_ip_from 10.0.0.0/8; set_real_ip_from ::/0;"] {
        for header in ["X-Forwarded-For", "X-Real-IP", "Forwarded"] {
            let balancer = Balancer::start(&format!(
                "server {{ listen 127.0.0.1:PORT; {trusted} real_ip_header {header}; real_ip_recursive on; {SHOWN}\n\
                 location /own {{ deny 127.0.0.1; allow all; return 200 no; }}\n\
                 location /foreign {{ allow 10.0.0.1; deny all; proxy_pass http://127.0.0.1:1; }} }}"
            ));
            let mut client = balancer.client();
            for value in ["10.0.0.1", "10.0.0.1, 10.0.0.2", "127.0.0.1, 10.0.0.1", "for=10.0.0.1", "[::1]:80"]
            {
                let claims =
                    format!("{header}: {value}\r\nX-Forwarded-For: {value}\r\nX-Client-IP: {value}\r\n");
                assert_eq!(ask(&mut client, &claims), "127.0.0.1", "{trusted} {claims}");
                let get = format!("GET /foreign HTTP/1.1\r\nHost: a\r\n{claims}\r\n");
                assert_eq!(client.send(&get).response().status, 403, "{trusted} {claims}");
            }
        }
    }
}

#[test]
fn behind_trusted_proxies_addresses_are_read_from_the_right_and_those_of_ipv6_in_any_form() {
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; set_real_ip_from 127.0.0.0/8; set_real_ip_from 10.0.0.0/8;\n\
         set_real_ip_from 2001:db8:1::/48; real_ip_header X-Forwarded-For; real_ip_recursive on; {SHOWN} }}"
    ));
    let mut client = balancer.client();
    for (value, wanted) in [
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
        ("127.0.0.1, 192.0.2.1, 10.0.0.1, 10.0.0.2", "192.0.2.1"),
        ("10.0.0.3, 10.0.0.1", "10.0.0.3"),
        ("192.0.2.1:4444", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443, 10.0.0.1", "2001:db8::1"),
        ("6.6.6.6, [2001:db8::1]:443, [2001:db8:1::9]:80", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        // What cannot be read ends the search: left of it stands what anybody may have written.
        ("6.6.6.6, unknown", "127.0.0.1"),
        ("6.6.6.6, 10.0.0.1.5, 10.0.0.1", "10.0.0.1"),
        ("6.6.6.6, [2001:db8::1, 10.0.0.1", "10.0.0.1"),
        ("", "127.0.0.1"),
        (", ,", "127.0.0.1"),
    ] {
        assert_eq!(ask(&mut client, &format!("X-Forwarded-For: {value}\r\n")), wanted, "{value}");
    }
    let twice = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1, 10.0.0.1\r\n";
    assert_eq!(ask(&mut client, twice), "192.0.2.1", "one list in two lines");
    let others = "X_Forwarded_For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
    assert_eq!(ask(&mut client, others), "127.0.0.1", "no other header names the client");
}

#[test]
fn what_the_configuration_says_of_the_client_is_all_that_an_origin_hears() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(
        &[&origin],
        "proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Prefix \"\";\n\
         proxy_set_header Forwarded \"for=$remote_addr\";",
    );
    let claims = "x-real-ip: 6.6.6.6\r\nX-REAL-IP: 6.6.6.7\r\nX_Real_IP: 6.6.6.8\r\nX-Forwarded-For: 6.6.6.6\r\n\
        X-Forwarded-For: 6.6.6.7\r\nX_Forwarded_For: 6.6.6.8\r\nX-Forwarded-Proto: https\r\nX_Forwarded_Proto: https\r\n\
        Forwarded: for=6.6.6.6;proto=https\r\nforwarded: for=6.6.6.7\r\nX-Forwarded-Prefix: /evil\r\n\
        Connection: x-real-ip, x-forwarded-for, x-forwarded-proto, forwarded, keep-alive\r\n";
    ask(&mut balancer.client(), claims);
    let seen = &origin.seen()[0];
    let lines: Vec<_> = seen.lines().map(str::to_ascii_lowercase).collect();
    for (name, wanted) in [
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "6.6.6.6, 6.6.6.7, 127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "for=127.0.0.1"),
    ] {
        assert_eq!(header(seen, name), Some(wanted), "{seen}");
        let same = lines.iter().filter(|line| line.replace('_', "-").starts_with(&format!("{name}:")));
        assert_eq!(same.count(), 1, "{name}: {seen}");
    }
    assert!(!seen.contains("/evil"), "{seen}");
}

#[test]
fn an_upgrade_hides_no_header_of_ours_and_takes_none_of_the_hop_along() {
    let origin = Origin::answering(OK);
    let balancer = Balancer::before(
        &[&origin],
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;\n\
         proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Forwarded-For $remote_addr;",
    );
    let lines = "Upgrade: websocket\r\nConnection: upgrade, x-real-ip, x-forwarded-for, host, x-hop\r\nX-Hop: 1\r\n\
        X-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\nKeep-Alive: 9\r\nProxy-Connection: x\r\n";
    ask(&mut balancer.client(), lines);
    let seen = &origin.seen()[0];
    for (name, wanted) in [
        ("upgrade", Some("websocket")),
        ("connection", Some("upgrade")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("host", Some("origins")),
        ("x-hop", None),
        ("keep-alive", None),
        ("proxy-connection", None),
    ] {
        assert_eq!(header(seen, name), wanted, "{name}: {seen}");
    }
    assert!(!seen.contains("6.6.6.6"), "{seen}");
}

/// Servers of the group, as the API shows them.
fn servers(client: &mut Client, lines: &str) -> (u16, String) {
    let get = format!("GET /api/9/http/upstreams/g/servers HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let answer = client.send(&get).response();
    (answer.status, answer.body)
}

/// Each way of changing something through the API, and the status of the answer to each.
fn changes(client: &mut Client, lines: &str) -> Vec<u16> {
    let servers = "/api/9/http/upstreams/g/servers";
    [
        ("POST", servers.to_owned(), r#"{"server":"127.0.0.1:9"}"#),
        ("PATCH", format!("{servers}/0"), r#"{"down":true}"#),
        ("DELETE", format!("{servers}/0"), ""),
        ("POST", format!("{servers}/"), r#"{"server":"127.0.0.1:9"}"#),
        ("DELETE", "/api/9/http/upstreams/g".to_owned(), ""),
        ("DELETE", "/api/9/http/requests".to_owned(), ""),
    ]
    .map(|(method, path, body)| {
        let len = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {len}\r\n\r\n");
        client.send(&head).send(body).response().status
    })
    .to_vec()
}

fn with_api(guards: &str) -> Balancer {
    let balancer = Balancer::start(&format!(
        "upstream g {{ zone g 64k; server 127.0.0.1:1; }} server {{ listen 127.0.0.1:PORT;\n\
         location /open/ {{ rewrite ^/open/(.*) /api/$1 break; return 200 x; }}\n\
         location /api {{ {guards} }} }}"
    ));
    // `operator:opens`, in clear as {{PLAIN}} allows it.
    std::fs::write(balancer.path("passwords"), "operator:{PLAIN}opens\n").unwrap();
    balancer
}

#[test]
fn an_api_that_may_not_write_changes_nothing() {
    for guards in ["api;", "api write=off;"] {
        let balancer = with_api(guards);
        let mut client = balancer.client();
        let before = servers(&mut client, "");
        assert_eq!(before.0, 200);
        for claims in ["", "X-HTTP-Method-Override: GET\r\nX-HTTP-Method: GET\r\n"] {
            assert_eq!(changes(&mut client, claims), [405; 6], "{guards}");
        }
        let hidden = "GET /api/9/http/upstreams/g/servers?method=DELETE HTTP/1.1\r\nHost: a\r\n\
                      X-HTTP-Method-Override: DELETE\r\n\r\n";
        assert_eq!(client.send(hidden).response().status, 200);
        assert_eq!(servers(&mut client, ""), before, "{guards}");
    }
}

#[test]
fn rules_of_a_location_hold_for_its_api() {
    let right = "Authorization: Basic b3BlcmF0b3I6b3BlbnM=\r\n";
    for (guards, lines, wanted) in [
        ("deny all;", right, 403),
        ("allow 127.0.0.2; deny all;", "X-Forwarded-For: 127.0.0.2\r\n", 403),
        ("allow ::1; deny all;", "", 403),
        ("auth_basic x; auth_basic_user_file DIR/passwords;", "", 401),
        ("auth_basic x; auth_basic_user_file DIR/passwords;", "Authorization: Basic b3BlcmF0b3I6\r\n", 401),
        ("auth_basic x; auth_basic_user_file DIR/passwords;", "Authorization: Bearer opens\r\n", 401),
        ("satisfy all; allow all; auth_basic x; auth_basic_user_file DIR/passwords;", "", 401),
        ("satisfy all; deny all; auth_basic x; auth_basic_user_file DIR/passwords;", right, 403),
        ("limit_except GET { deny all; }", "", 403),
    ] {
        let balancer = with_api(&format!("{guards} api write=on;"));
        let mut client = balancer.client();
        assert_eq!(changes(&mut client, lines), [wanted; 6], "{guards} {lines}");
        let (status, shown) = servers(&mut client, lines);
        let is_shown = guards.starts_with("limit_except");
        assert_eq!(status, if is_shown { 200 } else { wanted }, "{guards} {lines}");
        assert_eq!(shown.contains("127.0.0.1:1"), is_shown, "{guards} {lines}: {shown}");
    }
    let balancer = with_api("auth_basic x; auth_basic_user_file DIR/passwords; api write=on;");
    let mut client = balancer.client();
    assert_eq!(servers(&mut client, right).0, 200);
    assert_eq!(changes(&mut client, right)[..3], [201, 200, 200], "who may, may");
}
