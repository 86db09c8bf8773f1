//! Reloads that take listening sockets away or give them other places: whose server blocks the open connections are served by.

#![allow(clippy::unwrap_used, reason = "a world that cannot be built fails its test loudly")]

mod common;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Balancer, Client, Origin, wait_until};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The listener that goes stands first: what stays moves to its place.
fn server(port: u16, name: &str) -> String {
    format!("server {{ listen 127.0.0.1:{port}; http2 on; location / {{ return 200 {name}; }} }}\n")
}

/// A public listener on the balancer's port and another one, whose port is given, that also tells how many connections
/// do what.
fn public_and_admin() -> (Balancer, u16) {
    let admin = free_port();
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; http2 on; location / {{ return 200 public; }} }}\n\
         server {{ listen 127.0.0.1:{admin}; location / {{ return 200 admin; }}\n\
         location /counts {{ stub_status; }} }}\n"
    ));
    (balancer, admin)
}

/// As `reconfigure`, not for the first time.
fn reconfigure_again(balancer: &Balancer, http: &str) {
    let reloads = || balancer.errors().matches(" reconfigured").count();
    let before = reloads();
    reconfigure(balancer, http);
    wait_until("this reload is over, too", || reloads() > before);
}

/// Another inside of the http block, and the reload is over.
fn reconfigure(balancer: &Balancer, http: &str) {
    let conf = balancer.path("nginx.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    let (start, _) = text.split_once("access.log;\n").unwrap();
    std::fs::write(&conf, format!("{start}access.log;\n{http}\n}}\n")).unwrap();
    balancer.signal_reload();
    wait_until("the reload is over", || balancer.errors().contains(" reconfigured"));
}

#[test]
fn a_kept_connection_ends_with_its_listener() {
    let (balancer, admin) = public_and_admin();
    let mut kept = balancer.client();
    assert_eq!(kept.get("/").body, "public");
    reconfigure(&balancer, &server(admin, "admin"));
    assert_eq!(kept.rest(), (Vec::new(), true), "closed without a word");
    assert_eq!(Client::connect(admin).get("/").body, "admin");
}

#[test]
fn who_came_by_a_listener_that_goes_is_answered_as_it_said() {
    let (balancer, admin) = public_and_admin();
    let mut early = balancer.client();
    // It may yet speak HTTP/2: for that its first bytes are awaited.
    let is_in = || Client::connect(admin).get("/counts").body.contains("Reading: 1");
    wait_until("the connection is accepted", is_in);
    reconfigure(&balancer, &server(admin, "admin"));
    let answer = early.get("/");
    assert_eq!((answer.body.as_str(), answer.header("connection")), ("public", Some("close")));
    assert_eq!(early.rest(), (Vec::new(), true));
}

#[test]
fn half_a_head_stays_with_its_listener_when_others_go() {
    let (balancer, admin) = public_and_admin();
    let mut slow = Client::connect(admin);
    slow.send("GET / HTTP/1.1\r\nHo");
    let is_reading = || Client::connect(admin).get("/counts").body.contains("Reading: 1");
    wait_until("the half is read", is_reading);
    reconfigure(&balancer, &server(admin, "later"));
    assert_eq!(slow.send("st: test\r\n\r\n").response().body, "admin");
    assert_eq!(slow.get("/").body, "later", "its listener is still there");
}

#[test]
fn a_listener_may_be_the_last() {
    let (balancer, admin) = public_and_admin();
    let mut kept = Client::connect(admin);
    let mut slow = balancer.client();
    slow.send("GET / HTTP/1.1\r\nHo");
    wait_until("the half is read", || Client::connect(admin).get("/counts").body.contains("Reading: 1"));
    assert_eq!(kept.get("/").body, "admin");
    reconfigure(&balancer, "");
    assert_eq!(kept.rest(), (Vec::new(), true));
    assert_eq!(slow.send("st: test\r\n\r\n").response().body, "public");
    assert_eq!(slow.rest(), (Vec::new(), true));
}

#[test]
fn nobody_who_got_in_is_reset_when_the_listener_goes() {
    let (balancer, admin) = public_and_admin();
    let conf = std::fs::read_to_string(balancer.path("nginx.conf")).unwrap();
    let (_, with) = conf.split_once("access.log;\n").unwrap();
    let with = with.trim_end().trim_end_matches('}');
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut lost = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", balancer.port))
                        else {
                            continue;
                        };
                        let mut answer = String::new();
                        let asked = std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n");
                        let _ = asked.and_then(|()| std::io::Read::read_to_string(&mut stream, &mut answer));
                        lost += usize::from(!answer.ends_with("public"));
                    }
                    lost
                })
            })
            .collect();
        for _ in 0..40 {
            reconfigure_again(&balancer, &server(admin, "admin"));
            reconfigure_again(&balancer, with);
        }
        is_over.store(true, Ordering::Relaxed);
        let lost: usize = asking.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(lost, 0, "reset after they had got in");
    });
}

