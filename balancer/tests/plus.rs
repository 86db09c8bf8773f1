//! What NGINX Plus sells, through the binary: health checks, the queue, changes at run time, sticky sessions, the page.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use common::{Balancer, Client, Origin, PATIENCE, Response, wait_until};
use serde_json::{Value, json};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const STATUS: &str = "location /api { api write=on; } location = /live { dashboard /api/; }";

/// Tells its own port to every request.
fn named() -> Origin {
    Origin::scripted(|served| {
        let port = served.stream.local_addr().unwrap().port().to_string();
        while served.read_request().is_some() {
            served.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{port}", port.len()));
        }
    })
}

fn call(client: &mut Client, method: &str, path: &str, body: &str) -> Response {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.send(&request).response()
}

fn json_of(client: &mut Client, path: &str) -> Value {
    let response = call(client, "GET", path, "");
    assert_eq!(response.header("content-type"), Some("application/json"), "{response:?}");
    serde_json::from_str(&response.body).unwrap()
}

fn peers(client: &mut Client) -> Vec<Value> {
    json_of(client, "/api/9/http/upstreams/g").get("peers").unwrap().as_array().unwrap().clone()
}

fn states(client: &mut Client) -> Vec<String> {
    peers(client).iter().map(|peer| peer["state"].as_str().unwrap().to_owned()).collect()
}

/// An origin whose answer to health checks can be switched.
fn ailing() -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = well.clone();
    let origin = Origin::scripted(move |served| {
        while let Some(head) = served.read_request() {
            let is_check = head.starts_with("GET /health ");
            match is_check && !is_well.load(Ordering::SeqCst) {
                true => served.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nill"),
                false => served.send(OK),
            }
        }
    });
    (origin, well)
}

#[test]
fn a_server_that_fails_its_checks_gets_no_requests_until_it_passes_again() {
    let (sick, well) = ailing();
    let other = named();
    let balancer = Balancer::with_workers(
        &format!(
            "match good {{ status 200-299; header Content-Length = 2; body ~ \"^ok$\"; }}\n\
             upstream g {{ zone g; server 127.0.0.1:{}; server 127.0.0.1:{} backup; }}\n\
             server {{ listen 127.0.0.1:PORT; {STATUS} location / {{ proxy_pass http://g;\n\
             health_check interval=20ms fails=2 passes=2 uri=/health match=good; }} }}",
            sick.port, other.port
        ),
        2,
    );
    let mut client = balancer.client();
    // The backup answers with its port, five digits, which is not what is asked for.
    wait_until("the checks are told", || states(&mut balancer.client()) == ["up", "unhealthy"]);
    assert_eq!(client.get("/").body, "ok");
    well.store(false, Ordering::SeqCst);
    wait_until("the sick one is out", || states(&mut balancer.client()) == ["unhealthy", "unhealthy"]);
    assert_eq!(client.get("/").status, 502);
    well.store(true, Ordering::SeqCst);
    wait_until("it is back", || states(&mut balancer.client()) == ["up", "unhealthy"]);
    assert_eq!(client.get("/").body, "ok");
    let first = peers(&mut client).remove(0);
    let checks = &first["health_checks"];
    assert!(checks["checks"].as_u64().unwrap() > checks["fails"].as_u64().unwrap(), "{first}");
    assert_eq!((&checks["unhealthy"], &checks["last_passed"]), (&json!(1), &json!(true)));
    assert!(first["downtime"].as_u64().unwrap() > 0, "{first}");
    let request = sick.seen().into_iter().find(|head| head.starts_with("GET /health")).unwrap();
    assert!(request.contains("\r\nHost: g\r\n"), "{request}");
}

