//! Variables that the configuration makes, and what upstreams may order: geo, split_clients, cookies, X-Accel.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use common::{Balancer, Origin, wait_until};

#[test]
fn geo_takes_the_longest_network_and_ranges_the_last_one_written() {
    let balancer = Balancer::start(
        "geo $arg_ip $net { default none; 10.0.0.0/8 ten; 10.1.0.0/16 one; 10.1.2.3 host; 2001:db8::/32 six;\n\
           delete 10.2.0.0/16; }\n\
         geo $arg_ip $range { ranges; default none; 10.0.0.0-10.0.0.255 all; 10.0.0.7-10.0.0.8 some; }\n\
         server { listen 127.0.0.1:PORT; location / { return 200 \"$net $range\"; } }",
    );
    for (ip, said) in [
        ("10.9.9.9", "ten none"),
        ("10.1.9.9", "one none"),
        ("10.1.2.3", "host none"),
        ("10.0.0.7", "ten some"),
        ("10.0.0.9", "ten all"),
        ("2001:db8::5", "six none"),
        ("1.1.1.1", "none none"),
        ("junk", "none none"),
    ] {
        assert_eq!(balancer.client().get(&format!("/?ip={ip}")).body, said, "{ip}");
    }
}

#[test]
fn geo_takes_what_stands_last_of_a_network_named_twice_and_forgets_what_is_deleted() {
    let balancer = Balancer::start(
        "geo $arg_ip $net { 0.0.0.0/0 early; 10.0.0.0/8 old; 10.1.0.0/16 gone; default none; 10.0.0.0/8 new;\n\
           delete 10.1.0.0/16; }\n\
         server { listen 127.0.0.1:PORT; location / { return 200 $net; } }",
    );
    for (ip, said) in [("10.1.1.1", "new"), ("10.2.2.2", "new"), ("1.1.1.1", "none")] {
        assert_eq!(balancer.client().get(&format!("/?ip={ip}")).body, said, "{ip}");
    }
}

#[test]
fn split_clients_gives_each_share_its_keys() {
    let balancer = Balancer::start(
        "split_clients $arg_key $half { 50% a; * b; }\n\
         server { listen 127.0.0.1:PORT; location / { return 200 $half; } }",
    );
    let mut client = balancer.client();
    let a = (0..200).filter(|n| client.get(&format!("/?key={n}")).body == "a").count();
    assert!((70..130).contains(&a), "{a} of 200");
    let again = |key: &str| balancer.client().get(&format!("/?key={key}")).body;
    assert_eq!(again("same"), again("same"));
}

#[test]
fn a_request_sees_the_value_that_it_saw_first_unless_the_map_is_volatile() {
    let balancer = Balancer::start(
        "map $uri $once { default $uri; } map $uri $anew { volatile; default $uri; }\n\
         server { listen 127.0.0.1:PORT;\n\
         location / { set $seen $once$anew; rewrite ^ /b last; }\n\
         location /b { return 200 \"$seen $once $anew\"; } }",
    );
    assert_eq!(balancer.client().get("/a").body, "/a/a /a /b");
}

#[test]
fn cookies_of_the_upstream_are_rewritten() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Domain=.Backend.example; Path=/app/x\r\nSet-Cookie: b=2; HttpOnly\r\n\
         Content-Length: 0\r\n\r\n",
    );
    let balancer = Balancer::before(
        &[&origin],
        "proxy_cookie_domain backend.example www.example; proxy_cookie_path /app/ /; \
         proxy_cookie_flags a secure samesite=lax; proxy_cookie_flags ~^B$ nohttponly;",
    );
    let head = balancer.client().get("/").head;
    assert!(
        head.contains("Set-Cookie: a=1; Domain=.www.example; Path=/x; Secure; SameSite=Lax\r\n"),
        "{head}"
    );
    assert!(head.contains("Set-Cookie: b=2\r\n"), "{head}");
}

#[test]
fn an_upstream_sends_a_request_to_another_location() {
    let orders = Origin::answering(
        "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /inside?x=1\r\nSet-Cookie: a=1\r\nX-Other: 1\r\n\
         Content-Length: 4\r\n\r\ngone",
    );
    let target = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere");
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://127.0.0.1:{}; }}\n\
         location /plain {{ proxy_ignore_headers X-Accel-Redirect; proxy_pass http://127.0.0.1:{}; }}\n\
         location /inside {{ internal; proxy_pass http://127.0.0.1:{}; }} }}",
        orders.port, orders.port, target.port
    ));
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let answer = balancer.client().send(post).response();
    assert_eq!((answer.body.as_str(), answer.header("set-cookie")), ("here", Some("a=1")));
    assert_eq!(answer.header("x-other"), None);
    assert!(target.seen()[0].starts_with("GET /inside?x=1 HTTP/1.1"), "{:?}", target.seen());
    assert_eq!(balancer.client().get("/plain").body, "gone");
    assert_eq!(balancer.client().get("/inside").status, 404);
}

#[test]
fn an_order_to_go_nowhere_is_not_found_and_the_error_log_says_why() {
    for order in ["", "/inside/../x"] {
        let answer = format!("HTTP/1.1 200 OK\r\nX-Accel-Redirect: {order}\r\nContent-Length: 4\r\n\r\ngone");
        let origin = Origin::answering(answer.leak());
        let balancer = Balancer::before(&[&origin], "");
        assert_eq!(balancer.client().get("/").status, 404);
        let told = format!("unsafe URI \"{order}\" was detected");
        wait_until("the log says why", || balancer.errors().contains(&told));
    }
}