/// An origin that sends the second half of its answer when it is told to.
fn held_origin() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::scripted(move |served| {
        served.read_request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        gate.lock().unwrap().recv().unwrap();
        served.send(" last");
    });
    (origin, release)
}

#[test]
fn what_is_under_way_ends_before_its_connection_does() {
    let (origin, release) = held_origin();
    let admin = free_port();
    let balancer = Balancer::start(&format!(
        "server {{ listen 127.0.0.1:PORT; location / {{ proxy_pass http://127.0.0.1:{}; }} }}\n{}",
        origin.port,
        server(admin, "admin")
    ));
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").head().unwrap();
    assert_eq!(client.bytes(5), b"first");
    reconfigure(&balancer, &server(admin, "admin"));
    release.send(()).unwrap();
    assert_eq!(client.rest(), (b" last".to_vec(), true));
}

#[test]
fn a_connection_of_http2_ends_with_its_listener() {
    let (balancer, admin) = public_and_admin();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let wire = tokio::net::TcpStream::connect(("127.0.0.1", balancer.port)).await.unwrap();
        let (send, connection) = h2::client::handshake(wire).await.unwrap();
        let driver = tokio::spawn(connection);
        let request = http::Request::get("http://test/").body(()).unwrap();
        let (answer, _) = send.ready().await.unwrap().send_request(request, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "public");
        reconfigure(&balancer, &server(admin, "admin"));
        let ended = tokio::time::timeout(common::PATIENCE, driver).await;
        assert!(ended.expect("the balancer says goodbye").unwrap().is_ok());
    });
}

/// A balancer before an origin that ends its answer when told so, with an access log of its own.
fn logging_to(log: &str, origin: &Origin) -> String {
    format!(
        "server {{ listen 127.0.0.1:PORT; access_log DIR/{log}; \
         location / {{ proxy_pass http://127.0.0.1:{}; }} }}\n",
        origin.port
    )
}

fn has_line(balancer: &Balancer, log: &str) -> bool {
    std::fs::read_to_string(balancer.path(log)).unwrap_or_default().contains("GET / HTTP/1.1")
}

#[test]
fn a_request_under_way_is_logged_where_its_configuration_says_also_once_another_one_counts() {
    let (origin, release) = held_origin();
    let balancer = Balancer::start(&logging_to("old.log", &origin));
    let mut client = balancer.client();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").head().unwrap();
    let place = |text: &str| {
        text.replace("PORT", &balancer.port.to_string())
            .replace("DIR", balancer.path("").to_str().unwrap().trim_end_matches('/'))
    };
    reconfigure(&balancer, &place(&logging_to("new.log", &origin)));
    std::fs::rename(balancer.path("old.log"), balancer.path("rotated.log")).unwrap();
    balancer.signal("reopen");
    wait_until("the old log is opened anew", || balancer.path("old.log").exists());
    release.send(()).unwrap();
    assert_eq!(client.bytes(10), b"first last");
    wait_until("the line is in the old log", || has_line(&balancer, "old.log"));
    assert!(!has_line(&balancer, "new.log"));
}

#[test]
fn lines_are_not_lost_when_a_reload_with_other_logs_is_refused() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = Balancer::start(&logging_to("old.log", &origin));
    let conf = balancer.path("nginx.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    let refused = text
        .replace("old.log;", "new.log;")
        .replace("http {", &format!("http {{ error_log {};", balancer.path("missing/error.log").display()));
    std::fs::write(&conf, refused).unwrap();
    balancer.signal_reload();
    wait_until("the reload is refused", || balancer.errors().contains("the old configuration stays"));
    assert_eq!(balancer.client().get("/").body, "ok");
    wait_until("the line is in the old log", || has_line(&balancer, "old.log"));
}