#[test]
fn with_mandatory_checks_a_new_server_waits_for_its_first_answer() {
    let seen = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = seen.clone();
    let slow = Origin::scripted(move |served| {
        while let Some(head) = served.read_request() {
            if head.starts_with("GET /health ") {
                let open = gate.0.lock().unwrap();
                drop(gate.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
            }
            served.send(OK);
        }
    });
    let balancer = Balancer::start(&format!(
        "upstream g {{ zone g; server 127.0.0.1:{}; }}\n\
         server {{ listen 127.0.0.1:PORT; {STATUS} location / {{ proxy_pass http://g;\n\
         health_check mandatory uri=/health interval=1h; }} }}",
        slow.port
    ));
    let mut client = balancer.client();
    assert_eq!(states(&mut client), ["checking"]);
    assert_eq!(client.get("/").status, 502);
    *seen.0.lock().unwrap() = true;
    seen.1.notify_all();
    wait_until("it has passed", || states(&mut balancer.client()) == ["up"]);
    assert_eq!(client.get("/").status, 200);
    balancer.reload();
    assert_eq!(states(&mut client), ["up"], "what is known outlives a reload");
}

#[test]
fn who_finds_all_servers_full_waits_in_turn_and_who_finds_the_queue_full_is_refused() {
    let gate = Arc::new((Mutex::new(0_usize), Condvar::new()));
    let arrived = Arc::new(AtomicUsize::new(0));
    let (door, count) = (gate.clone(), arrived.clone());
    let origin = Origin::scripted(move |served| {
        while served.read_request().is_some() {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let open = door.0.lock().unwrap();
            drop(door.1.wait_timeout_while(open, PATIENCE, |open| *open <= number).unwrap());
            served.send(OK);
        }
    });
    let balancer = Balancer::with_workers(
        &format!(
            "upstream g {{ zone g; queue 2 timeout=30s; server 127.0.0.1:{} max_conns=1; }}\n\
             upstream brief {{ queue 5 timeout=50ms; server 127.0.0.1:{} down; }}\n\
             server {{ listen 127.0.0.1:PORT reuseport; {STATUS} location / {{ proxy_pass http://g; }}\n\
             location /brief {{ proxy_pass http://brief; }} }}",
            origin.port, origin.port
        ),
        2,
    );
    let queued = |size: u64| {
        wait_until("the queue is so long", || {
            json_of(&mut balancer.client(), "/api/9/http/upstreams/g")["queue"]["size"] == json!(size)
        });
    };
    let mut first = balancer.client();
    first.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_until("the first has come", || arrived.load(Ordering::SeqCst) == 1);
    let mut second = balancer.client();
    second.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    queued(1);
    let mut third = balancer.client();
    third.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    queued(2);
    assert_eq!(balancer.client().get("/4").status, 502, "the queue is full");
    for (client, number) in [(&mut first, 1), (&mut second, 2)] {
        *gate.0.lock().unwrap() = number;
        gate.1.notify_all();
        assert_eq!(client.response().status, 200);
    }
    wait_until("the third has come", || arrived.load(Ordering::SeqCst) == 3);
    let order: Vec<String> = origin.seen().iter().map(|head| head[..6].to_owned()).collect();
    assert_eq!(order, ["GET /1", "GET /2", "GET /3"]);
    let mut gone = balancer.client();
    gone.send("GET /5 HTTP/1.1\r\nHost: a\r\n\r\n");
    queued(1);
    drop(gone);
    queued(0);
    *gate.0.lock().unwrap() = 3;
    gate.1.notify_all();
    assert_eq!(third.response().status, 200);
    assert_eq!(balancer.client().get("/brief").status, 502, "after its time");
    let queue = &json_of(&mut balancer.client(), "/api/9/http/upstreams/g")["queue"];
    assert_eq!(*queue, json!({ "size": 0, "max_size": 2, "overflows": 1 }));
}

#[test]
fn servers_are_added_changed_and_removed_at_run_time_and_a_state_file_keeps_them() {
    let origins = [named(), named()];
    let [one, two] = origins.each_ref().map(|origin| origin.port);
    let balancer = Balancer::with_workers(
        &format!(
            "upstream g {{ zone g; state DIR/g.state; }} upstream fixed {{ server 127.0.0.1:{one}; }}\n\
             server {{ listen 127.0.0.1:PORT reuseport; {STATUS} location / {{ proxy_pass http://g; }}\n\
             location /fixed {{ proxy_pass http://fixed; }} location /read {{ api; }} }}"
        ),
        2,
    );
    let mut client = balancer.client();
    assert_eq!(client.get("/").status, 502, "the group is empty");
    let servers = "/api/9/http/upstreams/g/servers";
    let added =
        call(&mut client, "POST", servers, &format!("{{\"server\": \"127.0.0.1:{one}\", \"weight\": 3}}"));
    assert_eq!((added.status, added.header("location")), (201, Some("/api/9/http/upstreams/g/servers/0/")));
    assert_eq!(serde_json::from_str::<Value>(&added.body).unwrap()["weight"], json!(3));
    // Every worker has it at once, whichever takes the connection.
    (0..16).for_each(|_| assert_eq!(balancer.client().get("/").body, one.to_string()));
    call(&mut client, "POST", &format!("{servers}/"), &format!("{{\"server\": \"127.0.0.1:{two}\"}}"));
    let drained = call(&mut client, "PATCH", &format!("{servers}/0"), "{\"drain\": true}");
    assert_eq!(drained.status, 200, "{}", drained.body);
    (0..16).for_each(|_| assert_eq!(balancer.client().get("/").body, two.to_string()));
    assert_eq!(states(&mut client), ["draining", "up"]);
    let kept = std::fs::read_to_string(balancer.path("g.state")).unwrap();
    assert_eq!(kept, format!("server 127.0.0.1:{one} weight=3 drain;\nserver 127.0.0.1:{two};\n"));
    balancer.reload();
    assert_eq!(states(&mut client), ["draining", "up"], "the file is read back");
    let left = call(&mut client, "DELETE", &format!("{servers}/1"), "");
    assert_eq!(serde_json::from_str::<Value>(&left.body).unwrap().as_array().unwrap().len(), 1);
    for (method, path, body, status, code) in [
        (
            "POST",
            "/api/9/http/upstreams/fixed/servers",
            "{\"server\": \"127.0.0.1:1\"}",
            400,
            "UpstreamStatic",
        ),
        (
            "POST",
            "/api/9/http/upstreams/none/servers",
            "{\"server\": \"127.0.0.1:1\"}",
            404,
            "UpstreamNotFound",
        ),
        ("POST", servers, "{}", 400, "UpstreamConfFormatError"),
        ("POST", servers, "{\"server\": \"a b;\"}", 400, "UpstreamBadAddress"),
        ("PATCH", "/api/9/http/upstreams/g/servers/77", "{}", 404, "UpstreamServerNotFound"),
        ("PATCH", "/read/9/http/upstreams/g/servers/0", "{}", 405, "MethodDisabled"),
        ("GET", "/api/9/nothing", "", 404, "PathNotFound"),
        ("GET", "/api/1/nginx", "", 404, "UnknownVersion"),
    ] {
        // Our 400 closes the connection, as nginx's does.
        let response = call(&mut balancer.client(), method, path, body);
        let error: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!((response.status, &error["error"]["code"]), (status, &json!(code)), "{method} {path}");
    }
}

#[test]
fn a_request_under_way_ends_at_a_server_that_was_removed() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let door = gate.clone();
    let origin = Origin::scripted(move |served| {
        while served.read_request().is_some() {
            let open = door.0.lock().unwrap();
            drop(door.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
            served.send(OK);
        }
    });
    let other = named();
    let balancer = Balancer::start(&format!(
        "upstream g {{ zone g; server 127.0.0.1:{}; server 127.0.0.1:{} backup; }}\n\
         server {{ listen 127.0.0.1:PORT; {STATUS} location / {{ proxy_pass http://g; }} }}",
        origin.port, other.port
    ));
    let mut slow = balancer.client();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut client = balancer.client();
    wait_until("it is under way", || peers(&mut balancer.client())[0]["active"] == json!(1));
    call(&mut client, "DELETE", "/api/9/http/upstreams/g/servers/0", "");
    assert_eq!(client.get("/").body, other.port.to_string());
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(slow.response().body, "ok");
}

#[test]
fn zones_connections_and_requests_are_counted_as_plus_shows_them() {
    let origin = named();
    let balancer = Balancer::start(&format!(
        "upstream g {{ zone g; server 127.0.0.1:{}; }}\n\
         server {{ listen 127.0.0.1:PORT; status_zone site; {STATUS}\n\
         location /a {{ status_zone part; proxy_pass http://g; }} location /b {{ return 404; }} }}",
        origin.port
    ));
    let mut client = balancer.client();
    for path in ["/a", "/a", "/b"] {
        client.get(path);
    }
    let site = json_of(&mut client, "/api/9/http/server_zones/site");
    assert_eq!((&site["requests"], &site["processing"]), (&json!(3), &json!(1)), "{site}");
    assert_eq!(site["responses"]["codes"], json!({ "200": 2, "404": 1 }));
    let part = &json_of(&mut client, "/api/9/http/location_zones")["part"];
    assert_eq!((&part["requests"], &part["responses"]["2xx"]), (&json!(2), &json!(2)), "{part}");
    assert!(part["received"].as_u64().unwrap() > 40 && part["sent"].as_u64().unwrap() > 40, "{part}");
    let peer = peers(&mut client).remove(0);
    assert_eq!(
        (&peer["requests"], &peer["responses"]["total"], &peer["active"]),
        (&json!(2), &json!(2), &json!(0))
    );
    assert!(peer["selected"].as_str().unwrap().ends_with('Z'), "{peer}");
    let connections = json_of(&mut client, "/api/9/connections");
    assert_eq!((&connections["active"], &connections["dropped"]), (&json!(1), &json!(0)));
    assert_eq!(json_of(&mut client, "/api/9/http/requests?fields=current"), json!({ "current": 1 }));
    assert_eq!(json_of(&mut client, "/api/9/processes"), json!({ "respawned": 0 }));
    assert_eq!(json_of(&mut client, "/api/9/nginx")["version"], json!("1.31.5"));
    assert_eq!(json_of(&mut client, "/api"), json!([9]));
    assert_eq!(call(&mut client, "DELETE", "/api/9/http/location_zones/part", "").status, 204);
    assert_eq!(json_of(&mut client, "/api/9/http/location_zones/part")["requests"], json!(0));
    assert_eq!(call(&mut client, "DELETE", "/api/9/http/upstreams/g", "").status, 204);
    assert_eq!(peers(&mut client)[0]["requests"], json!(0));
    let page = client.get("/live");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.body.contains("const API = \"/api/9\""), "the page knows where the API is");
}

#[test]
fn a_session_that_was_learnt_leads_back_to_its_server_over_a_reload() {
    let origins: Vec<Origin> = (0..3)
        .map(|_| {
            Origin::scripted(|served| {
                let port = served.stream.local_addr().unwrap().port();
                while let Some(head) = served.read_request() {
                    let is_login = head.starts_with("GET /login ");
                    let cookie = if is_login { "Set-Cookie: sid=s1\r\n" } else { "" };
                    served.send(&format!("HTTP/1.1 200 OK\r\n{cookie}Content-Length: 5\r\n\r\n{port:05}"));
                }
            })
        })
        .collect();
    let servers: String = origins.iter().map(|origin| format!("server 127.0.0.1:{};", origin.port)).collect();
    let balancer = Balancer::start(&format!(
        "upstream g {{ {servers} sticky learn zone=s:1m lookup=$cookie_sid create=$upstream_cookie_sid; }}\n\
         server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://g; }} }}"
    ));
    let mut client = balancer.client();
    let home = client.get("/login").body;
    let mut again = || client.send("GET / HTTP/1.1\r\nHost: a\r\nCookie: sid=s1\r\n\r\n").response().body;
    (0..6).for_each(|_| assert_eq!(again(), home));
    balancer.reload();
    (0..6).for_each(|_| assert_eq!(again(), home));
}