/// Changes the configuration, and waits until it counts.
fn change(balancer: &Balancer, from: &str, to: &str) {
    let conf = balancer.path("nginx.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    assert!(text.contains(from));
    std::fs::write(&conf, text.replace(from, to)).unwrap();
    let reloads = || balancer.errors().matches(" reconfigured").count();
    let before = reloads();
    balancer.signal_reload();
    wait_until("the reload is over", || {
        assert!(!balancer.errors().contains("the old configuration stays"), "{}", balancer.errors());
        reloads() > before
    });
}

#[test]
fn reuseport_comes_and_goes_with_a_reload() {
    let balancer =
        Balancer::with_workers("server { listen 127.0.0.1:PORT; location / { return 200 $connection; } }", 2);
    let mut kept = balancer.client();
    let number = kept.get("/").body;
    let plain = format!("listen 127.0.0.1:{};", balancer.port);
    let each = format!("listen 127.0.0.1:{} reuseport;", balancer.port);
    for (from, to) in [(&plain, &each), (&each, &plain), (&plain, &each)] {
        change(&balancer, from, to);
        assert_eq!(kept.get("/").body, number, "its connection is the same");
        for _ in 0..20 {
            assert_eq!(balancer.client().get("/").status, 200);
        }
    }
}

#[test]
fn no_connection_is_lost_while_the_number_of_workers_changes() {
    let balancer = Balancer::with_workers(
        "server { listen 127.0.0.1:PORT reuseport backlog=4096; location / { return 200 here; } }",
        4,
    );
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        // They wait in the sockets' queues, all at once.
                        let mut clients: Vec<Client> = (0..32).map(|_| balancer.client()).collect();
                        for client in &mut clients {
                            let _ = std::io::Write::write_all(&mut client.stream, b"GET / HTTP/1.0\r\n\r\n");
                        }
                        for client in &mut clients {
                            assert_eq!(client.try_response().expect("no reset").body, "here");
                        }
                    }
                })
            })
            .collect();
        for (from, to) in [(4, 1), (1, 3), (3, 2), (2, 4), (4, 1), (1, 4)] {
            let workers = |count: usize| format!("worker_processes {count};");
            change(&balancer, &workers(from), &workers(to));
        }
        is_over.store(true, Ordering::Relaxed);
        asking.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn workers_share_sockets_where_the_user_may_bind_no_more() {
    let balancer = Balancer::start_with(
        "user nobody; worker_processes 1;",
        "server { listen 127.0.0.1:PORT; location / { return 200 here; } }",
    );
    for file in ["", "error.log", "access.log"] {
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(balancer.path(file), all).unwrap();
    }
    let has_id = || std::fs::read(balancer.path("pid")).is_ok_and(|id| !id.is_empty());
    wait_until("root has given the file to whom it became", has_id);
    let plain = format!("listen 127.0.0.1:{};", balancer.port);
    change(&balancer, &plain, &plain.replace(';', " reuseport;"));
    change(&balancer, "worker_processes 1;", "worker_processes 3;");
    for _ in 0..20 {
        assert_eq!(balancer.client().get("/").body, "here");
    }
    let is_refused = balancer.errors().contains("workers share 1 sockets");
    assert_eq!(is_refused, nix::unistd::geteuid().is_root(), "{}", balancer.errors());
}

#[test]
fn a_reload_that_is_refused_leaves_the_error_log_where_it_was() {
    let balancer = Balancer::start("server { listen 127.0.0.1:PORT; location / { return 200; } }");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let conf = balancer.path("nginx.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    let other = balancer.path("other.log");
    let port = taken.local_addr().unwrap().port();
    let text = text.replacen("error.log info", "other.log info", 1);
    let text = text.replacen("http {", &format!("http {{ server {{ listen 127.0.0.1:{port}; }}"), 1);
    std::fs::write(&conf, text).unwrap();
    balancer.signal_reload();
    wait_until("the refusal is told", || balancer.errors().contains("the old configuration stays"));
    assert_eq!(std::fs::read_to_string(&other).unwrap_or_default(), "");
}