#[test]
fn the_log_can_say_why_a_server_was_chosen_and_which_were_passed_over() {
    let origin = named();
    let balancer = Balancer::start(&format!(
        "upstream g {{ sticky route $arg_r; server 127.0.0.1:1 fail_timeout=1h; server 127.0.0.1:{0} route=home;\n\
         server 127.0.0.1:2 down; }} upstream one {{ server 127.0.0.1:{0}; }}\n\
         upstream none {{ server 127.0.0.1:1 down; server 127.0.0.1:2 down; }}\n\
         server {{ listen 127.0.0.1:PORT; add_header X-Why $balancer_why always; location / {{ proxy_pass http://g; }}\n\
         location /one {{ proxy_pass http://one; }} location /none {{ proxy_pass http://none; }}\n\
         location /own {{ return 200; }} }}",
        origin.port
    ));
    let mut client = balancer.client();
    let mut why = |path: &str| client.get(path).header("x-why").map(str::to_owned);
    let retried = "round_robin(127.0.0.1:2=down), round_robin(127.0.0.1:1=tried 127.0.0.1:2=down)";
    assert_eq!(why("/").as_deref(), Some(retried));
    assert_eq!(why("/").as_deref(), Some("round_robin(127.0.0.1:1=failed 127.0.0.1:2=down)"));
    assert_eq!(why("/?r=home").as_deref(), Some("sticky(127.0.0.1:1=failed 127.0.0.1:2=down)"));
    assert_eq!(why("/one").as_deref(), Some("only"));
    assert_eq!(why("/none").as_deref(), Some("none(127.0.0.1:1=down 127.0.0.1:2=down)"));
    assert_eq!(why("/own"), None);
}

#[test]
fn a_browser_shows_the_live_page_with_servers_and_zones() {
    let origin = named();
    let balancer = Balancer::start(&format!(
        "upstream g {{ zone g; queue 7; server 127.0.0.1:{}; server 127.0.0.1:2 down; }}\n\
         server {{ listen 127.0.0.1:PORT; status_zone site; {STATUS} location / {{ proxy_pass http://g; }} }}",
        origin.port
    ));
    let profile = tempfile::tempdir().unwrap();
    balancer.client().get("/");
    let output = std::process::Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://127.0.0.1:{}/live", balancer.port))
        .stderr(std::process::Stdio::null())
        .output()
        .expect("chromium is installed (Debian package chromium)");
    let page = String::from_utf8_lossy(&output.stdout);
    let (page, _) = page.split_once("<script").unwrap();
    for shown in [
        format!("<td>127.0.0.1:{}</td><td class=\"mark up\">up</td>", origin.port),
        "<td>127.0.0.1:2</td><td class=\"mark down\">down</td>".into(),
        "g: 0 of 7 wait, 0 turned away".into(),
        "<td>site</td><td>server</td>".into(),
    ] {
        assert!(page.contains(&shown), "{shown} is not in {page}");
    }
}
